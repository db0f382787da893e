"""Finds containers that end again and again, so that their exit commands start them again later and later. Pure.

A pause as long as that follows only several short runs in a row; it is over once one of them has lasted.
"""

from collections.abc import Collection

from reconciler.model.key import Key
from reconciler.model.observation import Observation, Phase, Status
from reconciler.plan.exits import render_code

PAUSE = 0.75
"""Seconds: the fourth pause in a row is as long (`runtime/policy.py`: 0.1 s, doubled)."""
LASTING = 10.0
"""Seconds of a run that end it."""


def find_storms(observation: Observation, known: Collection[Key], *, now: float) -> dict[Key, str]:
    """What is to be told of each, by key; `known` are those of the look before."""
    return {
        key: f"{key} ends again and again (with {render_code(status.exit_code)}): it is started again later and later,"
        f" a minute apart at most; `reconcile logs {key.split('/')[1]}/{key.split('/')[2]}` may say why"
        for key, status in observation.statuses.items()
        if _begins(status) or (key in known and _goes_on(status, now))
    }


def _begins(status: Status) -> bool:
    return status.restarting and status.restart_at - status.finished_at >= PAUSE


def _goes_on(status: Status, now: float) -> bool:
    return status.restarting or (status.phase is Phase.RUNNING and now - status.started_at < LASTING)
