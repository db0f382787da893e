"""`reconcile apply`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.manifests import manifest_options, name_manifests
from reconciler.cli.options import accept_option, keep_option, lock_option, output_option, root_option, wait_options
from reconciler.cli.reach import ask

if TYPE_CHECKING:
    from reconciler.api.asks import Ask
    from reconciler.api.frames import Listener
    from reconciler.api.problem import Question
    from reconciler.cli.progress import Watcher


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
    from reconciler.api.asks import Apply

    if dry_run:
        from reconciler.cli.plan import plan

        code: int = ctx.invoke(
            plan, paths=paths, variables=variables, offline=offline, out=None, why=None, resume=resume, prune=prune,
            take_over=take_over, accept_data_loss=accept_data_loss, form=form, root=root,
        )  # fmt: skip
        return code
    wanted = Apply(
        manifests=name_manifests(ctx, paths, variables), offline=offline, resume=resume, prune=prune, take_over=take_over,
        accept_data_loss=accept_data_loss, yes=yes, asks=may_ask(form), allow_delete=allow_delete, wait=not no_wait,
        timeout=timeout, keep=keep, lock_timeout=lock_timeout,
    )  # fmt: skip
    return show_done(carry_out(ctx, root, wanted, form), form)


def show_done(done: int | None, form: str) -> int:
    """Say how much was done; the exit code."""
    if done is not None and form != "json":
        from reconciler.api.told import render_done

        print(render_done(done))
    return 0


def carry_out(ctx: click.Context, root: Path | None, wanted: "Ask", form: str) -> int | None:
    """Have it done, and show what is told meanwhile; how much was done, None where there was nothing to do."""
    from reconciler.cli.progress import make_watcher

    watcher = make_watcher(form)
    try:
        done: int | None = ask(ctx, root, wanted, make_listener(watcher, form))["done"]
    finally:
        watcher.close()
    return done


def make_listener(watcher: "Watcher", form: str) -> "Listener":
    """Whoever sits before this terminal."""
    from reconciler.api.frames import Listener
    from reconciler.cli.render import show_plan_lines

    return Listener(
        emit=watcher,
        show=None if form == "json" else show_plan_lines,
        confirm=confirm if may_ask(form) else lambda _: None,
    )


def may_ask(form: str) -> bool:
    """Whether somebody sits before this terminal."""
    from reconciler.cli.render import is_terminal

    return form != "json" and is_terminal(sys.stdin) and is_terminal(sys.stdout)


def confirm(question: "Question") -> bool:
    """Ask whoever sits before this terminal."""
    from reconciler.cli.render import show

    for line in question.lines:
        show(line)
    if question.typed:
        typed: str = click.prompt(question.text, default="", show_default=False)
        return typed == question.typed
    return click.confirm(question.text, default=False)


COMMANDS = {"apply": apply}
