"""The entry point. `logs`, `exec`, `get` and `apply`, called plainly, ask the controller in a fraction of the whole's time.

Python starts in 15 ms, and all that the command line imports takes 80 more, for a question that is answered in 3. So what
is called often, with nothing that needs understanding, is asked with what Python has loaded anyway, and answered as text
(reconciler/api/text.py). Whatever is not that plain is left to the whole, and so are the words of every error.
"""

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; `signal` and `socket` take 4 ms for enumerations
import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes 4
    from collections.abc import Iterator

DEFAULT_ROOT = "/var/lib/reconcile"
DEFAULT_SOCKET = "/run/reconcile/api.sock"
"""As reconciler.verbs.serving has them; a test compares."""
KINDS = frozenset({"container", "secret", "config", "volume", "network", "image"})
RAW_TYPE = "application/vnd.reconcile.raw-stream"
PATIENCE = 5.0
OURS = 125
"""Of `exec`: the exit code where not the command but we failed."""
_CALL = os.urandom(16).hex()
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_MOST = 512 << 20
_MOST_MANIFEST = 1 << 20


class _HungUp(Exception):
    """The controller has."""


class _OutputFailed(Exception):
    """What came can't be written."""


def main() -> None:
    """Run a command; every end has its exit code, and no traceback reaches a user."""
    code = ask(sys.argv[1:])
    if code is None:
        from reconciler.cli.main import main as whole

        whole()
    os._exit(code or 0)  # Nothing is buffered, and an interpreter takes 3 ms to end.


def ask(words: list[str]) -> int | None:
    """The exit code of a command that the controller has answered; None for what the whole command line is for."""
    request = _render_request(words) if words else None
    found = _find_controller() if request is not None else None
    if request is None or found is None:
        return None
    sock = _connect(*found)
    return None if sock is None else _Call(sock, found, words[0]).answer(request)


# --- what is asked ---


def _render_request(words: list[str]) -> bytes | None:
    verb, *rest = words
    if verb == "logs":
        return _render_logs(rest)
    if verb == "exec":
        return _render_exec(rest)
    if verb == "get" and len(rest) < 2:
        return _render_get(*rest)
    return _render_apply(rest) if verb == "apply" else None


def _render_logs(words: list[str]) -> bytes | None:
    tail = "-1"
    if len(words) == 3 and words[0] in ("--tail", "-n"):
        tail, words = words[1], words[2:]
    if len(words) != 1 or not _is_name(words[0]) or not (tail == "-1" or (tail.isascii() and tail.isdigit())):
        return None
    return _head("GET", f"logs?name={words[0]}&tail={tail}", RAW_TYPE) + b"\r\n"


def _render_exec(words: list[str]) -> bytes | None:
    quoted = [_quote(word) for word in words]
    if len(words) < 2 or not _is_name(words[0]) or words[1] == "--" or None in quoted:
        return None
    ask = f'{{"name":{quoted[0]},"command":[{",".join(map(str, quoted[1:]))}]}}\n'.encode("ascii")
    head = _head("POST", "containers/exec", RAW_TYPE)
    return head + b"Content-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunk(ask)


def _render_get(what: str = "") -> bytes | None:
    kind = what.removesuffix("s")
    query = f"kind={kind}" if kind in KINDS else f"name={what}"
    if what and (not _is_name(what) or "/" in what):
        return None
    return _head("GET", "resources" + (f"?{query}" if what else ""), "text/plain") + b"\r\n"


