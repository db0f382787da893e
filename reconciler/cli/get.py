"""`reconcile get` and `reconcile describe`; the tables of resources."""

import time
from pathlib import Path
from typing import Any

import click

from reconciler.cli.options import complete_names, not_built, output_option, root_option
from reconciler.cli.reach import ask

Seen = dict[str, Any]
"""A resource in the form of `get -o json`."""
MOST_WHY = 40
"""Letters of a hold's reason in a table; `describe` has all of them."""

HEADS = {
    "container": ("STACK", "CONTAINER", "STATUS", "HEALTH", "RESTARTS", "AGE", "ADDRESSES", "PORTS"),
    "secret": ("STACK", "SECRET", "DIGEST", "AGE"),
    "config": ("STACK", "CONFIG", "DIGEST", "AGE"),
    "volume": ("STACK", "VOLUME", "STATUS", "AGE", "SIZE"),
    "network": ("STACK", "NETWORK", "DRIVER", "SUBNET", "GATEWAY", "STATUS"),
    "image": ("STACK", "IMAGE", "DIGEST", "STATUS"),
}
WIDE = {
    "container": ("PID", "INCARNATION", "IMAGE"),
    "network": ("LINK", "INTERNAL"),
    "volume": ("ID",),
    "image": ("SIZE",),
    "config": (),
    "secret": (),
}


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
    from reconciler.cli.render import show_json, show_yaml

    not_built(ctx, watch=watch)
    kind, wanted = split_what(what or "", name or "")
    data = ask(ctx, root, Get(kind=kind, name=wanted, measure=form == "wide"))
    if form in ("json", "yaml"):
        show_json(data) if form == "json" else show_yaml(data)
    else:
        _show_tables(data, wide=form == "wide")
    return 0


@click.command(epilog="Example: reconcile describe container/web")
@click.argument("what", metavar="KIND/NAME", shell_complete=complete_names)
@output_option("table", "json", "yaml")
@root_option
@click.pass_context
def describe(ctx: click.Context, *, what: str, form: str, root: Path | None) -> int:
    """Show everything known of a resource: spec, state, parts, grants, last events."""
    from reconciler.api.asks import Describe
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


def split_what(what: str, name: str) -> tuple[str, str]:
    """`containers`, `container/web`, `containers web`, `web`, a key in full → kind and name."""
    head, _, rest = what.partition("/")
    kind = head.removesuffix("s")
    return (kind, rest or name) if kind in HEADS and head in (kind, kind + "s") else ("", what)


def _show_tables(data: list[Seen], *, wide: bool) -> None:
    from reconciler.cli.render import show, show_table

    first = True
    for kind, head in HEADS.items():
        rows = [row(one, wide=wide) for one in data if one["kind"] == kind]
        if not rows:
            continue
        if not first:
            show()
        first = False
        show_table(head + (WIDE[kind] if wide else ()), rows)
    if first:
        show("nothing is recorded here")
    _show_stack_holds(data)
    if unowned := [one["key"] for one in data if one["status"].get("unowned")]:
        show()
        # Never one of several: it may be the one with the data.
        one = unowned[0] if len(unowned) == 1 else "volume/STACK/NAME"
        show(f"unowned volumes are kept until they are deleted by name: reconcile delete {one}")


def _show_stack_holds(data: list[Seen]) -> None:
    """A line for each stack that a rollback holds."""
    from reconciler.cli.render import show

    holds = {one["stack"]: one["stack_held"] for one in data if "stack_held" in one}
    if not holds:
        return
    import msgspec

    from reconciler.model.record import Hold
    from reconciler.plan.holds import render_stack_hold

    show()
    for stack, hold in sorted(holds.items()):
        show(f"stack {stack}: {render_stack_hold(msgspec.convert(hold, Hold), now=time.time())}")


def row(seen: Seen, *, wide: bool) -> list[str]:
    """One line of a table."""
    from reconciler.cli.render import since

    kind, spec = seen["kind"], seen["spec"]
    if kind == "container":
        return _container_row(seen, wide=wide)
    if kind == "network":
        return _network_row(seen, wide=wide)
    if kind == "volume":
        return _volume_row(seen, wide=wide)
    if kind == "image":
        return _image_row(seen, wide=wide)
    # A secret's digest is keyed: it tells whether the secret changed, and nothing else.
    form, _, number = spec["digest"].partition(":")
    return [*_names(seen), f"{form}:{number[:12]}", since(seen["created_at"])]


