"""Health of what runs: probed in its own time, restarted later and later, told once."""

import itertools

import pytest

from controller.conftest import Controlled
from reconciler.controller.probes import Probes
from reconciler.verbs.look import look

KEY = "container/blog/web/1"
CHECK = "    healthcheck: {{test: [CMD, ask], interval: 1s, retries: 3{more}}}\n"


class Probed:
    """Probes over the controller of the fixtures, with a clock of their own."""

    def __init__(self, controlled: Controlled) -> None:
        self.controlled = controlled
        self.now = 1000.0
        self.probes = Probes(
            controlled.root, say=controlled.keeper.say, add=lambda *_: self.follow(), clock=lambda: self.now
        )
        self.follow()

    def follow(self) -> None:
        self.probes.follow(look(self.controlled.root))

    @property
    def starts(self) -> int:
        return sum(call == f"start {KEY}" for call in self.controlled.machine.calls)

    def run(self, seconds: float) -> list[float]:
        """Probe in time; when it was restarted, in seconds from now."""
        began, restarted = self.now, []
        while self.now < began + seconds:
            before = self.starts
            again = self.probes.work(KEY)
            if self.starts > before:
                restarted.append(self.now - began)
            if again is None:
                break
            self.now += again
            self.controlled.machine.now += again
        return restarted

    def sicken(self, *, healthy: bool = False) -> None:
        for published in self.controlled.machine.content.values():
            published.healthy = healthy


MANIFEST = """\
apiVersion: reconcile/v1
name: blog
containers:
  web:
    image: box:1
    command: [a]
    restart: always
"""


def begin(controlled: Controlled, more: str = "") -> Probed:
    (controlled.folder / "blog.yaml").write_text(MANIFEST + CHECK.format(more=more))
    controlled.run(3)
    assert controlled.commands() == {"blog": "a"}
    controlled.notes()
    return Probed(controlled)


def test_what_is_well_is_probed_and_left(controlled: Controlled) -> None:
    probed = begin(controlled)
    assert probed.run(600) == []
    assert controlled.notes() == []
    assert look(controlled.root).observation.statuses[KEY].health == "healthy"


def test_what_stays_sick_is_restarted_later_and_later_and_told_once_each(controlled: Controlled) -> None:
    probed = begin(controlled)
    probed.run(5)
    probed.sicken()
    restarts = probed.run(400)
    gaps = [later - earlier for earlier, later in itertools.pairwise(restarts)]
    assert restarts[0] <= 4
    for gap, least in zip(gaps, (10, 20, 40, 80, 160), strict=False):
        assert least <= gap <= least + 6
    notes = controlled.notes()
    assert len(notes) <= 2 * len(restarts) + 1
    assert all("container/blog/web/1: unhealthy: made unhealthy" in note for note in notes)
    probed.sicken(healthy=True)
    assert probed.run(1300) == []
    assert controlled.notes() == ["container/blog/web/1: healthy again"]
    probed.sicken()
    assert probed.run(8)  # It was well for long: no patience is left over from before.


def test_on_unhealthy_nothing_is_told_once_and_left(controlled: Controlled) -> None:
    probed = begin(controlled, ", on_unhealthy: nothing")
    probed.run(5)
    probed.sicken()
    assert probed.run(300) == []
    assert controlled.notes() == ["container/blog/web/1: unhealthy: made unhealthy"]


@pytest.mark.parametrize("gone", ["deleted", "held"])
def test_what_is_gone_or_held_is_probed_no_more(controlled: Controlled, gone: str) -> None:
    from reconciler.verbs.containers import stop

    probed = begin(controlled)
    if gone == "held":
        stop(controlled.root, "blog/web", emit=lambda _: None)
    else:
        controlled.machine.vanish(KEY)
    probed.follow()
    assert probed.probes.work(KEY) is None
