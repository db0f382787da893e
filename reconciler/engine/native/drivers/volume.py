"""The volume driver: managed directories of one root, by the ids that they were granted."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes import managed
from reconciler.engine.protocol import Unpacker, Uses
from reconciler.model.events import Emit
from reconciler.model.key import Key
from reconciler.model.observation import PRESENT, Part, Phase, Status, altered, missing
from reconciler.model.record import Made
from reconciler.model.spec import VolumeSpec

if TYPE_CHECKING:
    from tarfile import TarFile


class VolumeDriver:
    """Volumes. Data goes only with `delete(…, data=True)`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it; data that is there stays."""
        managed.ensure_volume(self.layout, made.grants.volume_id, key=made.key, spec=_spec(made), created=made.created_at)
        return Status(phase=Phase.PRESENT, parts={"data": PRESENT, "file": PRESENT})

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Labels, and whatever of it is missing."""
        return self.create(new, uses=uses, emit=emit)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Forget it; with `data` its content goes too."""
        if data and made.grants.volume_id:
            managed.remove_volume(self.layout, made.grants.volume_id)

    def measure(self, made: Made) -> int:
        """Bytes of its data, by walking it; 0 where it is not there."""
        return managed.volume_size(self.layout, made.grants.volume_id) if made.grants.volume_id else 0

    def pack(self, made: Made, tar: "TarFile") -> Sequence[str]:
        """As the protocol says."""
        from reconciler.engine.native.volumes import archive  # tarfile is what only a backup needs

        return archive.pack_volume(self.layout, made.grants.volume_id, tar)

    def unpack(self, made: Made) -> Unpacker:
        """As the protocol says."""
        from reconciler.engine.native.volumes import archive

        return archive.open_unpacker(self.layout, made.grants.volume_id)

    def observe(self, mades: Iterable[Made], glimpse: Glimpse) -> dict[Key, Status]:
        """Whether the data is there, and what the file beside it says."""
        return {made.key: self._observe(made) for made in mades}

    def _observe(self, made: Made) -> Status:
        volume_id = made.grants.volume_id
        empty = managed.is_empty(self.layout, volume_id) if volume_id else None
        if empty is None:
            return Status(phase=Phase.MISSING)
        return Status(phase=Phase.PRESENT, parts={"data": PRESENT, "file": self._observe_file(made)}, empty=empty)

    def _observe_file(self, made: Made) -> Part:
        found = managed.read_volume(self.layout, made.grants.volume_id)
        if found is None:
            return missing()
        if found.key != made.key:
            return altered("key", made.key, found.key)
        return PRESENT


def _spec(made: Made) -> VolumeSpec:
    assert isinstance(made.spec, VolumeSpec)
    return made.spec
