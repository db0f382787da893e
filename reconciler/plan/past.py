"""Turns the revisions of a stack into what a going back needs to know: which one is good, which wants what, what differs.

Called by `verbs/`, which reads revisions and takes stacks back. Pure; knows neither the store nor an engine.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from reconciler.model.key import Key, Kind, kind_of, short_name, sort_key, split_key, stack_of
from reconciler.model.plan import Change, Plan
from reconciler.model.record import DONE, GOING_BACK, Record, Stack
from reconciler.model.spec import ContainerSpec, Spec, VolumeSpec
from reconciler.plan.diff import EffectOf, diff_digest, diff_specs, pointer_names
from reconciler.plan.scene import moved_from
from reconciler.plan.words import render_change
from reconciler.schema.load import change_effect


class Past(Struct, frozen=True, kw_only=True):
    """One revision: what was wanted, and what it was pinned to."""

    number: int
    result: str
    stack: Stack
    images: dict[Key, str]
    """Digest by image key."""

    @property
    def is_good(self) -> bool:
        """Whether it was reached."""
        return self.result == DONE

    @property
    def went_back(self) -> bool:
        """Whether a going back made it, not a manifest."""
        return self.stack.source.startswith(GOING_BACK)


class Difference(Struct, frozen=True, kw_only=True):
    """What differs of one resource between two revisions."""

    key: Key
    what: str
    """added | removed | changed"""
    changes: tuple[Change, ...] = ()


def wants_the_same(one: Past, other: Past) -> bool:
    """Whether two revisions want the same specs with the same digests."""
    return one.stack.specs == other.stack.specs and one.images == other.images


def choose_target(pasts: Sequence[Past], *, before: int) -> Past | None:
    """The newest revision before that number that was reached and wants something else than that one; None without."""
    current = next((past for past in pasts if past.number == before), None)
    older = [past for past in pasts if past.number < before and past.is_good]
    return next((past for past in reversed(older) if current is None or not wants_the_same(past, current)), None)


def choose_last_good(pasts: Sequence[Past], *, before: int) -> Past | None:
    """The newest revision before that number that was reached."""
    return next((past for past in reversed(pasts) if past.number < before and past.is_good), None)


def find_applied(pasts: Sequence[Past]) -> Past | None:
    """The newest revision that came of a manifest, not of a going back."""
    return next((past for past in reversed(pasts) if not past.went_back), None)


def choose_taken_back(
    plan: Plan, failed: Collection[Key], skipped: Collection[Key], *, default: str = "stop"
) -> tuple[str, ...]:
    """The stacks of a plan that go back: one of their containers did not get there, and says `on_failure: rollback`, or
    nothing where that is the `default`. A stack of which something else failed goes back with the default."""
    return tuple(
        sorted({stack_of(key) for key in (*failed, *skipped) if _on_failure(plan.specs.get(key), default) == "rollback"})
    )


def _on_failure(spec: Spec | None, default: str) -> str:
    if isinstance(spec, ContainerSpec):
        return spec.update.on_failure or default
    return default


def take_back(past: Past, records: Mapping[Key, Record], *, origin: str) -> Stack:
    """The stack that a revision wanted, as a wish of now. Volumes never go back: one that is on record is as it is. One
    whose folder has another name since takes it over again, so that whoever mounted it finds it."""
    specs: dict[Key, Spec] = {}
    for key, spec in past.stack.specs.items():
        specs[key] = _find_volume(key, spec, past, records) if isinstance(spec, VolumeSpec) else spec
    return replace(past.stack, specs=specs, origin=origin, source=f"{GOING_BACK}{past.number}")


def _find_volume(key: Key, spec: VolumeSpec, past: Past, records: Mapping[Key, Record]) -> Spec:
    if key in records:
        return records[key].spec
    for other in sorted(records):
        found = records[other].spec
        if other not in past.stack.specs and isinstance(found, VolumeSpec) and key in moved_from(other, found):
            return replace(found, moved=split_key(other).name)
    return spec


def diff_pasts(old: Past, new: Past, *, effect_of: EffectOf = change_effect) -> list[Difference]:
    """What differs from one revision to another, in the order of kinds and names."""
    found = []
    before, after = old.stack.specs, new.stack.specs
    for key in sorted({*before, *after}, key=sort_key):
        if key not in before or key not in after:
            found.append(Difference(key=key, what="added" if key in after else "removed"))
            continue
        kind = kind_of(key)
        changes = diff_specs(kind, before[key], after[key], effect_of=effect_of)
        if kind is Kind.IMAGE and key in old.images and key in new.images:
            changes = diff_digest(kind, old.images[key], new.images[key], effect_of=effect_of) + changes
        if changes:
            found.append(Difference(key=key, what="changed", changes=changes))
    return found


def render_differences(differences: Iterable[Difference]) -> list[str]:
    """Field by field, as a plan shows it."""
    lines = []
    for difference in differences:
        lines.append(f"{difference.what:<7}  {difference.key}")
        lines += [f"      {render_change(change)}" for change in difference.changes]
    return lines or ["nothing differs"]


def summarize_differences(differences: Sequence[Difference]) -> str:
    """On one line: `web: image, env; +cache; -old`."""
    words = []
    for difference in differences:
        name = short_name(difference.key)
        if kind_of(difference.key) is not Kind.CONTAINER:
            name = f"{split_key(difference.key).kind.value} {name}"
        if difference.what != "changed":
            words.append(f"{'+' if difference.what == 'added' else '-'}{name}")
            continue
        fields = list(dict.fromkeys(pointer_names(change.path)[0] for change in difference.changes))
        words.append(f"{name}: {', '.join(fields)}")
    return "; ".join(words) or "nothing"
