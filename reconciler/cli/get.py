"""`reconcile get` and `reconcile describe`; the tables of resources."""

import sys
from pathlib import Path
from typing import Any

import click

from reconciler.cli.options import complete_names, not_built, output_option, root_option
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile get containers -o wide")
@click.argument("what", required=False, metavar="[KIND[/NAME]]")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--watch", is_flag=True, hidden=True)
@output_option("table", "wide", "json", "yaml")
@root_option
@click.pass_context
def get(ctx: click.Context, *, what: str | None, name: str | None, watch: bool, form: str, root: Path | None) -> int:
    """List resources with their state: all, of one kind (containers, networks, volumes, …), of one name or stack."""
    from reconciler.api.asks import Get
    from reconciler.api.tables import render_tables, split_what
    from reconciler.cli.render import look_of, show_json, show_yaml

    not_built(ctx, watch=watch)
    kind, wanted = split_what(what or "", name or "")
    data = ask(ctx, root, Get(kind=kind, name=wanted, measure=form == "wide"))
    if form in ("json", "yaml"):
        show_json(data) if form == "json" else show_yaml(data)
    else:
        for line in render_tables(data, look_of(sys.stdout), wide=form == "wide"):
            print(line)
    return 0


@click.command(epilog="Example: reconcile describe container/web")
@click.argument("what", metavar="KIND/NAME", shell_complete=complete_names)
@output_option("table", "json", "yaml")
@root_option
@click.pass_context
def describe(ctx: click.Context, *, what: str, form: str, root: Path | None) -> int:
    """Show everything known of a resource: spec, state, parts, grants, last events."""
    from reconciler.api.asks import Describe
    from reconciler.api.tables import split_what
    from reconciler.cli.render import show_json, show_yaml

    kind, wanted = split_what(what, "")
    data = ask(ctx, root, Describe(kind=kind, name=wanted))
    if form == "json":
        show_json(data)
    elif form == "yaml":
        show_yaml(data)
    else:
        for one in data:
            _show_described(one)
    return 0


def _show_described(data: dict[str, Any]) -> None:
    """A resource as indented text; its last events at the end."""
    from reconciler.api.look import moment
    from reconciler.cli.render import show, show_yaml
    from reconciler.plan.words import write_value

    events = data.pop("events")
    data["spec"] = write_value("spec", data["spec"])
    for times in (data, data["status"]):
        times |= {name: moment(at) for name, at in times.items() if name.endswith("_at") and at}
    if hold := data["status"].get("held"):
        data["status"]["held"] = {**hold, "when": moment(hold["when"])}
    show_yaml(data)
    if events:
        show("events:")
    for event in events:
        words = event.get("text") or event.get("brief") or event.get("verb", "")
        show(f"  {moment(event['at'])}  {event['event']}  {words}")


COMMANDS = {"get": get, "describe": describe}
