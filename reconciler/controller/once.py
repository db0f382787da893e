"""`serve --once`: one look at every source, and at every stack that it renews. For a timer, and for a pipeline.

The keeper is the controller's; there is no queue, no watcher and no probe, and what fails is not tried again.
"""

from collections.abc import Callable, Iterator

from reconciler.controller.keeper import Keeper
from reconciler.controller.serve import open_sources
from reconciler.controller.settings import Settings
from reconciler.model.errors import ReconcileError, Refused, RolledBack
from reconciler.model.events import AnyEvent
from reconciler.verbs.root import Root

FAILED, BACK, BAD = 1, RolledBack.exit_code, 65


def serve_once(root: Root, settings: Settings, *, tell: Callable[[AnyEvent], None]) -> int:
    """Look, apply, and say by an exit code how it went: 0 where all is as the sources want it.

    1: a source can't be read or is not taken, or a stack failed; 3, 5: a rule, an approval that is due or a lock kept one;
    4: one went back; 65: a manifest is bad. Of several the lowest. Raises LockTimeout where a controller has the root.
    """
    with root.owned():
        due: list[str] = []
        keeper = Keeper(
            root, open_sources(root.path, settings), settings.policy,
            renew=due.append, add=lambda key, after: None if after else due.append(key), tell=tell,
        )  # fmt: skip
        for name in keeper.sources:
            keeper.work(f"source {name}")
        return min([*_work(keeper, dict.fromkeys(due)), *_judge_sources(keeper)], default=0)


def _work(keeper: Keeper, keys: dict[str, None]) -> Iterator[int]:
    for key in keys:
        try:
            keeper.work(key)
        except ReconcileError as error:
            yield error.exit_code
        else:
            held = keeper.standings.get(key.partition(" ")[2])
            if held is not None and held.problem:  # That is no error: it is back where it was.
                yield BACK
            elif held is not None and held.waits:
                yield Refused.exit_code


def _judge_sources(keeper: Keeper) -> Iterator[int]:
    for sighting in keeper.sightings.values():
        if sighting.broken or sighting.stale or sighting.unsettled:
            yield FAILED
        if sighting.problems:
            yield BAD
