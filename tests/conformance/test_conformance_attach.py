"""Attach and wait: a line is open before a container begins, and its end is told, on every engine."""

import threading

import pytest
from grounds import Ground

from reconciler.model.errors import Failed
from reconciler.model.observation import Phase
from reconciler.model.record import Made


def lone(ground: Ground, **spec: object) -> Made:
    """A prepared container on a network of its own."""
    image, network = ground.image(), ground.network()
    ground.up(image, network)
    made = ground.container("web", image, network, **spec)
    ground.prepare(made)
    return made


def test_created_is_called_once_before_it_begins_and_not_for_one_that_runs(ground: Ground) -> None:
    web, seen = lone(ground), []

    def created() -> None:
        seen.append(ground.engine.containers.states([web])[web.incarnation].phase)

    ground.engine.containers.start(web, uses=ground.uses, created=created)
    ground.engine.containers.start(web, uses=ground.uses, created=created)
    assert seen == [Phase.CREATED]
    assert ground.status(web).phase is Phase.RUNNING


def test_created_that_fails_fails_the_start(ground: Ground) -> None:
    web = lone(ground)

    def created() -> None:
        raise Failed("nobody can attach")

    with pytest.raises(Failed):
        ground.engine.containers.start(web, uses=ground.uses, created=created)
    assert ground.status(web).phase is not Phase.RUNNING


def test_line_that_was_opened_before_the_start_tells_the_end(ground: Ground) -> None:
    web, lines = lone(ground, restart="no"), []
    ground.engine.containers.start(web, uses=ground.uses, created=lambda: lines.append(ground.engine.inside.attach(web)))
    ends = threading.Timer(0.1, ground.stop, (web,))
    ends.start()
    ended = lines[0].relay(stdin=False)
    lines[0].close()
    ends.join()
    assert ended.exit_code == ground.status(web).exit_code


def test_nobody_attaches_to_what_does_not_run(ground: Ground) -> None:
    web = lone(ground, restart="no")
    ground.start(web)
    ground.stop(web)
    with pytest.raises(Failed, match="attach"):
        ground.engine.inside.attach(web)


def test_wait_ends_with_the_container_or_when_its_time_is_up(ground: Ground) -> None:
    web = lone(ground, restart="no")
    ground.start(web)
    assert ground.engine.inside.wait(web, seconds=0.05).phase is Phase.RUNNING
    ends = threading.Timer(0.1, ground.stop, (web,))
    ends.start()
    ended = ground.engine.inside.wait(web, seconds=30)
    ends.join()
    assert (ended.phase, ended.exit_code) == (Phase.EXITED, ground.status(web).exit_code)
    assert ground.engine.inside.wait(web, seconds=30).phase is Phase.EXITED
