"""Reads an strace of commands of ours: which system calls that change something had no point before them.

A hit of a point is a write to the trace file, so that both stand in one list, in order, thread by thread. A change is
covered when a point was hit since the change before it in the same thread.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "mount,umount2,move_mount,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,"
    "mknod,mknodat,open,openat,openat2,creat,sendto,sendmsg,clone,clone3,fork,vfork,execve,kill,pidfd_send_signal,"
    "write"
)
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_OURS = re.compile(r'^"[^"]*/(?:python[^"/]*|on-?exit)", .*reconciler[./](?:cli[./]main|onexit/__main__)')
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_PATH = re.compile(r'"([^"]*)"|<(/[^>]*)>')

EXCEPTIONS = {
    r"/dev/null": "nothing is written there",
    r"__pycache__": "Python's",
    r"reconcile\.db(\.new-[0-9a-f-]+?)?(-wal|-shm|-journal)?$": "SQLite's own: commits are points, the rest is nothing yet",
    r"/trace$": "the file of the hits",
}
"""Paths that need no point, and why."""


@dataclass
class Thread:
    """What is known of one thread or process."""

    ours: bool = False
    points: int = 0
    """Hits since its last change."""
    last: str = ""
    waiting: str = ""
    """A call that was begun, of which the end stands in another line."""


@dataclass
class Reading:
    """One strace."""

    trace: str
    """The path of the file that hits are written into."""
    threads: dict[str, Thread] = field(default_factory=dict)
    uncovered: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    """How many of each call were looked at."""

    def read(self, log: Path) -> None:
        """Go through a log."""
        for line in log.read_text(errors="replace").splitlines():
            found = _LINE.match(line)
            if found is None:
                continue
            tid, resumed, begun, rest = found.groups()
            thread = self.threads.setdefault(tid, Thread(ours=not self.threads))
            if begun and rest.endswith("<unfinished ...>"):
                thread.waiting = rest
                # Order: the beginning counts; another thread's end may be told before ours.
                self._begin(thread, begun, rest)
            elif begun:
                self._begin(thread, begun, rest)
                self._end(thread, begun, rest)
            else:
                self._end(thread, resumed, thread.waiting + rest)

    def _begin(self, thread: Thread, call: str, rest: str) -> None:
        if not thread.ours:
            return
        if call == "write":
            if f"<{self.trace}>" in rest.split(",", 1)[0]:
                thread.points += 1
                thread.last = rest.split('"')[1].strip("\\n") if '"' in rest else ""
            return
        if not _is_change(call, rest):
            return
        self.changes[call] = self.changes.get(call, 0) + 1
        if not thread.points:
            self.uncovered.append(f"{call}({rest[:160]}  [the last point of this thread: {thread.last}]")
        thread.points = 0

    def _end(self, thread: Thread, call: str, rest: str) -> None:
        result = rest.rpartition(" = ")[2].split(" ")[0]
        if call == "execve" and result == "0":
            thread.ours = bool(_OURS.search(rest))
            thread.points = 0
        elif call in ("clone", "clone3", "fork", "vfork") and result.isdigit():
            # What is forked is a tool until it says otherwise; a thread is ours.
            self.threads.setdefault(result, Thread()).ours = thread.ours and "CLONE_THREAD" in rest


def _is_change(call: str, rest: str) -> bool:
    paths = [named or opened for named, opened in _PATH.findall(rest)]
    if any(re.search(pattern, path) for pattern in EXCEPTIONS for path in paths):
        return False
    match call:
        case "open" | "openat" | "openat2" | "creat":
            return bool(_WRITES.search(rest))
        case "sendto" | "sendmsg":
            return "NLM_F_ACK" in rest
        case "clone" | "clone3":
            return "CLONE_THREAD" not in rest
        case "kill" | "pidfd_send_signal":
            return not re.search(r", 0(,|\))", rest)
        case "execve":
            return False
        case _:
            return True


def describe(reading: Reading) -> Iterator[str]:
    """What was not covered, each once."""
    yield from sorted(set(reading.uncovered))
