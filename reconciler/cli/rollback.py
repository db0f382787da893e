"""`reconcile rollback`."""

from pathlib import Path

import click

from reconciler.cli.options import (
    COUNT,
    accept_option,
    complete_stacks,
    keep_option,
    lock_option,
    opened,
    output_option,
    root_option,
    wait_options,
)


@click.command(epilog="Example: reconcile rollback blog 12 --note 'the new one leaks memory'")
@click.argument("stack", shell_complete=complete_stacks)
@click.argument("revision", type=COUNT, required=False)
@click.option("--dry-run", is_flag=True, help="Show the plan; exit code 2 where there is something to do.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--note", default="", help="Why, for whoever finds the stack held.")
@wait_options
@click.option("--allow-delete", is_flag=True, help="Let the plan delete more than half of what runs.")
@click.option("--offline", is_flag=True, help="Ask no registry.")
@keep_option
@accept_option
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def rollback(
    ctx: click.Context, *, stack: str, revision: int | None, dry_run: bool, yes: bool, note: str, timeout: float,
    no_wait: bool, allow_delete: bool, offline: bool, keep: int, accept_data_loss: tuple[str, ...], lock_timeout: float,
    form: str, root: Path | None,
) -> int:  # fmt: skip
    """Take a stack back to a revision: the last good one before this, or the one of that number.

    Specs, image digests, configs and secrets go back; volumes never do. The stack is held there until its manifest changes
    or `apply --resume` is given.
    """
    from reconciler.cli.apply import make_face
    from reconciler.cli.progress import make_watcher
    from reconciler.cli.render import show
    from reconciler.verbs.apply import ApplyOptions
    from reconciler.verbs.rollback import Return
    from reconciler.verbs.rollback import rollback as verb

    wish = Return(
        stack=stack, number=revision or 0, note=note, offline=offline, accept_loss=frozenset(accept_data_loss)
    )  # fmt: skip
    if dry_run:
        return _show(ctx, wish, form, root)
    options = ApplyOptions(yes=yes, allow_delete=allow_delete, wait=not no_wait, timeout=timeout, keep=keep)
    watcher = make_watcher(form)
    with opened(ctx, root, lock_timeout=lock_timeout) as found:
        try:
            applied = verb(found, wish, options, face=make_face(watcher, form))
        finally:
            watcher.close()
    if applied.result is not None and form != "json":
        done = len(applied.result.done)
        show(f"done: {done} action{'s' if done != 1 else ''}")
    return 0


def _show(ctx: click.Context, wish: object, form: str, root: Path | None) -> int:
    import time

    from reconciler.cli.render import show_json, show_plan_lines
    from reconciler.plan.explain import render_plan
    from reconciler.plan.forms import plan_json
    from reconciler.verbs.rollback import Return, plan_rollback

    assert isinstance(wish, Return)
    with opened(ctx, root) as found:
        plan, _ = plan_rollback(found, wish, now=time.time())
    if form == "json":
        show_json(plan_json(plan))
    else:
        show_plan_lines(render_plan(plan))
    return 2 if plan.actions else 0


COMMANDS = {"rollback": rollback}
