"""Turns the results of probes into a container's health, and keeps the last one in its bundle with its time.

inside.py probes and writes; status.py reads. A result says nothing about another run of the container, and nothing once
it is old: health that nobody looks at is unknown.
"""

from typing import Any

from reconciler.engine.native.runtime import bundle
from reconciler.model.observation import Health
from reconciler.model.spec import Healthcheck

_NANOSECONDS = 1e9
_STALE_AFTER = 2.0
"""Intervals, after which a result counts no more."""


def choose_check(own: Healthcheck | None, image: Any) -> Healthcheck | None:
    """The check that holds: the manifest's, else the image's HEALTHCHECK; None for none and for NONE.

    `image` is the `Healthcheck` object of an image config; its durations are nanoseconds, and 0 is the default.
    """
    check = own if own is not None else _from_image(image)
    return None if check is None or not check.test or check.test[0] == "NONE" else check


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


def note_result(path: str, *, pid: int, healthy: bool, at: float, text: str) -> None:
    """Keep the result of a probe of the run whose first process is `pid`."""
    before = bundle.read_json(path, bundle.HEALTH)
    same_run = before.get("pid") == pid
    result = {
        "pid": pid,
        "at": at,
        "streak": 0 if healthy else (int(before.get("streak", 0)) if same_run else 0) + 1,
        "was_healthy": healthy or (same_run and bool(before.get("was_healthy"))),
        "text": text,
    }
    bundle.write_json(path, bundle.HEALTH, result)


def choose_health(check: Healthcheck | None, result: dict[str, Any], *, pid: int, started_at: float, now: float) -> Health:
    """What a result says now. Docker's rule: unhealthy after `retries` failures in a row, of which those within the start
    period before the first success do not count."""
    if check is None:
        return Health.NONE
    interval = max(check.interval, check.timeout)
    if result.get("pid") != pid or now - result["at"] > _STALE_AFTER * interval:
        return Health.UNKNOWN
    failed = result["streak"] >= check.retries
    if not result["was_healthy"]:
        in_start_period = result["at"] < started_at + check.start_period
        return Health.UNHEALTHY if failed and not in_start_period else Health.STARTING
    return Health.UNHEALTHY if failed else Health.HEALTHY