def _render_apply(words: list[str]) -> bytes | None:
    """Of one file that root may read, with nobody before a terminal, who is shown more and may be asked."""
    flags = {word for word in words if word[:1] == "-"}
    paths = [word for word in words if word[:1] != "-"]
    if len(paths) != 1 or not flags <= {"--yes", "--no-wait"} or os.geteuid() != 0 or os.isatty(1):
        return None
    try:
        if os.stat(paths[0]).st_mode & 0o170000 != 0o100000:  # noqa: PTH116 a pipe can be read once
            return None
        with open(paths[0], "rb") as file:  # noqa: PTH123
            text = file.read(_MOST_MANIFEST)
        folder = os.getcwd()  # noqa: PTH109
    except OSError:
        return None
    # More than it may name, but no word that is not in it.
    named = {name: value for name, value in os.environ.items() if name.encode(errors="surrogateescape") in text}
    quoted = [_quote(word) for word in (paths[0], folder, *named, *named.values())]
    if None in quoted or len(text) == _MOST_MANIFEST:
        return None
    path, where, *rest = map(str, quoted)
    variables = ",".join(f"{name}:{value}" for name, value in zip(rest, rest[len(named) :], strict=False))
    manifests = f'{{"paths":[{path}],"folder":{where},"environment":{{{variables}}}}}'
    options = f'"yes":{_bool("--yes" in flags)},"wait":{_bool("--no-wait" not in flags)}'
    body = f'{{"manifests":{manifests},{options}}}'.encode("ascii")
    return _head("POST", "apply", RAW_TYPE) + _render_body(body)


def _render_body(body: bytes) -> bytes:
    return b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _bool(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"


def _is_name(word: str) -> bool:
    return bool(word) and word[0] != "-" and _PLAIN.issuperset(word)


def _quote(word: str) -> str | None:
    """A string of JSON; None for what takes two escapes or is no text."""
    if any(ord(letter) > 0xD7FF for letter in word):
        return None
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if " " <= each <= "~" else f"\\u{ord(each):04x}" for each in plain) + '"'


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def _head(method: str, target: str, accept: str) -> bytes:
    lines = [
        f"{method} /v1/{target} HTTP/1.1",
        "Host: reconcile",
        "Connection: close",
        f"Accept: {accept}",
        f"Reconcile-Call: {_CALL}",
    ]
    if terminal := _describe_terminal():
        lines.append(f"Reconcile-Terminal: {terminal}")
    user = os.environ.get("SUDO_USER", "")
    if user and _is_name(user):
        lines.append(f"Reconcile-Sudo-User: {user}")
    return "\r\n".join([*lines, ""]).encode("ascii")


def _describe_terminal() -> str:
    """As reconciler.cli.render.look_of sees it."""
    words = [name for name, number in (("stdout", 1), ("stderr", 2)) if os.isatty(number)]
    if "stdout" in words:
        if not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
            words.append("colours")
        columns = os.environ.get("COLUMNS", "")
        words.append(f"columns={columns if columns.isdigit() else os.get_terminal_size(1).columns or 80}")
    return " ".join(words)


# --- who is asked ---


def _find_controller() -> tuple[str, int] | None:
    """The socket of the controller that has the root, and its pid, 0 where that is not for us to read."""
    env = os.environ
    config = env.get("XDG_CONFIG_HOME", "")
    config = config if config.startswith("/") else env.get("HOME", "") + "/.config"
    others = any(name.startswith("RECONCILE_") and name not in ("RECONCILE_ROOT", "RECONCILE_DEBUG") for name in env)
    if others or not config.startswith("/"):
        return None
    try:
        for number in (0, 1, 2):  # What we open would get the number of one that is closed.
            os.fstat(number)
        if os.path.exists(f"{config}/reconcile/contexts.json"):  # noqa: PTH110 pathlib takes as long as all of this
            return None
        return _read_serving(env.get("RECONCILE_ROOT") or DEFAULT_ROOT)
    except (OSError, ValueError):
        return None


def _read_serving(root: str) -> tuple[str, int] | None:
    try:
        with open(f"{root}/controller.json", "rb", buffering=0) as file:  # noqa: PTH123
            text = file.read(4096)
    except OSError:
        return (DEFAULT_SOCKET, 0) if root == DEFAULT_ROOT and os.geteuid() != 0 else None
    pid = text.partition(b'"pid":')[2].partition(b",")[0]
    socket = text.partition(b'"socket":"')[2].partition(b'"')[0].decode("ascii")
    return (socket, int(pid)) if socket and "\\" not in socket else None


