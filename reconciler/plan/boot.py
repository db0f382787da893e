"""Turns records into the plan of a boot: what is recorded and not on the machine is made again, what runs is left alone.

Beside `make.py`, whose drift plan it is, over an observation in which nothing that runs would be stopped. Pure.
"""

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from reconciler.model.errors import DataGone, ReconcileError
from reconciler.model.key import Key, Kind, forms_of, kind_of
from reconciler.model.observation import Observation, Phase, Status
from reconciler.model.plan import Plan, Reason, Verb
from reconciler.model.record import Record, StackRecord
from reconciler.plan.make import make_drift_plan

_NOT_ANEW = "its folder is gone: it is not made anew by itself, and what needs it does not start"
_LIVE = (Phase.RUNNING, Phase.PAUSED)


def make_boot_plan(
    *,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
    now: float,
    accepted: Collection[str] = (),
) -> Plan:
    """What must be done after a reboot so that everything is as recorded. It restarts, replaces and deletes nothing.

    Volumes whose folder is gone are made anew only where `accepted` names them; the others' actions are there to fail.

    Its `wanted` is empty: a boot is no revision.
    """
    statuses = {key: _calm(status) for key, status in observation.statuses.items()}
    calm = replace(observation, statuses=statuses)
    # Every volume that is gone is an action: `find_lost_data` says which of them must fail, with all that needs them.
    every = frozenset(key for key in records if kind_of(key) is Kind.VOLUME)
    plan = make_drift_plan(stacks=stacks, records=records, observation=calm, now=now, accept_loss=every)
    lost = find_lost_data(plan, records, accepted=accepted)
    actions = tuple(replace(each, notes=(_NOT_ANEW,)) if each.key in lost else each for each in plan.actions)
    return replace(plan, actions=actions, wanted=())


def find_lost_data(
    plan: Plan, records: Mapping[Key, Record], *, accepted: Collection[str] = ()
) -> dict[Key, ReconcileError]:
    """The volumes that a boot would make anew, empty, where there was data: a disk that is not mounted, mostly."""
    return {
        action.key: DataGone(action.key, records[action.key].grants.volume_id)
        for action in plan.actions
        if action.verb is Verb.CREATE
        and action.reason is Reason.GONE
        and kind_of(action.key) is Kind.VOLUME
        and forms_of(action.key).isdisjoint(accepted)
    }


def _calm(status: Status) -> Status:
    """A status in which only what is mended in place is wrong, of what is there and does not wait to be started."""
    if status.phase not in (*_LIVE, Phase.PRESENT):
        return status
    phase = Phase.RUNNING if status.phase in _LIVE else status.phase
    parts = {name: part for name, part in status.parts.items() if part.state == "present" or part.mend == "in-place"}
    return replace(status, phase=phase, parts=parts)
