"""What people write for a container or a stack → the records that they mean.

`NAME` (all of its indexes), `NAME/2`, `NAME-2`, `STACK/NAME`, `STACK/NAME/2`, or `STACK` where a verb takes a whole stack.
"""

from collections.abc import Iterable, Mapping

from reconciler.model.errors import Failed, NotFound
from reconciler.model.key import Key, Kind, forms_of, full_name, sort_key, split_key
from reconciler.model.observation import MISSING, Phase, Status
from reconciler.model.record import Record


def find_containers(records: Mapping[Key, Record], text: str, *, stacks: bool = False) -> list[Record]:
    """All containers that a name means, in order. Raises NotFound, or Failed where it means those of several stacks."""
    containers = [record for key, record in records.items() if split_key(key).kind is Kind.CONTAINER]
    containers.sort(key=lambda record: sort_key(record.key))
    found = [record for record in containers if text in forms_of(record.key, replicas=True)]
    if not found and stacks:
        found = [record for record in containers if split_key(record.key).stack == text]
        if found:
            return found
    if not found:
        known = {name for record in containers for name in (split_key(record.key).name, full_name(record.key))}
        raise NotFound("container", text, known)
    owners = {split_key(record.key).stack for record in found}
    if len(owners) > 1:
        names = ", ".join(f"{stack}/{text}" for stack in sorted(owners))
        raise Failed(f"{text}: there is more than one: {names}", hint="write STACK/NAME")
    return found


def find_keys(records: Iterable[Key], text: str) -> tuple[Key, ...]:
    """The keys of one resource, of a container those of all its indexes or of one, in order; none where nothing is meant.

    `NAME`, `STACK/NAME`, `KIND/NAME`, `KIND/STACK/NAME`, for containers with `/INDEX` or `-INDEX` behind it. Raises Failed
    where it means several, naming them.
    """
    found = [key for key in sorted(records, key=sort_key) if text in forms_of(key, replicas=True)]
    meant = {(parts.kind, parts.stack, parts.name) for parts in map(split_key, found)}
    if len(meant) > 1:
        names = [f"{kind.value}/{stack}/{name}" for kind, stack, name in sorted(meant)]
        raise Failed(f"{text}: there is more than one: {', '.join(names)}", hint="write one of them in full")
    return tuple(found)


def find_one(records: Mapping[Key, Record], text: str, statuses: Mapping[Key, Status]) -> Record:
    """The one container that a name means: of several indexes the first that runs."""
    found = find_containers(records, text)
    running = [record for record in found if statuses.get(record.key, MISSING).phase is Phase.RUNNING]
    return (running or found)[0]
