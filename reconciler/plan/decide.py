"""Turns what is wanted, recorded and seen of one resource into what to do with it: an action, a line, or nothing.

Called by `make.py` for each resource; `graph.py` puts the outcomes in order. It knows no other resource: what one change
forces on another is `graph.py`'s. Never reads a clock, a file or an engine.
"""

from msgspec import Struct

from reconciler.model.key import Key, Kind, forms_of, kind_of, split_key, split_replica_volume
from reconciler.model.observation import Phase, Status
from reconciler.model.plan import Change, Effect, Line, Reason, Verb
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec, Spec
from reconciler.plan.diff import EffectOf, diff_digest, diff_image_name, diff_specs, strongest
from reconciler.plan.drift import diff_parts, diff_pause, diff_process
from reconciler.plan.exits import RESTING, Standing, choose_standing, render_end
from reconciler.plan.holds import render_hold

_STRENGTH = {verb: place for place, verb in enumerate([Verb.CREATE, Verb.UPDATE, Verb.RESTART, Verb.REPLACE, Verb.DELETE])}

_VERB_OF = {Effect.IN_PLACE: Verb.UPDATE, Effect.RESTART: Verb.RESTART, Effect.REPLACE: Verb.REPLACE}


class PlanOptions(Struct, frozen=True, kw_only=True):
    """What the one who asks for a plan decides."""

    resume: bool = False
    """End every hold of the stacks."""
    resume_keys: frozenset[Key] = frozenset()
    """Containers that are to run whatever holds them or ended them: `start`."""
    prune: bool = True
    """Delete what left the manifest (volumes never)."""
    accept_loss: frozenset[str] = frozenset()
    """Containers that may lose sight of data and volumes that may be made anew and empty, as people name them."""
    drift: bool = False
    """Nobody asked for anything: mend what the machine changed, and no more."""


class Situation(Struct, frozen=True, kw_only=True):
    """All that is known of one resource. `want` None: not in the manifest; `record` None: not on record."""

    key: Key
    want: Spec | None
    digest: str
    """Containers and images: what the manifest's reference means now, or UNKNOWN."""
    record: Record | None
    status: Status


class Decision(Struct, frozen=True, kw_only=True):
    """What to do with one resource, before it has its place in the order."""

    key: Key
    verb: Verb
    reason: Reason
    changes: tuple[Change, ...] = ()


class RefusedChange(Struct, frozen=True, kw_only=True):
    """A change that no action brings about without losing something."""

    key: Key
    changes: tuple[Change, ...]


class Lost(Struct, frozen=True, kw_only=True):
    """A volume on record whose folder is gone: making it anew would hand out an empty one."""

    key: Key


Outcome = Decision | Line | RefusedChange | Lost | None


def is_settled(want: Spec, digest: str, *, record: Record, status: Status | None) -> bool:
    """Whether nothing at all is to be said of a resource. Cheap, for it is asked of every one."""
    return (
        status is not None
        and not record.unfinished
        and record.hold is None
        and (status.phase is Phase.RUNNING or status.phase is Phase.PRESENT)
        and record.image == digest
        and record.spec == want
        and not any(part.state != "present" for part in status.parts.values())
    )


def choose_outcome(situation: Situation, *, options: PlanOptions, now: float, effect_of: EffectOf) -> Outcome:
    """The rules, first match wins. `now` in seconds since the epoch, to say how long a hold has lasted."""
    key, want, record, status = situation.key, situation.want, situation.record, situation.status
    kind = kind_of(key)
    # 1. Neither wanted nor recorded: not ours.
    if record is None and want is None:
        return None
    # 2. Wanted for the first time.
    if record is None:
        return Decision(key=key, verb=Verb.CREATE, reason=Reason.NEW)
    # 3. No longer wanted: a volume's data goes only when a person names it, the rest goes unless told otherwise.
    if want is None:
        return _leave(situation, prune=options.prune)
    changes = _manifest_changes(kind, want, situation, effect_of=effect_of)
    there = status.phase is not Phase.MISSING
    # 4. A change that would lose something, of a thing that is there to be lost.
    if there and strongest(changes) is Effect.REFUSE:
        refused = tuple(change for change in changes if change.effect is Effect.REFUSE)
        return RefusedChange(key=key, changes=refused)
    parts = diff_parts(kind, status)
    # 5. An earlier apply ended half-way: what is missing is done, with what changed since.
    if record.unfinished:
        verb = _finish(want, record, status, changes=changes, parts=parts)
        return Decision(key=key, verb=verb, reason=Reason.UNFINISHED, changes=changes + parts if there else changes)
    if not isinstance(want, ContainerSpec):
        # 6. A disk that is not mounted looks like a volume that is gone: nobody makes an empty one in its place unasked.
        if kind is Kind.VOLUME and not there and forms_of(key).isdisjoint(options.accept_loss):
            return Lost(key=key)
        return _choose_thing(key, changes, parts, there=there)
    return _choose_container(situation, want, changes, parts, options=options, now=now)


