"""Turns the results of probes into a container's health, and keeps the last one in its bundle with its time.

inside.py probes and writes; status.py reads. A result says nothing about another run of the container, and nothing once
it is old: health that nobody looks at is unknown.
"""

from typing import Any

from reconciler.engine.native.runtime import bundle
from reconciler.model.health import Streak, active_check, is_unhealthy, merge_checks, note_probe
from reconciler.model.observation import Health
from reconciler.model.spec import Healthcheck

_NANOSECONDS = 1e9
_STALE_AFTER = 2.0
"""Intervals, after which a result counts no more."""


def choose_check(own: Healthcheck | None, image: Any) -> Healthcheck | None:
    """The check that holds: the manifest's, else the image's HEALTHCHECK; None for none and for NONE.

    `image` is the `Healthcheck` object of an image config; its durations are nanoseconds, and 0 is the default.
    """
    return active_check(merge_checks(own, _from_image(image)))


def _from_image(image: Any) -> Healthcheck | None:
    if not isinstance(image, dict) or not isinstance(image.get("Test"), list):
        return None
    names = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval"}
    given: dict[str, Any] = {
        ours: image[theirs] / _NANOSECONDS
        for ours, theirs in names.items()
        if isinstance(image.get(theirs), int | float) and image[theirs] > 0
    }
    if isinstance(image.get("Retries"), int) and image["Retries"] > 0:
        given["retries"] = image["Retries"]
    return Healthcheck(test=tuple(str(word) for word in image["Test"]), **given)


def note_result(
    path: str, check: Healthcheck, state: dict[str, Any], *, healthy: bool, age: float, at: float, text: str
) -> None:
    """Keep the result of a probe, of the run that `state` tells of, which was `age` seconds old then; `at` is when, in
    seconds since the boot."""
    before = bundle.read_json(path, bundle.HEALTH)
    streak = note_probe(_streak_of(before, state["pid"]), check, healthy=healthy, age=age)
    result = {
        "pid": state["pid"],
        "at": at,
        "healthy": healthy,
        "streak": streak.failures,
        "was_healthy": streak.was_healthy,
        "text": text,
    }
    bundle.write_json(path, bundle.HEALTH, result)


def _streak_of(result: dict[str, Any], pid: int) -> Streak:
    """What earlier probes of the same run came to."""
    if result.get("pid") != pid:
        return Streak()
    return Streak(failures=int(result.get("streak", 0)), was_healthy=bool(result.get("was_healthy")))


def choose_health(check: Healthcheck | None, result: dict[str, Any], *, pid: int, now: float) -> Health:
    """What a result says `now`, seconds after the boot: UNKNOWN where there is none of this run, or nobody has probed for a
    while."""
    if check is None:
        return Health.NONE
    if result.get("pid") != pid or not 0 <= now - result["at"] <= _STALE_AFTER * max(check.interval, check.timeout):
        return Health.UNKNOWN
    streak = _streak_of(result, pid)
    if is_unhealthy(check, streak):
        return Health.UNHEALTHY
    return Health.HEALTHY if streak.was_healthy else Health.STARTING
