"""The machine that the memory engine acts on: what would be kernel objects, as plain values that outlive an engine.

One `Machine` may serve several engines one after another, as a real machine outlives processes. It has switches for
failing (`fail_next`), for drifting (`drift`), for exits (`exit`) and for a reboot; it decides nothing by itself.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from reconciler.linux import failpoint
from reconciler.model.errors import Failed
from reconciler.model.health import Streak
from reconciler.model.key import Key
from reconciler.model.observation import End, Part, Phase
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Healthcheck


@dataclass
class Thing:
    """A network, a volume or a container as it is on the machine."""

    made: Made
    phase: Phase = Phase.PRESENT
    parts: dict[str, Part] = field(default_factory=dict)
    """Only the parts that are not as they should be."""
    pid: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    restarts: int = 0
    oom_killed: bool = False
    restarting: bool = False
    restart_at: float = 0.0
    ends: tuple[End, ...] = ()
    gave_up: bool = False
    stopped: bool = False
    """Its last end was a stop."""
    mark: str = ""
    error: str = ""
    """Why the last start failed."""
    streak: Streak | None = None
    """What its probes came to, of this run."""
    data: dict[str, bytes] = field(default_factory=dict)
    """A volume's files; what a container wrote into its writable layer."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What a container was given to see, by target."""
    signals: list[str] = field(default_factory=list)
    """What a container was sent because its files changed."""


@dataclass
class Published:
    """What the pretended registry has under one reference."""

    digest: str
    volumes: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    exits: int | None = None
    """The code with which containers of this image end at once; None: they run."""
    healthy: bool = True
    prints: str = ""
    """What a container of this image writes to its standard output."""


class Machine:
    """Everything that is there. Thread-safe for what drivers do to it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Told when a container ends."""
        self.registry: dict[str, Published] = {}
        self.registry_answers = True
        self.content: dict[str, Published] = {}
        """Images that are here, by digest."""
        self.networks: dict[str, Thing] = {}
        """By link name."""
        self.volumes: dict[str, Thing] = {}
        """By volume id."""
        self.containers: dict[str, Thing] = {}
        """By incarnation."""
        self.open_ports: dict[str, Key] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        """`NETWORK KEY NAME` to addresses."""
        self.port_holders: dict[str, str] = {}
        self.routes: list[str] = []
        """Subnets that the host routes already."""
        self.remembered: dict[tuple[Key, str], Made] = {}
        """What things say of themselves, by key and incarnation."""
        self.remembered_contents: dict[str, bytes] = {}
        self.has_quotas = True
        self.now = 1_000_000.0
        self.boot_id = "boot-1"
        self.calls: list[str] = []
        """`verb key`, in the order in which drivers were called."""
        self._failures: dict[str, list[str]] = defaultdict(list)
        self._pids = 100

    def fail_next(self, verb: str, key: Key, words: str = "made to fail", *, times: int = 1) -> None:
        """Make the next calls of a driver verb for a key fail."""
        self._failures[f"{verb} {key}"] += [words] * times

    def called(self, verb: str, key: Key) -> None:
        """Note a driver's call, and fail where a switch says so."""
        with self.lock:
            call = f"{verb} {key}"
            self.calls.append(call)
        with failpoint.at(f"memory.{key.partition('/')[0]}.{verb}"), self.lock:
            if self._failures[call]:
                raise Failed(f"{key}: {verb} failed", detail=self._failures[call].pop(0), hint="look at the machine")

    def next_pid(self) -> int:
        """A pid that was never given before."""
        self._pids += 1
        return self._pids

    def find(self, key: Key) -> list[Thing]:
        """All things of a key, the running one first."""
        pools = (self.networks, self.volumes, self.containers)
        found = [thing for pool in pools for thing in pool.values() if thing.made.key == key]
        return sorted(found, key=lambda thing: thing.phase != Phase.RUNNING)

    def drift(self, key: Key, part: str, what: Part) -> None:
        """Remove or alter a part of a resource behind everybody's back."""
        for thing in self.find(key)[:1]:
            thing.parts[part] = what

    def vanish(self, key: Key) -> None:
        """Remove a resource whole, behind everybody's back. A volume's data goes too."""
        for pool in (self.networks, self.volumes, self.containers):
            for name in [name for name, thing in pool.items() if thing.made.key == key]:
                del pool[name]

    def exit(
        self,
        key: Key,
        code: int,
        *,
        restarted: bool = False,
        oom: bool = False,
        gave_up: bool = False,
        restarting: bool = False,
    ) -> None:
        """End a running container; with `restarted`, as if its exit command had started it again, with `restarting`, as if
        it slept until then."""
        thing = self.find(key)[0]
        thing.exit_code, thing.finished_at, thing.stopped = code, self.now, False
        thing.ends = (*thing.ends, End(self.now, self.now - thing.started_at))[-5:]
        thing.oom_killed, thing.gave_up, thing.restarting = oom, gave_up, restarting
        thing.restart_at = self.now + 1.0 if restarting else 0.0
        if restarted:
            thing.pid, thing.started_at, thing.restarts = self.next_pid(), self.now, thing.restarts + 1
        else:
            thing.phase, thing.pid = Phase.EXITED, 0
        with self.changed:
            self.changed.notify_all()

    def reboot(self) -> None:
        """Everything that lives in memory is gone; content, volumes and the ends of what rests stay."""
        self.containers = {name: thing for name, thing in self.containers.items() if _rests(thing)}
        for thing in self.containers.values():
            thing.parts.clear()
        self.networks.clear()
        self.open_ports.clear()
        self.names.clear()
        self.boot_id = f"boot-{int(self.boot_id.split('-')[1]) + 1}"


def _rests(thing: Thing) -> bool:
    """Whether it ended and nothing follows that: by its restart policy, or by a stop."""
    assert isinstance(thing.made.spec, ContainerSpec)
    policy = thing.made.spec.restart
    success = policy.startswith("on-failure") and thing.exit_code == 0
    return thing.phase is Phase.EXITED and (thing.mark == "hold" or policy == "no" or success or thing.gave_up)
