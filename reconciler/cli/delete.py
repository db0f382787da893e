"""`reconcile delete`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import complete_stacks, lock_option, opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.verbs.delete import Doomed
    from reconciler.verbs.root import Root


@click.command(epilog="Example: reconcile delete blog --volume data")
@click.argument("what", metavar="STACK|PATH|KEY", shell_complete=complete_stacks)
@click.option("--volume", "volumes", multiple=True, metavar="NAME", help="Delete this volume and its data too.")
@click.option("--volumes", "all_volumes", is_flag=True, help="Delete all volumes of the stack and their data too.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--take-over", is_flag=True, help="Delete a stack that another manifest owns.")
@click.option("--var", "variables", multiple=True, metavar="K=V", help="A variable for ${K} in the manifest.")
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def delete(
    ctx: click.Context, *, what: str, volumes: tuple[str, ...], all_volumes: bool, yes: bool, take_over: bool,
    variables: tuple[str, ...], lock_timeout: float, form: str, root: Path | None,
) -> int:  # fmt: skip
    """Delete a stack, the stack of a manifest, or one resource. Volumes are kept unless they are named."""
    from msgspec import structs

    from reconciler.cli.apply import make_face
    from reconciler.cli.progress import make_watcher
    from reconciler.cli.render import show
    from reconciler.verbs.apply import ApplyOptions
    from reconciler.verbs.delete import delete as verb

    watcher = make_watcher(form)
    with opened(ctx, root, lock_timeout=lock_timeout) as found:
        doomed = structs.replace(_find(found, what, variables), take_over=take_over)
        doomed = structs.replace(doomed, volumes=(*doomed.volumes, *volumes), all_volumes=all_volumes)
        if not yes:
            yes = _confirm_volumes(found, doomed)
        try:
            applied = verb(found, doomed, ApplyOptions(yes=yes), face=make_face(watcher, form))
        finally:
            watcher.close()
    if applied.result is not None and form != "json":
        show(f"deleted: {len(applied.result.done)} resources")
    return 0


def _find(root: "Root", what: str, variables: tuple[str, ...]) -> "Doomed":
    """What was named: a manifest that exists, else a stack or a key."""
    from reconciler.verbs.delete import Doomed, find_stack_or_key

    path = Path(what)
    with root.store.read() as tx:
        keys, stacks = list(tx.records()), tx.stacks()
    if what not in stacks and (path.is_file() or path.is_dir()):
        from reconciler.cli.manifests import load_manifests

        read = load_manifests([path], variables)
        if len(read) != 1:
            raise click.UsageError(f"{what} describes {len(read)} stacks; delete them one by one")
        return Doomed(stack=read[0].name, origin=read[0].origin)
    return find_stack_or_key(keys, what)


def _confirm_volumes(root: "Root", doomed: "Doomed") -> bool:
    """Volumes that would go are listed with their sizes, and the stack's name must be typed. True where it was."""
    from reconciler.cli.render import is_terminal, show, size
    from reconciler.model.errors import NeedsYes
    from reconciler.verbs.delete import doomed_volumes

    sizes = doomed_volumes(root, doomed)
    if not sizes:
        return False
    for key, number in sizes.items():
        show(f"{key}: {size(number)} of data will be lost")
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise NeedsYes(f"delete {doomed.stack}", "volumes and their data would be lost, and nobody can be asked")
    if click.prompt("Type the stack's name to go on", default="", show_default=False) != doomed.stack:
        raise NeedsYes(f"delete {doomed.stack}", "not confirmed; nothing was changed")
    return True


COMMANDS = {"delete": delete}
