"""Asks a port of a container, over TCP or HTTP, through a socket that is made inside its network namespace.

No process is started and nothing is trusted: the answer is bounded in bytes and in time, redirects are not followed,
certificates not checked (who could fake one is in the container already). inside.py calls it and keeps what it says.
"""

import os
import re
import socket
import time
from collections.abc import Sequence

from reconciler.linux import namespaces, process
from reconciler.model.health import TCP

_URL = re.compile(r"(https?)://:(\d+)(/.*)")
_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([1-5]\d\d)(?: ([^\r\n]*))?\r?\n")
_MOST_BYTES = 4096
_SHOWN = 200
"""Letters of an answer's body that are told."""
_LINGER = 0.1
"""Seconds that are spent on the rest of an answer once its status is known."""


class _Unwell(Exception):
    """What was answered means unhealthy."""


def ask(test: Sequence[str], *, init: tuple[int, int], address: str, timeout: float) -> tuple[bool, str]:
    """Whether the port of `test` answers as it should within `timeout` seconds, and what was said.

    `init` is the pid and the start time of the container's first process, whose network namespace is entered for a moment
    by this thread.
    """
    deadline = time.monotonic() + timeout
    try:
        if test[0] == TCP:
            _connect(init, address, int(test[1]), deadline).close()
            return True, f"connected to {address}:{test[1]}"
        return True, _ask_http(test, init, address, deadline)
    except _Unwell as error:
        return False, str(error)
    except TimeoutError:
        return False, f"it took longer than {timeout:g} s"
    except (OSError, ValueError) as error:
        return False, f"{address}: {getattr(error, 'strerror', None) or error}"


def _connect(init: tuple[int, int], address: str, port: int, deadline: float) -> socket.socket:
    netns = os.open(f"/proc/{init[0]}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Race: the pid may be another's by now; what was opened while it was its own stays that.
        if not process.is_alive(*init):
            raise _Unwell("it has ended")
        with namespaces.entered(netns):
            asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    finally:
        os.close(netns)
    try:
        asking.settimeout(_left(deadline))
        asking.connect((address, port))
    except BaseException:
        asking.close()
        raise
    return asking


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ask_http(test: Sequence[str], init: tuple[int, int], address: str, deadline: float) -> str:
    found = _URL.fullmatch(test[1])
    if not found:
        raise _Unwell(f"{test[1]} is no URL that can be asked for")
    scheme, port, path = found[1], int(found[2]), found[3]
    low, high = map(int, test[2].split("-"))
    plain = _connect(init, address, port, deadline)
    with _wrap(plain, deadline) if scheme == "https" else plain as asking:
        asking.settimeout(_left(deadline))
        head = f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: reconcile\r\nAccept: */*\r\n"
        asking.sendall(f"{head}Connection: close\r\n\r\n".encode("ascii"))
        status, words = _read_status(asking, deadline)
    if not low <= status <= high:
        raise _Unwell(words)
    return words


def _wrap(plain: socket.socket, deadline: float) -> socket.socket:
    import ssl  # 20 ms that only https needs

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain.settimeout(_left(deadline))
    return context.wrap_socket(plain)


def _read_status(asking: socket.socket, deadline: float) -> tuple[int, str]:
    """The status, and a line of it with the beginning of the answer as far as that comes at once."""
    answer = b""
    while not (found := _STATUS_LINE.match(answer)):
        if b"\n" in answer or len(answer) >= _MOST_BYTES or not (more := _read_more(asking, answer, deadline)):
            raise _Unwell(
                f"it does not speak HTTP: {answer[:80]!a}" if answer else "it closed the connection without an answer"
            )
        answer += more
    soon = min(deadline, time.monotonic() + _LINGER)
    try:
        while len(answer) < _MOST_BYTES and (more := _read_more(asking, answer, soon)):
            answer += more
    except OSError:
        pass  # The status is known.
    status, reason = found[1].decode(), (found[2] or b"").decode("latin-1")
    body = " ".join(answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").split())[:_SHOWN]
    return int(status), f"{status} {reason}".strip() + (f": {body}" if body else "")


def _read_more(asking: socket.socket, answer: bytes, deadline: float) -> bytes:
    asking.settimeout(_left(deadline))
    return asking.recv(_MOST_BYTES - len(answer))
