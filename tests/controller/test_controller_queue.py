"""Keys, each once and by one worker; what fails waits and keeps nobody waiting."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.queue import FIRST_DELAY, JITTER, LONGEST_DELAY, WorkQueue


def queue(chance: float = 0.0) -> WorkQueue:
    return WorkQueue(chance=lambda: chance)


def test_key_asked_for_often_is_looked_at_once_and_at_the_earliest() -> None:
    made = queue()
    for at in (5.0, 3.0, 9.0):
        made.add("stack blog", at)
    assert made.next_at() == 3.0
    assert made.take(2.9) is None
    assert made.take(3.0) == "stack blog"
    assert made.take(100.0) is None


def test_key_that_is_being_looked_at_is_looked_at_once_more_afterwards() -> None:
    made = queue()
    made.add("a", 0.0)
    assert made.take(0.0) == "a"
    made.add("a", 1.0)
    assert made.take(2.0) is None
    made.done("a")
    assert made.take(2.0) == "a"


def test_failures_double_the_delay_up_to_a_bound_and_are_forgotten_after_a_success() -> None:
    made, delays, now = queue(), [], 0.0
    made.add("a", now)
    for _ in range(12):
        made.renew("b", now)
        assert {made.take(now), made.take(now)} == {"a", "b"}
        made.done("b")
        delays.append(made.fail("a", now))
        made.add("a", now)  # Whatever happens meanwhile, it is let be.
        made.add("b", now)
        assert made.take(now + delays[-1] - 0.01) == "b"
        made.done("b")
        assert made.take(now + delays[-1] - 0.01) is None
        now += delays[-1]
    assert delays[:4] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    made.take(now)
    made.done("a")
    made.add("a", now)
    made.take(now)
    assert made.fail("a", now) == FIRST_DELAY


def test_a_change_makes_what_failed_due_now() -> None:
    made = queue(chance=1.0)
    made.add("a", 0.0)
    made.take(0.0)
    assert made.fail("a", 0.0) == FIRST_DELAY * (1 + JITTER)
    assert made.take(0.5) is None
    made.renew("a", 0.5)
    assert made.take(0.5) == "a"
    assert made.fail("a", 0.5) == FIRST_DELAY * (1 + JITTER)


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "renew", "take", "done", "fail", "drop"]), st.sampled_from("abc"), st.floats(0, 3)),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_and_nothing_is_worked_on_twice(steps: list[tuple[str, str, float]]) -> None:
    made, now, wanted, working = queue(), 0.0, set[str](), set[str]()
    for step, key, passed in steps:
        now += passed
        if step in ("add", "renew"):
            getattr(made, step)(key, now)
            wanted.add(key)
        elif step == "drop":
            made.drop(key)
            wanted.discard(key)
        elif step == "take":
            taken = made.take(now)
            if taken is not None:
                assert taken in wanted
                assert taken not in working
                working.add(taken)
                wanted.discard(taken)
        elif key in working:
            working.discard(key)
            if step == "fail":
                made.fail(key, now)
                wanted.add(key)
            else:
                made.done(key)
    assert made.working == working
    for key in working:
        made.done(key)
    now += 10 * LONGEST_DELAY
    left = set()
    while (taken := made.take(now)) is not None:
        left.add(taken)
    assert left == wanted
