"""Which engines there are: ours by name, others by the entry points `reconcile.engines`."""

from importlib import import_module
from pathlib import Path

from reconciler.engine.contents import keep_nothing
from reconciler.engine.protocol import Engine, ReadContent
from reconciler.model.errors import Usage

_OURS = {
    "native": "reconciler.engine.native.engine",
    "memory": "reconciler.engine.memory.engine",
}


def open_engine(name: str, root: Path, run: Path, root_id: str, *, read_content: ReadContent = keep_nothing) -> Engine:
    """An engine over one root. Nothing is made on the machine until something is created."""
    if name in _OURS:
        # Entry points take 15 ms to look up; our own are known.
        engine: Engine = import_module(_OURS[name]).open_engine(root, run=run, root_id=root_id, read_content=read_content)
        return engine
    from importlib.metadata import entry_points

    found = list(entry_points(group="reconcile.engines", name=name))
    if not found:
        raise Usage(f"no engine named {name}", hint=f"there are {', '.join(sorted(_OURS))}")
    loaded: Engine = found[0].load()(root, run=run, root_id=root_id, read_content=read_content)
    return loaded
