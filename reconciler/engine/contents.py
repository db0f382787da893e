"""Configs and secrets as an engine has them: nothing on the machine. Every engine may use this driver.

What is in them is kept by the store; the containers that see one have a copy, which is a part of them.
"""

from reconciler.engine.protocol import Uses
from reconciler.model.errors import Failed
from reconciler.model.events import Emit
from reconciler.model.observation import Phase, Status
from reconciler.model.record import Made

PRESENT = Status(phase=Phase.PRESENT)


class ContentDriver:
    """The driver of configs and secrets."""

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Its record is all there is to it."""
        return PRESENT

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """As create."""
        return PRESENT

    def delete(self, made: Made, *, data: bool = False) -> None:
        """What is in it goes once no record and no revision names it."""


def keep_nothing(digest: str) -> bytes:
    """The contents of an engine that was opened over no store."""
    raise Failed(f"the content {digest} is not kept here", hint="apply again: it is read from the manifest's files")
