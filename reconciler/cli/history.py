"""`reconcile history` and `reconcile events`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import complete_stacks, not_built, opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.store.rows import StoredEvent


@click.command(epilog="Example: reconcile history blog")
@click.argument("stack", shell_complete=complete_stacks)
@click.option("--diff", nargs=2, type=int, hidden=True)
@output_option("table", "json")
@root_option
@click.pass_context
def history(ctx: click.Context, *, stack: str, diff: tuple[int, int] | None, form: str, root: Path | None) -> int:
    """List what was applied to a stack: when, by whom, from where, with which result."""
    from reconciler.cli.render import moment, show_json, show_table
    from reconciler.verbs import history as verb

    not_built(ctx, diff=diff)
    with opened(ctx, root) as found:
        revisions = verb.history(found, stack)
    if form == "json":
        show_json([{**_revision(one)} for one in revisions])
        return 0
    rows = [
        [str(one.number), moment(one.at), one.who, one.source, _summary(one.summary), one.result or "unfinished"]
        for one in revisions
    ]
    show_table(("REVISION", "WHEN", "WHO", "SOURCE", "ACTIONS", "RESULT"), rows)
    return 0


def _revision(one: Any) -> dict[str, Any]:
    return {
        "stack": one.stack, "revision": one.number, "at": one.at, "who": one.who, "source": one.source,
        "summary": one.summary, "images": one.images, "result": one.result,
    }  # fmt: skip


def _summary(summary: dict[str, int]) -> str:
    return ", ".join(f"{count} {verb}" for verb, count in summary.items() if count) or "none"


@click.command(epilog="Example: reconcile events --follow")
@click.option("-f", "--follow", is_flag=True, help="Go on as events come.")
@click.option("--stack", default="", help="Only those of one stack.")
@click.option("--since", hidden=True)
@output_option("table", "json")
@root_option
@click.pass_context
def events(ctx: click.Context, *, follow: bool, stack: str, since: str | None, form: str, root: Path | None) -> int:
    """Show what happened: actions, failures, exits, repairs."""
    from reconciler.verbs import history as verb

    not_built(ctx, since=since)
    with opened(ctx, root) as found:
        for event in verb.events(found, stack=stack, follow=follow, stop=lambda: False):
            _show_event(event, form)
    return 0


def _show_event(stored: "StoredEvent", form: str) -> None:
    import msgspec

    from reconciler.cli.render import moment, show

    data = msgspec.to_builtins(stored.event)
    if form == "json":
        print(msgspec.json.encode({"stack": stored.stack, **data, "at": stored.at}).decode(), flush=True)
        return
    words = data.get("text") or data.get("brief") or ""
    verb = f"{data['verb']} " if "verb" in data else ""
    show(f"{moment(stored.at)}  {data['event']:<8} {verb}{stored.key}{'  ' + words if words else ''}")


COMMANDS = {"history": history, "events": events}
