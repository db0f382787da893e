"""Named points at which a test makes this process die, fail, wait or hang; without a test they do nothing.

    with failpoint.at("net.veth.make"):
        socket.send(...)

The block is one change of state. What happens is said before the process starts, in the environment:

    RECONCILE_FAILPOINTS='net.veth.make=2*off->1*kill; store.commit:after=raise(ENOSPC); trace=/tmp/points'

A name alone is the moment before its block, `name:after` the one behind it, where it ended well. Terms stand in order, each
for as many hits as its count says (without one: for all that come), and after the last nothing happens any more:

    off   kill (SIGKILL of this process)   raise(ERRNO)   hang (until it is killed)   sleep(MILLISECONDS)

`trace` appends `PID NAME` for each hit to a file. The variable is read once, at the first import: who sets the environment
of a command may as well kill it. The term language is that of fail(9) of FreeBSD.
"""

import errno
import os
import signal
import threading
import time
from types import TracebackType

VARIABLE = "RECONCILE_FAILPOINTS"
AFTER = ":after"


class _Off:
    """What stands at every point as long as nothing is armed."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class _Armed:
    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        reach(self._name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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
_lock = threading.Lock()


def at(name: str) -> _Off | _Armed:
    """The point `name`, around one change of state; names are `room.thing.verb` and each stands at one place."""
    return _OFF if _terms is None else _Armed(name)


def arm(text: str) -> None:
    """Say what happens from now on; the empty text: nothing. Raises ValueError (no such term), OSError (trace)."""
    global _terms, _trace
    if _trace >= 0:
        os.close(_trace)
    _terms, _trace = None, -1
    terms: dict[str, list[_Term]] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, wanted = entry.partition("=")
        if not equals:
            raise ValueError(f"failpoint {entry!r}: NAME=TERM->TERM")
        if name == "trace":
            _trace = os.open(wanted, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        else:
            terms[name] = [_Term(term) for term in wanted.split("->")]
    if terms or _trace >= 0:
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
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(3600)


def _next_term(name: str) -> _Term | None:
    with _lock:  # Race: drivers reach one point from several threads, and counts are exact.
        for term in (_terms or {}).get(name, ()):
            if term.left:
                term.left -= 1
                return term
    return None


if VARIABLE in os.environ:
    arm(os.environ[VARIABLE])