def state(seen: Seen) -> str:
    """A word for how it stands, with what a tired operator must know."""
    status = seen["status"]
    exited = status["phase"] == "exited"
    notes = [
        note
        for note, holds in (
            (held(status["held"]) if status.get("held") else "", bool(status.get("held"))),
            ("gave up", status.get("gave_up")),
            (_due(status), status.get("restarting")),
            ("out of memory", status.get("oom_killed") and exited),
            # What only a restart mends is no drift of what does not run.
            ("drifted", any(not exited or part.get("mend") != "restart" for part in status["drift"])),
            ("unowned", status.get("unowned")),
            (f"unfinished {seen.get('unfinished')}", "unfinished" in seen),
        )
        if holds
    ]
    return ", ".join([_end(status), *notes])


def _end(status: Seen) -> str:
    """`running`, `exited (137 SIGKILL)`; of a job `completed`, `failed (1)`."""
    word: str = status["phase"]
    if word != "exited":
        return word
    if "completed" in status:  # It is a job.
        if status["completed"]:
            return "completed"
        word = "stopped" if status.get("stopped") else "failed"
    return word if status["exit_code"] is None else f"{word} ({_code(status)})"


def _code(status: Seen) -> str:
    """`137 SIGKILL`, `1`."""
    return f"{status['exit_code']} {status['signal']}" if status["signal"] else str(status["exit_code"])


def _due(status: Seen) -> str:
    """When its restart policy starts it again: `restarts in 3s`."""
    left = (status.get("restart_at") or 0.0) - time.time()
    return f"restarts in {int(left) + 1}s" if left > 0 else "restarting"


def held(hold: Seen) -> str:
    """Who holds it, since when and why: `held: stop by root 5m ago (disk)`."""
    from reconciler.cli.render import since

    why = hold.get("why", "")
    why = why if len(why) <= MOST_WHY else f"{why[: MOST_WHY - 1]}…"
    return f"held: {hold['kind']} by {hold['who']} {since(hold['when'])} ago" + (f" ({why})" if why else "")


def _names(seen: Seen) -> tuple[str, str]:
    from reconciler.model.key import short_name

    return seen["stack"], short_name(seen["key"])


def _container_row(seen: Seen, *, wide: bool) -> list[str]:
    from reconciler.cli.render import since

    status = seen["status"]
    addresses = ", ".join(f"{name} {address}" for name, found in status["addresses"].items() for address in found)
    ports = ", ".join(f"{host.removesuffix('/tcp')} → {port}" for host, port in seen["spec"].get("ports", {}).items())
    health = "-" if status["health"] == "none" else status["health"]
    age = since(status["started_at"] or 0.0) if status["pid"] else "-"
    out = [*_names(seen), state(seen), health, _restarts(status), age, addresses or "-", ports or "-"]
    return [*out, str(status["pid"] or "-"), status["incarnation"], status["image"][:19]] if wide else out


def _restarts(status: Seen) -> str:
    """How often, and how it ended the last time: `2 (137 SIGKILL, 5s ago)`."""
    from reconciler.cli.render import since

    if not status["restarts"]:
        return "0"
    end = _code(status) + (", out of memory" if status["oom_killed"] else "")
    return f"{status['restarts']} ({end}, {since(status['finished_at'] or 0.0)} ago)"


def _network_row(seen: Seen, *, wide: bool) -> list[str]:
    spec, status = seen["spec"], seen["status"]
    out = [*_names(seen), spec.get("driver", "bridge"), status.get("subnet", "-"), status.get("gateway", "-"), state(seen)]
    return [*out, status.get("link", "-"), "yes" if spec.get("internal") else "no"] if wide else out


def _volume_row(seen: Seen, *, wide: bool) -> list[str]:
    from reconciler.cli.render import since
    from reconciler.model.units import render_size_rounded

    status = seen["status"]
    size = render_size_rounded(status["size"]) if "size" in status else "-"
    out = [*_names(seen), state(seen), since(seen["created_at"]), size]
    return [*out, status.get("volume_id", "")] if wide else out


def _image_row(seen: Seen, *, wide: bool) -> list[str]:
    from reconciler.model.units import render_size_rounded

    status = seen["status"]
    out = [*_names(seen), status.get("image", "")[:19], state(seen)]
    return [*out, render_size_rounded(status.get("size", 0))] if wide else out


def _show_described(data: dict[str, Any]) -> None:
    """A resource as indented text; its last events at the end."""
    from reconciler.cli.render import moment, show, show_yaml
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