def _connect(path: str, pid: int) -> _socket.socket | None:
    """A line to exactly this process; None where another one listens, or nobody."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(path)
        peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    except OSError:
        sock.close()
        return None
    if pid in (0, int.from_bytes(peer[:4], sys.byteorder)):
        return sock
    sock.close()
    return None


# --- the answer ---


class _Call:
    """One request and its answer (RFC 9112, as much of it as our server speaks)."""

    def __init__(self, sock: _socket.socket, where: tuple[str, int], verb: str) -> None:
        self._sock = sock
        self._where = where
        self._verb = verb
        self._changes = verb in ("exec", "apply")
        self._was_interrupted = False
        self._buffer = b""

    def answer(self, request: bytes) -> int | None:
        """Ask, and pass on what comes; the exit code, None where nothing was done and the whole is to ask again."""
        try:
            if self._changes and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
                _signal.signal(_signal.SIGINT, self._interrupt)
            self._sock.sendall(request)
            return self._follow()
        except KeyboardInterrupt:
            os.write(2, b"interrupted\n")
            return 130
        except BrokenPipeError:
            return 141
        except _OutputFailed as error:
            os.write(2, f"error: write the output: {error}\n".encode())
            return 1
        except (_HungUp, ConnectionResetError):
            from reconciler.api.line import hung_up

            return self._tell(hung_up())
        finally:
            self._sock.close()

    def _follow(self) -> int | None:
        while True:
            try:
                head = self._take_until(b"\r\n\r\n")
                break
            except TimeoutError:
                if not self._changes:
                    return None
                if (code := self._look_whether_alive()) is not None:
                    return code
        self._sock.settimeout(None)
        status, headers = head[9:12], head.lower()
        if status != b"200":
            from reconciler.api.problem import read_problem

            return self._tell(read_problem(b"".join(self._read_pieces(headers)), int(status)))
        if b"content-type: text/plain" in headers:
            for piece in self._read_pieces(headers):
                self._write(1, piece)
            return 0
        if RAW_TYPE.encode() in headers:
            return self._follow_raw(headers)
        return self._refuse() if self._changes else None

    def _follow_raw(self, headers: bytes) -> int:
        waits = b""
        for piece in self._read_pieces(headers):
            waits += piece
            while len(waits) >= 5 and len(waits) >= 5 + (size := int.from_bytes(waits[1:5], "big")):
                kind, data, waits = waits[0], waits[5 : 5 + size], waits[5 + size :]
                if kind == 0:
                    return int(data)
                if kind == 3:
                    from reconciler.api.problem import read_problem

                    return self._tell(read_problem(data, 500))
                self._write(kind, data)
        raise _HungUp

    def _read_pieces(self, headers: bytes) -> "Iterator[bytes]":
        if b"transfer-encoding: chunked" not in headers:
            size = int(headers.partition(b"content-length:")[2].partition(b"\r\n")[0])
            yield self._take(min(size, _MOST))
            return
        while size := int(self._take_until(b"\r\n"), 16):
            yield self._take(min(size, _MOST) + 2)[:-2]

    def _take_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self._sock.recv(1 << 16)
        if not data:
            raise _HungUp
        self._buffer += data

    def _interrupt(self, *_: object) -> None:
        """Ctrl-C, while a read goes on: one that is broken off may have read something. A command gets it and ends by it or
        not; an apply ends at its next action."""
        if self._verb == "exec":
            self._sock.sendall(_chunk(b'{"type":"signal","number":2}\n'))
            return
        sock = None if self._was_interrupted else _connect(*self._where)
        if sock is None:
            raise KeyboardInterrupt
        self._was_interrupted = True
        body = f'{{"call":"{_CALL}"}}'.encode()
        sock.sendall(_head("POST", "cancel", "application/json") + _render_body(body))
        sock.close()

    def _write(self, number: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(number, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _OutputFailed(error.strerror) from error

    # --- what is not plain, in the words of the whole ---

    def _tell(self, error: Exception) -> int:
        from reconciler.cli.render import show_error
        from reconciler.model.errors import ReconcileError

        assert isinstance(error, ReconcileError)
        show_error(error)
        return OURS if self._verb == "exec" else error.exit_code

    def _look_whether_alive(self) -> int | None:
        from reconciler.api.client import Client
        from reconciler.model.errors import Failed

        path, pid = self._where
        try:
            Client(path, pid=pid).check_alive()
        except Failed as error:
            return self._tell(error)
        return None

    def _refuse(self) -> int:
        from reconciler.model.errors import Failed

        hint = "`systemctl restart reconcile` stops no container"
        return self._tell(Failed("the controller is of another version than this command", hint=hint))


if __name__ == "__main__":
    main()
