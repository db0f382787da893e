"""Whether a plan does more than mend: what a source that needs approval may not do by itself."""

from reconciler.model.plan import Plan, Reason

_MENDING = frozenset({
    Reason.GONE, Reason.DRIFTED, Reason.NOT_RUNNING, Reason.JOB_FAILED, Reason.UNFINISHED,
    Reason.DEPENDENCY_REPLACED, Reason.DEPENDENCY_RESTARTED,
})  # fmt: skip
_PARTS = "/parts/"


def needs_approval(plan: Plan) -> bool:
    """Whether anything in it follows from what the manifest says now, and not from what became of the machine."""
    return any(
        action.reason not in _MENDING or any(not change.path.startswith(_PARTS) for change in action.changes)
        for action in plan.actions
    )
