"""A client of the API: the standard library and msgspec, nothing else.

    from reconciler.api.asks import Get
    from reconciler.api.client import Client

    for one in Client("/run/reconcile/api.sock").call(Get(kind="container")):
        print(one["key"], one["status"]["phase"])

It speaks the little of HTTP/1.1 (RFC 9112) that our server speaks, for importing http.client would take as long as the
whole of a `reconcile get`. A call is a connection.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

import msgspec

from reconciler.api import frames
from reconciler.api.asks import CALL_OF, Ask, Call, Cancel
from reconciler.api.frames import Listener
from reconciler.api.line import Ends, HungUp, Line, hung_up
from reconciler.api.problem import Unanswered, read_problem, revive
from reconciler.api.sessions import Exec, Session
from reconciler.model.errors import Failed, Usage

PATIENCE = 5.0
"""Seconds of silence after which we ask whether anybody is there."""
FAR_PATIENCE = 30.0
CONNECT = 2.0


NOBODY = Listener()


class Unreachable(Failed):
    """Nobody listens at the socket; nothing was asked of anybody."""

    retry = True


def forbid(path: str) -> Failed:
    """Who is neither root nor in the group is told so."""
    hint = "root and the group `reconcile` may: sudo, or `sudo usermod -aG reconcile USER` and a new login"
    return Failed(f"{path}: this user may not ask the controller", hint=hint)


class Client:
    """One controller, by its socket. Each call may be made from its own thread."""

    def __init__(
        self,
        path: str,
        *,
        pid: int = 0,
        connect: Callable[[], socket.socket] | None = None,
        explain: Callable[[], str] = lambda: "",
    ) -> None:
        self.path = path
        self.pid = pid
        self.remote = connect is not None
        self._connect = connect or self._connect_unix
        self._explain = explain
        """What to do about a way that ends without an answer."""

    def call(self, ask: Ask, listener: Listener = NOBODY) -> Any:
        """Make a call and wait for its answer; what it tells meanwhile goes to the listener. Ctrl-C has it end at the next
        action, and its end is waited for; a second one goes away. Raises what the verb raises, Unreachable."""
        call = CALL_OF[type(ask)]
        try:
            return self._ask(call, ask, listener)
        except Unanswered as error:
            answer = listener.confirm(error.question)
            if answer is None:
                raise
            agreed = error.question.token if answer else "no"
            quiet = msgspec.structs.replace(listener, show=None)  # It was shown.
            return self._ask(call, msgspec.structs.replace(ask, agreed=agreed), quiet)

    def _ask(self, call: Call, ask: Ask, listener: Listener) -> Any:
        number = os.urandom(16).hex()
        with closing(self._open()) as line, line.heard():
            line.send(*_render(call, ask, number))
            if call.streams and call.method != "GET":  # What only looks is left at once.
                line.cancel = partial(self._cancel, number)
            status, headers = self._read_head(line)
            if status != 200:
                raise read_problem(line.read_body(headers), status)
            if not call.streams:
                return msgspec.json.decode(line.read_body(headers))
            return self._follow(line, headers, listener)

    def _follow(self, line: Line, headers: Mapping[str, str], listener: Listener) -> Any:
        for text in line.read_lines(headers):
            frame = frames.decode_frame(text)
            if isinstance(frame, frames.Answer):
                return frame.answer
            if isinstance(frame, frames.Broken):
                raise revive(frame.problem)
            _tell(frame, listener)
        raise hung_up()

    def _cancel(self, number: str) -> None:
        with suppress(Failed):
            self.call(Cancel(call=number))

    def exec(self, ask: Exec, *, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> int:
        """Run a command with streams of ours; its exit code. Ctrl-C goes to the command, which may end by it or not."""
        return int(self.join(ask, Ends(stdin=stdin, stdout=stdout, stderr=stderr))["exit_code"])

    def join(self, ask: Session, ends: Ends, listener: Listener = NOBODY) -> Any:
        """Make a call with streams of ours, and wait for its answer. Raises what the verb raises, Unreachable;
        BrokenPipeError where nobody reads our output."""
        call, number = CALL_OF[type(ask)], os.urandom(16).hex()
        with closing(self._open()) as line, line.heard():
            headers = {"Content-Type": "application/jsonl", "Transfer-Encoding": "chunked", "Accept": "application/jsonl"}
            line.send(_head(call.method, f"/v1{call.path}", headers | _about_us(number)))
            line.send_chunk(_encode(ask) + b"\n")
            line.cancel = partial(self._cancel, number)
            status, found = self._read_head(line)
            if status != 200:
                raise read_problem(line.read_body(found), status)
            for text in line.read_lines(found):
                frame = frames.decode_frame(text)
                if isinstance(frame, frames.Output):
                    _write_all(ends.stdout if frame.stream == "stdout" else ends.stderr, frame.data)
                elif isinstance(frame, frames.Begun):
                    line.begin(frame, ends, interrupts=isinstance(ask, Exec))
                elif isinstance(frame, frames.Broken):
                    raise revive(frame.problem)
                elif isinstance(frame, frames.Answer):
                    return frame.answer
                else:
                    _tell(frame, listener)
            raise hung_up()

    # --- the line ---

    def _open(self) -> "Line":
        try:
            return Line(self._connect())
        except PermissionError as error:
            raise forbid(self.path) from error
        except OSError as error:
            words = error.strerror or str(error)
            hint = self._explain() or "`systemctl status reconcile`"
            raise Unreachable(f"{self.path}: nobody answers: {words}", hint=hint) from error

    def _connect_unix(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(CONNECT)
        try:
            made.connect(self.path)
        except BaseException:
            made.close()
            raise
        return made

    def _read_head(self, line: Line) -> tuple[int, dict[str, str]]:
        """The head of the response, however long the work takes, as long as somebody is there at all."""
        while True:
            try:
                return line.read_head(FAR_PATIENCE if self.remote else PATIENCE)
            except TimeoutError:
                self.check_alive()
            except HungUp as error:
                if not self.remote:
                    raise
                raise Unreachable(f"{self.path}: no answer", hint=self._explain()) from error

    def check_alive(self) -> None:
        """Ask whether anybody is there at all. Raises Failed."""
        who = f"the controller (pid {self.pid})" if self.pid else "the controller"
        try:
            with closing(self._open()) as line:
                line.send(_head("GET", "/healthz", {}), b"")
                line.read_head(FAR_PATIENCE if self.remote else CONNECT)
        except (TimeoutError, Failed) as error:
            raise Failed(
                f"{who} does not answer",
                hint="`systemctl restart reconcile` stops no container; --local goes without it",
            ) from error


def _tell(frame: frames.AnyFrame, listener: Listener) -> None:
    if isinstance(frame, frames.Event):
        listener.emit(frame.event)
    elif isinstance(frame, frames.Shown):
        if listener.show is not None:
            listener.show(frame.lines)
    else:
        listener.item(frame)


def _render(call: Call, ask: Ask, number: str) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    headers = _about_us(number)
    if call.streams:
        headers["Accept"] = "application/jsonl"
    if call.method == "GET":
        words = "&".join(f"{name}={_quote(value)}" for name, value in _words(ask))
        return _head("GET", f"/v1{call.path}" + (f"?{words}" if words else ""), headers), b""
    body = _encode(ask)
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return _head(call.method, f"/v1{call.path}", headers), body


def _encode(ask: Ask) -> bytes:
    try:
        return msgspec.json.encode(ask)
    except UnicodeEncodeError as error:
        raise Usage("a name that is no text (UTF-8) can't be sent to a controller", hint="rename it") from error


def _about_us(number: str) -> dict[str, str]:
    user = os.environ.get("SUDO_USER")
    return {"Reconcile-Call": number, **({"Reconcile-Sudo-User": user} if user else {})}


def _write_all(number: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(number, left) :]


def _words(ask: Ask) -> Iterator[tuple[str, str]]:
    for name, value in msgspec.to_builtins(ask).items():
        for one in value if isinstance(value, list) else [value]:
            yield name, str(one).lower() if isinstance(one, bool) else str(one)


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def _quote(text: str) -> str:
    """RFC 3986, 2.1. urllib would take as long to import as the rest of a request."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: reconcile", "Connection: close"]
    lines += [f"{name}: {value.encode('ascii', 'replace').decode()}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
