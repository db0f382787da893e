"""`reconcile plan`."""

from pathlib import Path

import click

from reconciler.cli.manifests import manifest_options, name_manifests
from reconciler.cli.options import accept_option, output_option, root_option
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile plan stack.yaml --why web")
@manifest_options
@click.option("--out", type=click.Path(path_type=Path), help="Save the plan for `reconcile apply FILE`.")
@click.option("--why", metavar="KEY", help="Say why a resource is in the plan, or why it is not.")
@click.option("--resume", is_flag=True, help="Plan as if holds ended.")
@click.option("--prune/--no-prune", default=True, help="Delete what left the manifest.")
@click.option("--take-over", is_flag=True, help="Plan a stack that another manifest owns.")
@accept_option
@output_option("table", "json")
@root_option
@click.pass_context
def plan(
    ctx: click.Context, *, paths: tuple[Path, ...], variables: tuple[str, ...], offline: bool, out: Path | None,
    why: str | None, resume: bool, prune: bool, take_over: bool,
    accept_data_loss: tuple[str, ...], form: str, root: Path | None,
) -> int:  # fmt: skip
    """Show what apply would do, and why. Nothing is changed, nothing is pulled.

    Exit code 0: nothing to do; 2: there are changes.
    """
    from reconciler.api.asks import Plan
    from reconciler.cli.render import show
    from reconciler.cli.rollback import show_plan

    wanted = Plan(
        manifests=name_manifests(ctx, paths, variables), offline=offline, resume=resume, prune=prune, take_over=take_over,
        accept_data_loss=accept_data_loss, why=why or "", save=out is not None,
    )  # fmt: skip
    made = ask(ctx, root, wanted)
    if out:
        save(made["file"], out)
    if why:
        for line in made["why"]:
            show(line)
        return 2 if made["plan"]["actions"] else 0
    return show_plan(made, form)


def save(file: str, path: Path) -> None:
    """Write a plan file, which comes in base64: whole or not at all, 0600."""
    from base64 import b64decode

    from reconciler.linux import files
    from reconciler.model.errors import Failed

    try:
        files.write_atomic(path, b64decode(file), 0o600)
    except OSError as error:
        raise Failed(f"{path}: the plan can't be written: {error.strerror}", hint="choose another --out") from error


COMMANDS = {"plan": plan}
