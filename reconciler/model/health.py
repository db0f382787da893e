"""Docker's rules of health as pure functions: which check holds, which failures count, when the next probe is due.

One place for whoever probes: an apply that waits, an engine that keeps results, a controller. Ages are seconds since the
container's start, of the moment at which a probe *began* (Docker counts so too).
"""

from msgspec import Struct, structs

from reconciler.model.spec import Healthcheck

HTTP, TCP = "HTTP", "TCP"
"""First words of `test` that no image may use: (HTTP, URL, STATUSES) and (TCP, PORT)."""

EARLY = 0.1
"""Seconds after the start at which somebody who waits looks for the first time."""

USUAL = Healthcheck(test=())
_LONGEST_SAID = 200


class Streak(Struct, frozen=True, kw_only=True):
    """What the probes of one run have come to."""

    failures: int = 0
    """In a row, of those that count."""
    was_healthy: bool = False


NO_STREAK = Streak()


def active_check(check: Healthcheck | None) -> Healthcheck | None:
    """The check that is to be made: None where there is none, or it is switched off, or it is an image's that has none."""
    return None if check is None or not check.test or check.test[0] == "NONE" else check


def merge_checks(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The manifest's check, else the image's; a manifest's without a `test` changes only what it says of the image's.

    In one without `test` a number of 0 means that nothing was said, as in Docker's API.
    """
    if own is None or own.test or image is None:
        return image if own is None else own
    said = {name: getattr(own, name) or getattr(image, name) for name in _NUMBERS}
    return structs.replace(image, on_unhealthy=own.on_unhealthy, **said)


_NUMBERS = ("interval", "timeout", "retries", "start_period", "start_interval")


def first_due(check: Healthcheck) -> float:
    """The age at which Docker would probe for the first time."""
    return check.start_interval if check.start_period > 0 else check.interval


def note_probe(streak: Streak, check: Healthcheck, *, healthy: bool, age: float) -> Streak:
    """A probe that began at `age` has ended. Before the first success, failures within the start period do not count, nor
    do those of probes earlier than Docker makes any; the first success ends the start period."""
    if healthy:
        return Streak(was_healthy=True)
    counts = streak.was_healthy or (age >= check.start_period and age >= first_due(check))
    return structs.replace(streak, failures=streak.failures + counts)


def choose_pause(check: Healthcheck, streak: Streak, *, age: float) -> float:
    """Seconds from the end of a probe to the next, at this age."""
    return check.start_interval if age < check.start_period and not streak.was_healthy else check.interval


def choose_impatient_pause(check: Healthcheck, streak: Streak, *, age: float) -> float:
    """As `choose_pause`, for somebody who waits for the first success: gaps that double until Docker's first is due."""
    first = first_due(check)
    return min(max(EARLY, age), first - age) if age < first else choose_pause(check, streak, age=age)


def last_line(said: str) -> str:
    """Of what a check printed: the end of a traceback says more than its beginning."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:_LONGEST_SAID] if lines else ""


def is_unhealthy(check: Healthcheck, streak: Streak) -> bool:
    """Whether so many failures in a row mean unhealthy."""
    return streak.failures >= check.retries
