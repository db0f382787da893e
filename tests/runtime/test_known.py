"""Files of a bundle that did not change are not read again, and whatever changes one is seen."""

import os
import time
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import bundle
from reconciler.engine.native.runtime.known import Known


class Counted:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.known, self.reads = str(path), Known(), 0
        read = bundle.read_json

        def counting(path: str, name: str) -> dict[str, object]:
            self.reads += 1
            return read(path, name)

        monkeypatch.setattr(bundle, "read_json", counting)

    def say(self) -> tuple[object, int]:
        """What the file says, and how often it was read for that."""
        before = self.reads
        return self.known.read(self.path, "it.json").get("a"), self.reads - before

    def settle(self) -> None:
        """Let its last change be one of long ago."""
        file = Path(self.path, "it.json")
        while time.time_ns() - file.stat().st_ctime_ns <= 110_000_000:
            time.sleep(0.01)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    bundle.write_json(str(tmp_path), "it.json", {"a": 1})
    return Counted(tmp_path, monkeypatch)


def test_file_is_read_once_it_is_settled_and_not_again(counted: Counted) -> None:
    assert [counted.say(), counted.say()] == [(1, 1), (1, 1)]  # Two changes within a tick would bear one time.
    counted.settle()
    assert [counted.say(), counted.say(), counted.say()] == [(1, 1), (1, 0), (1, 0)]
    counted.known.forget_others([])
    assert counted.say() == (1, 1)


def test_whatever_changes_it_is_seen(counted: Counted) -> None:
    counted.settle()
    assert [counted.say(), counted.say()] == [(1, 1), (1, 0)]
    file = Path(counted.path, "it.json")
    times = file.stat()
    file.write_text('{"a":2}')  # in place, and as long as before
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as somebody does who hides it
    assert counted.say() == (2, 1)
    counted.settle()
    assert [counted.say(), counted.say()] == [(2, 1), (2, 0)]
    bundle.write_json(counted.path, "it.json", {"a": 3})
    assert counted.say() == (3, 1)
    file.unlink()
    assert counted.say() == (None, 0)
    file.write_text("no JSON")
    assert counted.say() == (None, 1)
    file.unlink()
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        bundle.read_json(counted.path, "it.json")
    with pytest.raises(IsADirectoryError):
        counted.say()
