"""`reconcile status`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import complete_stacks, opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.plan.condition import Condition
    from reconciler.verbs.serving import CommitState, Serving, SourceState, StackState
    from reconciler.verbs.status import Report

HEAD = ("STACK", "STATE", "REVISION", "APPLIED", "CONTAINERS", "ORIGIN")
MOST = 8
"""Findings of a stack that are shown; one screen is the point."""


@click.command(epilog="Example: reconcile status blog")
@click.argument("stack", required=False, default="", shell_complete=complete_stacks)
@output_option("table", "json")
@root_option
@click.pass_context
def status(ctx: click.Context, *, stack: str, form: str, root: Path | None) -> int:
    """Show how each stack is, in one word, and what is wrong, a line each.

    synced, progressing, held, drifted, degraded or failed. Exit code 0: nothing is wrong; 2: something is.
    """
    from reconciler.cli.render import show_json
    from reconciler.verbs.status import report_json
    from reconciler.verbs.status import status as verb

    with opened(ctx, root) as found:
        report = verb(found, stack)
    if form == "json":
        show_json(report_json(report))
    else:
        _show(report)
    return 2 if report.found_something else 0


def _show(report: "Report") -> None:
    from reconciler.cli.render import show, show_table

    if report.stacks:
        show_table(HEAD, [_row(condition) for condition in report.stacks])
    elif not report.strays:
        show("nothing is recorded here")
    for condition in report.stacks:
        if condition.findings or condition.at_work:
            show()
            show(f"{condition.stack.name}:")
        if condition.at_work:
            show(f"  at work: {condition.at_work}")
        for finding in condition.findings[:MOST]:
            show(f"  {finding.key}  {finding.text}" if finding.key else f"  {finding.text}")
        if len(condition.findings) > MOST:
            show(f"  and {len(condition.findings) - MOST} more: reconcile status {condition.stack.name} -o json")
    if report.serving is not None:
        show()
        _show_serving(report.serving)
    if report.strays:
        show()
        show(f"{len(report.strays)} things belong to nobody: `reconcile drift` names them, the next apply removes them")


def _show_serving(serving: "Serving") -> None:
    from reconciler.cli.render import clean, show, since

    show(f"served by pid {serving.process.pid} for {since(serving.since)}:")
    if serving.problem:
        show("  its configuration has a mistake; what was read before stays in force")
        for line in serving.problem.splitlines():
            show(f"    {clean(line)}")
    for source in serving.sources:
        _show_source(source, [stack for stack in serving.stacks if stack.source == source.name])


def _show_source(source: "SourceState", of_it: "list[StackState]") -> None:
    from reconciler.cli.render import clean, show, since

    synced = sum(stack.synced for stack in of_it)
    how = "; ".join(clean(source.broken).splitlines()) or f"{synced} of {len(of_it)} stacks as it wants them"
    show(f"  {clean(source.name)}  {how}")
    if source.commit is not None:
        show(f"    at {_commit(source.commit)}, by {clean(source.commit.author)}")
    if source.stale:
        _show_lines("not as it is by now: ", source.stale)
        if source.answered_at:
            show(f"      it answered last {since(source.answered_at)} ago")
    for name, problem in sorted(source.problems.items()):
        show(f"    {clean(name)}: invalid, its last version stays")
        for line in problem.splitlines():
            show(f"      {clean(line)}")
    for stack in of_it:
        if stack.gone:
            show(f"    {stack.stack}: not in it any more; it stays until `reconcile delete {stack.stack} --take-over`")
        elif stack.waits:
            show(f"    {stack.stack}: {clean(stack.waits)}")
        elif stack.problem:
            _show_lines(f"{stack.stack}: ", stack.problem)
        if stack.wanted is not None and not stack.synced:
            runs = _commit(stack.running) if stack.running is not None else "nobody knows which, yet"
            show(f"      wanted {_commit(stack.wanted)} for {since(stack.since)}; as of {runs}")


def _show_lines(head: str, text: str) -> None:
    from reconciler.cli.render import clean, show

    first, *rest = text.splitlines()
    show(f"    {head}{clean(first)}")
    for line in rest:
        show(f"      {clean(line)}")


def _commit(commit: "CommitState") -> str:
    from reconciler.cli.render import clean

    return f"{commit.id[:12]} “{clean(commit.subject)}”"


def _row(condition: "Condition") -> list[str]:
    from reconciler.cli.render import since

    revision = condition.revision
    return [
        condition.stack.name,
        condition.state.value,
        "-" if revision is None else str(revision.number),
        "-" if revision is None else f"{since(revision.at)} ago by {revision.who}",
        f"{condition.running}/{condition.containers}",
        condition.stack.origin or "-",
    ]


COMMANDS = {"status": status}
