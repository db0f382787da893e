"""The volume driver: managed directories of one root, by the ids that they were granted."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.refusals import telling
from reconciler.engine.native.volumes import elsewhere, managed, quota
from reconciler.engine.protocol import Unpacker, Uses
from reconciler.model.events import Emit
from reconciler.model.key import Key
from reconciler.model.observation import MISSING, PRESENT, Part, Phase, Status, altered, missing
from reconciler.model.record import Made
from reconciler.model.spec import VolumeSpec

if TYPE_CHECKING:
    from tarfile import TarFile


@telling("create", "update", "delete", "check")
class VolumeDriver:
    """Volumes. Data goes only with `delete(…, data=True)`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it, and mount what it is; data that is there stays."""
        volume_id, spec = made.grants.volume_id, _spec(made)
        managed.ensure_volume(self.layout, volume_id, key=made.key, spec=spec, created=made.created_at)
        elsewhere.ensure_mounted(self.layout, volume_id, key=made.key, spec=spec)
        if not spec.driver_opts:
            quota.ensure_size(self.layout, volume_id, key=made.key, size=spec.size)
        return Status(phase=Phase.PRESENT, parts={"data": PRESENT, "file": PRESENT})

    def check(self, made: Made) -> None:
        """As the protocol says."""
        if _spec(made).size:
            quota.check_possible(self.layout, key=made.key)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Labels, size, and whatever of it is missing."""
        return self.create(new, uses=uses, emit=emit)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Forget it; with `data` its content goes too. What is mounted as it is let go, and stays where it is."""
        if made.grants.volume_id:
            elsewhere.unmount(self.layout, made.grants.volume_id, key=made.key)
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
        return {made.key: self._observe(made, glimpse) for made in mades}

    def _observe(self, made: Made, glimpse: Glimpse) -> Status:
        volume_id, spec = made.grants.volume_id, _spec(made)
        if spec.driver_opts and volume_id:
            return self._observe_elsewhere(made, glimpse)
        empty = managed.is_empty(self.layout, volume_id) if volume_id else None
        if empty is None:
            return MISSING
        parts = {"data": PRESENT, "file": self._observe_file(made)}
        if spec.size:
            parts["size"] = quota.observe_size(self.layout, volume_id, spec.size)
        return Status(phase=Phase.PRESENT, parts=parts, empty=empty)

    def _observe_elsewhere(self, made: Made, glimpse: Glimpse) -> Status:
        """Without a look into the mount: its server may not answer."""
        data = managed.volume_data(self.layout, made.grants.volume_id)
        if not data.parent.is_dir():
            return MISSING
        mount = elsewhere.observe_mount(_spec(made), glimpse.mounts.get(str(data)))
        return Status(phase=Phase.PRESENT, parts={"file": self._observe_file(made), "mount": mount})

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
