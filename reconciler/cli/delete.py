"""`reconcile delete`."""

from pathlib import Path

import click

from reconciler.cli.manifests import name_manifests
from reconciler.cli.options import complete_stacks, lock_option, output_option, root_option


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
    from reconciler.api.asks import Delete
    from reconciler.api.look import counted
    from reconciler.cli.apply import carry_out, may_ask
    from reconciler.cli.render import show

    wanted = Delete(
        what=what, manifests=name_manifests(ctx, (Path(what),), variables, named=True),
        volumes=volumes, all_volumes=all_volumes, take_over=take_over, yes=yes,
        asks=may_ask(form), lock_timeout=lock_timeout,
    )  # fmt: skip
    done = carry_out(ctx, root, wanted, form)
    if done is not None and form != "json":
        show(f"deleted: {counted(done, 'resource')}")
    return 0


COMMANDS = {"delete": delete}
