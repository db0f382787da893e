"""Docker's rules of health: what counts, what is due when."""

import pytest

from reconciler.model.health import (
    NO_STREAK,
    Streak,
    choose_impatient_pause,
    choose_pause,
    first_due,
    is_unhealthy,
    note_probe,
)
from reconciler.model.spec import Healthcheck

CHECK = Healthcheck(test=("CMD", "x"), interval=10.0, retries=2)
SLOW = Healthcheck(test=("CMD", "x"), interval=10.0, retries=2, start_period=60.0, start_interval=1.0)


def after(check: Healthcheck, *probes: tuple[float, bool]) -> Streak:
    streak = NO_STREAK
    for age, healthy in probes:
        streak = note_probe(streak, check, healthy=healthy, age=age)
    return streak


@pytest.mark.parametrize(
    ("check", "probes", "failures"),
    [
        (CHECK, [(10, False)], 1),
        (CHECK, [(10, False), (20, False)], 2),
        (CHECK, [(10, False), (20, True), (30, False)], 1),
        (CHECK, [(0.1, False), (5, False)], 0),
        (CHECK, [(0.1, True), (5, False)], 1),
        (SLOW, [(1, False), (2, False), (59, False)], 0),
        (SLOW, [(1, False), (60, False)], 1),
        (SLOW, [(1, True), (2, False), (3, False)], 2),
    ],
)
def test_failures_that_count(check: Healthcheck, probes: list[tuple[float, bool]], failures: int):
    assert after(check, *probes).failures == failures
    assert is_unhealthy(check, after(check, *probes)) == (failures >= 2)


def test_first_success_ends_the_start_period():
    assert choose_pause(SLOW, NO_STREAK, age=5) == 1.0
    assert choose_pause(SLOW, after(SLOW, (4, True)), age=5) == 10.0
    assert choose_pause(SLOW, NO_STREAK, age=60) == 10.0
    assert after(SLOW, (4, True)).was_healthy


@pytest.mark.parametrize("check", [CHECK, SLOW])
def test_who_waits_looks_early_and_then_exactly_when_docker_does(check: Healthcheck):
    age, ages = 0.1, []
    while age < 40:
        ages.append(round(age, 3))
        age += choose_impatient_pause(check, NO_STREAK, age=age)
    regular = [one for one in ages if one >= first_due(check)]
    assert ages[:4] == [0.1, 0.2, 0.4, 0.8]
    step = 10.0 if check is CHECK else 1.0
    assert regular[:3] == [first_due(check) + step * n for n in range(3)]
