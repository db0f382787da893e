"""What the machine changed behind our back → as recorded again, stack by stack. No manifest is read, no registry asked.

The plan is that of `drift`, carried out: what a person holds stays held, a volume whose folder is gone is nobody's to make
anew. The controller calls it; `boot.py` is its gentler kin for the time after a reboot.
"""

import time
from collections.abc import Callable, Collection

from msgspec import structs

from reconciler.converge.run import converge
from reconciler.converge.sweep import sweep
from reconciler.converge.terms import Options
from reconciler.model.errors import DataGone
from reconciler.model.events import PlanMade
from reconciler.model.key import split_key
from reconciler.model.plan import Plan
from reconciler.plan.forms import plan_json
from reconciler.plan.make import make_drift_plan
from reconciler.plan.mending import DriftRule, keep_mended
from reconciler.verbs.apply import Applied, raise_for, recovered
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root


def mend_all(stack: str) -> DriftRule:  # noqa: ARG001 the signature of a rule
    """The rule that leaves nothing as it is."""
    return DriftRule()


def heal(
    root: Root,
    names: Collection[str],
    *,
    timeout: float,
    face: Face,
    rule_of: Callable[[str], DriftRule] = mend_all,
    narrow: bool = False,
) -> Applied:
    """Mend the drift of stacks, as far as their rule says; of none: only take up what dead applies left, and remove strays.
    `narrow` as of ApplyOptions. Raises ConvergeFailed; DataGone where a volume's folder is gone: the rest is mended."""
    ordered = sorted(names)
    with root.lock_stacks(ordered, "heal"), Recorder(root, face.emit, ordered, "heal") as told:
        looked = recovered(root, ordered, emit=told, wanted=() if narrow else None)
        plan = keep_mended(_plan(looked, ordered), rule_of)
        if not plan.actions:
            return _checked(Applied(plan=plan, result=None), looked)
        face.show(plan)
        told(PlanMade(plan=plan_json(plan)))
        ground = root.ground()
        result = converge(plan, ground, Options(timeout=timeout), told)
        if result.failed:
            sweep(ground, told)
        raise_for(result)
        return _checked(Applied(plan=plan, result=result), looked)


def _plan(looked: Look, names: Collection[str]) -> Plan:
    stacks = {name: record for name, record in looked.stacks.items() if name in names}
    records = {key: record for key, record in looked.records.items() if split_key(key).stack in names}
    plan = make_drift_plan(stacks=stacks, records=records, observation=looked.observation, now=time.time())
    return structs.replace(plan, wanted=())  # It is no revision.


def _checked(applied: Applied, looked: Look) -> Applied:
    for key in applied.plan.lost:
        raise DataGone(key, looked.records[key].grants.volume_id)
    return applied
