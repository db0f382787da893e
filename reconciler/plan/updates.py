"""Turns how a container wants to be replaced into how its replace goes, and refuses what would have two write one volume.

Called by `make.py`. What a manifest's text tells was refused by `manifest/updates.py`; an image's VOLUME and another
stack's volume are known here only. Pure.
"""

from collections.abc import Mapping

from reconciler.model.errors import Failed
from reconciler.model.key import Key, Kind, named_key, stack_of
from reconciler.model.observation import Phase
from reconciler.model.plan import Reason, Verb
from reconciler.model.record import Record
from reconciler.model.spec import START_FIRST, ContainerSpec, Mount, Spec, VolumeSpec
from reconciler.plan.graph import Step
from reconciler.plan.scene import Scene, network_keys


def choose_order(step: Step, scene: Scene, *, replaced: frozenset[Key]) -> str:
    """`start-first` for a replace that wants it and has an old one that runs; else empty, for stop-first.

    What is held is only prepared, and a network that is made anew (`replaced`) has stopped its containers before.
    """
    key = step.decision.key
    wanted, recorded = scene.wanted(key), scene.recorded(key)
    if step.verb is not Verb.REPLACE or wanted is None or recorded is None or wanted.update.order != START_FIRST:
        return ""
    record = scene.records[key]
    if record.hold is not None and step.decision.reason is not Reason.RESUMED:
        return ""
    runs = scene.status(key).phase in (Phase.RUNNING, Phase.PAUSED)
    stays = replaced.isdisjoint({*network_keys(key, recorded), *network_keys(key, wanted)})
    return START_FIRST if runs and stays else ""


def check_start_first(specs: Mapping[Key, Spec], records: Mapping[Key, Record]) -> None:
    """Raise Failed for containers that start first and would write a volume together with their old one.

    `records` are those of all stacks, for volumes that are borrowed.
    """
    for key in sorted(specs):
        wanted = specs[key]
        if not isinstance(wanted, ContainerSpec) or wanted.update.order != START_FIRST:
            continue
        for target, mount in sorted(wanted.mounts.items()):
            volume = _volume(key, mount, specs, records)
            if volume is not None and volume.access != "shared" and not mount.read_only:
                raise Failed(
                    f"{key} can't start first: old and new would both write the volume {mount.source} (at {target})",
                    hint="let the volume say access: shared, mount it read_only, or write update: {order: stop-first}",
                )


def _volume(key: Key, mount: Mount, specs: Mapping[Key, Spec], records: Mapping[Key, Record]) -> VolumeSpec | None:
    if mount.type != "volume":
        return None
    volume = named_key(Kind.VOLUME, stack_of(key), mount.source)
    found = specs.get(volume) or (records[volume].spec if volume in records else None)
    return found if isinstance(found, VolumeSpec) else None
