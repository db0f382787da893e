"""A machine of its own for one test: network, mount and process namespaces, a root, a registry with the lab's images.

A holder process keeps the namespaces; everything that a test runs goes into them by `nsenter`. In there `/run`
is a tmpfs of its own and `/sys` shows the links of the own network; cgroups and loop devices are the host's. The end of
the holder ends every process of the world, and with it its mounts, links and tables; `leftovers` tells before that what
the product forgot.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.registry import Registry, start_registry

CLONE_NEWNET = 0x40000000
REPOSITORY = Path(__file__).resolve().parents[2]
RECONCILE = (sys.executable, str(Path(sys.executable).with_name("reconcile")))
"""The program as it is installed."""
_LIBC = ctypes.CDLL(None, use_errno=True)

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_STACKS = """
import json, sqlite3, sys
sql = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=10)
print(json.dumps(sorted(stack for (stack,) in sql.execute("SELECT DISTINCT stack FROM records"))))
"""

SET_UP = r"""
set -e
ip link set lo up
# Race: the whole of /run, for who removes a folder elsewhere takes down what is mounted on it here.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock /run/netns
[ -e /etc/resolv.conf ] || { to=$(readlink -m /etc/resolv.conf); mkdir -p "${to%/*}"; echo nameserver 192.0.2.53 >"$to"; }
if [ -d /sys/fs/cgroup ]; then
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/cgroup
  mount --rbind /sys/fs/cgroup /mnt/cgroup
  mount -t sysfs sysfs /sys
  mount --rbind /mnt/cgroup /sys/fs/cgroup
  umount -l /mnt/cgroup
  umount /mnt
fi
echo ready
exec tini -s -- cat >/dev/null 2>&1  # ends with the test that holds the other end of its input
"""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    command: str
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output as one JSON value."""
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.out}{self.err}[exit {self.code}]"


