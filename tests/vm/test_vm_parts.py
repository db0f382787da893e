"""The disk of the power cuts loses what was not flushed, and nothing else; both halves of vm-tests are whole."""

import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disk import BLOCK, Disk

from lab.world import REPOSITORY

SIZE = 8 * BLOCK


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk.img").write_bytes(bytes(SIZE))
    return Disk(tmp_path / "disk.img", tmp_path / "disk.sock")


@contextmanager
def client(folder: Path) -> Iterator[socket.socket]:
    """A client that has got through the handshake as qemu does, by NBD_OPT_GO."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(folder / "disk.sock"))
        assert sock.recv(18)[:8] == b"NBDMAGIC"
        sock.sendall(struct.pack(">I", 1) + b"IHAVEOPT" + struct.pack(">II", 7, 6) + struct.pack(">IH", 0, 0))
        said = b""
        while len(said) < 20 + 12 + 20:
            said += sock.recv(4096)
        assert struct.unpack(">Q", said[22:30]) == (SIZE,)
        yield sock


def ask(sock: socket.socket, kind: int, block: int = 0, data: bytes = b"", length: int = 0) -> bytes:
    sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 7, block * BLOCK, length or len(data)) + data)
    answer = b""
    while len(answer) < 16 + length:
        answer += sock.recv(65536)
    assert struct.unpack(">IIQ", answer[:16]) == (0x67446698, 0, 7)
    return answer[16:]


def fill(letter: str) -> bytes:
    return letter.encode() * BLOCK


def test_what_was_flushed_stays_and_what_was_not_is_lost(disk: Disk, tmp_path: Path) -> None:
    with client(tmp_path) as sock:
        ask(sock, 1, 0, fill("a") + fill("b"))
        ask(sock, 3)
        ask(sock, 1, 1, fill("c") + fill("d"))
        assert ask(sock, 0, 1, length=BLOCK) == fill("c")
    assert disk.cut(random.Random(1), "lost") == "2 of 2 blocks in its cache lost"
    assert (tmp_path / "disk.img").read_bytes() == fill("a") + fill("b") + bytes(6 * BLOCK)


def test_each_block_is_left_in_any_state_since_the_last_flush(tmp_path: Path) -> None:
    seen = set()
    for seed in range(40):
        (tmp_path / "disk.img").write_bytes(fill("a") * 8)
        disk = Disk(tmp_path / "disk.img", tmp_path / "disk.sock")
        with client(tmp_path) as sock:
            ask(sock, 1, 0, fill("b") * 2)
            ask(sock, 1, 1, fill("c"))
        disk.cut(random.Random(seed), "mixed")
        left = (tmp_path / "disk.img").read_bytes()
        seen.add((left[:1], left[BLOCK : BLOCK + 1]))
        assert left[2 * BLOCK :] == fill("a") * 6
    assert seen == {(first, second) for first in (b"a", b"b") for second in (b"a", b"b", b"c")}


def test_from_the_named_flush_on_nothing_is_done(disk: Disk, tmp_path: Path) -> None:
    with client(tmp_path) as sock:
        ask(sock, 1, 0, fill("a"))
        disk.strike_at(1)
        ask(sock, 3)
        ask(sock, 1, 0, fill("b"))
        sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 3, 7, 0, 0))
        assert disk.struck.wait(5)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(16)
    disk.cut(random.Random(1), "lost")
    assert (tmp_path / "disk.img").read_bytes()[:BLOCK] == fill("a")


def test_both_halves_of_vm_tests_find_what_they_import() -> None:
    """They run by hand only; what they use of other tests may move meanwhile."""
    said = subprocess.run([REPOSITORY / "scripts/vm-tests", "--help"], capture_output=True, text=True, check=False)
    assert "--rounds" in said.stdout, said.stderr
    path = ":".join(str(REPOSITORY / name) for name in ("", "tests", "tests/faults", "tests/cli", "tests/vm"))
    guest = [sys.executable, "-c", "import cut_guest"]
    assert subprocess.run(guest, env={"PYTHONPATH": path}, check=False).returncode == 0
