"""A stack as wanted, as recorded, as seen: for tests of the planner and of what stands on it.

Builders have one visible difference each: `stack(web=container(command=("a",)))`. `Known.of(stack)` is that stack applied
and running; `known.plan(stack)` plans another wish on top of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from reconciler.model.key import Key, Kind, container_key, kind_of, make_key, split_key
from reconciler.model.observation import Observation, Part, Phase, Status
from reconciler.model.plan import Plan
from reconciler.model.record import Desired, Endpoint, Grants, Hold, ImageFact, Record, Stack, StackRecord
from reconciler.model.spec import Attachment, ContainerSpec, Dependency, ImageSpec, Mount, NetworkSpec, Spec, VolumeSpec
from reconciler.plan.complete import complete_specs
from reconciler.plan.decide import PlanOptions
from reconciler.plan.delete import make_delete_plan
from reconciler.plan.explain import render_plan
from reconciler.plan.make import make_drift_plan, make_plan

NOW = 1_700_000_000.0
WEB = container_key("blog", "web")
CACHE = container_key("blog", "cache")
FRONT = make_key(Kind.NETWORK, "blog", "front")
DATA = make_key(Kind.VOLUME, "blog", "data")
APP = make_key(Kind.IMAGE, "blog", "app")


def digest(letters: str) -> str:
    """A digest that a reader recognizes by its first letters."""
    return "sha256:" + letters.ljust(64, "0")


AA, BB = digest("aa"), digest("bb")


def container(
    image: str = "app", *, networks: tuple[str, ...] | dict[str, Attachment] = (), **fields: Any
) -> ContainerSpec:
    """A container on no network unless some are named."""
    attachments = networks if isinstance(networks, dict) else {name: Attachment() for name in networks}
    if "depends_on" in fields:
        fields["depends_on"] = after(fields["depends_on"])
    return ContainerSpec(image=image, networks=attachments, **fields)


def after(conditions: Mapping[str, str | Dependency]) -> dict[str, Dependency]:
    """Dependencies from conditions."""
    return {name: Dependency(condition=asked) if isinstance(asked, str) else asked for name, asked in conditions.items()}


def volume_at(target: str, source: str, **fields: Any) -> dict[str, Mount]:
    """One mount of a volume."""
    return {target: Mount(type="volume", source=source, **fields)}


def stack(
    name: str = "blog",
    *,
    images: Mapping[str, ImageSpec] | None = None,
    networks: Mapping[str, NetworkSpec] | None = None,
    volumes: Mapping[str, VolumeSpec] | None = None,
    origin: str = "name:blog",
    **containers: ContainerSpec,
) -> Stack:
    """A stack; the image `app` and every network that a container names are declared unless said otherwise."""
    named = {network for spec in containers.values() for network in spec.networks}
    mounted = {mount.source for spec in containers.values() for mount in spec.mounts.values() if mount.type == "volume"}
    things: dict[Key, Spec] = {}
    for image in sorted({spec.image for spec in containers.values()} | {"app"}):
        spec = (images or {}).get(image, ImageSpec(reference=f"registry.test/{image}:1"))
        things[make_key(Kind.IMAGE, name, image)] = spec
    for image, spec in (images or {}).items():
        things[make_key(Kind.IMAGE, name, image)] = spec
    for network in sorted(named | (networks or {}).keys()):
        things[make_key(Kind.NETWORK, name, network)] = (networks or {}).get(network, NetworkSpec())
    for volume in sorted(mounted | (volumes or {}).keys()):
        things[make_key(Kind.VOLUME, name, volume)] = (volumes or {}).get(volume, VolumeSpec())
    for each, spec in containers.items():
        things[container_key(name, each)] = spec
    return Stack(name=name, origin=origin, source=f"{name}.yaml", specs=things)


def with_replicas(wanted: Stack, *, own: str = "", **counts: int) -> Stack:
    """A stack whose containers have so many replicas; each of them has a volume `own` to itself."""
    specs: dict[Key, Spec] = {}
    for key, spec in wanted.specs.items():
        parts = split_key(key)
        if not isinstance(spec, ContainerSpec) or parts.name not in counts:
            specs[key] = spec
            continue
        for index in range(1, counts[parts.name] + 1):
            mounts = {
                target: msgspec.structs.replace(mount, source=f"{own}@{index}") if mount.source == own else mount
                for target, mount in spec.mounts.items()
            }
            specs[container_key(wanted.name, parts.name, index)] = msgspec.structs.replace(spec, mounts=mounts)
            if mounts != spec.mounts:
                specs[make_key(Kind.VOLUME, wanted.name, f"{own}@{index}")] = VolumeSpec()
    specs.pop(make_key(Kind.VOLUME, wanted.name, own), None) if own else None
    return msgspec.structs.replace(wanted, specs=specs)


def desire(*stacks: Stack, facts: Mapping[str, ImageFact] | None = None) -> Desired:
    """Stacks with facts: every image is at digest aa unless `facts` (by image name) says otherwise."""
    images = {
        key: (facts or {}).get(split_key(key).name, ImageFact(digest=AA, local=True))
        for each in stacks
        for key in each.specs
        if kind_of(key) is Kind.IMAGE
    }
    return Desired(stacks=stacks, images=images)


class Known:
    """What is recorded and seen. Each change returns another one."""

    def __init__(
        self,
        *,
        stacks: Mapping[str, StackRecord] | None = None,
        records: Mapping[Key, Record] | None = None,
        statuses: Mapping[Key, Status] | None = None,
    ) -> None:
        self.stacks = dict(stacks or {})
        self.records = dict(records or {})
        self.statuses = dict(statuses or {})

    @classmethod
    def of(cls, *stacks: Stack, facts: Mapping[str, ImageFact] | None = None) -> "Known":
        """These stacks applied: all of it recorded, there, and running."""
        desired = desire(*stacks, facts=facts)
        completed = complete_specs(desired, {})
        records, statuses = {}, {}
        for number, (key, spec) in enumerate(completed.specs.items()):
            image = _image_of(key, spec, completed.pins)
            records[key] = Record(key=key, spec=spec, image=image, grants=_grants(spec, number), serial=1)
            is_container = kind_of(key) is Kind.CONTAINER
            statuses[key] = Status(phase=Phase.RUNNING, pid=100 + number) if is_container else Status(phase=Phase.PRESENT)
        owners = {each.name: StackRecord(name=each.name, origin=each.origin, serial=7, revision=1) for each in stacks}
        return cls(stacks=owners, records=records, statuses=statuses)

    @property
    def observation(self) -> Observation:
        return Observation(statuses=self.statuses)

    def seen(self, key: Key, phase: Phase | None = None, **fields: Any) -> "Known":
        """With another status of one resource."""
        status = self.statuses.get(key, Status(phase=Phase.MISSING))
        changed = msgspec.structs.replace(status, phase=phase or status.phase, **fields)
        return Known(stacks=self.stacks, records=self.records, statuses={**self.statuses, key: changed})

    def gone(self, key: Key) -> "Known":
        """With nothing of one resource left on the machine."""
        return Known(stacks=self.stacks, records=self.records, statuses={**self.statuses, key: Status(phase=Phase.MISSING)})

    def drifted(self, key: Key, **parts: Part) -> "Known":
        """With parts of one resource removed or altered; `__` in a name stands for a slash."""
        return self.seen(key, parts={name.replace("__", "/"): part for name, part in parts.items()})

    def recorded(self, key: Key, **fields: Any) -> "Known":
        """With another record of one resource."""
        record = msgspec.structs.replace(self.records[key], **fields)
        return Known(stacks=self.stacks, records={**self.records, key: record}, statuses=self.statuses)

    def held(self, key: Key, **fields: Any) -> "Known":
        """With a container stopped by hand five minutes ago."""
        hold = Hold(kind="stop", who="root", when=NOW - 300, **fields)
        return self.recorded(key, hold=hold).seen(key, Phase.EXITED, exit_code=143)

    def without(self, *keys: Key) -> "Known":
        """With nothing known of some resources."""
        return Known(
            stacks=self.stacks,
            records={key: record for key, record in self.records.items() if key not in keys},
            statuses={key: status for key, status in self.statuses.items() if key not in keys},
        )

    def plan(self, *stacks: Stack, facts: Mapping[str, ImageFact] | None = None, **options: Any) -> Plan:
        """The plan from here to these stacks."""
        return self.plan_desired(desire(*stacks, facts=facts), **options)

    def plan_desired(self, desired: Desired, *, effect_of: Callable[..., Any] | None = None, **options: Any) -> Plan:
        """The plan from here to a wish."""
        more = {"effect_of": effect_of} if effect_of else {}
        return make_plan(
            desired,
            stacks=self.stacks,
            records=self.records,
            observation=self.observation,
            options=PlanOptions(**options),
            now=NOW,
            **more,
        )

    def plan_drift(self) -> Plan:
        """The plan from here to what is recorded."""
        return make_drift_plan(stacks=self.stacks, records=self.records, observation=self.observation, now=NOW)

    def plan_delete(self, *keys: Key, volumes: tuple[Key, ...] = (), wanted: Sequence[Key] = ()) -> Plan:
        """The plan that deletes these keys, or all."""
        return make_delete_plan(
            keys or tuple(self.records),
            volumes=volumes,
            wanted=wanted,
            stacks=self.stacks,
            records=self.records,
            observation=self.observation,
        )


def text(plan: Plan) -> str:
    """A plan as the golden texts have it."""
    return "\n".join(render_plan(plan))


def golden(expected: str) -> str:
    """A golden text as written in a test: without the margin and the empty first and last line."""
    lines = expected.strip("\n").rstrip().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


def _image_of(key: Key, spec: Spec, pins: Mapping[Key, ImageFact]) -> str:
    if isinstance(spec, ContainerSpec):
        key = make_key(Kind.IMAGE, split_key(key).stack, spec.image)
    return pins[key].digest if key in pins else ""


def _grants(spec: Spec, number: int) -> Grants:
    if not isinstance(spec, ContainerSpec):
        return Grants()
    endpoints = {
        name: Endpoint(
            address=attachment.ipv4 or f"10.40.{place}.{number + 2}",
            mac=f"02:00:00:00:{place:02x}:{number % 256:02x}",
            link=f"v{number}{place}",
        )
        for place, (name, attachment) in enumerate(sorted(spec.networks.items()))
    }
    return Grants(endpoints=endpoints)
