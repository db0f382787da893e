"""Turns a bundle's files and /proc into a container's status and the parts that are the runtime's.

Reads small files and starts no program: fifty containers take a few milliseconds. Feeds the driver's `states` and
`observe`. Changes nothing.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec

from reconciler.engine.native.runtime import bundle, health, left, policy, rotation, runc
from reconciler.engine.native.runtime.ended import read_ended
from reconciler.engine.native.runtime.known import Read
from reconciler.engine.native.runtime.spec import render_resources
from reconciler.linux import cgroups, process
from reconciler.model.observation import PRESENT, End, Health, Part, Phase, Status, altered, missing
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Healthcheck

_KEEPING_STATE = ("runc", "crun")
"""Runtimes known to keep a folder of their root for each container."""


def read_status(path: str, incarnation: str, *, kept: str = "", read: Read = bundle.read_json) -> Status:
    """The status of the container whose bundle is at `path`, without parts; MISSING where there is no bundle, and no end of
    it is kept under the root (at `kept`) either. `read` may know what the bundle's files say."""
    monitor = read(path, bundle.MONITOR)
    if not monitor:
        return _read_kept(kept, incarnation) or Status(phase=Phase.MISSING, incarnation=incarnation)
    state = read(path, bundle.STATE)
    rules = policy.read_policy(path, read) or policy.Policy()
    if not state:
        before = _read_kept(monitor.get("ended", ""), incarnation)
        return before or Status(phase=Phase.CREATED, incarnation=incarnation, error=_read_error(path))
    if is_running(state):
        return _read_running(path, monitor, state, rules)
    ended = read_exit(path, monitor, state)
    if not ended and is_followed(state):
        # Race: its monitor is just writing down how it ended; until then it counts as not ended.
        return _read_running(path, monitor, state, rules)
    return _read_exited(path, monitor, state, rules, ended)


def is_running(state: dict[str, Any]) -> bool:
    """Whether the first process of a run lives."""
    return _is_of_this_boot(state) and process.is_alive(state["pid"], state["start_time"])


def is_followed(state: dict[str, Any]) -> bool:
    """Whether the conmon of a run lives, with its exit command."""
    return _is_of_this_boot(state) and process.is_alive(state["monitor"], state["monitor_start"])


def _is_of_this_boot(state: dict[str, Any]) -> bool:
    """Whether pids in it mean anything: a pid with its start time may come again after a reboot."""
    return bool(state) and state.get("boot_id") == process.read_boot_id()


def _read_kept(path: str, incarnation: str) -> Status | None:
    """The end of a container whose run directory a reboot took away."""
    ended = read_ended(path) if path else {}
    if not ended:
        return None
    return Status(
        phase=Phase.EXITED,
        incarnation=incarnation,
        started_at=ended.get("started_at", 0.0),
        finished_at=ended["at"],
        exit_code=ended.get("code"),
        oom_killed=bool(ended.get("oom")),
        restarts=int(ended.get("restarts", 0)),
        gave_up=bool(ended.get("gave_up")),
        stopped=bool(ended.get("stopped")),
    )


def _read_running(path: str, monitor: dict[str, Any], state: dict[str, Any], rules: policy.Policy) -> Status:
    phase = Phase.PAUSED if cgroups.is_frozen(monitor["cgroup"]) else Phase.RUNNING
    if runc.is_waiting(monitor["runtime_root"], monitor["id"]):
        phase = Phase.CREATED
    last = bundle.read_json(path, bundle.EXIT) if rules.restarts else {}
    return Status(
        phase=phase,
        incarnation=monitor["id"],
        pid=state["pid"],
        started_at=state["started_at"],
        finished_at=last.get("at", 0.0),
        exit_code=last.get("code"),
        oom_killed=bool(last.get("oom")),
        restarts=rules.restarts,
        ends=_read_ends(rules),
        health=_read_health(path, monitor, state),
    )


def _read_exited(
    path: str, monitor: dict[str, Any], state: dict[str, Any], rules: policy.Policy, ended: dict[str, Any]
) -> Status:
    code = ended.get("code")
    verdict = policy.choose_after_exit(rules, code=255 if code is None else code)
    restarting = verdict == policy.AGAIN and is_followed(state) and not (rules.mark or state.get("halted"))
    return Status(
        phase=Phase.EXITED,
        incarnation=monitor["id"],
        started_at=state["started_at"],
        # Kernel: the exit file's time is of a clock that ticks every few milliseconds; nothing ends before it began.
        finished_at=max(ended["at"], state["started_at"]) if ended else 0.0,
        exit_code=code,
        oom_killed=bool(ended.get("oom")),
        restarts=rules.restarts,
        ends=_read_ends(rules),
        restarting=restarting,
        restart_at=_choose_restart(rules, ended) if restarting and ended else 0.0,
        stopped=bool(state.get("halted")),
        gave_up=rules.gave_up,
        health=Health.NONE if read_check(monitor) is None else Health.UNKNOWN,
        error=_read_error(path),
    )


def _choose_restart(rules: policy.Policy, ended: dict[str, Any]) -> float:
    """When its pause is over, by the clock as it is set now."""
    now = process.read_uptime()
    since = now - float(ended.get("uptime", now))
    return time.time() + max(0.0, policy.choose_pause(rules.attempts) - since)


