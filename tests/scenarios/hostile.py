"""What tests of hostile containers share: a probe that runs inside, with this interpreter bound into the container."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from lab import escapes
from lab.world import World

BUSYBOX = "127.0.0.1:5000/busybox:1"


def interpreter() -> tuple[list[dict[str, Any]], list[str]]:
    """Binds that bring this interpreter into a container, where nothing of its own is in the way, and its command line."""
    sources = {path: os.path.realpath(path) for path in ("/lib", "/lib64", "/usr/lib") if Path(path).is_dir()}
    sources |= {"/python": str(Path(sys.base_prefix).resolve()), "/lab": str(Path(escapes.__file__).parent)}
    binds = [{"type": "bind", "source": source, "target": target, "read_only": True} for target, source in sources.items()]
    return binds, [f"/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}", "-I", "-S"]


def probe(world: World, name: str, *names: str, options: tuple[str, ...] = ()) -> Any:
    """What `lab/escapes.py` prints in a container: answers and facts."""
    _, python = interpreter()
    return json.loads(world.run("exec", *options, name, *python, "/lab/escapes.py", *names, check=0).out)


def apply(world: World, containers: dict[str, Any], **sections: Any) -> None:
    """Apply a stack `one`."""
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": containers, **sections})
    world.run("apply", "stack.yaml", "--yes", check=0)
