"""Finds containers that end again and again, so that their exit commands start them again later and later. Pure."""

from reconciler.model.key import Key, split_key
from reconciler.model.observation import Observation
from reconciler.plan.exits import LASTING, ends_again_and_again, render_code


def find_storms(observation: Observation, *, now: float) -> dict[Key, str]:
    """What is to be told of each, by key."""
    return {
        key: f"{key} ends again and again (with {render_code(status.exit_code)}): it is started again, later and later"
        f" while it runs for less than {LASTING:.0f}s;"
        f" `reconcile logs {split_key(key).stack}/{split_key(key).name}` may say why"
        for key, status in observation.statuses.items()
        if ends_again_and_again(status, now=now)
    }
