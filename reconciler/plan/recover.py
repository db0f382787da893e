"""Turns what things say of themselves, and what was seen of them, into records: for a database that was lost. Pure.

Neighbours: `verbs/recover.py` asks the engine and writes. What can't be known is not guessed: revisions, origins, who held
a container and why.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from reconciler.model.key import Key, Kind, make_key, sort_key, split_key
from reconciler.model.observation import MISSING, Observation, Phase, Status
from reconciler.model.record import Hold, Made, Record, record_of
from reconciler.model.spec import ConfigSpec, ContainerSpec, SecretSpec

_WHO = "recover"


class Recovered(Struct, frozen=True, kw_only=True):
    """What a new database is to hold."""

    records: tuple[Record, ...]
    """In the order in which one needs the other."""
    left_out: tuple[str, ...] = ()
    """A line for each thing that gets no record though it says what it is."""


def choose_records(found: Iterable[Made], observation: Observation, *, now: float) -> Recovered:
    """One record a key. Of two incarnations the one that runs, else the younger: a replace was under way."""
    by_key: dict[Key, list[Made]] = {}
    for made in found:
        by_key.setdefault(made.key, []).append(made)
    records: list[Record] = []
    left_out: list[str] = []
    for key in sorted(by_key, key=sort_key):
        chosen = max(by_key[key], key=lambda made: _rank(made, observation))
        records.append(_record(chosen, status_of(observation, chosen), now=now))
        left_out += [
            f"{key}: its incarnation {other.incarnation} is not the one that counts; the next apply removes it"
            for other in by_key[key]
            if other is not chosen
        ]
    known = {record.key for record in records}
    records += [record for record in _content_records(records) if record.key not in known]
    return Recovered(records=tuple(sorted(records, key=lambda record: sort_key(record.key))), left_out=tuple(left_out))


def _content_records(records: Iterable[Record]) -> list[Record]:
    """Configs and secrets, as the youngest container that sees one has it: nothing else says of itself what they are."""
    found: dict[Key, Record] = {}
    for record in sorted(records, key=lambda record: record.created_at):
        if not isinstance(record.spec, ContainerSpec):
            continue
        stack = split_key(record.key).stack
        for file in record.spec.configs.values():
            key = make_key(Kind.CONFIG, stack, file.source)
            found[key] = Record(key=key, spec=ConfigSpec(digest=file.digest), created_at=record.created_at)
        for file in record.spec.secrets.values():
            key = make_key(Kind.SECRET, stack, file.source)
            found[key] = Record(key=key, spec=SecretSpec(digest=file.digest), created_at=record.created_at)
    present = msgspec.to_builtins(Status(phase=Phase.PRESENT))
    return [msgspec.structs.replace(record, status=present) for record in found.values()]


def status_of(observation: Observation, made: Made) -> Status:
    """What was seen of this very incarnation."""
    status = observation.statuses.get(made.key)
    if made.incarnation and (status is None or status.incarnation != made.incarnation):
        status = observation.others.get(made.incarnation)
    return status or MISSING


def _rank(made: Made, observation: Observation) -> tuple[bool, float, str]:
    runs = status_of(observation, made).phase in (Phase.RUNNING, Phase.PAUSED)
    return (runs, made.created_at, made.incarnation)


def _record(made: Made, status: Status, *, now: float) -> Record:
    return msgspec.structs.replace(record_of(made), hold=_hold(made, status, now=now), status=msgspec.to_builtins(status))


def _hold(made: Made, status: Status, *, now: float) -> Hold | None:
    """A stop or a pause by hand, as the thing itself shows it: what was held must not start because a file was lost."""
    if status.phase is Phase.PAUSED:
        return Hold(kind="pause", who=_WHO, when=now, why="it was paused when its record was lost")
    if made.held and status.phase is not Phase.RUNNING:
        return Hold(kind="stop", who=_WHO, when=now, why="it was stopped by hand when its record was lost")
    return None