def _read_ends(rules: policy.Policy) -> tuple[End, ...]:
    """Its last ends, by the clock as it is set now; nothing of what somebody else wrote there."""
    booted = time.time() - process.read_uptime()
    with suppress(TypeError, ValueError):
        return tuple(End(booted + float(uptime), float(ran)) for uptime, ran in rules.ends)
    return ()


def read_exit(path: str, monitor: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """How the last run ended: `code`, `at`, `oom`; empty where nobody saw it (its monitor died before it)."""
    ended = bundle.read_json(path, bundle.EXIT)
    if ended.get("pid") == state["pid"] and ended.get("start_time") == state["start_time"]:
        return ended
    return bundle.read_exit_file(path, monitor)


def _read_error(path: str) -> str:
    try:
        with open(f"{path}/{bundle.ERROR}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - once a container
            return file.read(4096)
    except FileNotFoundError:
        return ""


def read_check(monitor: dict[str, Any]) -> Healthcheck | None:
    """The check that a bundle was made with."""
    check = monitor.get("check")
    return None if check is None else msgspec.convert(check, Healthcheck)


def _read_health(path: str, monitor: dict[str, Any], state: dict[str, Any]) -> Health:
    check = read_check(monitor)
    if check is None:
        return Health.NONE
    result = bundle.read_json(path, bundle.HEALTH)
    return health.choose_health(check, result, pid=state["pid"], now=process.read_uptime())


# ---------------------------------------------------------------- parts


def read_parts(path: str, made: Made, status: Status, read: Read = bundle.read_json) -> dict[str, Part]:
    """The runtime's parts of a container: `bundle`, `policy`, and while it should run `process`, `monitor`, `log`,
    `exit-command`, `runtime`, `cgroup` and `limits/…`."""
    assert isinstance(made.spec, ContainerSpec)
    monitor = read(path, bundle.MONITOR)
    rules = policy.read_policy(path, read)
    live = status.phase in (Phase.RUNNING, Phase.PAUSED)
    parts = {"bundle": left.read_part(path, bound=left.choose_bound(made.spec) if live else (), read=read)}
    if rules is None:
        parts["policy"] = missing()
    elif rules.restart != made.spec.restart:
        parts["policy"] = altered("restart", made.spec.restart, rules.restart)
    state = read(path, bundle.STATE)
    if not monitor or not state:
        return parts
    followed = is_followed(state)
    if live:
        parts["process"] = PRESENT
        parts["monitor"] = PRESENT if followed else missing("restart")
        if followed and rotation.is_missing(path, monitor):
            parts["log"] = missing()
        parts |= _read_follower(path, monitor, rules)
        parts |= _read_cgroup(monitor["cgroup"], made.spec, status.pid)
    elif status.phase is Phase.EXITED and _should_run(rules, status) and not followed:
        parts["process"] = parts["monitor"] = missing("restart")
    return parts


def _read_follower(path: str, monitor: dict[str, Any], rules: policy.Policy | None) -> dict[str, Part]:
    """What is needed of a running container once it ends, or is spoken to: our exit command, and what its runtime knows."""
    parts = {}
    # A program that is gone, as after an update of Python, is as bad as no link to it.
    if (rules is None or not rules.mark) and not os.path.exists(f"{path}/{bundle.ON_EXIT}"):  # noqa: PTH110
        parts["exit-command"] = missing()
    known = os.path.isdir(f"{monitor['runtime_root']}/{monitor['id']}")  # noqa: PTH112
    if os.path.basename(monitor["runtime"]) in _KEEPING_STATE and not known:  # noqa: PTH119
        parts["runtime"] = missing("restart")
    return parts


def _should_run(rules: policy.Policy | None, status: Status) -> bool:
    if rules is None or rules.mark:
        return False
    code = 255 if status.exit_code is None else status.exit_code
    return policy.choose_after_exit(rules, code=code) == policy.AGAIN


def _read_cgroup(cgroup: str, spec: ContainerSpec, pid: int) -> dict[str, Part]:
    places = _parse_places(cgroups.read_places(pid))
    if not places:  # Race: it ended since we looked, and is started again or looked at again for that.
        return {}
    if places != {cgroup}:
        return {"cgroup": altered("path", cgroup, min(places - {cgroup}))}
    parts = {"cgroup": PRESENT}
    there = cgroups.read_limits(cgroup)
    for name, wanted in render_limits(spec).items():
        if there.get(name, "") != wanted:
            parts[f"limits/{name}"] = altered(name, wanted, there.get(name, "none"))
    return parts


@lru_cache(maxsize=8192)  # Of a container that runs it is the same with each look.
def _parse_places(text: str) -> frozenset[str]:
    return frozenset(cgroups.parse_places(text))


def render_limits(spec: ContainerSpec) -> dict[str, str]:
    """What `cgroups.read_limits` says of a container whose limits are as its spec wants them."""
    resources = render_resources(spec.resources)
    page = os.sysconf("SC_PAGE_SIZE")
    memory, cpu = resources.get("memory"), resources.get("cpu")
    return {
        "pids": str(resources["pids"]["limit"]),
        "memory": str(memory["limit"] // page * page) if memory else "max",
        "cpu": f"{cpu['quota']}/{cpu['period']}" if cpu else "max",
    }
