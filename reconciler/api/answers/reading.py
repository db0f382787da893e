"""What is looked up and changes nothing: resources, states, revisions, events."""

from typing import Any

import msgspec

from reconciler import __version__
from reconciler.api import asks
from reconciler.api.answers import Answerer, Opener
from reconciler.api.frames import Item, Listener
from reconciler.model.events import Changed
from reconciler.model.key import Kind
from reconciler.plan.explain import render_drift
from reconciler.plan.forms import plan_json
from reconciler.plan.past import Difference, render_differences, summarize_differences
from reconciler.store.rows import StoredEvent
from reconciler.verbs import history as past
from reconciler.verbs import observe, status

LONGEST_WAIT = 5.0
"""Seconds until who follows events is seen to have gone."""


def version(opened: Opener, ask: asks.Version, listener: Listener) -> Any:
    """Of the code that answers."""
    return {"version": __version__, "api": "v1"}


def get(opened: Opener, ask: asks.Get, listener: Listener) -> Any:
    """A list, in the form of `get -o json`."""
    with opened() as root:
        seen = observe.get(root, read_kind(ask.kind), ask.name, measure=ask.measure)
    return [observe.seen_json(one) for one in seen]


def describe(opened: Opener, ask: asks.Describe, listener: Listener) -> Any:
    """A list; each has what `get` gives and more."""
    with opened() as root:
        return observe.describe(root, read_kind(ask.kind), ask.name)


def read_kind(text: str) -> Kind | None:
    """A kind by name, None where none is named. Raises Usage."""
    from reconciler.model.errors import Usage

    if not text:
        return None
    try:
        return Kind(text)
    except ValueError:
        raise Usage(f"there is no kind {text}", hint=f"one of {', '.join(Kind)}") from None


def look_at_stacks(opened: Opener, ask: asks.Status, listener: Listener) -> Any:
    """In the form of `status -o json`."""
    with opened() as root:
        return status.report_json(status.status(root, ask.stack))


def drift(opened: Opener, ask: asks.Drift, listener: Listener) -> Any:
    """In the form of `drift -o json`, and as lines."""
    with opened() as root:
        seen = observe.drift(root, ask.stack)
    data = {
        **plan_json(seen.plan),
        "lost": list(seen.plan.lost),
        "strays": [f"{stray.kind} {stray.name}" for stray in seen.strays],
        "warnings": list(seen.warnings),
    }
    return {"drift": data, "lines": render_drift(seen.plan)}


def export(opened: Opener, ask: asks.Export, listener: Listener) -> Any:
    """The manifest's text."""
    from reconciler.verbs.export import export as verb

    with opened() as root:
        return {"manifest": verb(root, ask.what)}


def history(opened: Opener, ask: asks.History, listener: Listener) -> Any:
    """In the form of `history -o json`; of each what it changed in a line, null where that is not known."""
    with opened() as root:
        entries = past.history(root, ask.stack)
    changed = [None if entry.changed is None else summarize_differences(entry.changed) for entry in entries]
    return {"revisions": [_entry_json(entry) for entry in entries], "changed": changed}


def difference(opened: Opener, ask: asks.Difference, listener: Listener) -> Any:
    """In the form of `history --diff -o json`, and as lines."""
    with opened() as root:
        found = past.diff(root, ask.stack, ask.old, ask.new)
    return {"differences": [_difference_json(one) for one in found], "lines": render_differences(found)}


def forget(opened: Opener, ask: asks.Forget, listener: Listener) -> Any:
    """How many revisions went."""
    from reconciler.model.errors import Usage

    if ask.keep < 1:
        raise Usage("keep: expected a whole number from 1 on")
    with opened() as root:
        return {"dropped": past.drop(root, ask.stack, keep=ask.keep)}


def events(opened: Opener, ask: asks.Events, listener: Listener) -> Any:
    """An item each, in the form of `events -o json`."""
    with opened() as root:
        found = past.events(
            root, stack=ask.stack, since=ask.since, after=ask.after, follow=ask.follow, stop=listener.gone,
            longest_wait=LONGEST_WAIT,
        )  # fmt: skip
        for event in found:
            if not ask.changes or isinstance(event.event, Changed):
                listener.item(Item(item=event_json(event), id=event.id))


def event_json(stored: StoredEvent) -> dict[str, Any]:
    """A recorded event as people and machines see it."""
    return {"number": stored.id, "stack": stored.stack, **msgspec.to_builtins(stored.event), "at": stored.at}


def _entry_json(entry: past.Entry) -> dict[str, Any]:
    revision = entry.revision
    commit = revision.wanted.commit if revision.wanted is not None else None
    return {
        "stack": revision.stack,
        "revision": revision.number,
        "at": revision.at,
        "who": revision.who,
        "source": revision.source,
        "summary": revision.summary,
        "images": revision.images,
        "result": revision.result,
        "commit": None if commit is None else msgspec.structs.asdict(commit),
        "changed": None if entry.changed is None else [_difference_json(each) for each in entry.changed],
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    changes = [
        {"path": change.path, "from": change.old, "to": change.new, "effect": change.effect.value} for change in one.changes
    ]
    return {"key": one.key, "what": one.what, "changes": changes}


ANSWERS: dict[type[asks.Ask], Answerer] = {
    asks.Version: version,
    asks.Get: get,
    asks.Describe: describe,
    asks.Status: look_at_stacks,
    asks.Drift: drift,
    asks.Export: export,
    asks.History: history,
    asks.Difference: difference,
    asks.Forget: forget,
    asks.Events: events,
}
