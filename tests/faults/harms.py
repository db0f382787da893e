"""What is done to two stacks in a world: an apply killed, failed, stopped, doubled; processes, links, mounts, the disk.

Each harm brings another version of `storm`, or leaves it and harms what runs; the judgement (ordeal.py) follows it. Where a
harm falls is drawn from the ordeal's chance.
"""

import contextlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from ordeal import STACKS, Lost, Ordeal, armed


def kill_apply(it: Ordeal) -> None:
    """The apply of another version is killed at some moment."""
    it.draw()
    running = it.popen()
    when = it.moment()
    it.say(f"kill -9 of apply after {when:.3f} s")
    _wait(running, when)
    it.world.signal(running)
    it.finish(running)


def fail_at_a_point(it: Ordeal) -> None:
    """At one point a command, or the exit command of a container, dies, fails or is slow."""
    step = it.chance.choice(("first", "second", "second", "delete", "boot", "exit"))
    if not it.points.get(step):
        return kill_apply(it)
    point = _draw_point(it.chance, it.points[step])
    before = it.chance.choice((0, 0, 0, 1, 2, 5))
    action = it.chance.choice(("kill", "kill", "raise(ENOSPC)", "raise(EIO)", "sleep(300)"))
    term = f"{point}={before}*off->1*{action}" if before else f"{point}=1*{action}"
    it.say(f"failpoint {step} {term}")
    _POINTED[step](it, term)
    return None


def _draw_point(chance: random.Random, points: Sequence[str]) -> str:
    """One of them. A trace differs by a point or two from run to run: the same seed still draws the same one."""
    salt = chance.random()
    return min(points, key=lambda point: random.Random(f"{salt} {point}").random())


def _fail_apply(it: Ordeal, term: str) -> None:
    it.draw()
    it.finish(it.popen(points=term), may=range(128))


def _fail_delete(it: Ordeal, term: str) -> None:
    """Its volumes stay, and with them what was written."""
    it.touched |= {key for key in it.pids if key.startswith("storm/")}
    it.finish(it.world.popen("delete", "storm", "--yes", env=armed(term)), may=range(128))


def _fail_boot(it: Ordeal, term: str) -> None:
    it.touched.add("*")
    it.world.reboot()
    it.finish(it.world.popen("boot", env=armed(term)), may=range(128))


def _fail_exit(it: Ordeal, term: str) -> None:
    """What an apply has started is killed, and its exit command fails."""
    it.touched.add("*")
    before = set(it.pids.values())
    it.draw()
    it.finish(it.popen(exits=term), may=(0,))
    started = [pid for pid in it.read_pids().values() if pid and pid not in before]
    it.say(f"kill -9 of {len(started)} that were started")
    it.world.kill(*started)


_POINTED = {"first": _fail_apply, "second": _fail_apply, "delete": _fail_delete, "boot": _fail_boot, "exit": _fail_exit}


def stop_a_client(it: Ordeal) -> None:
    """A client is stopped in the middle, another one applies meanwhile; both say how it is."""
    it.draw()
    running = it.popen()
    when = it.moment(0.9)
    it.say(f"SIGSTOP of apply after {when:.3f} s, another apply, SIGCONT")
    _wait(running, when)
    it.world.signal(running, signal.SIGSTOP)
    try:
        other = it.finish(it.popen(timeout="1s"), may=(0, 1, 5))
        if other.code == 5 and not re.search(r"locked by pid \d+ since [\d:]+ \(\w+", other.err):
            raise Lost(f"whoever waited is not told for whom\n{other}")
    finally:
        it.world.signal(running, signal.SIGCONT)
    it.finish(running, may=(0, 1))


def two_applies(it: Ordeal) -> None:
    """Two applies at once, of the same stacks or of one each: both end well."""
    it.draw()
    pairs = (STACKS, STACKS), (STACKS[:1], STACKS[1:]), (STACKS[:1], STACKS[:1])
    one, two = it.chance.choice(pairs)
    it.say(f"apply {one} beside apply {two}")
    first, second = it.popen(*one), it.popen(*two)
    results = [it.finish(first), it.finish(second)]
    if any(result.code for result in results):
        raise Lost("of two applies one failed\n" + "\n".join(map(str, results)))


