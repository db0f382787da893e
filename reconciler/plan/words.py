"""Turns plan data into words: values, changes, reasons. Used by `explain.py` and `refusal.py`.

Pure, and safe to print: what could move a cursor or end a line is written as JSON writes it. The CLI colours these words
and has none of its own.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.model.plan import Action, Change, Plan, Reason, Verb
from reconciler.model.spec import ContainerSpec
from reconciler.model.units import render_duration, render_size
from reconciler.plan.diff import KNOWN_AFTER_PULL, SENSITIVE, SENSITIVE_CHANGED, pointer_names
from reconciler.plan.drift import is_part

UNSET = "(unset)"

_MARKS = frozenset({KNOWN_AFTER_PULL, SENSITIVE, SENSITIVE_CHANGED})
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-][A-Za-z0-9_./:@%+,= -]*(?<! )")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT = len("sha256:") + 12
_FEW = 3
_ANEW = (Verb.CREATE, Verb.RESTART, Verb.REPLACE)
_SIZES = frozenset({"memory", "size", "shm_size", "max_size"})
_FREE = ("/env/", "/labels/", "/sysctls/")
"""Below these names are anybody's."""
_DURATIONS = frozenset({"interval", "timeout", "start_period", "start_interval", "stop_grace"})

REASONS = {
    Reason.NEW: "it is new in the manifest",
    Reason.GONE: "it is gone from the machine",
    Reason.FIELD_CHANGED: "it changed in the manifest",
    Reason.DEPENDENCY_REPLACED: "a network that it sits on is replaced",
    Reason.DEPENDENCY_RESTARTED: "a container that it depends on is started anew",
    Reason.DRIFTED: "it drifted",
    Reason.NOT_RUNNING: "it does not run",
    Reason.JOB_FAILED: "it is a job that has not succeeded",
    Reason.UNFINISHED: "an earlier apply did not finish it",
    Reason.RESUMED: "its hold is ended",
    Reason.NOT_WANTED: "it is no longer in the manifest",
    Reason.MOVED: "it takes over another's folder",
    Reason.REQUESTED: "it was asked for",
}
"""What each reason says without its facts."""


def render_value(value: Any) -> str:
    """A value on one line: bare where nobody can mistake it, else as JSON; digests cut to 12 digits."""
    if value is None:
        return UNSET
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if _printable(value) else json.dumps(value)
    if value in _MARKS:
        return value
    if _DIGEST.fullmatch(value):
        return value[:_SHORT]
    return value if _PLAIN.fullmatch(value) else _quote(value)


def render_change(change: Change) -> str:
    """One field change: `/env/LOG  info → debug  (replace)`."""
    show = _show_part if is_part(change) else _renderer(change.path)
    return f"{_quote_path(change.path)}  {show(change.old)} → {show(change.new)}  ({change.effect.value})"


def _renderer(path: str) -> Callable[[Any], str]:
    """A variable of the environment may have any name; everything else is shown as people write it."""
    if path.startswith(_FREE):
        return render_value
    name = path.rpartition("/")[2]
    return lambda value: render_value(write_value(name, value))


def write_value(name: str, value: Any) -> Any:
    """A field's value with sizes, durations and modes as manifests have them, also within one of several fields."""
    if isinstance(value, dict):
        return {each: write_value(each, inner) if f"/{each}/" not in _FREE else inner for each, inner in value.items()}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if name == "mode":
        return f"{value:04o}"
    if name in _SIZES:
        return render_size(int(value))
    return render_duration(value) if name in _DURATIONS else value


def render_because(action: Action, plan: Plan) -> str:
    """Why an action is in the plan, with its facts."""
    if action.reason is Reason.FIELD_CHANGED:
        fields = [_quote_path(change.path) for change in action.changes if not is_part(change)]
        return f"{_list(fields)} changed" if fields else REASONS[action.reason]
    if action.reason is Reason.DRIFTED:
        parts = [_quote_path(pointer_names(change.path)[1]) for change in action.changes if is_part(change)]
        return f"{_list(parts)} drifted"
    if action.reason is Reason.DEPENDENCY_REPLACED:
        return f"{_list(sorted(_replaced(action, plan)))} is replaced"
    if action.reason is Reason.DEPENDENCY_RESTARTED:
        names = _list(sorted({split_key(key).name for key in _anew(action, plan)}))
        return f"it asks to follow {names}, which is started anew"
    return REASONS[action.reason]


def _replaced(action: Action, plan: Plan) -> Iterable[str]:
    """What it waits for and what waits for it: a split one is deleted before its network goes."""
    for other in plan.actions:
        near = other.id in action.after or action.id in other.after
        gone = other.reason is Reason.GONE
        network = other.key.startswith("network/") and other.verb is not Verb.UPDATE and not gone
        if near and (network or (other.key.startswith("volume/") and gone)):
            yield other.key


def _anew(action: Action, plan: Plan) -> Iterable[Key]:
    """The containers that it waits for, of those that it follows with `restart: true`."""
    spec = plan.specs.get(action.key)
    follows = {name for name, each in spec.depends_on.items() if each.restart} if isinstance(spec, ContainerSpec) else set()
    return (
        other.key
        for other in plan.actions
        if other.id in action.after and other.verb in _ANEW and kind_of(other.key) is Kind.CONTAINER
        if split_key(other.key).name in follows
    )


def _show_part(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else render_value(value)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _quote_path(path: str) -> str:
    return path if path.isprintable() else json.dumps(path)


def _printable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_printable(name) and _printable(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(_printable, value))
    return not isinstance(value, str) or value.isprintable()


def _list(names: list[str]) -> str:
    shown = names if len(names) <= _FEW else [*names[: _FEW - 1], f"{len(names) - _FEW + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "nothing"
