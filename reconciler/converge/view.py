"""Records and open intents laid over them → the view that settle renders and observe compares with. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import Phase, Status
from reconciler.model.record import Intent, Made, Record, View
from reconciler.model.spec import ContainerSpec
from reconciler.plan.exits import RESTING, choose_standing


def made_of(record: Record) -> Made:
    """A record as drivers see it."""
    return Made(
        key=record.key,
        spec=record.spec,
        image=record.image,
        grants=record.grants,
        incarnation=record.incarnation,
        held=record.hold is not None,
        paused=record.hold is not None and record.hold.kind == "pause",
        created_at=record.created_at,
    )


def rests(record: Record) -> bool:
    """Whether a container had ended and was let rest by its policy when its exit was recorded."""
    if not isinstance(record.spec, ContainerSpec) or record.status.get("phase") != Phase.EXITED:
        return False
    return choose_standing(record.spec, msgspec.convert(record.status, Status)) in RESTING


def compose_view(records: Mapping[Key, Record], intents: Iterable[Intent], *, keep_old: bool = False) -> View:
    """All records with every open intent laid over them: plus what they add, minus what they remove.

    With `keep_old` what an intent removes stays in the view: for looking at the machine, not for settling it.
    """
    made: dict[tuple[Key, str], Made] = {_identity(one): one for one in map(made_of, records.values())}
    pending: set[Key] = set()
    nameless: set[str] = set()
    for intent in intents:
        if intent.stage and intent.old is not None and intent.new is not None:
            nameless.add((intent.old if intent.stage == "moved" else intent.new).incarnation)
        removed = intent.verb == "delete" or (intent.verb == "replace" and kind_of(intent.key) is Kind.NETWORK)
        if intent.old is not None and removed and not keep_old:
            made.pop(_identity(intent.old), None)
        elif intent.old is not None:
            made.setdefault(_identity(intent.old), intent.old)
        if intent.new is not None:
            made[_identity(intent.new)] = intent.new
            if kind_of(intent.key) is Kind.NETWORK and intent.verb in ("create", "replace"):
                pending.add(intent.key)
    return View(made=tuple(made.values()), pending=tuple(sorted(pending)), nameless=tuple(sorted(nameless)))


def _identity(made: Made) -> tuple[Key, str]:
    """What tells two incarnations of one key apart: a container's incarnation, a network's link."""
    return (made.key, made.incarnation or made.grants.link)
