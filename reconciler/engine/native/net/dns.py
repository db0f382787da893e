"""Turns a view into the files of aardvark-dns, and keeps that one process serving exactly them.

`settle.py` calls this. One file a network, named by its bridge: the address to listen on, then a line for each container.
Names come from records only, never from what a container says of itself. The process goes to the background by itself
and ends with the last network; it keeps no descriptor and no folder of ours.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256

from reconciler.engine.names import names_on
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net.ports import read_listeners, read_port_holders
from reconciler.engine.native.net.question import ask_addresses
from reconciler.engine.native.net.rules import bridge_networks
from reconciler.engine.native.net.words import saying
from reconciler.linux import cgroups, failpoint, process
from reconciler.linux.files import staging_name, write_atomic
from reconciler.model.errors import ProgramFailed, ProgramMissing
from reconciler.model.key import Key, Kind, kind_of, named_key, stack_of
from reconciler.model.observation import PRESENT, Part, altered, missing
from reconciler.model.record import Made, View
from reconciler.model.spec import ContainerSpec, NetworkSpec

_PID_FILE = "aardvark.pid"
_TOLD = "names.told"
_PROGRAMS = "/usr/lib/podman:/usr/libexec/podman:/usr/local/libexec/podman:/usr/bin"
_NOWHERE = "127.255.255.255"
"""The resolver of who is on internal networks only: nothing can be sent there, so no question of theirs leaves the host."""
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_DEADLINE = 5.0
_BETWEEN = 0.1
"""Seconds that a look waits for a resolver that does not listen."""
_LOOK = "`reconcile doctor` looks at the programs; apply again when it is mended"
_PORT = 53


# ---------------------------------------------------------------- what it must be, pure


def render_names(view: View, ready: Collection[str]) -> dict[str, str]:
    """The files of a view by name, for those networks whose bridges (`ready`) have their address.

    First line the address to listen on, then `ID IPV4 IPV6 NAMES RESOLVERS` a line (aardvark-dns, config.md).
    """
    lines = {made.grants.link: [made.grants.gateway] for made in bridge_networks(view) if _is_ready(made, view, ready)}
    for network, line, _ in _lines(view):
        if network.grants.link in lines:
            lines[network.grants.link].append(line)
    return {name: "".join(f"{line}\n" for line in some) for name, some in lines.items()}


def _is_ready(network: Made, view: View, ready: Collection[str]) -> bool:
    return network.grants.link in ready and network.key not in view.pending


def _lines(view: View) -> Iterator[tuple[Made, str, Key]]:
    """Every line of every file: its network, the line, and whose it is. Containers that are held have none."""
    networks = {made.key: made for made in bridge_networks(view)}
    # What a stop holds has no name: who asks is told so at once, and does not wait for somebody who is not there.
    containers = [made for made in view.made if kind_of(made.key) is Kind.CONTAINER and not made.away]
    named: set[Key] = set()
    # Order: the older incarnation has the names until it is gone; the younger one may ask already.
    for made in sorted(containers, key=lambda made: (made.key, made.created_at)):
        joined = {
            name: networks[key]
            for name in sorted(made.grants.endpoints)
            if (key := named_key(Kind.NETWORK, stack_of(made.key), name)) in networks
        }
        resolvers = _resolvers(made, joined.values())
        for name, network in joined.items():
            names = [] if made.key in named or made.incarnation in view.nameless else _names(made, name)
            yield network, _line(made, name, names, resolvers), made.key
            # aardvark answers whoever asks from all networks whose files have his address: one resolver does for him.
            for other in sorted(joined.keys() - {name}):
                yield network, _line(made, other, [], resolvers), made.key
        if made.incarnation not in view.nameless:
            named.add(made.key)


def _resolvers(made: Made, networks: Collection[Made]) -> str:
    """Who is asked for names that are not containers': empty for the host's resolvers; nobody for who is shut in."""
    assert isinstance(made.spec, ContainerSpec)
    shut_in = all(isinstance(network.spec, NetworkSpec) and network.spec.internal for network in networks)
    return _NOWHERE if shut_in else ",".join(made.spec.dns)


def _line(made: Made, network: str, names: Sequence[str], resolvers: str) -> str:
    """Without a name it makes an address known, under one that nobody asks for."""
    words = ",".join(names) or f"_{made.incarnation}"
    return f"{made.incarnation} {made.grants.endpoints[network].address}  {words} {resolvers}".rstrip()


def _names(made: Made, network: str) -> list[str]:
    """What a container is called on a network, in lower case."""
    # Compat: one line that aardvark can't read silences every network; validate let no such name pass.
    return list(dict.fromkeys(word for word in map(str.lower, names_on(made, network)) if _NAME.fullmatch(word)))


# ---------------------------------------------------------------- making it so


def ensure_names(layout: Layout, files: dict[str, str]) -> None:
    """Bring files and process to their form; without a file stop it and leave no folder.

    It is read back that it listens on every network. Raises ProgramMissing, ProgramFailed naming who holds the port.
    """
    if not files:
        remove_names(layout)
        return
    with saying("names", f"write {layout.names}"):
        layout.names.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = _read_files(layout)
        # Race: who wrote them may have died before it told the resolver.
        told = _read_told(layout)
        known = {name: text for name, text in there.items() if told.get(name) == _digest(text)}
        _write_files(layout, there, files)
    pid = find_resolver(layout)
    gateways = {text.split(None, 1)[0] for text in files.values()}
    news = list(_news(known, files))
    if not pid:
        _start(layout, gateways)
    elif known != files:
        with saying("names", f"tell aardvark-dns (pid {pid})"), suppress(ProcessLookupError), failpoint.change("signal"):
            os.kill(pid, signal.SIGHUP)
    served = _serves_all(gateways, news)
    if pid and not served and not _read_holders(layout, gateways):
        # It hangs; and as it has the port, nobody else can answer.
        _stop(layout, pid)
        _start(layout, gateways)
        served = _serves_all(gateways, news)
    # Race: one that serves may be between two sockets at any later look, so that it is not looked at again.
    if not served and not gateways <= _listening():
        raise _silent(layout, gateways)
    if not served:
        words = "; ".join(f"{gateway} does not answer {name} with {address}" for gateway, name, address in news)
        raise ProgramFailed("names", "load them into aardvark-dns", words, _LOOK)
    if known != files:
        with saying("names", "note what aardvark-dns was told"):
            write_atomic(layout.run / _TOLD, json.dumps({name: _digest(text) for name, text in files.items()}).encode())


def _read_told(layout: Layout) -> dict[str, str]:
    """Which files the resolver was told of last, and answered, by the digest of each; none where that is not known."""
    try:
        return dict(json.loads((layout.run / _TOLD).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _serves_all(gateways: set[str], news: Sequence[tuple[str, str, str]]) -> bool:
    """Whether it listens everywhere and answers what is new, in time."""
    listens = _wait(lambda: gateways <= _listening())
    return listens and all(_wait(partial(_answers, gateway, name, address)) for gateway, name, address in news)


def _news(there: dict[str, str], files: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """For each file with a new line: who to ask, for which name, and the address that shows that the line is loaded."""
    for name, text in files.items():
        gateway = text.split(None, 1)[0]
        old = set(there.get(name, "").splitlines())
        new = [line.split() for line in text.splitlines()[1:] if line not in old]
        if new:
            _, address, names = new[-1][:3]
            yield gateway, names.split(",")[0], address


def _answers(gateway: str, name: str, address: str) -> bool:
    # Race: between two sockets of the resolver a question is lost or refused; the next one is not.
    try:
        return address in ask_addresses(gateway, name, timeout=0.05)
    except OSError:
        return False


def _write_files(layout: Layout, there: dict[str, str], files: dict[str, str]) -> None:
    for name, text in files.items():
        if there.get(name) != text:
            # Order: staged outside the folder, for aardvark reads everything in it.
            staged = layout.run / staging_name(name)
            staged.write_text(text)
            staged.rename(layout.names / name)
    for name in there.keys() - files.keys():
        (layout.names / name).unlink(missing_ok=True)


def _read_files(layout: Layout) -> dict[str, str]:
    try:
        names = os.listdir(layout.names)  # noqa: PTH208 - names only
    except FileNotFoundError:
        return {}
    return {name: (layout.names / name).read_text(errors="replace") for name in names if name != _PID_FILE}


def find_resolver(layout: Layout) -> int:
    """The pid of the aardvark-dns that serves this root, 0 if none does."""
    with suppress(OSError, ValueError):
        pid = int((layout.names / _PID_FILE).read_text())
        if _serves(pid, layout):
            return pid
    if not layout.names.is_dir():
        return 0
    # Race: its file can be taken away while it lives; a second process could not listen beside it.
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names only
    return next((pid for pid in pids if _serves(pid, layout)), 0)


def _serves(pid: int, layout: Layout) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - procfs
            return str(layout.names).encode() in file.read().split(b"\0")
    except OSError:
        return False


def _start(layout: Layout, gateways: set[str]) -> None:
    program = shutil.which("aardvark-dns", path=_PROGRAMS)
    if program is None:
        raise ProgramMissing("aardvark-dns", "aardvark-dns", "names")
    # Race: of a process that ended by itself the file stays, and a new process would take it for its own.
    with saying("names", f"remove {layout.names / _PID_FILE}"):
        (layout.names / _PID_FILE).unlink(missing_ok=True)
    try:
        with saying("names", "start aardvark-dns"):
            done = subprocess.run(
                [program, "--config", str(layout.names), "-p", str(_PORT), "run"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
                start_new_session=True,
                timeout=_DEADLINE,
                check=False,
            )
    except subprocess.TimeoutExpired as late:
        words = f"it was not in the background after {_DEADLINE:g} s and was killed"
        raise ProgramFailed("names", "start aardvark-dns", words, _LOOK) from late
    if done.returncode:
        # Compat: a newer one ends where it can't listen, an older one goes on without.
        raise _silent(layout, gateways, f"{process.describe_end(done.returncode)}; its words are in syslog")
    _move_out(layout)


def _move_out(layout: Layout) -> None:
    """It serves whoever runs, so that it must not end with the service or session that started it."""
    pid = find_resolver(layout)
    if pid and cgroups.confined_in():
        with saying("names", "move aardvark-dns into a cgroup of its own"):
            cgroups.create(_cgroup(layout))
            cgroups.move_out(pid, _cgroup(layout))


def _cgroup(layout: Layout) -> str:
    return f"/reconcile-{layout.root_id}-names"


def _listening() -> set[str]:
    return {socket.address for socket in read_listeners("udp") if socket.port == _PORT}


def _wait(condition: Callable[[], bool], seconds: float = _DEADLINE) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _silent(layout: Layout, gateways: set[str], otherwise: str = "") -> ProgramFailed:
    silent = sorted(gateways - _listening())
    words = "; ".join(f"{port} is held by {holder}" for port, holder in sorted(_read_holders(layout, gateways).items()))
    return ProgramFailed(
        "names",
        "start aardvark-dns",
        words or otherwise or f"it does not listen on {', '.join(silent)}",
        hint="a resolver of the host that listens on every address must leave the bridges' addresses free"
        if words
        else _LOOK,
    )


def _read_holders(layout: Layout, gateways: set[str]) -> Mapping[str, str]:
    """Who else has the port where it does not listen."""
    return read_port_holders([f"{gateway}:{_PORT}/udp" for gateway in gateways - _listening()], layout=layout)


def remove_names(layout: Layout) -> None:
    """Stop the process and leave no file and no folder."""
    with saying("names", f"remove {layout.names}"):
        pid = find_resolver(layout)
        if pid:
            _stop(layout, pid)
        cgroups.remove(_cgroup(layout))
        if layout.names.is_dir():
            for entry in layout.names.iterdir():
                entry.unlink(missing_ok=True)
            layout.names.rmdir()
        (layout.run / _TOLD).unlink(missing_ok=True)


def _stop(layout: Layout, pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not _serves(pid, layout):  # Race: the pid may be another's by now; from here on the handle is the process.
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError), failpoint.change("signal"):
                signal.pidfd_send_signal(handle, number)
            if process.wait_readable(handle, seconds=2.0):
                return
    finally:
        os.close(handle)


# ---------------------------------------------------------------- looking


def observe_names(layout: Layout, view: View, files: dict[str, str]) -> dict[Key, dict[str, Part]]:
    """The part `names` of each network that has a file, and of each container in one."""
    there = _read_files(layout)
    told = _read_told(layout)
    serving = find_resolver(layout) != 0
    if serving:
        # Race: one that was just told of other names is between two sockets for some milliseconds.
        gateways = {network.grants.gateway for network in bridge_networks(view) if network.grants.link in files}
        _wait(lambda: gateways <= _listening(), _BETWEEN)
    listening = _listening() if serving else set()
    parts: dict[Key, dict[str, Part]] = {}
    lines = {name: set(text.splitlines()) for name, text in there.items()}
    for network in bridge_networks(view):
        wanted, found = files.get(network.grants.link), there.get(network.grants.link)
        if wanted is not None:
            part = _observe_network(network, wanted, found, serving=serving, listening=listening)
            if part == PRESENT and told.get(network.grants.link, _digest(wanted)) != _digest(wanted):
                part = altered("aardvark-dns", "told of its file", "not told")
            parts[network.key] = {"names": part}
    for network, line, key in _lines(view):
        if network.grants.link in files:
            some = parts.setdefault(key, {})
            if line not in lines.get(network.grants.link, ()):
                some["names"] = missing()
            some.setdefault("names", PRESENT)
    return parts


def _observe_network(network: Made, wanted: str, found: str | None, *, serving: bool, listening: Collection[str]) -> Part:
    if found is None:
        return altered("file", "present", "missing")
    if not serving:
        return altered("aardvark-dns", "running", "missing")
    if network.grants.gateway not in listening:
        return altered("aardvark-dns", f"listening on {network.grants.gateway}", "silent")
    extra = set(found.splitlines()) - set(wanted.splitlines())
    if extra or found.splitlines()[:1] != wanted.splitlines()[:1]:
        return altered("file", wanted.splitlines()[0], "; ".join(sorted(extra)) or "its first line is gone")
    return PRESENT
