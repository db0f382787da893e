"""What people write for a container or a stack → the records that they mean.

`NAME` (all of its indexes), `NAME/2`, `NAME-2`, `STACK/NAME`, `STACK/NAME/2`, or `STACK` where a verb takes a whole stack.
"""

from collections.abc import Iterable, Mapping

from reconciler.model.errors import Failed, NotFound
from reconciler.model.key import Key, Kind, sort_key, split_key
from reconciler.model.observation import Phase, Status
from reconciler.model.record import Record


def find_containers(records: Mapping[Key, Record], text: str, *, stacks: bool = False) -> list[Record]:
    """All containers that a name means, in order. Raises NotFound, or Failed where it means those of several stacks."""
    containers = [record for key, record in records.items() if split_key(key).kind is Kind.CONTAINER]
    containers.sort(key=lambda record: sort_key(record.key))
    found = [record for record in containers if _means(record.key, text)]
    if not found and stacks:
        found = [record for record in containers if split_key(record.key).stack == text]
        if found:
            return found
    if not found:
        raise NotFound("container", text, _near(text, containers))
    owners = {split_key(record.key).stack for record in found}
    if len(owners) > 1:
        names = ", ".join(f"{stack}/{text}" for stack in sorted(owners))
        raise Failed(f"{text}: there is more than one: {names}", hint="write STACK/NAME")
    return found


def find_one(records: Mapping[Key, Record], text: str, statuses: Mapping[Key, Status]) -> Record:
    """The one container that a name means: of several indexes the first that runs."""
    found = find_containers(records, text)
    running = [record for record in found if statuses.get(record.key, _NOTHING).phase is Phase.RUNNING]
    return (running or found)[0]


def _means(key: Key, text: str) -> bool:
    parts = split_key(key)
    name, index = parts.name, str(parts.index)
    short = {name, f"{name}/{index}", f"{name}-{index}"}
    return text in short or text == key or any(text == f"{parts.stack}/{form}" for form in short)


def _near(text: str, containers: Iterable[Record]) -> list[str]:
    import difflib  # 5 ms that only an error needs

    names = {split_key(record.key).name for record in containers}
    return difflib.get_close_matches(
        text, sorted(names | {f"{split_key(r.key).stack}/{n}" for r in containers for n in names}), 1
    )


_NOTHING = Status(phase=Phase.MISSING)
