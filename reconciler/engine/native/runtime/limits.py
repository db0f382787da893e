"""Brings a running container's cgroup back to its spec: its processes in it, its limits as they should be.

The driver calls it after the bundle was written. The runtime does the writing, for it knows both versions of cgroups.
"""

from typing import Any

from reconciler.engine.native.runtime import bundle, runc
from reconciler.engine.native.runtime.spec import CPU_PERIOD, SHARES_OF_A_CPU, render_resources
from reconciler.engine.native.runtime.status import render_limits
from reconciler.linux import cgroups
from reconciler.model.errors import ProgramFailed
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Resources

_UNLIMITED = -1


def ensure_limits(path: str, made: Made, *, pid: int) -> None:
    """Processes in the right cgroup, limits those of the spec; nothing is started when they are already. Idempotent.

    Raises ProgramFailed, for a memory limit below what is in use too.
    """
    assert isinstance(made.spec, ContainerSpec)
    monitor = bundle.read_json(path, bundle.MONITOR)
    cgroup = monitor["cgroup"]
    try:
        if cgroups.find_places(pid) != {cgroup}:
            cgroups.create(cgroup)
            cgroups.move(pid, cgroup)
        if cgroups.read_limits(cgroup) == render_limits(made.spec):
            return
        bundle.write_json(path, "resources.json", render_update(made.spec.resources))
        arguments = ["--resources", f"{path}/resources.json", monitor["id"]]
        runc.call(monitor["runtime"], monitor["runtime_root"], "update", arguments)
    except (runc.RuntimeFailed, OSError) as error:
        raise ProgramFailed(str(made.key), "change its limits", runc.words_of(error)) from error


def render_update(resources: Resources) -> dict[str, Any]:
    """The resources for `runc update`: a limit that is none is said outright, where config.json leaves it out."""
    none = {
        "cpu": {"quota": _UNLIMITED, "period": CPU_PERIOD, "shares": SHARES_OF_A_CPU},
        "memory": {"limit": _UNLIMITED, "swap": _UNLIMITED},
    }
    wanted = none | render_resources(resources)
    # What devices it may use is decided when it is made.
    del wanted["devices"]
    return wanted
