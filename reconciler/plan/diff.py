"""Turns (recorded spec, wanted spec) into field changes, each with what it means for what runs.

Feeds `decide.py`. Both specs are canonical, so equal ones are told apart by one comparison. What a change means is asked
of `schema/`, never known here. Never reads a clock, a file or an engine.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from reconciler.model.content import is_keyed
from reconciler.model.key import Kind
from reconciler.model.plan import Change, Effect
from reconciler.model.record import UNKNOWN
from reconciler.model.spec import ContainerSpec, Sensitive, Spec

EffectOf = Callable[[Kind, str], Effect]
"""What a change at a JSON pointer into a spec of this kind means."""

KNOWN_AFTER_PULL = "known after pull"
SENSITIVE = "(sensitive)"
SENSITIVE_CHANGED = "(sensitive, changed)"

_STRENGTH = {
    effect: place
    for place, effect in enumerate([Effect.IGNORE, Effect.IN_PLACE, Effect.RESTART, Effect.REPLACE, Effect.REFUSE])
}


def diff_specs(kind: Kind, old: Spec, new: Spec, *, effect_of: EffectOf) -> tuple[Change, ...]:
    """The changes from old to new by JSON pointer, in the order of the spec's fields, keys of maps sorted.

    A container's `image` is left out: it names a resource, and what counts is the digest (`diff_digest`).
    """
    if old == new:
        return ()
    left_out = {"image"} if isinstance(new, ContainerSpec) else set()
    return tuple(
        Change(path=path, old=before, new=after, effect=_choose_effect(kind, path, new, effect_of))
        for path, before, after in _walk("", old, new, left_out)
    )


_ON_CHANGE = {"replace": Effect.REPLACE, "restart": Effect.RESTART, "nothing": Effect.IN_PLACE}


def _choose_effect(kind: Kind, path: str, new: Spec, effect_of: EffectOf) -> Effect:
    """What the schema says; of a file that a container sees, what the container says: `on_change`."""
    if path.startswith(("/configs/", "/secrets/")) and isinstance(new, ContainerSpec):
        names = pointer_names(path)
        file = getattr(new, names[0]).get(names[1])
        if file is not None and names[2:3] and names[2] in ("digest", "uid", "gid", "mode"):
            return _ON_CHANGE[file.on_change]
    return effect_of(kind, path)


def diff_digest(kind: Kind, old: str, new: str, *, effect_of: EffectOf) -> tuple[Change, ...]:
    """The change of an image's digest: at `/image` of containers, at `/digest` of images. `new` may be UNKNOWN."""
    if old == new or (new == UNKNOWN and not old):
        return ()
    path = "/image" if kind is Kind.CONTAINER else "/digest"
    shown = KNOWN_AFTER_PULL if new == UNKNOWN else new
    return (Change(path=path, old=old or None, new=shown, effect=effect_of(kind, path)),)


def diff_image_name(old: ContainerSpec, new: ContainerSpec) -> tuple[Change, ...]:
    """The change of the resource that a container's image is named by, for where the digest stays the same.

    Nothing that runs changes by it, whatever a change of the image itself would mean; the record has to follow.
    """
    if old.image == new.image:
        return ()
    return (Change(path="/image", old=old.image, new=new.image, effect=Effect.IN_PLACE),)


def strongest(changes: tuple[Change, ...]) -> Effect:
    """What all of them together mean; IGNORE for none."""
    return max((change.effect for change in changes), key=_STRENGTH.__getitem__, default=Effect.IGNORE)


def pointer_step(name: str) -> str:
    """One reference token of a JSON pointer, with its slash (RFC 6901, section 3)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def pointer_names(path: str) -> tuple[str, ...]:
    """The names that a JSON pointer goes through."""
    # Order: ~1 before ~0, or `~01` would become a slash (RFC 6901, section 4).
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in path.split("/")[1:])


def show_value(value: Any) -> Any:
    """A value as plain data fit to be shown: sensitive ones hidden, fields that have their default left out."""
    if isinstance(value, Sensitive) or is_keyed(value):
        return SENSITIVE
    if isinstance(value, Struct):
        pairs = ((name, getattr(value, name), default) for name, default in _defaults(type(value)))
        return {name: show_value(item) for name, item, default in pairs if item != default}
    if isinstance(value, Mapping):
        return {name: show_value(item) for name, item in sorted(value.items())}
    if isinstance(value, (tuple, list)):
        return [show_value(item) for item in value]
    return value


def _walk(path: str, old: Any, new: Any, left_out: set[str]) -> Iterator[tuple[str, Any, Any]]:
    if old == new:
        return
    if isinstance(old, Sensitive) or isinstance(new, Sensitive) or is_keyed(old) or is_keyed(new):
        yield from _compare_sensitive(path, old, new)
    elif isinstance(new, Struct) and type(old) is type(new):
        for name, _ in _defaults(type(new)):
            if name not in left_out:
                yield from _walk(path + pointer_step(name), _field(old, name), _field(new, name), set())
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _walk(path + pointer_step(name), old.get(name), new.get(name), set())
    else:
        yield path, show_value(old), show_value(new)


def _field(spec: Struct, name: str) -> Any:
    """A field's value; None for the empty text, which stands for what a manifest leaves out."""
    value = getattr(spec, name)
    return None if value == "" else value


def _compare_sensitive(path: str, old: Any, new: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """Where either side is sensitive both are hidden: a value that moves into a secret was the secret."""
    if _reveal(old) == _reveal(new):
        return
    before = None if old is None else SENSITIVE
    after = None if new is None else SENSITIVE if old is None else SENSITIVE_CHANGED
    yield path, before, after


def _reveal(value: Any) -> Any:
    return value.value if isinstance(value, Sensitive) else value


@lru_cache
def _defaults(spec: type[Struct]) -> tuple[tuple[str, Any], ...]:
    """Field names with their defaults, in the order of the spec."""
    return tuple(
        (info.name, info.default if info.default_factory is NODEFAULT else info.default_factory()) for info in fields(spec)
    )
