"""`reconcile get` and `reconcile describe`; the tables of resources."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import complete_names, not_built, opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.model.key import Kind
    from reconciler.model.observation import Status
    from reconciler.model.record import Hold
    from reconciler.verbs.observe import Seen

MOST_WHY = 40
"""Letters of a hold's reason in a table; `describe` has all of them."""

HEADS = {
    "container": ("STACK", "CONTAINER", "STATUS", "HEALTH", "RESTARTS", "AGE", "ADDRESSES", "PORTS"),
    "network": ("STACK", "NETWORK", "DRIVER", "SUBNET", "GATEWAY", "STATUS"),
    "volume": ("STACK", "VOLUME", "STATUS", "AGE", "SIZE"),
    "image": ("STACK", "IMAGE", "DIGEST", "STATUS"),
    "config": ("STACK", "CONFIG", "DIGEST", "AGE"),
    "secret": ("STACK", "SECRET", "DIGEST", "AGE"),
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
    from reconciler.cli.render import show_json, show_yaml
    from reconciler.verbs.observe import get as verb
    from reconciler.verbs.observe import seen_json

    not_built(ctx, watch=watch)
    kind, wanted = split_what(what or "", name or "")
    with opened(ctx, root) as found:
        seen = verb(found, kind, wanted, measure=form == "wide")
    if form in ("json", "yaml"):
        data = [seen_json(one) for one in seen]
        show_json(data) if form == "json" else show_yaml(data)
    else:
        _show_tables(seen, wide=form == "wide")
    return 0


@click.command(epilog="Example: reconcile describe container/web")
@click.argument("what", metavar="KIND/NAME", shell_complete=complete_names)
@output_option("table", "json", "yaml")
@root_option
@click.pass_context
def describe(ctx: click.Context, *, what: str, form: str, root: Path | None) -> int:
    """Show everything known of a resource: spec, state, parts, grants, last events."""
    from reconciler.cli.render import show_json, show_yaml
    from reconciler.verbs.observe import describe as verb

    kind, wanted = split_what(what, "")
    with opened(ctx, root) as found:
        data = verb(found, kind, wanted)
    if form == "json":
        show_json(data)
    elif form == "yaml":
        show_yaml(data)
    else:
        for one in data:
            _show_described(one)
    return 0


def split_what(what: str, name: str) -> "tuple[Kind | None, str]":
    """`containers`, `container/web`, `containers web`, `web`, a key in full → kind and name."""
    from reconciler.model.key import Kind

    head, _, rest = what.partition("/")
    kinds = {word: kind for kind in Kind for word in (kind.value, kind.value + "s")}
    if head in kinds:
        return kinds[head], (rest or name)
    return None, what


def _show_tables(seen: "list[Seen]", *, wide: bool) -> None:
    from reconciler.cli.render import show, show_table
    from reconciler.model.key import Kind, split_key

    first = True
    for kind in reversed(Kind):
        rows = [row(one, wide=wide) for one in seen if split_key(one.key).kind is kind]
        if not rows:
            continue
        if not first:
            show()
        first = False
        head = HEADS[kind.value] + (WIDE[kind.value] if wide else ())
        show_table(head, rows)
    if first:
        show("nothing is recorded here")
    _show_stack_holds(seen)
    if unowned := [one for one in seen if one.unowned]:
        show()
        one = (
            unowned[0].key if len(unowned) == 1 else "volume/STACK/NAME"
        )  # never one of several: it may be the one with the data
        show(f"unowned volumes are kept until they are deleted by name: reconcile delete {one}")


def _show_stack_holds(seen: "list[Seen]") -> None:
    """A line for each stack that a rollback holds."""
    import time

    from reconciler.cli.render import show
    from reconciler.model.key import split_key

    holds = {split_key(one.key).stack: one.stack_hold for one in seen if one.stack_hold}
    if not holds:
        return
    from reconciler.plan.holds import render_stack_hold

    show()
    for stack, hold in sorted(holds.items()):
        show(f"stack {stack}: {render_stack_hold(hold, now=time.time())}")


def row(seen: "Seen", *, wide: bool) -> list[str]:
    """One line of a table."""
    from reconciler.model.spec import ConfigSpec, ContainerSpec, NetworkSpec, SecretSpec, VolumeSpec

    spec = seen.record.spec
    if isinstance(spec, ContainerSpec):
        return _container_row(seen, spec, wide=wide)
    if isinstance(spec, NetworkSpec):
        return _network_row(seen, spec, wide=wide)
    if isinstance(spec, VolumeSpec):
        return _volume_row(seen, wide=wide)
    if isinstance(spec, ConfigSpec | SecretSpec):
        return _content_row(seen, spec.digest)
    return _image_row(seen, wide=wide)


def state(seen: "Seen") -> str:
    """A word for how it stands, with what a tired operator must know."""
    from reconciler.model.observation import Phase

    status, record = seen.status, seen.record
    # What only a restart mends is no drift of what does not run.
    parts = [part for part in status.parts.values() if status.phase is not Phase.EXITED or part.mend != "restart"]
    notes = [
        note
        for note, holds in (
            (held(record.hold) if record.hold else "", record.hold is not None),
            ("gave up", status.gave_up),
            (_due(status), status.restarting),
            ("out of memory", status.oom_killed and status.phase is Phase.EXITED),
            ("drifted", any(part.state != "present" for part in parts)),
            ("unowned", seen.unowned),
            (f"unfinished {record.unfinished}", bool(record.unfinished)),
        )
        if holds
    ]
    return ", ".join([_end(seen), *notes])


def _end(seen: "Seen") -> str:
    """`running`, `exited (137 SIGKILL)`; of a job `completed`, `failed (1)`."""
    from reconciler.model.observation import Phase
    from reconciler.model.spec import ContainerSpec
    from reconciler.plan.exits import Standing, choose_standing, render_code

    status, spec = seen.status, seen.record.spec
    if status.phase is not Phase.EXITED:
        return status.phase.value
    word = status.phase.value
    if isinstance(spec, ContainerSpec) and spec.job:
        if choose_standing(spec, status) is Standing.COMPLETED:
            return "completed"
        word = "stopped" if status.stopped else "failed"
    return word if status.exit_code is None else f"{word} ({render_code(status.exit_code)})"


def _due(status: "Status") -> str:
    """When its restart policy starts it again: `restarts in 3s`."""
    left = status.restart_at - time.time()
    return f"restarts in {int(left) + 1}s" if left > 0 else "restarting"


def held(hold: "Hold") -> str:
    """Who holds it, since when and why: `held: stop by root 5m ago (disk)`."""
    from reconciler.cli.render import since

    why = hold.why if len(hold.why) <= MOST_WHY else f"{hold.why[: MOST_WHY - 1]}…"
    return f"held: {hold.kind} by {hold.who} {since(hold.when)} ago" + (f" ({why})" if why else "")


def _names(seen: "Seen") -> tuple[str, str]:
    from reconciler.model.key import short_name, stack_of

    return stack_of(seen.key), short_name(seen.key)


def _container_row(seen: "Seen", spec: Any, *, wide: bool) -> list[str]:
    from reconciler.cli.render import since

    status, record = seen.status, seen.record
    addresses = ", ".join(f"{name} {place.address}" for name, place in record.grants.endpoints.items())
    ports = ", ".join(f"{host.removesuffix('/tcp')} → {port}" for host, port in spec.ports.items())
    health = "-" if status.health.value == "none" else status.health.value
    age = since(status.started_at) if status.pid else "-"
    out = [*_names(seen), state(seen), health, _restarts(status), age, addresses or "-", ports or "-"]
    return [*out, str(status.pid or "-"), record.incarnation, record.image[:19]] if wide else out


def _restarts(status: "Status") -> str:
    """How often, and how it ended the last time: `2 (137 SIGKILL, 5s ago)`."""
    from reconciler.cli.render import since
    from reconciler.plan.exits import render_code

    if not status.restarts:
        return "0"
    end = render_code(status.exit_code) + (", out of memory" if status.oom_killed else "")
    return f"{status.restarts} ({end}, {since(status.finished_at)} ago)"


def _network_row(seen: "Seen", spec: Any, *, wide: bool) -> list[str]:
    grants = seen.record.grants
    out = [*_names(seen), spec.driver, grants.subnet or "-", grants.gateway or "-", state(seen)]
    return [*out, grants.link or "-", "yes" if spec.internal else "no"] if wide else out


def _volume_row(seen: "Seen", *, wide: bool) -> list[str]:
    from reconciler.cli.render import since
    from reconciler.model.units import render_size_rounded

    size = render_size_rounded(seen.status.size) if seen.sized else "-"
    out = [*_names(seen), state(seen), since(seen.record.created_at), size]
    return [*out, seen.record.grants.volume_id] if wide else out


def _content_row(seen: "Seen", digest: str) -> list[str]:
    """A secret's digest is keyed: it tells whether the secret changed, and nothing else."""
    from reconciler.cli.render import since

    form, _, number = digest.partition(":")
    return [*_names(seen), f"{form}:{number[:12]}", since(seen.record.created_at)]


def _image_row(seen: "Seen", *, wide: bool) -> list[str]:
    from reconciler.model.units import render_size_rounded

    out = [*_names(seen), seen.record.image[:19], state(seen)]
    return [*out, render_size_rounded(seen.status.size)] if wide else out


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
