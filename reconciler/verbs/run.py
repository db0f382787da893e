"""`run`: a command line → a container of the stack `run`, by the same plan and converge as everything else.

The stack is ours: no manifest has its name, and each `run` adds one container with what it needs and leaves the others
alone. The lock of the stack is held until it runs, not while it runs. `end.py` removes what `--rm` says.
"""

import secrets
import time
from collections.abc import Mapping

from msgspec import Struct, structs

from reconciler.engine.protocol import Line
from reconciler.manifest.command import Flags, read_command
from reconciler.model.errors import ConvergeFailed, Failed, Interrupted, NotFound, ReconcileError
from reconciler.model.key import RUN_STACK, Key, Kind, container_key, kind_of, named_key, split_key
from reconciler.model.plan import Plan
from reconciler.model.record import Made, Record, Stack
from reconciler.model.spec import ContainerSpec, ImageSpec, Spec
from reconciler.plan.decide import PlanOptions
from reconciler.plan.make import make_plan
from reconciler.verbs.apply import ApplyOptions, carry_out, recovered
from reconciler.verbs.clashes import check_clashes, wanted_ports
from reconciler.verbs.end import Attended, end_container
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.nicknames import choose_name
from reconciler.verbs.record import Recorder
from reconciler.verbs.resolve import resolve
from reconciler.verbs.root import Root

ORIGIN = "run"
"""Whose the stack is: nobody's manifest."""


class Started(Struct, frozen=True, kw_only=True):
    """A container that runs."""

    key: Key
    made: Made
    line: Line | None
    """Where it was asked to be attached: what it wrote so far waits there."""
    attended: Attended | None
    """Held where it is to be removed after that."""

    @property
    def name(self) -> str:
        """What people write for it: `run/NAME`."""
        return f"{RUN_STACK}/{split_key(self.key).name}"

    def close(self) -> None:
        """Let go of it."""
        if self.line is not None:
            self.line.close()
        if self.attended is not None:
            self.attended.close()


def start(
    root: Root, flags: Flags, *, environment: Mapping[str, str], folder: str = "/", attach: bool, face: Face
) -> Started:
    """Pull what is missing, make the container and start it. Raises what `run` says with 125 to 127: Usage for flags,
    Failed for a name that is taken, ProgramFailed for a command that does not start; nothing of it is left then."""
    opened: list[Started] = []

    def created(made: Made) -> None:
        held = Attended(root, made.key, timeout=root.lock_timeout) if attach and flags.remove else None
        line = root.engine.inside.attach(made) if attach else None
        opened.append(Started(key=made.key, made=made, line=line, attended=held))

    chosen = structs.replace(flags, name=flags.name or choose_name())
    specs = _read(chosen, environment, folder)
    with root.lock_stacks([RUN_STACK], "run"), Recorder(root, face.emit, [RUN_STACK], "run") as told:
        looked = recovered(root, [RUN_STACK], ports=wanted_ports([_stack(specs)]), emit=told)
        while not flags.name and container_key(RUN_STACK, chosen.name) in looked.records:
            chosen = structs.replace(flags, name=f"{choose_name()}-{secrets.token_hex(2)}")
            specs = _read(chosen, environment, folder)
        key = container_key(RUN_STACK, chosen.name)
        _check_name(key, looked)
        plan = _plan(root, _with_recorded(specs, looked.records), looked)
        face = structs.replace(face, emit=told)
        try:
            carry_out(root, plan, looked, ApplyOptions(wait=False), face=face, tried="run", created=created)
        except ReconcileError as error:
            for started in opened:
                started.close()
            end_container(root, key, emit=told)
            raise _cause(error) from error
        _lease(root, plan)
    return opened[0]


def check(flags: Flags, *, environment: Mapping[str, str], folder: str = "/") -> None:
    """Raise Usage for flags that make no container, before there is a root."""
    _read(structs.replace(flags, name=flags.name or choose_name()), environment, folder)


def _read(flags: Flags, environment: Mapping[str, str], folder: str) -> dict[Key, Spec]:
    return read_command(flags, stack=RUN_STACK, folder=folder, variables=environment)


def _stack(specs: Mapping[Key, Spec]) -> Stack:
    return Stack(name=RUN_STACK, origin=ORIGIN, source="reconcile run", specs=dict(specs))


def _check_name(key: Key, looked: Look) -> None:
    """Raise Failed where the name means another container already."""
    name = split_key(key).name
    if key in looked.records:
        phase = looked.observation.statuses[key].phase.value
        raise Failed(
            f"{key}: there is a container of this name already ({phase})",
            hint=f"choose another --name, or remove it: reconcile delete {key}",
        )
    names = {name} | {split_key(other).name for other in looked.records if _is_container(other)}
    for one in sorted(names):
        base, _, number = one.rpartition("-")
        if number.isdigit() and base in names and name in (one, base):
            raise Failed(f"{key}: {one} is another way to say {base}/{number}", hint="choose another --name")


def _is_container(key: Key) -> bool:
    return kind_of(key) is Kind.CONTAINER and split_key(key).stack == RUN_STACK


def _with_recorded(specs: Mapping[Key, Spec], records: Mapping[Key, Record]) -> dict[Key, Spec]:
    """Networks and volumes that are there are joined as they are. Raises NotFound for a borrowed one that is not."""
    out = {}
    for key, spec in specs.items():
        shared = key in records and not isinstance(spec, ContainerSpec | ImageSpec)
        out[key] = records[key].spec if shared else spec
        if isinstance(spec, ContainerSpec):
            for name in spec.networks:
                network = named_key(Kind.NETWORK, RUN_STACK, name)
                if split_key(network).stack != RUN_STACK and network not in records:
                    raise NotFound("network", name, [found for found in records if kind_of(found) is Kind.NETWORK])
    return out


def _plan(root: Root, specs: Mapping[Key, Spec], looked: Look) -> Plan:
    """The plan of one container and what it needs: nothing is said or done about others of the stack."""
    stack = structs.replace(_stack(specs), sources={})
    desired = resolve(
        [stack], images=root.engine.images, records=looked.records, keyed=root.store.sealer.digest, keys=root.age_keys
    )
    mine = {key: record for key, record in looked.records.items() if not _is_container(key)}
    made = make_plan(
        desired,
        stacks=looked.stacks,
        records=mine,
        observation=looked.observation,
        options=PlanOptions(prune=False),
        now=time.time(),
    )
    check_clashes(made, root.engine, looked)
    before = {key: record.spec for key, record in looked.records.items() if split_key(key).stack == RUN_STACK}
    return structs.replace(
        made,
        lines=tuple(line for line in made.lines if line.key in made.specs),
        wanted=(_stack({**before, **made.specs}),),
    )


def _lease(root: Root, plan: Plan) -> None:
    """What was pulled is kept until `images prune --all`, as an image that was pulled by hand."""
    pulled = {
        fact.digest: spec.reference
        for key, fact in plan.images.items()
        if not fact.local and isinstance(spec := plan.specs[key], ImageSpec)
    }
    if pulled:
        with root.lock_root("run"), root.store.write() as tx:
            for digest, reference in pulled.items():
                tx.lease(digest, reference)


def _cause(error: ReconcileError) -> ReconcileError:
    """What went wrong, rather than that something did."""
    if isinstance(error, Interrupted):
        return Interrupted(
            "interrupted before it ran", hint="nothing of it is left; the next pull goes on with what was brought"
        )
    return error.causes[0] if isinstance(error, ConvergeFailed) and error.causes else error
