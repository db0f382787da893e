"""The decision table of stops and pauses: hold, what is seen, what is asked; each cell a plan."""

import pytest

from plan.builders import NOW, WEB, Known, container, stack, text
from reconciler.model.observation import Phase
from reconciler.model.record import Hold

BLOG = stack(web=container())
SEEN = {
    "runs": (Phase.RUNNING, None),
    "paused": (Phase.PAUSED, None),
    "exited": (Phase.EXITED, 143),
    "created": (Phase.CREATED, None),
    "missing": (Phase.MISSING, None),
}
TABLE = {
    # hold, seen: plan, plan --resume, plan with a field that replaces
    ("none", "runs"): ("", "", "replace field-changed"),
    ("none", "paused"): ("update drifted", "update drifted", "replace field-changed"),
    ("none", "exited"): ("restart not-running", "restart not-running", "replace field-changed"),
    ("none", "created"): ("create not-running", "create not-running", "replace field-changed"),
    ("none", "missing"): ("create gone-from-machine", "create gone-from-machine", "create gone-from-machine"),
    ("stop", "runs"): ("", "update resumed", "replace field-changed"),
    ("stop", "paused"): ("", "update resumed", "replace field-changed"),
    ("stop", "exited"): ("", "restart resumed", "replace field-changed"),
    ("stop", "created"): ("", "create resumed", "replace field-changed"),
    ("stop", "missing"): ("", "create resumed", ""),
    ("pause", "runs"): ("", "update resumed", "replace field-changed"),
    ("pause", "paused"): ("", "update resumed", "replace field-changed"),
    ("pause", "exited"): ("", "restart resumed", "replace field-changed"),
    ("pause", "created"): ("", "create resumed", "replace field-changed"),
    ("pause", "missing"): ("", "create resumed", ""),
}


def known(hold: str, seen: str) -> Known:
    phase, code = SEEN[seen]
    found = Known.of(BLOG).seen(WEB, phase, exit_code=code)
    return found if hold == "none" else found.recorded(WEB, hold=Hold(kind=hold, who="ann", when=NOW - 300, why="disk"))


@pytest.mark.parametrize(("hold", "seen"), TABLE)
def test_hold_and_what_is_seen_decide(hold: str, seen: str):
    machine = known(hold, seen)
    changed = stack(web=container(command=("other",)))
    plans = (machine.plan(BLOG), machine.plan(BLOG, resume=True), machine.plan(changed))
    found = tuple(" ".join(f"{a.verb.value} {a.reason.value}" for a in plan.actions if a.key == WEB) for plan in plans)
    assert found == TABLE[hold, seen]
    lines = [line.text for line in plans[0].lines if line.key == WEB]
    assert len(lines) == (hold != "none")
    assert not lines or lines[0].startswith(f"held: {hold} by ann 5m ago (disk)")


def test_end_of_a_hold_is_named_after_its_kind():
    assert "`reconcile unpause` or apply --resume ends it" in text(known("pause", "paused").plan(BLOG))
    assert "`reconcile start` or apply --resume ends it" in text(known("stop", "exited").plan(BLOG))


def test_pause_of_nobodys_is_shown_as_what_it_is():
    assert "/parts/process  paused → running  (in-place)" in text(known("none", "paused").plan(BLOG))


def test_note_says_how_it_stays():
    changed = stack(web=container(labels={"a": "b"}))
    assert "stays paused by its hold (pause by ann)" in text(known("pause", "paused").plan(changed))
    changed = stack(web=container(command=("other",)))
    assert "stays stopped by its hold (pause by ann)" in text(known("pause", "paused").plan(changed))
