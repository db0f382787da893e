"""Words for holds: who holds a container or a stack, for how long, why, and what ends that. Decides nothing."""

from reconciler.model.observation import Phase, Status
from reconciler.model.record import Hold
from reconciler.model.units import render_age


def ending_verb(kind: str) -> str:
    """The command that ends a hold of this kind on a container."""
    return "unpause" if kind == "pause" else "start"


def render_hold(hold: Hold, status: Status, *, now: float) -> str:
    """A container's: `held: stop by root 5m ago (disk); …`. One that runs all the same: whoever held it was cut short."""
    runs = f", though it runs: `reconcile {hold.kind}` again" if status.phase is Phase.RUNNING else ""
    return f"held: {_since(hold, now)}{runs}; `reconcile {ending_verb(hold.kind)}` or apply --resume ends it"


def render_stack_hold(hold: Hold, *, now: float) -> str:
    """A stack's, which only a rollback makes. Who keeps to a source has what its source says next."""
    what = "another version" if hold.who.startswith("serve ") else "apply --resume"
    return f"held: {_since(hold, now)}; {what} ends it"


def render_held_back(stack: str, hold: Hold, number: int, *, now: float) -> str:
    """What an apply says of a stack that a rollback holds: at which revision, and that what is applied is not done."""
    ago = f"{render_age(now - hold.when)} ago" + (f" ({hold.why})" if hold.why else "")
    return (
        f"stack {stack} is held at revision {number} by a rollback of {hold.who} {ago}: what is applied is what it"
        " went back from; change it, or give --resume"
    )


def render_released(stack: str, hold: Hold, *, resumed: bool) -> str:
    """What people are told where the hold of a rollback ends."""
    cause = "--resume" if resumed else "what is applied has changed since"
    return f"stack {stack} is no longer held by the rollback of {hold.who}: {cause}"


def _since(hold: Hold, now: float) -> str:
    return f"{hold.kind} by {hold.who} {render_age(now - hold.when)} ago" + (f" ({hold.why})" if hold.why else "")
