"""Points at which a test makes this process die, fail, wait or hang; without a test they do nothing.

    with failpoint.at("converge.settle"):        # a step, named where it stands
        engine.settle(view)
    with failpoint.change("netlink"):            # a call that changes the kernel, named after who asked for it
        socket.send(...)

Each block is one change of state. What Python itself tells of (sys.addaudithook: renames, folders, links, files opened to
be written, programs started) needs no block: those are points by themselves. The name of a change is the function of ours
that wanted it, and its kind: `engine.native.net.veth.make_links/netlink`. What happens is said before the process starts:

    RECONCILE_FAILPOINTS='converge.settle:after=2*off->1*kill; engine.native.volumes.managed.create/mkdir=raise(ENOSPC)'

A name alone is the moment before its block, `name:after` the one behind it, where it ended well. Terms stand in order, each
for as many hits as its count says (without one: for all that come), and after the last nothing happens any more:

    off   kill (SIGKILL of this process)   raise(ERRNO)   hang (until it is killed)   sleep(MILLISECONDS)

`trace=FILE` appends `PID NAME` for each hit to a file. RECONCILE_FAILPOINTS_ON_EXIT is the same for the exit commands of
containers that are started. Both are read once, at the first import: who sets the environment of a command may as well kill
it. The term language is that of fail(9) of FreeBSD.
"""

import errno
import os
import sys
import time
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

VARIABLE = "RECONCILE_FAILPOINTS"
ON_EXIT = "RECONCILE_FAILPOINTS_ON_EXIT"
AFTER = ":after"

_AUDITED = {
    "open": "write",
    "os.rename": "rename",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.link": "link",
    "os.symlink": "symlink",
    "subprocess.Popen": "spawn",
}
"""Python's events (docs.python.org, "Audit events table") that are changes, and what we call them."""
_PASSED_OVER = ("reconciler.linux.", "reconciler.store.")
"""Who only does what another asked for."""
_SIGKILL = 9


class _Off:
    """What stands at every point as long as nothing is armed."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        pass


class _Armed:
    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        reach(self._name)

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if kind is None:
            reach(self._name + AFTER)


class _Term:
    """`2*raise(EIO)`: how often, what, with what."""

    def __init__(self, text: str) -> None:
        count, star, action = text.strip().rpartition("*")
        self.left = int(count) if star else -1
        self.action, _, argument = action.partition("(")
        self.argument = argument.rstrip(")")
        known = {"off": "", "kill": "", "hang": "", "raise": "ERRNO", "sleep": "MS"}
        if self.action not in known or bool(self.argument) != bool(known[self.action]):
            raise ValueError(f"failpoint term {text!r}: off, kill, hang, raise(ERRNO) or sleep(MS), N* before it")
        if self.action == "raise" and not isinstance(getattr(errno, self.argument, None), int):
            raise ValueError(f"failpoint term {text!r}: no such errno")


_OFF = _Off()
_terms: dict[str, list[_Term]] | None = None
_trace = -1
_lock = allocate_lock()
_listening = False


def at(name: str) -> _Off | _Armed:
    """The point `name`, around one step; names are `room.step` and each stands at one place."""
    return _OFF if _terms is None else _Armed(name)


def change(kind: str) -> _Off | _Armed:
    """The point of a call that changes the kernel, the disk or another process, named after who asked for it."""
    return _OFF if _terms is None else _Armed(_name_caller(sys._getframe(1), kind))


def handed_on() -> list[str]:
    """What the exit command of a container that is started now is to be armed with: one argument, or none."""
    return [os.environ[ON_EXIT]] if ON_EXIT in os.environ else []


def arm(text: str) -> None:
    """Say what happens from now on; the empty text: nothing. Raises ValueError (no such term), OSError (trace)."""
    global _terms, _trace, _listening
    _terms = None
    if _trace >= 0:
        os.close(_trace)
        _trace = -1
    terms: dict[str, list[_Term]] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, wanted = entry.partition("=")
        if not equals:
            raise ValueError(f"failpoint {entry!r}: NAME=TERM->TERM")
        if name == "trace":
            _trace = os.open(wanted, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        else:
            terms[name] = [_Term(term) for term in wanted.split("->")]
    if not terms and _trace < 0:
        return
    if not _listening:
        sys.addaudithook(_listen)  # There is no way to take it off again: it looks whether anything is armed.
        _listening = True
    _terms = terms


def reach(name: str) -> None:
    """Do what is said for a point. Raises OSError where that is `raise`."""
    if _trace >= 0:
        os.write(_trace, f"{os.getpid()} {name}\n".encode())
    term = _next_term(name)
    if term is None or term.action == "off":
        return
    if term.action == "raise":
        number = getattr(errno, term.argument)
        raise OSError(number, os.strerror(number), f"failpoint {name}")
    if term.action == "sleep":
        time.sleep(int(term.argument) / 1000)
        return
    if term.action == "kill":
        os.kill(os.getpid(), _SIGKILL)
    while True:
        time.sleep(3600)


def _next_term(name: str) -> _Term | None:
    with _lock:  # Race: drivers reach one point from several threads, and counts are exact.
        for term in (_terms or {}).get(name, ()):
            if term.left:
                term.left -= 1
                return term
    return None


def _listen(event: str, arguments: "tuple[object, ...]") -> None:
    kind = _AUDITED.get(event)
    if kind is None or _terms is None:
        return
    if kind == "write" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    path = str(arguments[0])
    if path != os.devnull and "__pycache__" not in path:
        reach(_name_caller(sys._getframe(1), kind))


def _name_caller(frame: "FrameType | None", kind: str) -> str:
    """`engine.native.net.veth.make_links/netlink`: the nearest function of ours that is no mere tool of another."""
    nearest = ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("reconciler."):
            name = f"{module[len('reconciler.') :]}.{frame.f_code.co_name}/{kind}"
            if not module.startswith(_PASSED_OVER):
                return name
            nearest = nearest or name
        frame = frame.f_back
    return nearest or f"python/{kind}"


if VARIABLE in os.environ:
    arm(os.environ[VARIABLE])
