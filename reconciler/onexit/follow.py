"""Turns an exit, a bundle's policy and its marks into a record, a pause or a restart.

Run by __main__.py below conmon, whether anybody of ours is alive or not. It acts under the container's lock, reads
everything again each time that it has it, and sleeps without it. It never touches a container of another monitor.
"""

import os
import time

from reconciler.engine.native.runtime import bundle, conmon, policy, runc
from reconciler.engine.native.runtime.ended import write_ended
from reconciler.linux import process
from reconciler.onexit import heal
from reconciler.onexit.waiting import Sleeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNKNOWN_CODE = 255


class Pause:
    """What to wait for before the next look: so many seconds, a change of the policy, the end of an apply."""

    __slots__ = ("apply", "seconds")

    def __init__(self, seconds: float, apply: "dict[str, Any] | None" = None) -> None:
        self.seconds = seconds
        self.apply = apply


def follow_exit(path: str, monitor_pid: int) -> None:
    """Do what follows the exit of the container in the bundle at `path`, whose conmon is our parent; until nothing is
    left to do: it runs again, stays as it is, or belongs to somebody else."""
    with Sleeper(path) as sleeper:
        while (lock := bundle.wait_for_lock(path)) >= 0:
            try:
                pause = _act(path, monitor_pid)
                if pause is None:
                    return
                sleeper.note()
            finally:
                os.close(lock)
            sleeper.sleep(pause.seconds, pause.apply)


def _act(path: str, monitor_pid: int) -> Pause | None:
    """One look under the lock, and what it asks for. None when nothing is left to do."""
    rules = policy.read_policy(path)
    monitor = bundle.read_json(path, bundle.MONITOR)
    state = bundle.read_json(path, bundle.STATE)
    # Race: a `start` by hand or by an apply came before us; its own monitor follows the exits from there on.
    if rules is None or not monitor or state.get("monitor") != monitor_pid:
        return None
    ended = bundle.read_json(path, bundle.EXIT)
    if ended.get("pid") != state["pid"] or ended.get("start_time") != state["start_time"]:
        ended = _record_exit(path, monitor, state)
        policy.count_exit(rules, ran=process.read_age(state["start_time"]), uptime=process.read_uptime())
        policy.write_policy(path, rules)
    return _follow_marks(path, monitor, rules, ended)


def _record_exit(path: str, monitor: "dict[str, Any]", state: "dict[str, Any]") -> "dict[str, Any]":
    how = bundle.read_exit_file(path, monitor) or {"code": _UNKNOWN_CODE, "at": time.time(), "oom": False}
    return _write_exit(path, {"pid": state["pid"], "start_time": state["start_time"], **how})


def _write_exit(path: str, ended: "dict[str, Any]") -> "dict[str, Any]":
    # `at` is for people; pauses are counted by a clock that nobody sets.
    ended = {**ended, "uptime": process.read_uptime()}
    bundle.write_json(path, bundle.EXIT, ended)
    return ended


def _follow_marks(path: str, monitor: "dict[str, Any]", rules: policy.Policy, ended: "dict[str, Any]") -> Pause | None:
    if rules.mark in (policy.HOLD, policy.GONE):
        return None
    if rules.mark in (policy.REPLACED, policy.RESTART):
        return _follow_apply(path, monitor, rules)
    if bundle.read_json(path, bundle.STATE).get("halted"):
        return None  # Who stopped it has taken the mark off again, and starts it.
    return _follow_policy(path, monitor, rules, ended)


def _follow_apply(path: str, monitor: "dict[str, Any]", rules: policy.Policy) -> Pause | None:
    """An apply stopped it and means to go on. If it died before it could, what it stopped is started again."""
    if policy.is_apply_alive(rules.apply):
        return Pause(heal.LONGEST_LOOK, rules.apply)
    if rules.mark == policy.REPLACED:
        successor = heal.look_for_successor(path, monitor)
        if successor == heal.RUNS:
            return None
        if successor == heal.BUSY:
            return Pause(heal.SHORT_LOOK)
    rules.mark, rules.apply = "", None
    heal.raise_links(monitor)
    return _restart(path, monitor, rules)


def _follow_policy(path: str, monitor: "dict[str, Any]", rules: policy.Policy, ended: "dict[str, Any]") -> Pause | None:
    verdict = policy.choose_after_exit(rules, code=ended["code"])
    if verdict == policy.GIVE_UP and not rules.gave_up:
        rules.gave_up = True
        policy.write_policy(path, rules)
    if verdict == policy.STAY or rules.gave_up:
        _rest(path, monitor, rules, ended)
        return None
    left = policy.choose_pause(rules.attempts) - (process.read_uptime() - ended.get("uptime", 0.0))
    return Pause(left) if left > 0 else _restart(path, monitor, rules)


def _rest(path: str, monitor: "dict[str, Any]", rules: policy.Policy, ended: "dict[str, Any]") -> None:
    """Nothing follows: a reboot must not start it either."""
    begun = bundle.read_json(path, bundle.STATE).get("started_at", 0.0)
    kept = {"code": ended["code"], "at": ended["at"], "oom": ended["oom"], "started_at": begun}
    write_ended(monitor.get("ended", ""), {**kept, "restarts": rules.restarts, "gave_up": rules.gave_up})


def _restart(path: str, monitor: "dict[str, Any]", rules: policy.Policy) -> Pause | None:
    """Start it. A start that fails is an exit: it is recorded, and the policy goes on from there."""
    policy.count_restart(rules)
    policy.write_policy(path, rules)
    try:
        conmon.launch(path, monitor)
    except (runc.RuntimeFailed, OSError) as error:
        words = runc.words_of(error)
        failed = {"code": runc.exit_code_of(words), "at": time.time(), "oom": False}
        ended = _write_exit(path, bundle.read_json(path, bundle.EXIT) | failed)
        policy.count_exit(rules, ran=0.0, uptime=ended["uptime"])
        policy.write_policy(path, rules)
        return _follow_policy(path, monitor, rules, ended)
    return None
