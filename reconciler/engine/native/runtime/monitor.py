"""Turns a container's record and this machine's programs into its monitor.json, which conmon.py and the exit command read.

Pure but for looking where programs are. The driver writes the result; the exit command reads it without any of our models.
"""

import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime.ended import ended_path
from reconciler.engine.native.runtime.inside import log_path
from reconciler.linux.process import CLEAN_ENV
from reconciler.model.errors import ProgramMissing
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Healthcheck

_INITS = ("tini-static", "docker-init")
"""In the order of preference; both need no library of the image's."""


def cgroup_parent(layout: Layout) -> str:
    """The cgroup under which everything of this root is."""
    return f"/reconcile-{layout.root_id}"


def cgroup_path(layout: Layout, incarnation: str) -> str:
    """A container's own cgroup."""
    return f"{cgroup_parent(layout)}/{incarnation}"


def monitors_path(layout: Layout) -> str:
    """The cgroup of all conmons of this root: a sibling of the containers', so that no limit of theirs hits it."""
    return f"{cgroup_parent(layout)}/monitors"


def render_monitor(layout: Layout, made: Made, check: Healthcheck | None) -> dict[str, Any]:
    """The monitor.json of a container. Raises ProgramMissing."""
    assert isinstance(made.spec, ContainerSpec)
    return {
        "id": made.incarnation,
        "key": made.key,
        "runtime": find_program(made.spec.runtime, "runc", "run a container"),
        "runtime_root": str(layout.runc),
        "conmon": find_program("conmon", "conmon", "run a container"),
        "log": str(log_path(layout, made.incarnation)),
        "ended": ended_path(str(layout.containers / made.incarnation)),
        "max_size": made.spec.logs.max_size,
        "keep": made.spec.logs.keep,
        "tty": made.spec.tty,
        "stdin": made.spec.stdin,
        "cgroup": cgroup_path(layout, made.incarnation),
        "monitors": monitors_path(layout),
        "links": [endpoint.link for _, endpoint in sorted(made.grants.endpoints.items())],
        "exit_command": list(exit_command()),
        "check": None if check is None else msgspec.to_builtins(check),
    }


@lru_cache(maxsize=16)
def find_program(name: str, package: str, needed_for: str) -> str:
    """The absolute path of a program, by Debian's PATH and not the caller's. Raises ProgramMissing."""
    found = shutil.which(name, path=CLEAN_ENV["PATH"])
    if found is None:
        raise ProgramMissing(name, package, needed_for)
    return found


def find_init() -> str:
    """The init program that a container with `init: true` gets as its first process. Raises ProgramMissing."""
    for name in _INITS:
        found = shutil.which(name, path=CLEAN_ENV["PATH"])
        if found is not None:
            return found
    raise ProgramMissing(_INITS[0], "tini", "init: true")


@lru_cache(maxsize=1)
def exit_command() -> tuple[str, ...]:
    """The program and the first words of conmon's exit command; the bundle's path follows.

    The interpreter itself, not the link to it in a virtual environment: with no site packages it starts in half the time.
    """
    script = Path(__file__).resolve().parents[3] / "onexit" / "__main__.py"
    return (str(Path(sys.executable).resolve()), "-I", "-S", "-E", str(script))
