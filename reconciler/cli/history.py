"""`reconcile history` and `reconcile events`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import COUNT, complete_stacks, opened, output_option, root_option
from reconciler.model.events import Changed

if TYPE_CHECKING:
    from reconciler.model.record import Commit
    from reconciler.plan.past import Difference
    from reconciler.store.rows import StoredEvent
    from reconciler.verbs.history import Entry


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
    from reconciler.cli.render import moment, show_json, show_table
    from reconciler.plan.past import summarize_differences
    from reconciler.verbs import history as verb

    if diff and keep:
        raise click.UsageError("--diff shows, --keep drops: give one of them")
    if diff:
        return _show_diff(ctx, stack, diff, form, root)
    with opened(ctx, root) as found:
        if keep:
            verb.drop(found, stack, keep=keep)
        entries = verb.history(found, stack)
    if form == "json":
        show_json([_entry(one) for one in entries])
        return 0
    rows = [
        [
            str(one.revision.number), moment(one.revision.at), one.revision.who, _source(one),
            one.revision.result or "unfinished",
            "(the one before is not kept)" if one.changed is None else summarize_differences(one.changed),
        ]
        for one in entries
    ]  # fmt: skip
    show_table(("REVISION", "WHEN", "WHO", "SOURCE", "RESULT", "CHANGED"), rows)
    return 0


def _source(one: "Entry") -> str:
    """The manifest, and the commit that it was of."""
    from reconciler.cli.render import clean

    commit = one.revision.wanted.commit if one.revision.wanted is not None else None
    return f"{one.revision.source} at {commit.id[:12]} {clean(commit.subject)}" if commit else one.revision.source


def _show_diff(ctx: click.Context, stack: str, numbers: tuple[int, int], form: str, root: Path | None) -> int:
    from reconciler.cli.render import show, show_json
    from reconciler.plan.past import render_differences
    from reconciler.verbs import history as verb

    with opened(ctx, root) as found:
        differences = verb.diff(found, stack, *numbers)
    if form == "json":
        show_json([_difference(one) for one in differences])
    else:
        for line in render_differences(differences):
            show(line)
    return 0


def _entry(one: "Entry") -> dict[str, Any]:
    revision = one.revision
    commit = revision.wanted.commit if revision.wanted is not None else None
    return {
        "stack": revision.stack, "revision": revision.number, "at": revision.at, "who": revision.who,
        "source": revision.source, "summary": revision.summary, "images": revision.images, "result": revision.result,
        "commit": None if commit is None else _commit(commit),
        "changed": None if one.changed is None else [_difference(each) for each in one.changed],
    }  # fmt: skip


def _commit(commit: "Commit") -> dict[str, Any]:
    return {
        "id": commit.id, "subject": commit.subject, "author": commit.author, "at": commit.at,
        "url": commit.url, "ref": commit.ref,
    }  # fmt: skip


def _difference(one: "Difference") -> dict[str, Any]:
    changes = [
        {"path": change.path, "from": change.old, "to": change.new, "effect": change.effect.value} for change in one.changes
    ]
    return {"key": one.key, "what": one.what, "changes": changes}


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
    from reconciler.cli.options import read_moment
    from reconciler.verbs import history as verb

    moment = read_moment(since, "--since")
    with opened(ctx, root) as found:
        for event in verb.events(found, stack=stack, since=moment, follow=follow, stop=lambda: False):
            if not changes or isinstance(event.event, Changed):
                _show_event(event, form)
    return 0


def _show_event(stored: "StoredEvent", form: str) -> None:
    import msgspec

    from reconciler.cli.render import moment, show, show_json_line

    data = msgspec.to_builtins(stored.event)
    if form == "json":
        show_json_line({"number": stored.id, "stack": stored.stack, **data, "at": stored.at})
        return
    head = f"{moment(stored.at)}  {data['event']:<8} "
    if isinstance(stored.event, Changed):
        first, *rest = change_lines(stored.event)
        show(head + first)
        for line in rest:
            show(f"    {line}")
        return
    words = data.get("text") or data.get("brief") or ""
    verb = f"{data['verb']} " if "verb" in data else ""
    first, *rest = f"{verb}{stored.key}{'  ' + words if words else ''}".splitlines() or [""]
    show(head + first)
    for line in rest:
        show(f"    {line}")


def change_lines(event: Changed) -> list[str]:
    """Who did what to which stack, what came of it, and why it failed."""
    by = event.who + (f" (uid {event.uid})" if event.uid is not None else "")
    commit = f" at {event.commit[:12]}" if event.commit else ""
    what = event.actions[0].partition(":")[0] if event.count == 1 else f"{event.count} actions"
    return [
        f"{event.verb} {event.stack} by {by}{commit}: {event.result} ({what}, {event.took:.1f} s)",
        *event.why.splitlines(),
    ]


COMMANDS = {"history": history, "events": events}
