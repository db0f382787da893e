"""Lists of NAME=VALUE and maps -> one form by name. Steps of `desire.py` for labels, env, sysctls and hosts."""

from collections.abc import Iterator
from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path, fitting_entries
from reconciler.manifest.scalars import Interpolated, render_scalar
from reconciler.model.spec import Sensitive


def read_pairs(draft: Draft, written: Any, path: Path, *, signs: str = "=") -> Iterator[tuple[str, Any, Path]]:
    """Name, value (None where none is written) and path of each entry; of a list also a fault for a name given twice."""
    if isinstance(written, dict):
        for name, value in written.items():
            yield name, value, (*path, name)
        return
    seen: set[str] = set()
    for place, entry in fitting_entries(written):
        end = min((entry.find(sign) for sign in signs if sign in entry), default=-1)
        name, value = (str(entry), None) if end < 0 else (str(entry[:end]), str(entry[end + 1 :]))
        if value is None and isinstance(entry, Interpolated):
            # The text is a variable's value: it is not shown, for it may be a secret.
            draft.blame((*path, place), "a name without a value can't come from a variable", "write NAME=${VAR}")
            continue
        if name in seen:
            draft.blame((*path, place), f"{name} is here twice", "keep one of the two")
        seen.add(name)
        hidden = isinstance(entry, Interpolated) and value is not None
        yield name, Interpolated(value) if hidden else value, (*path, place)


def read_labels(draft: Draft, written: Any, path: Path) -> dict[str, str]:
    """Labels by name, sorted; one without a value is empty."""
    out = {name: "" if value is None else render_scalar(value) for name, value, _ in read_pairs(draft, written, path)}
    return dict(sorted(out.items()))


def read_env(draft: Draft, written: Any, path: Path) -> dict[str, str | Sensitive]:
    """Environment variables by name. A value that interpolates a variable is sensitive, and so is one that is only named:
    it is the variable of that name."""
    out: dict[str, str | Sensitive] = {}
    for name, value, place in read_pairs(draft, written, path):
        if value is None:
            if name not in draft.variables:
                hint = f"write a value, or give it with --var {name}=…, in the environment or in .env"
                draft.blame(place, f"{name} has no value here, and no variable of that name is set", hint)
            out[name] = Sensitive(draft.variables.get(name, ""))
        elif isinstance(value, Interpolated):
            out[name] = Sensitive(str(value))
        else:
            out[name] = render_scalar(value)
    return dict(sorted(out.items()))
