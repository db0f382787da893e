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
    from reconciler.cli.render import counted, show
    from reconciler.model.errors import NotFound
    from reconciler.verbs.apply import ApplyOptions
    from reconciler.verbs.delete import delete as verb
    from reconciler.verbs.delete import remove_strays

    watcher = make_watcher(form)
    with opened(ctx, root, frees=True, lock_timeout=lock_timeout) as found:
        try:
            doomed = structs.replace(_find(found, what, variables), take_over=take_over)
        except NotFound:
            remove_strays(found, watcher)
            raise
        doomed = structs.replace(doomed, volumes=(*doomed.volumes, *volumes), all_volumes=all_volumes)
        yes = yes or _confirm_volumes(found, doomed, asks=form != "json")
        try:
            applied = verb(found, doomed, ApplyOptions(yes=yes), face=make_face(watcher, form))
        finally:
            watcher.close()
    if applied.result is not None and form != "json":
        show(f"deleted: {counted(len(applied.result.done), 'resource')}")
    return 0


def _find(root: "Root", what: str, variables: tuple[str, ...]) -> "Doomed":
    """What was named: a stack, a manifest that exists, or a resource. A folder that is called as one must be told apart."""
    from reconciler.model.errors import Failed, NotFound
    from reconciler.verbs.delete import Doomed, find_doomed
    from reconciler.verbs.names import find_keys

    path = Path(what)
    with root.store.read() as tx:
        # What an apply that died or failed only meant to make is there to be deleted too.
        keys, stacks = list(tx.records().keys() | {intent.key for intent in tx.intents()}), tx.stacks()
    if what in stacks or what == "-" or not (path.is_file() or path.is_dir()):
        if what != "-":
            return find_doomed(keys, what)
    elif found := find_keys(keys, what):
        raise Failed(f"{what}: it is a path and {', '.join(found)}", hint=f"write ./{what} for the path, or the whole key")
    from reconciler.cli.manifests import load_manifests
    from reconciler.verbs.origin import as_recorded

    read = load_manifests([path], variables)
    if len(read) != 1:
        raise click.UsageError(f"{what} describes {len(read)} stacks; delete them one by one")
    stack = read[0]
    if stack.name not in stacks:
        former = next((name for name, record in stacks.items() if record.origin == stack.origin), "")
        raise NotFound("stack", stack.name, stacks, meant=former)
    return Doomed(stack=stack.name, origin=as_recorded(stack, stacks[stack.name]).origin)


def _confirm_volumes(root: "Root", doomed: "Doomed", *, asks: bool) -> bool:
    """Volumes that would go are listed with their sizes, and the stack's name must be typed. True where it was."""
    from reconciler.cli.render import is_terminal, show
    from reconciler.model.errors import NeedsYes
    from reconciler.model.units import render_size_rounded
    from reconciler.verbs.delete import doomed_volumes

    doomed_sizes = {key: render_size_rounded(size) for key, size in doomed_volumes(root, doomed).items()}
    lost = [f"{key}: {size} of data will be lost" for key, size in doomed_sizes.items()]
    if not lost:
        return False
    if not (asks and is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        why = "volumes and their data would be lost, and nobody can be asked"
        raise NeedsYes(f"delete {doomed.stack}", why, "\n".join(lost))
    for line in lost:
        show(line)
    if click.prompt("Type the stack's name to go on", default="", show_default=False) != doomed.stack:
        raise NeedsYes(f"delete {doomed.stack}", "not confirmed; nothing was changed")
    return True


COMMANDS = {"delete": delete}
