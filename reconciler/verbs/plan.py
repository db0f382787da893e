"""Manifests → a plan, by what is recorded and seen. Changes nothing: no pull, no file."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from reconciler.manifest.files import HERE, Files
from reconciler.model.errors import NotFound
from reconciler.model.key import Key, forms_of
from reconciler.model.observation import Observation
from reconciler.model.plan import Plan
from reconciler.model.record import Desired, Stack, StackRecord
from reconciler.plan.decide import PlanOptions
from reconciler.plan.limits import check_origins
from reconciler.plan.make import make_plan
from reconciler.verbs.clashes import check_clashes, wanted_ports
from reconciler.verbs.held import obey_rollbacks
from reconciler.verbs.look import Look, look
from reconciler.verbs.origin import as_recorded, gone_origins
from reconciler.verbs.resolve import resolve
from reconciler.verbs.root import Root
from reconciler.verbs.sizes import plan_with_sizes

if TYPE_CHECKING:
    from reconciler.manifest.load import OriginOf


class Wish(Struct, frozen=True, kw_only=True):
    """What somebody wants of a plan."""

    stacks: tuple[Stack, ...]
    offline: bool = False
    resume: bool = False
    prune: bool = True
    take_over: bool = False
    ask_tags: bool = False
    """Whether registries are asked if a locked tag names something else by now."""
    accept_loss: frozenset[str] = frozenset()
    """What `--accept-data-loss` names."""
    files: Files = HERE
    """Where the files that the stacks name are read."""


def plan(root: Root, wish: Wish, *, now: float, narrow: bool = False) -> tuple[Plan, Look]:
    """The plan that `apply` would run now, and what it was made from; `narrow` as of ApplyOptions. Raises what resolve and
    the planner raise."""
    wanted = wish.stacks if narrow else None
    looked = look(root, ports=wanted_ports(wish.stacks), stacks=[stack.name for stack in wish.stacks], wanted=wanted)
    return plan_from(root, wish, looked, now=now), looked


def plan_from(root: Root, wish: Wish, looked: Look, *, now: float) -> Plan:
    """Resolve and plan over a look."""
    if not wish.take_over:
        check_owners(wish.stacks, looked.stacks)
    check_accepted(wish.accept_loss, [*looked.records, *(key for stack in wish.stacks for key in stack.specs)])
    desired = resolve(
        wish.stacks,
        images=root.engine.images,
        records=looked.records,
        keyed=root.store.sealer.digest,
        keys=root.age_keys,
        offline=wish.offline,
        ask_tags=wish.ask_tags,
        files=wish.files,
    )
    obeyed = obey_rollbacks(root, desired, looked, resume=wish.resume, offline=wish.offline, now=now)
    options = PlanOptions(resume=wish.resume, prune=wish.prune, accept_loss=wish.accept_loss)

    def make(observation: Observation) -> Plan:
        return make_plan(
            obeyed.desired, stacks=looked.stacks, records=looked.records, observation=observation, options=options, now=now
        )  # fmt: skip

    made = plan_with_sizes(make, root.engine, looked)
    check_clashes(made, root.engine, looked)
    return structs.replace(made, remarks=obeyed.remarks, released=obeyed.released)


def check_accepted(names: Collection[str], keys: Iterable[Key]) -> None:
    """Raise NotFound for a name given to --accept-data-loss that means nothing: a slip would look like a refusal."""
    if not names:
        return
    known = sorted(keys)
    meant = {form for key in known for form in forms_of(key)}
    for name in sorted(names):
        if name not in meant:
            raise NotFound("resource", name, known)


def check_owners(wanted: Sequence[Stack], recorded: Mapping[str, StackRecord]) -> None:
    """Raise OriginDiffers where a stack is another manifest's."""
    stacks = tuple(as_recorded(stack, recorded.get(stack.name)) for stack in wanted)
    gone = gone_origins(recorded, [stack.name for stack in stacks])
    check_origins(Desired(stacks=stacks, images={}), recorded, gone=gone)


def load(
    paths: Sequence[Path],
    *,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    stdin: str | None = None,
    judged: bool = False,
    pinned: bool = True,
    files: Files = HERE,
    folder: Path | None = None,
    origin_of: "OriginOf | None" = None,
) -> tuple[Stack, ...]:
    """Read manifests: files, folders of them, `-` for the text given as `stdin`; `judged` by jsonschema too; `pinned`
    by their lock files; what `stdin` names begins at `folder`. All is read of `files`.

    Raises BadManifest.
    """
    from reconciler.manifest.judge import judge
    from reconciler.manifest.load import load_stacks
    from reconciler.verbs.origin import origin_of as find_origin

    return load_stacks(
        paths,
        variables=variables,
        environment=environment,
        origin_of=origin_of or find_origin,
        stdin=stdin,
        judge=judge if judged else None,
        pinned=pinned,
        files=files,
        folder=folder,
    )
