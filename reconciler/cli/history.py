"""`reconcile history` and `reconcile events`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import COUNT, complete_stacks, output_option, root_option
from reconciler.cli.reach import ask

if TYPE_CHECKING:
    from reconciler.api.frames import Item


@click.command(epilog="Example: reconcile history blog --diff 3 4")
@click.argument("stack", shell_complete=complete_stacks)
@click.option("--diff", nargs=2, type=int, metavar="A B", help="What differs from one revision to another, field by field.")
@click.option("--keep", type=COUNT, metavar="N", help="Drop all but the newest N now.")
@output_option("table", "json")
@root_option
@click.pass_context
def history(
    ctx: click.Context, *, stack: str, diff: tuple[int, int] | None, keep: int | None, form: str, root: Path | None
) -> int:
    """List what was applied to a stack: when, by whom, from where, what it changed, with which result.

    The newest 20 are kept, or as many as `apply --keep` says; the last that was reached is never dropped.
    """
    from reconciler.api.asks import Forget, History
    from reconciler.api.look import moment
    from reconciler.cli.render import show_json, show_table

    if diff and keep:
        raise click.UsageError("--diff shows, --keep drops: give one of them")
    if diff:
        return _show_diff(ctx, stack, diff, form, root)
    if keep:
        ask(ctx, root, Forget(stack=stack, keep=keep))
    found = ask(ctx, root, History(stack=stack))
    if form == "json":
        show_json(found["revisions"])
        return 0
    rows = [
        [
            str(one["revision"]), moment(one["at"]), one["who"], _source(one), one["result"] or "unfinished",
            "(the one before is not kept)" if changed is None else changed,
        ]
        for one, changed in zip(found["revisions"], found["changed"], strict=True)
    ]  # fmt: skip
    show_table(("REVISION", "WHEN", "WHO", "SOURCE", "RESULT", "CHANGED"), rows)
    return 0


def _source(one: dict[str, Any]) -> str:
    """The manifest, and the commit that it was of."""
    commit = one["commit"]
    return f"{one['source']} at {commit['id'][:12]} {commit['subject']}" if commit else one["source"]


def _show_diff(ctx: click.Context, stack: str, numbers: tuple[int, int], form: str, root: Path | None) -> int:
    from reconciler.api.asks import Difference
    from reconciler.cli.render import show, show_json

    found = ask(ctx, root, Difference(stack=stack, old=numbers[0], new=numbers[1]))
    if form == "json":
        show_json(found["differences"])
    else:
        for line in found["lines"]:
            show(line)
    return 0


@click.command(epilog="Example: reconcile events --since 1h --changes")
@click.option("-f", "--follow", is_flag=True, help="Go on as events come.")
@click.option("--stack", default="", shell_complete=complete_stacks, help="Only those of one stack.")
@click.option("--since", default="", help="A duration back from now, or a time as 2026-01-31T12:00:00.")
@click.option("--changes", is_flag=True, help="Only who changed what, with which result.")
@output_option("table", "json")
@root_option
@click.pass_context
def events(ctx: click.Context, *, follow: bool, stack: str, since: str, changes: bool, form: str, root: Path | None) -> int:
    """Show what happened: who changed what and what came of it, actions, failures, exits, repairs.

    Without --since the newest 1,000.
    """
    from reconciler.api.asks import Events
    from reconciler.api.frames import Listener
    from reconciler.cli.options import read_moment

    wanted = Events(stack=stack, since=read_moment(since, "--since"), changes=changes, follow=follow)

    def told(frame: "Item") -> None:
        _show_event(frame.item, form)
        if follow:  # Whoever reads a pipe is waiting for it.
            sys.stdout.flush()

    ask(ctx, root, wanted, Listener(item=told))
    return 0


def _show_event(data: dict[str, Any], form: str) -> None:
    from reconciler.api.look import moment
    from reconciler.cli.render import show, show_json_line

    if form == "json":
        show_json_line(data)
        return
    head = f"{moment(data['at'])}  {data['event']:<8} "
    first, *rest = change_lines(data) if data["event"] == "change" else _event_lines(data)
    show(head + first)
    for line in rest:
        show(f"    {line}")


def _event_lines(data: dict[str, Any]) -> list[str]:
    because = f"because {data['because']}" if data["event"] == "done" and data.get("because") else ""
    words = because or data.get("text") or data.get("brief", "").removeprefix(f"{data.get('key')}: ")
    verb = f"{data['verb']} " if "verb" in data else ""
    return f"{verb}{data.get('key') or ''}{'  ' + words if words else ''}".splitlines() or [""]


BY_NAME = frozenset({"exec", "attach", "cp", "pull", "images rm", "images prune"})
"""What has no plan: its one action says what it was done to, and with which word."""


def change_lines(event: dict[str, Any]) -> list[str]:
    """Who did what to which stack, what came of it, and why it failed."""
    by = event["who"] + (f" (uid {event['uid']})" if event.get("uid") is not None else "")
    commit = f" at {event['commit'][:12]}" if event.get("commit") else ""
    count, actions = event.get("count", 0), event.get("actions", ())
    what = f"{count} actions" if count != 1 else actions[0] if event["verb"] in BY_NAME else actions[0].partition(":")[0]
    whose = f"{event['verb']} {event['stack']}".rstrip()
    return [
        f"{whose} by {by}{commit}: {event['result']} ({what}, {event.get('took', 0.0):.1f} s)",
        *event.get("why", "").splitlines(),
    ]


COMMANDS = {"history": history, "events": events}
