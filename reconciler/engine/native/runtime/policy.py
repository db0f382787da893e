"""Turns (restart policy, marks, an exit) into what follows the exit. Read and written as a bundle's policy.json.

The driver writes policy and marks, the exit command counts; both under the container's lock. The deciding functions are
pure. Imports the standard library and `linux` only.
"""

from reconciler.engine.native.runtime import bundle
from reconciler.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HOLD, GONE, REPLACED, RESTART = "hold", "gone", "replaced", "restart"
"""Marks. RESTART is ours: an apply stopped it to start it again itself."""

FIRST_BACKOFF, LONGEST_BACKOFF, STEADY = 0.1, 60.0, 10.0
"""Seconds: the first pause, the longest, and how long a run must last for the next exit to count as the first."""
MOST_ENDS = 5
"""So many ends are remembered."""

STAY, AGAIN, GIVE_UP = "stay", "again", "give up"


class Policy:
    """What follows an exit."""

    __slots__ = ("apply", "attempts", "ends", "gave_up", "mark", "restart", "restarts")

    def __init__(
        self,
        *,
        restart: str = "always",
        mark: str = "",
        apply: "dict[str, Any] | None" = None,
        attempts: int = 0,
        restarts: int = 0,
        gave_up: bool = False,
        ends: "list[list[float]] | None" = None,
    ) -> None:
        self.restart = restart
        """always | on-failure | on-failure:N | no"""
        self.mark = mark
        self.apply = apply
        """Who left the mark: pid, start_time, boot_id."""
        self.attempts = attempts
        """Restarts in a row after runs shorter than STEADY: the backoff's exponent."""
        self.restarts = restarts
        """Restarts since somebody started it: what N bounds."""
        self.gave_up = gave_up
        self.ends = ends if isinstance(ends, list) else []
        """The last ends since somebody started it, oldest first: at which uptime, after how many seconds of running."""

    def as_dict(self) -> "dict[str, Any]":
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def read_policy(path: str, read: "Callable[[str, str], dict[str, Any]]" = bundle.read_json) -> Policy | None:
    """The policy of a bundle, None when there is none (the bundle has gone)."""
    found = read(path, bundle.POLICY)
    return Policy(**{name: found[name] for name in Policy.__slots__ if name in found}) if found else None


def write_policy(path: str, policy: Policy) -> None:
    """Staged and renamed: who sleeps on the folder wakes by the rename. Called under the container's lock."""
    bundle.write_json(path, bundle.POLICY, policy.as_dict())


def choose_after_exit(policy: Policy, *, code: int) -> str:
    """STAY, AGAIN or GIVE_UP, by the restart policy alone: marks are another matter."""
    name, _, most = policy.restart.partition(":")
    if name == "no" or (name == "on-failure" and code == 0):
        return STAY
    if most.isdigit() and policy.restarts >= int(most):
        return GIVE_UP
    return AGAIN


def count_exit(policy: Policy, *, ran: float, uptime: float) -> None:
    """A run of `ran` seconds has ended: one that was steady makes the next restart the first again."""
    policy.ends = [*policy.ends, [uptime, ran]][-MOST_ENDS:]
    if ran >= STEADY:
        policy.attempts = 0


def count_restart(policy: Policy) -> None:
    """A restart is about to be tried."""
    policy.attempts += 1
    policy.restarts += 1


def choose_pause(attempts: int) -> float:
    """Seconds before the next restart after `attempts` in a row: none at first, then doubled from 0.1 up to a minute."""
    return 0.0 if attempts == 0 else min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(attempts - 1, 20))


def is_apply_alive(apply: "dict[str, Any] | None") -> bool:
    """Whether the process that left a mark still lives; pid, start time and boot id must all be its."""
    if not apply or apply.get("boot_id") != process.read_boot_id():
        return False
    return process.is_alive(int(apply.get("pid", 0)), int(apply.get("start_time", 0)))
