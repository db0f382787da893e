"""Start, stop, kill, restart: the real runc and conmon, the real exit command."""

import pytest
from bundles import Bundles, wait_for

from reconciler.model.observation import Phase

pytestmark = pytest.mark.root


def test_started_container_runs_and_is_gone_after_the_end(bundles: Bundles) -> None:
    made = bundles.make()
    assert bundles.status(made).phase is Phase.CREATED
    started = bundles.run(made)
    assert started.phase is Phase.RUNNING
    assert bundles.status(made).pid == started.pid
    bundles.end(made)
    assert not bundles.monitors()


def test_killed_container_runs_again_at_once(bundles: Bundles) -> None:
    made = bundles.make()
    first = bundles.run(made)
    bundles.kill(made)
    wait_for(lambda: bundles.status(made).phase is Phase.RUNNING and bundles.status(made).pid != first.pid)
    now = bundles.status(made)
    assert (now.restarts, now.exit_code) == (1, 137)
