"""Turns a container's capabilities and the machine's architecture into its seccomp filter, by `defaults/seccomp.json`.

Feeds spec.py. Pure but for reading that file once. Source: OCI runtime-spec 1.0, config-linux.md, Seccomp.
"""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "defaults" / "seccomp.json"
_ENOSYS = 38
_ARCHITECTURES = {
    # Compat: Docker lists X32 too, which hardly a kernel has switched on; each one costs 5 ms of CPU at every start.
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


@lru_cache(maxsize=1)
def _read_defaults() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_FILE.read_text())
    return read


def render_seccomp(capabilities: Collection[str], *, machine: str) -> dict[str, Any]:
    """The filter: what is not named fails with EPERM. `machine` as uname(2) has it; one not known here has no filter for
    foreign architectures. Not to be changed: containers share it."""
    return _render(tuple(sorted(capabilities)), machine)


@lru_cache(maxsize=64)
def _render(capabilities: tuple[str, ...], machine: str) -> dict[str, Any]:
    defaults = _read_defaults()
    names = {*defaults["always"], *defaults["arches"].get(machine, ())}
    for capability, more in defaults["capabilities"].items():
        if capability in capabilities:
            names.update(more)
    syscalls: list[dict[str, Any]] = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
    syscalls += [{**rule, "action": "SCMP_ACT_ALLOW"} for rule in defaults["when"]]
    if "CAP_SYS_ADMIN" not in capabilities:
        syscalls += _without_namespaces(defaults["clone_flags_refused"])
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": _ARCHITECTURES.get(machine, []),
        "syscalls": syscalls,
    }


def _without_namespaces(flags: int) -> list[dict[str, Any]]:
    """New processes and threads, but no new namespaces."""
    no_flag = {"index": 0, "value": flags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_flag]},
        # Kernel: clone3's flags lie in memory where a filter can't look; ENOSYS makes C libraries fall back to clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
    ]
