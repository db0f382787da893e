"""A disk for a virtual machine whose power may go: what was not flushed is lost, or not, block by block.

An NBD server over a Unix socket, for one client at a time (doc/proto.md of NetworkBlockDevice/nbd, "fixed newstyle"). The
image file holds what was written last. What a block held since the last flush is remembered until the next one, and
`cut` lets each block be any of that: a real disk orders its cache as it likes and promises nothing but flushes.
"""

import contextlib
import os
import random
import socket
import struct
import threading
from pathlib import Path

BLOCK = 4096
"""Bytes that a disk writes whole or not at all; also the block of the file system on it."""

_FLAGS = 1 | 4  # has flags, takes flushes. Without the flag for FUA a client flushes instead.
_GO, _EXPORT_NAME, _ABORT, _INFO = 7, 1, 2, 6
_OPTION, _REPLY = 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _ANSWER = 0x25609513, 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_ACK, _HAS_INFO, _UNSUPPORTED, _INVALID = 1, 3, 0x80000001, 22


class Disk:
    """One image file behind a socket. `cut` ends the service, and says what became of it; a new one serves on."""

    def __init__(self, image: Path, listening: Path) -> None:
        self.image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self.size = os.fstat(self.image).st_size
        self.flushes = 0
        self.struck = threading.Event()
        """Set once the flush that `strike_at` named has come, which is never answered."""
        self._last = -1
        self._states: dict[int, list[bytes]] = {}
        self._lock = threading.Lock()
        self._dead = False
        listening.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(listening))
        self._door.listen(1)
        self._thread = threading.Thread(target=self._serve, name="disk", daemon=True)
        self._thread.start()

    def strike_at(self, flush: int) -> None:
        """From the flush after `flush` more on the disk does nothing, like one whose power has just gone."""
        with self._lock:
            self._last = self.flushes + flush

    def cut(self, chance: random.Random, fate: str) -> str:
        """The power goes. `fate` of what was not flushed: `kept`, `lost`, or `mixed`: any state of each block.

        To be called when the client is dead. What became of it, in words.
        """
        with self._lock:
            self._dead = True
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(20)
        gone = 0
        for number, states in sorted(self._states.items()):
            now = os.pread(self.image, BLOCK, number * BLOCK)
            then = {"kept": now, "lost": states[0]}.get(fate) or chance.choice([*states, now])
            gone += then != now
            os.pwrite(self.image, then, number * BLOCK)
        os.close(self.image)
        return f"{gone} of {len(self._states)} blocks in its cache lost"

    # --- the protocol ---

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                client, _ = self._door.accept()
                with client, contextlib.suppress(OSError, EOFError):
                    if self._negotiate(client):
                        self._answer_requests(client)

    def _negotiate(self, client: socket.socket) -> bool:
        client.sendall(b"NBDMAGIC" + struct.pack(">QH", _OPTION, 1 | 2))
        _take(client, 4)
        while True:
            _, option, length = struct.unpack(">QII", _take(client, 16))
            _take(client, length)
            facts = struct.pack(">QH", self.size, _FLAGS)
            if option == _EXPORT_NAME:
                client.sendall(facts)
                return True
            if option in (_GO, _INFO):
                self._reply(client, option, _HAS_INFO, struct.pack(">H", 0) + facts)
            self._reply(client, option, _ACK if option in (_GO, _INFO, _ABORT) else _UNSUPPORTED)
            if option in (_GO, _ABORT):
                return option == _GO

    def _reply(self, client: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
        client.sendall(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)

    def _answer_requests(self, client: socket.socket) -> None:
        while True:
            magic, _, kind, handle, offset, length = struct.unpack(">IHHQQI", _take(client, 28))
            if magic != _REQUEST or kind == _DISCONNECT:
                return
            data = _take(client, length) if kind == _WRITE else b""
            with self._lock:
                if self._dead or self.struck.is_set():
                    continue
                out, error = self._do(kind, offset, length, data)
                if self.struck.is_set():
                    continue
            client.sendall(struct.pack(">IIQ", _ANSWER, error, handle) + out)

    def _do(self, kind: int, offset: int, length: int, data: bytes) -> tuple[bytes, int]:
        if kind == _READ:
            return os.pread(self.image, length, offset), 0
        if kind == _WRITE:
            for number in range(offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK):
                self._states.setdefault(number, []).append(os.pread(self.image, BLOCK, number * BLOCK))
            os.pwrite(self.image, data, offset)
            return b"", 0
        if kind == _FLUSH:
            if self.flushes == self._last:
                self.struck.set()
                return b"", 0
            self.flushes += 1
            self._states.clear()
            return b"", 0
        return b"", _INVALID


def _take(client: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = client.recv(min(length - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
