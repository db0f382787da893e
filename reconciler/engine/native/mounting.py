"""What is mounted into a container → where it lies on the host, with what has to be done before it can be mounted.

Config and secret files lie in its bundle, volumes in the root or (with options of their driver) elsewhere, binds where
they say.
"""

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime import bundle, contents, writing
from reconciler.engine.native.volumes import binds, elsewhere, managed
from reconciler.engine.protocol import Uses
from reconciler.model.errors import Failed
from reconciler.model.key import Kind, named_key, stack_of
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Mount, VolumeSpec


def prepare_sources(layout: Layout, path: str, made: Made, uses: Uses) -> dict[str, str]:
    """The host path of each mount that has one, by its target. Raises Failed where one is not there."""
    assert isinstance(made.spec, ContainerSpec)
    contents.check_targets(path, made)
    found = dict(contents.file_paths(path, made.spec))
    for target, mount in sorted(made.spec.mounts.items()):
        if target in found:
            continue
        if mount.type == "volume":
            found[target] = _prepare_volume(layout, path, made, target, mount, uses)
        elif mount.type == "bind":
            source = binds.check_source(str(made.key), target, mount.source)
            found[target] = str(source)
            if mount.subpath:
                found[target] = writing.pin_bind(path, made.key, str(source), mount.subpath, target)
    return found


def _prepare_volume(layout: Layout, path: str, made: Made, target: str, mount: Mount, uses: Uses) -> str:
    key = named_key(Kind.VOLUME, stack_of(made.key), mount.source)
    volume = uses.get(key)
    if volume is None:
        raise Failed(f"{made.key}: mount {key} at {target}: there is no such volume on record")
    volume_id = volume.grants.volume_id
    assert isinstance(volume.spec, VolumeSpec)
    if volume.spec.driver_opts:
        elsewhere.ensure_mounted(layout, volume_id, key=key, spec=volume.spec)
    else:
        managed.copy_up(layout, volume_id, rootfs=f"{path}/{bundle.ROOTFS}", target=target)
    if not mount.subpath:
        return str(managed.volume_data(layout, volume_id))
    held = managed.open_subpath(layout, volume_id, mount.subpath)
    return writing.pin(path, made.key, held, target)


def read_options(made: Made, uses: Uses) -> dict[str, tuple[str, ...]]:
    """What the mounts of volumes that are elsewhere say themselves, by target."""
    assert isinstance(made.spec, ContainerSpec)
    found = {}
    for target, mount in made.spec.mounts.items():
        volume = uses.get(named_key(Kind.VOLUME, stack_of(made.key), mount.source)) if mount.type == "volume" else None
        if volume is not None and isinstance(volume.spec, VolumeSpec) and volume.spec.driver_opts:
            found[target] = elsewhere.kept_options(volume.spec)
    return found