class World:
    """One isolated machine. Make it with `open_world`; `close` ends everything in it."""

    def __init__(self, folder: Path, unshare: "subprocess.Popen[bytes]", holder: int) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.home = folder / "home"
        self.unshare = unshare
        self.holder = holder
        self.registry: Registry | None = None
        self.env: dict[str, str] = {}
        self.transcript: list[Result] = []
        self._mounts_at_first = self._read_mounts()

    # --- running things in it ---

    @property
    def enter(self) -> list[str]:
        """The command prefix that leads into this world."""
        names = ["--net", "--mount", "--pid"]
        return ["nsenter", "--target", str(self.holder), *names, f"--wdns={self.folder}", "--"]

    def environment(self, extra: Mapping[str, str] = {}) -> dict[str, str]:
        """What commands get: nothing of the caller's but its PATH."""
        path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
        clean = {
            "PATH": path,
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "RECONCILE_ROOT": str(self.root),
            "RECONCILE_DEBUG": "1",
        }
        return {**clean, **self.env, **extra}

    def nsenter(self, *command: str, stdin: str = "", timeout: float = 60, check: bool = True) -> Result:
        """Run any command in this world; with `check`, a failure is an assertion."""
        return self._finish(self.spawn(list(command)), command, stdin, timeout, check)

    def run(
        self, *arguments: str, stdin: str = "", env: Mapping[str, str] = {}, timeout: float = 110, check: int | None = None
    ) -> Result:
        """Run `reconcile ARGUMENTS…`; with `check`, any other exit code is an assertion that shows the output."""
        result = self._call(arguments, stdin, env, timeout)
        self.transcript.append(result)
        assert "Traceback (most recent call last)" not in result.err + result.out, str(result)
        assert check is None or result.code == check, f"expected exit {check}\n{result}"
        return result

    def _call(self, arguments: Sequence[str], stdin: str, env: Mapping[str, str], timeout: float) -> Result:
        process = self.popen(*arguments, env=env)
        return self._finish(process, ("reconcile", *arguments), stdin, timeout, check=False)

    def popen(self, *arguments: str, env: Mapping[str, str] = {}) -> "subprocess.Popen[bytes]":
        """Start `reconcile ARGUMENTS…` and leave it running; end it with `signal`."""
        return self.spawn([*RECONCILE, *arguments], env)

    def signal(self, process: "subprocess.Popen[bytes]", number: int = signal.SIGKILL) -> None:
        """Signal what `popen` started: nsenter's child, for nsenter itself passes nothing on."""
        for child in children_of(process.pid) or [process.pid]:
            with suppress(ProcessLookupError):  # Race: it may have ended by itself.
                os.kill(child, number)
        if number == signal.SIGCONT:  # Compat: nsenter stops itself when its child is stopped.
            process.send_signal(number)

    def kill(self, *pids: int) -> None:
        """SIGKILL processes of this world, by their pids in it; one that is gone is no error."""
        self.nsenter("sh", "-c", 'kill -KILL "$@"', "sh", *map(str, pids), check=False)  # Debian's base has no /bin/kill

    def spawn(self, command: list[str], env: Mapping[str, str] = {}) -> "subprocess.Popen[bytes]":
        """Start any command in this world with pipes at its ends."""
        pipe = subprocess.PIPE
        full = [*self.enter, *command]
        return subprocess.Popen(full, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment(env))

    def _finish(
        self, process: "subprocess.Popen[bytes]", command: tuple[str, ...], stdin: str, timeout: float, check: bool
    ) -> Result:
        try:
            out, err = process.communicate(stdin.encode(), timeout)
        except subprocess.TimeoutExpired:
            self.signal(process)
            out, err = process.communicate(timeout=10)
            said = Result(" ".join(command), -1, out.decode(errors="replace"), err.decode(errors="replace"))
            raise AssertionError(f"not done after {timeout} s\n{said}") from None
        result = Result(" ".join(command), process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        assert not check or result.code == 0, str(result)
        return result

    # --- manifests ---

    def write(self, manifest: str | bytes | Mapping[str, Any], name: str = "stack.yaml") -> Path:
        """Write a manifest into the world's folder: text as it is, a mapping as JSON (which is YAML)."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(manifest, indent=2) if isinstance(manifest, Mapping) else manifest
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def use(self, scenario: str) -> Path:
        """Copy `tests/scenarios/NAME` into the world's folder; the path of its manifest there."""
        shutil.copytree(REPOSITORY / "tests" / "scenarios" / scenario, self.folder, dirs_exist_ok=True)
        return self.folder / "stack.yaml"

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replace one place of a file; an assertion where it is not there exactly once."""
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
        path.write_text(text.replace(old, new))

    # --- looking ---

    def records(self, kind: str = "") -> dict[str, dict[str, Any]]:
        """`get -o json` by key."""
        result = self.run("get", *([kind] if kind else []), "-o", "json", check=0)
        return {item["key"]: item for item in result.json()}

    def pid(self, name: str) -> int:
        """The pid (in this world) of a container that runs."""
        status = self.record(name)["status"]
        assert status["phase"] == "running", f"{name} is {status}"
        return int(status["pid"])

    @contextmanager
    def network(self, of: str = "") -> Iterator[None]:
        """Inside, this thread's sockets are opened in the world's network namespace, or in that of a container."""
        where = self.proc / str(self.pid(of) if of else 1) / "ns/net"
        with Path("/proc/thread-self/ns/net").open() as home, where.open() as there:
            _enter_network(there.fileno())
            try:
                yield
            finally:
                _enter_network(home.fileno())

    def record(self, name: str) -> dict[str, Any]:
        """One element of `get -o json`, by key or `STACK/NAME` of a container."""
        return self.records()[name if name.count("/") > 1 else f"container/{name}/1"]

    def plan(self, *arguments: str) -> dict[str, Any]:
        """`plan ARGUMENTS -o json`, whatever it finds."""
        result = self.run("plan", *arguments, "-o", "json")
        assert result.code in (0, 2), str(result)
        made: dict[str, Any] = result.json()
        assert (result.code == 2) == bool(made["actions"]), str(result)
        return made

    def fetch(self, url: str, timeout: float = 2) -> str:
        """GET a URL from the world's own network namespace; "" where nobody answers in time."""
        try:
            with self.network(), urllib.request.urlopen(url, timeout=timeout) as answer:
                return str(answer.read().decode(errors="replace"))
        except OSError:
            return ""

    @property
    def proc(self) -> Path:
        """The world's own /proc, seen from outside."""
        return Path(f"/proc/{self.holder}/root/proc")

    def processes(self) -> dict[int, str]:
        """Everything that runs in this world, its own machinery left out: pid to command line."""
        own = {1, *([self._inner_pid(self.registry.process.pid)] if self.registry else [])}
        found = {}
        for path in self.proc.iterdir():
            if not path.name.isdigit() or int(path.name) in own:
                continue
            command = _command_of(path)
            if command and command != "cat":
                found[int(path.name)] = command
        return found

    def _inner_pid(self, nsenter: int) -> int:
        for child in children_of(nsenter):
            line = re.search(r"NSpid:.*?(\d+)\n", Path(f"/proc/{child}/status").read_text())
            if line:
                return int(line[1])
        return 0

    def _read_mounts(self) -> frozenset[str]:
        lines = Path(f"/proc/{self.holder}/mountinfo").read_text().splitlines()
        return frozenset(" ".join(line.split()[i] for i in (0, 4)) for line in lines)

    def note_mounts(self) -> None:
        """What is mounted now was mounted by the lab."""
        self._mounts_at_first = self._read_mounts()

    def links(self) -> frozenset[str]:
        """Links of the world's network, without its loopback."""
        lines = Path(f"/proc/{self.holder}/net/dev").read_text().splitlines()[2:]
        return frozenset(line.partition(":")[0].strip() for line in lines) - {"lo"}

    def tables(self) -> str:
        """The whole rule set of the world's firewall."""
        return self.nsenter("nft", "list", "ruleset").out

    def cgroups(self) -> list[str]:
        """cgroups of this world's root: those that bear its id."""
        ids = self.root_ids()
        return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if any(name in folder for name in ids)]

    def root_ids(self) -> list[str]:
        """The ids of the roots that were used in this world, as their files say."""
        folder = Path(f"/proc/{self.holder}/root{self.folder}")
        return sorted({path.read_text().split()[0] for path in folder.glob("*/id")})

    # --- a reboot ---

    def thaw(self) -> None:
        """Let what is paused be killed: what a v1 freezer holds does not even die."""
        for state in (Path(folder, "freezer.state") for folder in self.cgroups()):
            if state.exists() and state.read_text() != "THAWED\n":
                state.write_text("THAWED")

    def reboot(self) -> None:
        """What a power cut leaves: every process of the product ends at once, and all that lives in the kernel's memory
        (mounts, links, tables, cgroups, /run) is gone; the disk stays. The boot has another id."""
        self.thaw()
        wait_until(self._kill_all, "every process has ended", self.processes)
        self.nsenter("nft", "flush", "ruleset")
        for link in self.links():
            self.nsenter("ip", "link", "delete", link, check=False)  # a veth goes with its other end
        for line in sorted(self._read_mounts() - self._mounts_at_first, key=lambda line: -int(line.split()[0])):
            self.nsenter("umount", "-l", line.split()[1], check=False)
        self.nsenter("sh", "-c", "rm -rf /run/reconcile")
        for folder in sorted(self.cgroups(), key=len, reverse=True):
            wait_until(partial(_remove_cgroup, folder), f"{folder} is removed", seconds=5)
        self.new_boot_id()

    def new_boot_id(self) -> None:
        """The kernel's boot id is another one in this world from now on."""
        boot_id = self.folder / "boot-id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        self.nsenter("sh", "-c", f"umount {_BOOT_ID} 2>/dev/null; mount --bind {boot_id} {_BOOT_ID}")
        self._mounts_at_first = self._read_mounts()

    def _kill_all(self) -> bool:
        self.kill(*self.processes())
        return not self.processes()

    # --- the end ---

    def leftovers(self) -> list[str]:
        """What the product has left in this world, one line each."""
        run = Path(f"/proc/{self.holder}/root/run/reconcile")
        looks: dict[str, Callable[[], Iterator[str]]] = {
            "process": lambda: (f"{pid} {command}" for pid, command in self.processes().items()),
            "mount": lambda: iter(line.split()[1] for line in self._read_mounts() - self._mounts_at_first),
            "link": lambda: iter(self.links()),
            "table": lambda: iter(line for line in self.tables().splitlines() if line.startswith("table")),
            "cgroup": lambda: iter(self.cgroups()),
            "loop": lambda: _loops_below(self.folder),
            "run": lambda: iter(path.name for path in run.glob("*")),
        }
        return sorted(f"{kind} {name}" for kind, read in looks.items() for name in read())

    def delete_everything(self) -> None:
        """`delete` each stack with its volumes, who borrows before his owner, then all images."""
        stacks = self._read_stacks()
        refused = 0
        while stacks:
            stack = stacks.pop(0)
            refused = refused + 1 if self.run("delete", stack, "--volumes", "--yes", "--take-over").code == 3 else 0
            assert refused <= len(stacks), f"nobody can be deleted\n{self.transcript[-1]}"
            stacks += [stack] if refused else []
            assert refused or self.transcript[-1].code == 0, str(self.transcript[-1])
        self.run("images", "prune", "--all", check=0)

    def _read_stacks(self) -> list[str]:
        """Whose resources are recorded: of the database, for `get` would take as long as the rest of this. From inside, for
        the root may be mounted there."""
        if self.nsenter("test", "-e", f"{self.root}/reconcile.db", check=False).code:
            return []
        stacks: list[str] = self.nsenter(sys.executable, "-I", "-S", "-c", _STACKS, f"{self.root}/reconcile.db").json()
        return stacks

    def assert_nothing_left(self, seconds: float = 5) -> None:
        """After the last delete nothing of the product is on the machine."""
        if not self.root.exists():
            return
        self.delete_everything()
        wait_until(lambda: not self.leftovers(), "nothing is left", lambda: "\n".join(self.leftovers()), seconds)

    def close(self) -> None:
        """End every process of this world; what lies in the kernel goes with its namespaces, cgroups by hand."""
        cgroups = self.cgroups()
        self.thaw()
        if self.registry:
            self.signal(self.registry.process)
            self.registry.process.wait(10)
        assert self.unshare.stdin
        self.unshare.stdin.close()
        with suppress(ProcessLookupError):  # it ends with its input
            os.kill(self.holder, signal.SIGKILL)
        self.unshare.wait(20)
        for folder in sorted(cgroups, key=len, reverse=True):
            wait_until(partial(_remove_cgroup, folder), f"{folder} is removed", seconds=5)
        shutil.rmtree(self.root, ignore_errors=True)


