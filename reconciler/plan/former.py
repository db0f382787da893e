"""Finds stacks that the planned manifests were before somebody changed their `name:`: what is left of them goes on running.

Called by `make.py` for a line, by `verbs/` where such a stack is in the way. One file is one stack, so that two stacks of
one origin are a rename, or a name with a variable in it. Pure.
"""

from collections.abc import Iterable, Mapping

from reconciler.model.key import Key, Kind, kind_of, sort_key, split_key, stack_of
from reconciler.model.observation import Observation, Phase
from reconciler.model.plan import Line
from reconciler.model.record import Record, Stack, StackRecord
from reconciler.model.spec import ContainerSpec

_ONE_FILE = ("file:", "git:")
"""Origins that are the place of one manifest; a name or a source may have many."""


def find_former(wanted: Iterable[Stack], stacks: Mapping[str, StackRecord]) -> dict[str, str]:
    """The names of recorded stacks that come from the same manifest as a wanted one of another name, to that name."""
    origins = {stack.origin: stack.name for stack in wanted if stack.origin.startswith(_ONE_FILE)}
    names = {stack.name for stack in wanted}
    others = sorted(stacks.keys() - names)
    return {name: origins[stacks[name].origin] for name in others if stacks[name].origin in origins}


def render_former(former: Mapping[str, str], *, records: Mapping[Key, Record], observation: Observation) -> list[Line]:
    """A line for each of them of which something is left, at the first of its resources."""
    left = {name: _left(name, records) for name in former}
    return [Line(key=keys[0], text=_describe(name, keys, records, observation)) for name, keys in left.items() if keys]


def _left(name: str, records: Mapping[Key, Record]) -> list[Key]:
    keys = sorted((key for key in records if stack_of(key) == name), key=sort_key)
    return sorted(keys, key=lambda key: not isinstance(records[key].spec, ContainerSpec))


def _describe(name: str, keys: list[Key], records: Mapping[Key, Record], observation: Observation) -> str:
    runs = [key for key in keys if key in observation.statuses and observation.statuses[key].phase is Phase.RUNNING]
    volumes = [split_key(key).name for key in keys if kind_of(key) is Kind.VOLUME]
    if len(volumes) == len(keys):
        kept = f"its volumes {', '.join(volumes)} are kept" if len(volumes) > 1 else f"its volume {volumes[0]} is kept"
        return f"stack {name} comes from this manifest too: {kept}; `reconcile delete {name} --volumes` removes the data"
    specs = [records[key].spec for key in keys]
    ports = sorted({port for spec in specs if isinstance(spec, ContainerSpec) for port in spec.ports})
    holds = f" and hold {', '.join(ports)}" if ports else ""
    running = f"{len(runs)} container{'s' if len(runs) != 1 else ''} of it run{'s' if len(runs) == 1 else ''}{holds}"
    return f"stack {name} comes from this manifest too: {running}; was it renamed? {say_way_out(name)}"


def say_way_out(name: str) -> str:
    """How to be rid of what is left of one."""
    return f"`reconcile delete {name}` removes what is left of it (volumes stay)"
