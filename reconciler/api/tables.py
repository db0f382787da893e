"""The tables of `reconcile get`, of its answer; the API sends them to who asks for text."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from reconciler.api.look import Look, clean, render_table, since
from reconciler.model.key import short_name
from reconciler.model.record import Hold
from reconciler.model.units import render_size_rounded
from reconciler.plan.holds import render_stack_hold

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


def split_what(what: str, name: str) -> tuple[str, str]:
    """`containers`, `container/web`, `containers web`, `web`, a key in full → kind and name."""
    head, _, rest = what.partition("/")
    kind = head.removesuffix("s")
    return (kind, rest or name) if kind in HEADS and head in (kind, kind + "s") else ("", what)


def render_tables(data: list[Seen], look: Look, *, wide: bool = False) -> Iterator[str]:
    """Lines: a table for each kind, and what is to be known beside them."""
    first = True
    for kind, head in HEADS.items():
        rows = [_render_row(one, wide=wide) for one in data if one["kind"] == kind]
        if not rows:
            continue
        if not first:
            yield ""
        first = False
        yield from render_table(head + (WIDE[kind] if wide else ()), rows, look)
    if first:
        yield "nothing is recorded here"
    yield from _render_stack_holds(data)
    if unowned := [one["key"] for one in data if one["status"].get("unowned")]:
        yield ""
        # Never one of several: it may be the one with the data.
        one = unowned[0] if len(unowned) == 1 else "volume/STACK/NAME"
        yield clean(f"unowned volumes are kept until they are deleted by name: reconcile delete {one}")


def _render_stack_holds(data: list[Seen]) -> Iterator[str]:
    """A line for each stack that a rollback holds."""
    holds = {one["stack"]: one["stack_held"] for one in data if "stack_held" in one}
    if holds:
        yield ""
    for stack, hold in sorted(holds.items()):
        yield clean(f"stack {stack}: {render_stack_hold(msgspec.convert(hold, Hold), now=time.time())}")


def _render_row(seen: Seen, *, wide: bool) -> list[str]:
    """One line of a table."""
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
    why = hold.get("why", "")
    why = why if len(why) <= MOST_WHY else f"{why[: MOST_WHY - 1]}…"
    return f"held: {hold['kind']} by {hold['who']} {since(hold['when'])} ago" + (f" ({why})" if why else "")


def _names(seen: Seen) -> tuple[str, str]:
    return seen["stack"], short_name(seen["key"])


def _container_row(seen: Seen, *, wide: bool) -> list[str]:
    status = seen["status"]
    addresses = ", ".join(f"{name} {address}" for name, found in status["addresses"].items() for address in found)
    ports = ", ".join(f"{host.removesuffix('/tcp')} → {port}" for host, port in seen["spec"].get("ports", {}).items())
    health = "-" if status["health"] == "none" else status["health"]
    age = since(status["started_at"] or 0.0) if status["pid"] else "-"
    out = [*_names(seen), state(seen), health, _restarts(status), age, addresses or "-", ports or "-"]
    return [*out, str(status["pid"] or "-"), status["incarnation"], status["image"][:19]] if wide else out


def _restarts(status: Seen) -> str:
    """How often, and how it ended the last time: `2 (137 SIGKILL, 5s ago)`."""
    if not status["restarts"]:
        return "0"
    end = _code(status) + (", out of memory" if status["oom_killed"] else "")
    return f"{status['restarts']} ({end}, {since(status['finished_at'] or 0.0)} ago)"


def _network_row(seen: Seen, *, wide: bool) -> list[str]:
    spec, status = seen["spec"], seen["status"]
    out = [*_names(seen), spec.get("driver", "bridge"), status.get("subnet", "-"), status.get("gateway", "-"), state(seen)]
    return [*out, status.get("link", "-"), "yes" if spec.get("internal") else "no"] if wide else out


def _volume_row(seen: Seen, *, wide: bool) -> list[str]:
    status = seen["status"]
    size = render_size_rounded(status["size"]) if "size" in status else "-"
    out = [*_names(seen), state(seen), since(seen["created_at"]), size]
    return [*out, status.get("volume_id", "")] if wide else out


def _image_row(seen: Seen, *, wide: bool) -> list[str]:
    status = seen["status"]
    out = [*_names(seen), status.get("image", "")[:19], state(seen)]
    return [*out, render_size_rounded(status.get("size", 0))] if wide else out
