"""Turns (restart policy, status) into whether a container should be started again.

Feeds `decide.py` and `explain.py`. The policy alone decides what follows an exit; the exit command below conmon acts on
the same rules at once, and this is for what it left. Never starts anything.
"""

from enum import StrEnum

from reconciler.model.observation import End, Phase, Status
from reconciler.model.signals import name_signal
from reconciler.model.spec import ContainerSpec

OFTEN, LATELY = 3, 300.0
"""So many ends within so many seconds are a storm …"""
LASTING, LONGER = 10.0, 1.5
"""… until a run has lasted so many seconds, and so many times as long as the longest of those before."""


class Standing(StrEnum):
    """How a container that is on the machine stands to its restart policy."""

    RUNS = "runs"
    """It runs."""
    PAUSED = "paused"
    """Its processes are frozen."""
    RESTARTING = "restarting"
    """It ended, and its exit command is about to start it again."""
    DOWN = "down"
    """It does not run and should."""
    PREPARED = "prepared"
    """It was never started."""
    ENDED = "ended"
    """It ended, and its policy lets it rest."""
    COMPLETED = "completed"
    """A job that ended with 0 by itself."""
    FAILED = "failed"
    """A job that ended otherwise: the next apply runs it again."""
    GAVE_UP = "gave-up"
    """It ended once more than `on-failure:N` allows: only `start` begins its count anew."""


RESTING = frozenset({Standing.ENDED, Standing.COMPLETED, Standing.GAVE_UP})
"""As it should be though it does not run."""


def choose_standing(spec: ContainerSpec, status: Status) -> Standing:
    """How a container stands, by the policy that was given to it."""
    if status.phase is Phase.RUNNING:
        return Standing.RUNS
    if status.phase is Phase.CREATED:
        return Standing.PREPARED
    if status.phase is Phase.PAUSED:
        return Standing.PAUSED
    if spec.job:
        return Standing.COMPLETED if status.exit_code == 0 and not status.stopped else Standing.FAILED
    if status.restarting:
        return Standing.RESTARTING
    if status.gave_up and spec.restart.startswith("on-failure"):
        return Standing.GAVE_UP
    if spec.restart == "no":
        return Standing.ENDED
    if spec.restart.startswith("on-failure") and status.exit_code == 0:
        return Standing.ENDED
    return Standing.DOWN


def ends_again_and_again(status: Status, *, now: float) -> bool:
    """Whether its policy starts it in vain: it ended often of late, and does not run yet for longer than before."""
    recent = recent_ends(status, now=now)
    often = len(recent) >= OFTEN
    if status.phase is Phase.RUNNING:
        # Not of the run before the first of them, which may have lasted for months.
        lasting = max(LASTING, LONGER * max((end.ran for end in recent[1:]), default=0.0))
        return often and now - status.started_at < lasting
    return often and (status.restarting or status.phase is Phase.CREATED)


def recent_ends(status: Status, *, now: float) -> tuple[End, ...]:
    """Those of late."""
    return tuple(end for end in status.ends if now - end.at < LATELY)


def render_end(status: Status) -> str:
    """How it ended, in a few words: `exited (137 SIGKILL, out of memory)`."""
    return render_last_end(status) if status.phase is Phase.EXITED else str(status.phase)


def render_last_end(status: Status) -> str:
    """The same of one that may run again by now."""
    facts = [] if status.exit_code is None else [render_code(status.exit_code)]
    facts += ["out of memory"] if status.oom_killed else []
    return f"exited ({', '.join(facts)})" if facts else "exited"


def render_code(code: int | None) -> str:
    """`137 SIGKILL`: an exit code with the signal that it stands for."""
    return f"{code} {name}" if (name := signal_of(code)) else str(code)


def signal_of(code: int | None) -> str:
    """The signal that an exit code stands for; empty where it stands for none."""
    return name_signal(code - 128) if code is not None and 128 < code < 256 else ""