def _choose_thing(key: Key, changes: tuple[Change, ...], parts: tuple[Change, ...], *, there: bool) -> Outcome:
    """The rules for images, networks and volumes that are wanted and recorded."""
    # 7. Recorded, and removed by others.
    if not there:
        return Decision(key=key, verb=Verb.CREATE, reason=Reason.GONE, changes=changes)
    # 8. The manifest wants something else.
    if verb := _VERB_OF.get(strongest(changes)):
        return _strengthen(Decision(key=key, verb=verb, reason=Reason.FIELD_CHANGED, changes=changes), parts)
    # 9. Others removed or altered a part.
    if verb := _VERB_OF.get(strongest(parts)):
        return Decision(key=key, verb=verb, reason=Reason.DRIFTED, changes=parts)
    # 10. As it should be.
    return None


def _choose_container(
    situation: Situation,
    want: ContainerSpec,
    changes: tuple[Change, ...],
    parts: tuple[Change, ...],
    *,
    options: PlanOptions,
    now: float,
) -> Outcome:
    """The rules for containers that are wanted and recorded."""
    key, record, status = situation.key, situation.record, situation.status
    assert record is not None
    missing = status.phase is Phase.MISSING
    standing = choose_standing(want, status)
    asked = key in options.resume_keys
    held = record.hold is not None and not (options.resume or asked)
    # 6. Held and not to be resumed: it follows the manifest and does not start; nothing else is done to it.
    if held and record.hold is not None:
        if not missing and (verb := _VERB_OF.get(strongest(changes))):
            return Decision(key=key, verb=verb, reason=Reason.FIELD_CHANGED, changes=changes)
        return Line(key=key, text=render_hold(record.hold, status, now=now))
    # 7. It had ended and was let rest, and is gone now (a reboot): making it again would run it again.
    if missing and not record.hold and not asked and not changes and _had_ended(want, record):
        return None
    # 8. It is paused and no pause holds it: it goes on with what else is done.
    if standing is Standing.PAUSED:
        parts = (*parts, diff_pause())
    # 9. Its hold ends, or a person starts it.
    if record.hold is not None or (asked and standing is not Standing.RUNS):
        rests = standing in RESTING and not status.stopped and not asked
        return _resume(key, standing, changes + parts, missing=missing, rests=rests)
    # 10. Recorded, and removed by others.
    if missing:
        return Decision(key=key, verb=Verb.CREATE, reason=Reason.GONE, changes=changes)
    # 11. Its exit command is at work: its parts come and go, and it runs in a moment.
    if standing is Standing.RESTARTING:
        parts = ()
    # 12. It rests: mending must not start it, so that only what is mended in place counts.
    if standing in RESTING or (standing is Standing.FAILED and options.drift):
        parts = tuple(part for part in parts if part.effect is Effect.IN_PLACE)
    fails = standing is Standing.FAILED and not options.drift
    down = (diff_process(status),) if fails or standing in (Standing.DOWN, Standing.PREPARED) else ()
    # 13. The manifest wants something else.
    if verb := _VERB_OF.get(strongest(changes)):
        # What was prepared by the old spec and never ran is made anew: there is nothing to keep.
        verb = Verb.REPLACE if standing is Standing.PREPARED else verb
        return _strengthen(Decision(key=key, verb=verb, reason=Reason.FIELD_CHANGED, changes=changes), parts + down)
    # 14. Prepared and never started; a job is not run by mending.
    if standing is Standing.PREPARED and want.job and options.drift:
        return None
    if standing is Standing.PREPARED:
        return Decision(key=key, verb=Verb.CREATE, reason=Reason.NOT_RUNNING, changes=parts + down)
    # 15. It ended, and its policy says that it runs.
    if standing is Standing.DOWN:
        return _strengthen(Decision(key=key, verb=Verb.RESTART, reason=Reason.NOT_RUNNING, changes=down), parts)
    # 16. A job that did not succeed runs again; mending drift does not ask for that.
    if fails:
        return _strengthen(Decision(key=key, verb=Verb.RESTART, reason=Reason.JOB_FAILED, changes=down), parts)
    # 17. Others removed or altered a part.
    if verb := _VERB_OF.get(strongest(parts)):
        return Decision(key=key, verb=verb, reason=Reason.DRIFTED, changes=parts)
    # 18. It used up its restarts: people must know, no plan touches it.
    if standing is Standing.GAVE_UP:
        return Line(key=key, text=render_gave_up(want, status))
    # 19. As it should be.
    return None


