"""What a verb that changes something needs of whoever asked for it: where events go, the plan shown, a yes."""

from collections.abc import Callable

from msgspec import Struct

from reconciler.model.events import Emit, silent
from reconciler.model.plan import Plan


def _show_nothing(plan: Plan) -> None:  # noqa: ARG001 the signature of `show`
    return


def _nobody(why: str) -> bool | None:  # noqa: ARG001 the signature of `confirm`
    return None


def _stays() -> bool:
    return False


class Face(Struct, frozen=True, kw_only=True):
    """A command line, a controller, an API."""

    emit: Emit = silent
    show: Callable[[Plan], None] = _show_nothing
    """Called with every plan before anything is changed."""
    confirm: Callable[[str], bool | None] = _nobody
    """Asked with why the plan just shown needs a yes: yes, no, or None where nobody can be asked."""
    gone: Callable[[], bool] = _stays
    """Whether whoever asked has gone or wants no more: what has begun is finished, and nothing else begins."""
