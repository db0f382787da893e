"""`reconcile apply`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.manifests import load_manifests, manifest_options
from reconciler.cli.options import accept_option, keep_option, lock_option, opened, output_option, root_option, wait_options

if TYPE_CHECKING:
    from reconciler.cli.progress import Watcher
    from reconciler.model.plan import Plan
    from reconciler.verbs.apply import Applied, ApplyOptions
    from reconciler.verbs.face import Face
    from reconciler.verbs.root import Root


@click.command(epilog="Example: reconcile apply stack.yaml --var TAG=2")
@manifest_options
@click.option("--dry-run", is_flag=True, help="The same as `reconcile plan`.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@wait_options
@click.option("--resume", is_flag=True, help="End the holds of the stacks.")
@click.option("--prune/--no-prune", default=True, help="Delete what left the manifest.")
@click.option("--take-over", is_flag=True, help="Take a stack over from the manifest that owns it.")
@click.option("--allow-delete", is_flag=True, help="Let the plan delete more than half of what runs.")
@keep_option
@accept_option
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def apply(
    ctx: click.Context, *, paths: tuple[Path, ...], variables: tuple[str, ...], offline: bool, dry_run: bool, yes: bool,
    timeout: float, no_wait: bool, resume: bool, prune: bool, take_over: bool, allow_delete: bool,
    keep: int, accept_data_loss: tuple[str, ...], lock_timeout: float, form: str, root: Path | None,
) -> int:  # fmt: skip
    """Show the plan, then make the machine agree with manifests (or with a saved plan)."""
    from reconciler.cli.progress import make_watcher
    from reconciler.verbs import plan as plan_verb
    from reconciler.verbs.apply import ApplyOptions
    from reconciler.verbs.saved import is_plan

    saved = len(paths) == 1 and is_plan(paths[0])
    if dry_run and not saved:
        from reconciler.cli.plan import plan

        code: int = ctx.invoke(
            plan, paths=paths, variables=variables, offline=offline, out=None, why=None, resume=resume, prune=prune,
            take_over=take_over, accept_data_loss=accept_data_loss, form=form, root=root,
        )  # fmt: skip
        return code
    options = ApplyOptions(yes=yes, allow_delete=allow_delete, wait=not no_wait, timeout=timeout, keep=keep)
    watcher = make_watcher(form)
    face = make_face(watcher, form)
    if saved:
        with opened(ctx, root, lock_timeout=lock_timeout) as found:
            return show_done(_apply_saved(found, paths[0], options, take_over=take_over, face=face, watcher=watcher), form)
    stacks = load_manifests(paths, variables)
    wish = plan_verb.Wish(
        stacks=stacks,
        offline=offline,
        resume=resume,
        prune=prune,
        take_over=take_over,
        accept_loss=frozenset(accept_data_loss),
    )
    with opened(ctx, root, create=True, lock_timeout=lock_timeout) as found:
        from reconciler.verbs.apply import apply as verb

        try:
            applied = verb(found, wish, options, face=face)
        finally:
            watcher.close()
    return show_done(applied, form)


def _apply_saved(
    root: "Root", path: Path, options: "ApplyOptions", *, take_over: bool, face: "Face", watcher: "Watcher"
) -> "Applied":
    from reconciler.verbs.apply import apply_saved
    from reconciler.verbs.saved import read_plan

    try:
        return apply_saved(root, read_plan(root, path), str(path), options, take_over=take_over, face=face)
    finally:
        watcher.close()


def make_face(watcher: "Watcher", form: str) -> "Face":
    """How a verb speaks with whoever sits before this terminal."""
    from reconciler.cli.render import is_terminal, show_plan_lines
    from reconciler.verbs.face import Face

    def show(plan: "Plan") -> None:
        if form != "json":
            from reconciler.plan.explain import render_plan

            show_plan_lines(render_plan(plan))

    def confirm(why: str) -> bool | None:
        if form == "json" or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
            return None
        return click.confirm(f"The plan {why}. Go on?", default=False)

    return Face(emit=watcher, show=show, confirm=confirm)


def show_done(applied: "Applied", form: str) -> int:
    """Say how much was done; the exit code."""
    if applied.result is not None and form != "json":
        from reconciler.cli.render import counted, show

        show(f"done: {counted(len(applied.result.done), 'action')}")
    return 0


COMMANDS = {"apply": apply}
