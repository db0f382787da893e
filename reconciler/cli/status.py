"""`reconcile status`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import complete_stacks, output_option, root_option
from reconciler.cli.reach import ask

if TYPE_CHECKING:
    from reconciler.api.asks import Status
    from reconciler.verbs.serving import CommitState, Serving, SourceState, StackState

HEAD = ("STACK", "STATE", "SINCE", "REVISION", "APPLIED", "CONTAINERS", "ORIGIN")
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
    from reconciler.api.asks import Status
    from reconciler.cli.render import show_json

    host = ctx.obj.get("host") or ""
    if "," in host:
        return _show_hosts(ctx, host.split(","), Status(stack=stack), form)
    report = ask(ctx, root, Status(stack=stack))
    if form == "json":
        show_json(report)
    else:
        _show(report, _read_serving(report))
    return 2 if _is_wrong(report) else 0


def _show_hosts(ctx: click.Context, hosts: list[str], question: "Status", form: str) -> int:
    """One after the other, by the names that contexts have for them; who does not answer is told, and the others are asked
    all the same: exit code 1 then."""
    from reconciler.cli.context import read_contexts
    from reconciler.cli.render import show, show_error, show_json
    from reconciler.model.errors import ReconcileError

    names = {host: name for name, host in read_contexts()[1].items()}
    reports: dict[str, Any] = {}
    for host in hosts:
        ctx.obj["host"] = host
        name = names.get(host, host)
        try:
            reports[name] = ask(ctx, None, question)
        except ReconcileError as error:
            reports[name] = None
            show_error(error)
            continue
        if form != "json":
            show(f"{name}:")
            _show(reports[name], _read_serving(reports[name]))
            show()
    if form == "json":
        show_json(reports)
    if None in reports.values():
        return 1
    return 2 if any(map(_is_wrong, reports.values())) else 0


def _is_wrong(report: dict[str, Any]) -> bool:
    serving = _read_serving(report)
    served = serving is not None and serving.found_something
    return bool(served or _died(report) or report["strays"] or any(one["findings"] for one in report["stacks"]))


def _died(report: dict[str, Any]) -> bool:
    """Whether the last controller ended and nobody had told it to."""
    last = report.get("last_controller")
    return last is not None and not last["ended"]


def _read_serving(report: dict[str, Any]) -> "Serving | None":
    """What the controller says of itself, but for how its process is told from another of its pid."""
    if report["controller"] is None:
        return None
    import msgspec

    from reconciler.verbs.serving import Serving

    process = {"pid": report["controller"]["pid"], "start_time": 0, "boot_id": ""}
    return msgspec.convert({**report["controller"], "process": process}, Serving)


def _show(report: dict[str, Any], serving: "Serving | None") -> None:
    from reconciler.cli.render import show, show_table

    if report["stacks"]:
        show_table(HEAD, [_row(one) for one in report["stacks"]])
    elif not report["strays"]:
        show("nothing is recorded here")
    for one in report["stacks"]:
        if one["findings"] or one["at_work"]:
            show()
            show(f"{one['stack']}:")
        if one["at_work"]:
            show(f"  at work: {one['at_work']}")
        for finding in one["findings"][:MOST]:
            show(f"  {finding['key']}  {finding['text']}" if finding["key"] else f"  {finding['text']}")
        if len(one["findings"]) > MOST:
            show(f"  and {len(one['findings']) - MOST} more: reconcile status {one['stack']} -o json")
    if serving is not None:
        show()
        _show_serving(serving)
        _show_unserved(report["stacks"], {source.name for source in serving.sources})
    elif last := report.get("last_controller"):
        show()
        show(_say_last(last))
    if strays := report["strays"]:
        show()
        show(f"{len(strays)} things belong to nobody: `reconcile drift` names them, the next apply removes them")


def _say_last(last: dict[str, Any]) -> str:
    from reconciler.api.look import since

    if last["ended"]:
        how = f"was stopped {since(last['ended'])} ago"
    else:
        how = f"is gone without having been stopped; it was last heard {since(last['at'])} ago"
    return f"nobody serves, and what sources want is not followed: the controller (pid {last['pid']}) {how}"


def _show_serving(serving: "Serving") -> None:
    from reconciler.api.look import clean, since
    from reconciler.cli.render import show

    show(f"served by pid {serving.process.pid} for {since(serving.since)}:")
    if serving.problem:
        show("  its configuration has a mistake; what was read before stays in force")
        for line in serving.problem.splitlines():
            show(f"    {clean(line)}")
    for source in serving.sources:
        _show_source(source, [stack for stack in serving.stacks if stack.source == source.name])


def _show_unserved(stacks: list[dict[str, Any]], served: set[str]) -> None:
    """Stacks of sources that this controller has not: mended as they are recorded, and nobody follows what is wanted."""
    from reconciler.api.look import clean
    from reconciler.cli.render import show
    from reconciler.model.record import SOURCE

    unserved: dict[str, list[str]] = {}
    for one in stacks:
        name = one["origin"].removeprefix(SOURCE)
        if one["origin"].startswith(SOURCE) and name not in served:
            unserved.setdefault(name, []).append(one["stack"])
    for name, names in sorted(unserved.items()):
        show(f"  {clean(name)}  not served: nobody follows what it wants of {', '.join(names)}")


def _show_source(source: "SourceState", of_it: "list[StackState]") -> None:
    from reconciler.api.look import clean, since
    from reconciler.cli.render import show

    synced = sum(stack.synced for stack in of_it)
    how = "; ".join(clean(source.broken).splitlines()) or f"{synced} of {len(of_it)} stacks as it wants them"
    show(f"  {clean(source.name)}  {how}")
    if source.polled:
        show(f"    read every now and then, for it can't be watched: {clean(source.polled)}")
    if source.commit is not None:
        show(f"    at {_commit(source.commit)}, by {clean(source.commit.author)}")
    if source.stale:
        _show_lines("not as it is by now: ", source.stale)
        if source.answered_at:
            show(f"      it answered last {since(source.answered_at)} ago")
    for name, problem in sorted(source.problems.items()):
        stays = ", its last version stays" if any(stack.invalid == name for stack in of_it) else ""
        show(f"    {clean(name)}: invalid{stays}")
        for line in problem.splitlines():
            show(f"      {clean(line)}")
    for stack in of_it:
        if stack.gone:
            show(f"    {stack.stack}: not in it any more")
        elif stack.waits:
            show(f"    {stack.stack}: {clean(stack.waits)}")
        elif stack.problem:
            _show_lines(f"{stack.stack}: ", stack.problem)
        if stack.wanted is not None and not stack.synced and stack.wanted != stack.running:
            runs = _commit(stack.running) if stack.running is not None else "nobody knows which, yet"
            show(f"      wanted {_commit(stack.wanted)} for {since(stack.since)}; as of {runs}")


def _show_lines(head: str, text: str) -> None:
    from reconciler.api.look import clean
    from reconciler.cli.render import show

    first, *rest = text.splitlines()
    show(f"    {head}{clean(first)}")
    for line in rest:
        show(f"      {clean(line)}")


def _commit(commit: "CommitState") -> str:
    from reconciler.api.look import clean

    return f"{commit.id[:12]} “{clean(commit.subject)}”"


def _row(one: dict[str, Any]) -> list[str]:
    from reconciler.api.look import since

    revision = one["revision"]
    return [
        one["stack"],
        one["state"],
        since(one["since"]),
        "-" if revision is None else str(revision["number"]),
        "-" if revision is None else f"{since(revision['at'])} ago by {revision['who']}",
        f"{one['running']}/{one['containers']}",
        one["origin"] or "-",
    ]


COMMANDS = {"status": status}
