"""Answers as the text that the command line prints, for a client that has no time to make it itself.

A stream of them is frames of bytes: one for what it is, four for its size (big-endian), and the text. Docker's Engine API
multiplexes `attach` and `logs` in much the same way.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from reconciler.api.asks import Apply, Exec, Logs
from reconciler.api.frames import Answer, AnyFrame, Broken, Event, Item, Output, Shown
from reconciler.api.look import PLAIN, Look, clean_log, render_log_time
from reconciler.api.told import PlainText, render_done, render_plan
from reconciler.model.key import split_key

RAW_TYPE = "application/vnd.reconcile.raw-stream"
RAW_ASKS = (Logs, Exec, Apply)
"""Which calls stream it."""
TEXT_TYPE = "text/plain"
ENDED, STDOUT, STDERR, PROBLEM = range(4)
"""What a frame is: the exit code in decimal, what goes to either stream, and a problem as JSON; the first and the last end
the stream."""
_STREAMS = {"stdout": STDOUT, "stderr": STDERR}


class Reader(Struct, frozen=True, kw_only=True):
    """Who reads, as the header `Reconcile-Terminal` says: which streams are a terminal, how wide, whether with colours."""

    terminals: frozenset[str] = frozenset()
    look: Look = PLAIN


def read_reader(header: str) -> Reader:
    """`stdout stderr colours columns=120`, of which any may be missing; what is none of these is passed over."""
    words = header.split()
    wide = [word.removeprefix("columns=") for word in words if word.startswith("columns=")]
    columns = int(wide[0]) if wide and wide[0].isascii() and wide[0].isdigit() and len(wide[0]) < 6 else 0
    return Reader(terminals=frozenset(words) & _STREAMS.keys(), look=Look(columns, "colours" in words))


class LogText:
    """Lines of a log as text; the container's name before each from when there is a second one."""

    def __init__(self, terminals: frozenset[str], *, timestamps: bool = False) -> None:
        self._terminals = terminals
        self._timestamps = timestamps
        self._several = False

    def __call__(self, line: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """The streams and what goes to them: as it was written, but for a terminal, which it must not steer."""
        parts = split_key(line["key"])
        self._several = self._several or parts.index > 1
        head = f"{parts.name}/{parts.index} | " if self._several else ""
        if line["lost"]:
            yield "stderr", f"{head}… lines before this one were lost\n".encode()
        stamp = f"{render_log_time(line['at'])} " if self._timestamps else ""
        text = b64decode(line["text"])
        text = clean_log(text) if line["stream"] in self._terminals else text
        yield line["stream"], (head + stamp).encode() + text + (b"" if line["partial"] else b"\n")


class RawText:
    """Makes bytes of the frames of one call. Standard output may be a command's: then events go to the other."""

    def __init__(self, reader: Reader, *, of_command: bool = False) -> None:
        self._told = STDERR if of_command else STDOUT
        self._log = LogText(reader.terminals)
        self._events = PlainText(reader.look)
        self._look = reader.look

    def __call__(self, frame: AnyFrame) -> bytes:
        """One frame's; none for what is not shown."""
        if isinstance(frame, Output):
            return _pack(_STREAMS[frame.stream], frame.data)
        if isinstance(frame, Item):
            return b"".join(_pack(_STREAMS[stream], text) for stream, text in self._log(frame.item))
        if isinstance(frame, Broken):
            return _pack(PROBLEM, msgspec.json.encode(frame.problem))
        if isinstance(frame, Answer):
            return self._end(frame.answer or {})
        if isinstance(frame, Event):
            return _pack_lines(self._events(frame.event), self._told)
        return _pack_lines(render_plan(frame.lines, self._look)) if isinstance(frame, Shown) else b""

    def _end(self, answer: dict[str, Any]) -> bytes:
        done = answer.get("done")
        said = b"" if done is None else _pack_lines([render_done(done)])
        return said + _pack(ENDED, b"%d" % answer.get("exit_code", 0))


def _pack_lines(lines: Iterable[str], kind: int = STDOUT) -> bytes:
    text = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    return _pack(kind, text) if text else b""


def _pack(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(1, "big") + len(data).to_bytes(4, "big") + data