def verbs_beside(it: Ordeal) -> None:
    """stop, start, restart beside an apply."""
    it.draw()
    verb = it.chance.choice(("stop", "restart", "pause"))
    name = it.chance.choice(("store", "web", "worker"))
    it.touched |= {f"storm/{name}/{number}" for number in range(1, 4)}
    running = it.popen()
    _wait(running, it.moment())
    it.say(f"{verb} {name} beside an apply, then what undoes it")
    it.finish(it.world.popen(verb, f"storm/{name}"), may=(0, 1))
    it.finish(running, may=(0, 1))
    if verb != "restart":
        undo = {"stop": "start", "pause": "unpause"}[verb]
        it.finish(it.world.popen(undo, f"storm/{name}"), may=(0, 1))
        it.finish(it.world.popen("start", f"storm/{name}"), may=(0, 1))


def kill_runtimes(it: Ordeal) -> None:
    """Every runc and conmon that is about to start something is killed, now and then, during an apply."""
    it.draw()
    it.touched.add("*")
    running = it.popen()
    it.say("kill -9 of runc processes during an apply")
    until = time.monotonic() + it.seconds
    while running.poll() is None and time.monotonic() < until:
        found = [pid for pid, command in it.world.processes().items() if "runc" in command.split(" ")[0]]
        if found and it.chance.random() < 0.5:
            it.world.kill(*found)
        _wait(running, 0.05)
    it.finish(running, may=(0, 1, 4))


def kill_processes(it: Ordeal) -> None:
    """What lives is killed: monitors, the name server, containers."""
    kinds = {"conmon": "/usr/bin/conmon", "names": "aardvark-dns", "containers": "/bin/pause", "web": "httpd"}
    kind = it.chance.choice(sorted(kinds))
    found = [pid for pid, command in it.world.processes().items() if kinds[kind] in command]
    doomed = it.chance.sample(found, it.chance.randint(1, len(found))) if found else []
    it.say(f"kill -9 of {len(doomed)} {kind}")
    if kind != "names":
        it.touched.add("*")
    it.world.kill(*doomed)


def break_the_net(it: Ordeal) -> None:
    """Links deleted, rules flushed, a bridge down."""
    links = sorted(it.world.links())
    what = it.chance.choice(("link", "rules", "down", "address"))
    link = it.chance.choice(links) if links else ""
    it.say(f"net: {what} {link if what != 'rules' else ''}")
    it.touched.add("*" if what == "link" else "")
    commands = {
        "link": ("ip", "link", "delete", link),
        "rules": ("nft", "flush", "ruleset"),
        "down": ("ip", "link", "set", link, "down"),
        "address": ("ip", "address", "flush", "dev", link),
    }
    it.world.nsenter(*commands[what], check=False)


def unmount(it: Ordeal) -> None:
    """One of the product's mounts is taken away."""
    mounts = [line.split()[1] for line in it.world._read_mounts() - it.world._mounts_at_first]
    where = it.chance.choice(sorted(path for path in mounts if path.count("/") > 3) or sorted(mounts))
    it.say(f"umount -l {where}")
    it.touched.add("*")
    it.world.nsenter("umount", "-l", where, check=False)


def reboot(it: Ordeal) -> None:
    """The power goes, perhaps in an apply; `boot` or an apply brings everything back."""
    it.touched.add("*")
    if it.chance.random() < 0.5:
        it.draw()
        running = it.popen()
        _wait(running, it.moment())
        it.say("a reboot in an apply")
        it.world.signal(running)
        it.finish(running)
    else:
        it.say("a reboot")
    it.world.reboot()
    if it.chance.random() < 0.5:
        it.say("boot")
        it.finish(it.world.popen("boot"), may=(0, 1))


def fill_the_disk(it: Ordeal) -> None:
    """No room is left, or hardly any, while an apply brings another version."""
    if not it.small:
        return kill_apply(it)
    it.draw()
    left = it.chance.choice((0, 4, 64, 256, 1024))
    filler = it.world.root / "filler"
    it.say(f"the root's disk has {left} KiB left")
    it.world.nsenter("sh", "-c", f"cat /dev/zero >{filler}", check=False)
    if left:
        it.world.nsenter("truncate", "-s", f"-{left}K", str(filler))
    it.finish(it.popen(), may=(0, 1, 4))
    it.world.nsenter("rm", str(filler))
    return None


FAULTS: dict[str, tuple[int, Callable[[Ordeal], None]]] = {
    "killed apply": (5, kill_apply),
    "failpoint": (6, fail_at_a_point),
    "stopped client": (2, stop_a_client),
    "two applies": (2, two_applies),
    "verb beside apply": (2, verbs_beside),
    "killed runtime": (2, kill_runtimes),
    "killed process": (3, kill_processes),
    "broken net": (3, break_the_net),
    "unmounted": (1, unmount),
    "reboot": (2, reboot),
    "full disk": (2, fill_the_disk),
}
"""What is done, with its weight."""


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Let it run for so long, or to its end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
