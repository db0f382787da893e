"""Things that bear the root's id and belong to nobody → removed. Left by a crash between a driver's work and its record."""

from reconciler.converge.ground import Ground
from reconciler.converge.view import compose_view
from reconciler.model.events import Emit, Note


def sweep(ground: Ground, emit: Emit) -> None:
    """Remove strays and close what is open for nobody.

    Race: another stack's apply may work now. Its intents were written under the root's lock before its drivers began, so a
    view read under that lock names everything that it makes.
    """
    with ground.lock_root("sweep"):
        with ground.store.read() as tx:
            view = compose_view(tx.records(), tx.intents(), keep_old=True)
        for line in ground.engine.sweep(view):
            emit(Note(text=line))
