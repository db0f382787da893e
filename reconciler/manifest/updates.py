"""`update:` of a stack and of its containers -> how a new version takes the old one's place. A step of `desire.py`.

What the stack says is folded into the containers that say nothing else. Start-first means that two incarnations run side
by side, so whatever only one can have is a fault here as far as the text tells; `plan/updates.py` knows the rest.
"""

from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path
from reconciler.manifest.replicas import SHARED
from reconciler.model.key import Kind, named_key
from reconciler.model.spec import START_FIRST, STOP_FIRST, ContainerSpec, NetworkSpec, Update, VolumeSpec


def read_update(draft: Draft, written: dict[str, Any] | None) -> Update:
    """What a container says, over what its stack says."""
    said = {**(draft.data.get("update") or {}), **(written or {})}
    order = START_FIRST if said.get("order") == START_FIRST else STOP_FIRST
    return Update(order=order, parallel=said.get("parallel", 1), on_failure=said.get("on_failure", ""))


def blame_start_first(draft: Draft) -> None:
    """Containers that can't run twice, and say that they are to be replaced so."""
    for name, spec in draft.containers.items():
        if spec.update.order != START_FIRST:
            continue
        written = draft.section("containers")[name]
        why = _hindrance(draft, spec)
        if why:
            own = "order" in (written.get("update") or {})
            path: Path = ("containers", name, "update", "order") if own else ("update", "order")
            hint = "take it out, or write order: stop-first" if own else f"write update: {{order: stop-first}} for {name}"
            draft.blame(path, f"{name} can't start first: {why}", hint)


def _hindrance(draft: Draft, spec: ContainerSpec) -> str:
    """Why two incarnations can't run side by side; empty when they can."""
    if spec.job:
        return "a job is done once, and nothing takes its place while it runs"
    for name, attachment in spec.networks.items():
        network = draft.specs.get(named_key(Kind.NETWORK, draft.name, name))
        if attachment.ipv4:
            return f"its address on {name}, {attachment.ipv4}, can't be had twice"
        if isinstance(network, NetworkSpec) and network.driver == "host":
            return "on the host network old and new would listen on the same ports"
    if spec.ports:
        return f"its host port {next(iter(spec.ports))} can't be had twice"
    for target, mount in spec.mounts.items():
        volume = draft.specs.get(named_key(Kind.VOLUME, draft.name, mount.source)) if mount.type == "volume" else None
        if isinstance(volume, VolumeSpec) and not mount.read_only and volume.access != SHARED:
            return f"old and new would both write the volume {mount.source} (at {target})"
    return ""
