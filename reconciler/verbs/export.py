"""What is recorded → the manifest that says it."""

import posixpath

from reconciler.manifest.export import export_stack
from reconciler.model.content import is_keyed
from reconciler.model.errors import NotFound
from reconciler.model.key import RUN_STACK, Key, Kind, container_key, split_key
from reconciler.model.record import StackRecord
from reconciler.model.spec import ConfigSpec, ContainerSpec, Spec
from reconciler.plan.scene import needed_keys
from reconciler.verbs.root import Root


def export(root: Root, what: str) -> str:
    """The manifest of a stack, or of one container of the stack `run` as a stack of its own. Raises NotFound."""
    with root.store.read() as tx:
        stacks, records = tx.stacks(), tx.records()
        contents = {
            key: data
            for key, record in records.items()
            if isinstance(record.spec, ConfigSpec) and not is_keyed(record.spec.digest)
            if (data := tx.content(record.spec.digest)) is not None
        }
    specs = {key: record.spec for key, record in records.items()}
    stack, slash, name = what.partition("/")
    if slash:
        return _export_run(what, stack, name, specs)
    own = {key: spec for key, spec in specs.items() if split_key(key).stack == what}
    if not own:
        raise NotFound("stack", what, {split_key(key).stack for key in records})
    if what == RUN_STACK:
        return export_stack("run-export", own, head="What `reconcile run` made, as a stack that may have this name.")
    recorded = stacks.get(what)
    return export_stack(what, own, contents=contents, folder=_folder(recorded), origin=_origin(recorded))


def _folder(stack: StackRecord | None) -> str:
    """Where its manifest was, as far as its origin says."""
    return posixpath.dirname(stack.origin.removeprefix("file:")) if stack and stack.origin.startswith("file:/") else ""


def _origin(stack: StackRecord | None) -> str:
    return stack.origin.removeprefix("name:") if stack and stack.origin.startswith("name:") else ""


def _export_run(what: str, stack: str, name: str, specs: dict[Key, Spec]) -> str:
    """One container with what it uses, by its own name, for no manifest may be of the stack `run`."""
    key = container_key(RUN_STACK, name)
    spec = specs.get(key)
    if stack != RUN_STACK or not isinstance(spec, ContainerSpec):
        known = (split_key(found) for found in specs)
        near = [f"{RUN_STACK}/{parts.name}" for parts in known if parts.kind is Kind.CONTAINER and parts.stack == RUN_STACK]
        raise NotFound("container of the stack run", what, near)
    used = (key, *needed_keys(key, spec))
    own = {found: specs[found] for found in used if found in specs and split_key(found).stack == RUN_STACK}
    head = f"What `reconcile run --name {name}` made, as a stack of its own. Delete {key} before you apply it."
    return export_stack(name, own, head=head)