def open_world(folder: Path, storage: Path | None = None, kind: type[World] = World) -> World:
    """Make a world in an empty folder; with `storage`, a registry at 127.0.0.1:5000 serves it there."""
    (folder / "home").mkdir(parents=True)
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    command = ["unshare", *namespaces, "sh", "-c", SET_UP]
    with (folder / "unshare.log").open("wb") as log:
        unshare = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert unshare.stdout
    with unshare.stdout:
        ready = unshare.stdout.readline()
    assert ready == b"ready\n", (folder / "unshare.log").read_text()
    world = kind(folder, unshare, children_of(unshare.pid)[0])
    if storage:
        world.registry = start_registry(storage, folder / "registry", enter=world.enter)
    return world


def wait_until(
    condition: Callable[[], object], what: str, show: Callable[[], object] = lambda: "", seconds: float = 10
) -> None:
    """Poll until it holds; an assertion with what `show` says where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}\n{show()}")
        time.sleep(0.02)  # a poll with a deadline


def _enter_network(descriptor: int) -> None:
    if _LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children_of(pid: int) -> list[int]:
    """The children of a process that is there; none of one that is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _command_of(path: Path) -> str:
    try:
        return (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _loops_below(folder: Path) -> Iterator[str]:
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = path.read_text().strip()
        except OSError:
            continue
        if file.startswith(str(folder)):
            yield f"{path.parts[3]} {file}"


def _remove_cgroup(folder: str) -> bool:
    try:
        Path(folder).rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