def render_gave_up(spec: ContainerSpec, status: Status) -> str:
    """That a container used up its restarts, and what begins their count anew."""
    return f"gave up: {render_end(status)}, {spec.restart} is used up; `reconcile start` tries anew"


def _manifest_changes(kind: Kind, want: Spec, situation: Situation, *, effect_of: EffectOf) -> tuple[Change, ...]:
    record = situation.record
    assert record is not None
    changes = diff_specs(kind, record.spec, want, effect_of=effect_of)
    if kind not in (Kind.IMAGE, Kind.CONTAINER):
        return changes
    image = diff_digest(kind, record.image, situation.digest, effect_of=effect_of)
    if not image and isinstance(want, ContainerSpec) and isinstance(record.spec, ContainerSpec):
        image = diff_image_name(record.spec, want)
    return image + changes


def _leave(situation: Situation, *, prune: bool) -> Outcome:
    key, kind, record = situation.key, kind_of(situation.key), situation.record
    assert record is not None
    if kind is Kind.VOLUME:
        name = split_key(key).name
        index = split_replica_volume(name)[1]
        why = f"kept for replica {index}, which is not in the manifest" if index else "kept: no longer in the manifest"
        where = ", and its folder is gone" if situation.status.phase is Phase.MISSING else ""
        return Line(key=key, text=f"{why}{where}; `reconcile delete {key}` removes it")
    if not prune:
        return Line(key=key, text="left as it is: no longer in the manifest, and --no-prune was given")
    return Decision(key=key, verb=Verb.DELETE, reason=Reason.NOT_WANTED)


def _finish(want: Spec, record: Record, status: Status, *, changes: tuple[Change, ...], parts: tuple[Change, ...]) -> Verb:
    """The record is what observation made of the intent, so that only what is missing from it is left to do."""
    if status.phase is Phase.MISSING:
        return Verb.CREATE
    least = Verb.UPDATE
    if isinstance(want, ContainerSpec):
        standing = choose_standing(want, status)
        # What is half deleted bears a mark that ends it: only a new incarnation is free of it.
        if record.unfinished == Verb.DELETE or (standing is Standing.PREPARED and _VERB_OF.get(strongest(changes))):
            return Verb.REPLACE
        if standing is Standing.PREPARED:
            return Verb.CREATE  # Whatever part of it is missing: that makes all of it, and no update starts it.
        again = {Standing.DOWN: Verb.RESTART, Standing.FAILED: Verb.RESTART}
        least = again.get(standing, Verb.RESTART if record.unfinished == Verb.RESTART else Verb.UPDATE)
    return _stronger(least, _VERB_OF.get(strongest(changes + parts), least))


def _resume(key: Key, standing: Standing, changes: tuple[Change, ...], *, missing: bool, rests: bool) -> Decision:
    """It runs again, but for one that had ended by itself before it was held, and that nobody asks for by name."""
    if missing or standing is Standing.PREPARED:
        least = Verb.CREATE
    else:
        least = Verb.UPDATE if rests or standing in (Standing.RUNS, Standing.PAUSED) else Verb.RESTART
    verb = least if missing else _stronger(least, _VERB_OF.get(strongest(changes), least))
    # No update starts what was never started; making it again does, and mends what an update would.
    verb = least if least is Verb.CREATE and verb is Verb.UPDATE else verb
    return Decision(key=key, verb=verb, reason=Reason.RESUMED, changes=changes)


def _had_ended(want: ContainerSpec, record: Record) -> bool:
    """As far as the records go: where the end itself was kept, it is seen, and nothing is missing."""
    if want.job and (record.status.get("exit_code") != 0 or record.status.get("stopped")):
        return False
    return want.restart == "no" and record.status.get("phase") == Phase.EXITED and record.spec == want


def _strengthen(decision: Decision, more: tuple[Change, ...]) -> Decision:
    """The same decision with more to mend, by the verb that does all of it."""
    if not more:
        return decision
    verb = _stronger(decision.verb, _VERB_OF.get(strongest(more), decision.verb))
    return Decision(key=decision.key, verb=verb, reason=decision.reason, changes=decision.changes + more)


def _stronger(one: Verb, other: Verb) -> Verb:
    return max(one, other, key=_STRENGTH.__getitem__)
