"""What has streams: exec, attach, run; and the files of containers."""

import io
import os
from typing import IO, Any, cast

from reconciler.api import asks, sessions
from reconciler.api.answers import Answerer, Opener
from reconciler.api.answers.running import check_let_go, run
from reconciler.api.frames import Listener, Output
from reconciler.engine.protocol import Begun, Streams
from reconciler.verbs import attach as attaching
from reconciler.verbs import containers, copy


def exec_(opened: Opener, ask: sessions.Exec, listener: Listener) -> Any:
    """Its exit code. Raises what `exec` raises."""

    def work(streams: Streams | None) -> Any:
        with opened() as root:
            result = containers.exec_(
                root, ask.name, ask.command, tty=ask.tty, stdin=ask.stdin, user=ask.user, workdir=ask.workdir,
                env=ask.env, streams=streams, emit=listener.emit,
            )  # fmt: skip
        return {"exit_code": result.exit_code}

    return listener.join(work)


def attach(opened: Opener, ask: sessions.Attach, listener: Listener) -> Any:
    """Its exit code, null where it goes on; `unread` where that is because nobody reads what it writes any more."""

    def work(streams: Streams | None) -> Any:
        with opened() as root:
            ended = attaching.attach(
                root, ask.name, stdin=ask.stdin, keys=ask.keys, signals=ask.signals, streams=streams
            )  # fmt: skip
        check_let_go(ended, ask.name, listener)
        return {"exit_code": ended.exit_code, "unread": ended.unread}

    return listener.join(work)


def look(opened: Opener, ask: sessions.Look, listener: Listener) -> Any:
    """The container's key, and what is there."""
    with opened() as root:
        key, seen = copy.look(root, ask.name, ask.path, follow=ask.follow)
    return {"key": key, "seen": None if seen is None else {"folder": seen.folder, "link": seen.link}}


def copy_out(opened: Opener, ask: sessions.CopyOut, listener: Listener) -> Any:
    """The tar is output."""
    with opened() as root, io.BufferedWriter(_Told(listener), _PIECE) as out:
        to = cast("IO[bytes]", out)
        copy.read(root, ask.name, ask.path, to, top=ask.top, follow=ask.follow, emit=listener.emit)


_PIECE = 1 << 16


class _Told(io.RawIOBase):
    """A file of which whoever listens hears what is written."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Raises BrokenPipeError where nobody listens any more."""
        if self._listener.gone():
            raise BrokenPipeError
        self._listener.item(Output(stream="stdout", data=bytes(data)))
        return len(data)


def copy_in(opened: Opener, ask: sessions.CopyIn, listener: Listener) -> Any:
    """The tar is the input."""

    def work(streams: Streams | None) -> Any:
        if streams is not None:
            streams.begun(Begun(stdin=True))
        with opened() as root, os.fdopen(os.dup(streams.stdin if streams else 0), "rb") as stream:
            copy.write(root, ask.name, ask.path, stream, owners=ask.owners, emit=listener.emit)

    return listener.join(work)


ANSWERS: dict[type[asks.Ask], Answerer] = {
    sessions.Exec: exec_,
    sessions.Attach: attach,
    sessions.Run: run,
    sessions.Look: look,
    sessions.CopyOut: copy_out,
    sessions.CopyIn: copy_in,
}
