"""What `serve` writes to its log: lines, JSON, or the journal's own entries."""

import json
import os
import socket
from pathlib import Path

import pytest

from reconciler.cli.servelog import Log, render_fields
from reconciler.linux.journal import Journal, is_journal
from reconciler.model.events import ActionDone, ActionFailed, ActionStarted, Changed, Note
from reconciler.model.key import Key

KEY = Key("container/blog/web/1")
EVENTS = [
    ActionStarted(id=1, verb="create", key=KEY),
    ActionDone(id=1, verb="create", key=KEY, took=0.5, because="it is \x1bgone"),
    ActionFailed(id=1, verb="create", key=KEY, brief="no", detail="two\nlines"),
    Note(text="a\x1b[31mword", level="warning"),
    Changed(verb="apply", stack="blog", who="ann", result="failed", why="no", count=1, took=1.0),
]


def test_json_has_an_object_a_line_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log("json")
    for event in EVENTS:
        log(event)
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["event"], one["level"]) for one in found] == [
        ("done", "info"), ("failed", "warning"), ("note", "warning"), ("change", "warning"),
    ]  # fmt: skip
    assert all(one["at"] > 1e9 for one in found)


def test_text_has_a_time_and_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    for event in EVENTS:
        log(event)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line[4] == "-" and "\x1b" not in line for line in lines)
    assert lines[0].endswith("because it is \N{REPLACEMENT CHARACTER}gone"), "nobody has read a plan here"


def test_journal_gets_fields_and_what_it_does_not_take_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(tmp_path / "journal"))
        journal = Journal(str(tmp_path / "journal"))
        assert journal.write(render_fields(EVENTS[2]))
        data = opened.recv(65536)
        assert b"PRIORITY=4\n" in data
        assert b"RECONCILE_KEY=container/blog/web/1\n" in data
        name, _, rest = data.partition(b"\n")
        assert name == b"MESSAGE", "of several lines: by its length"
        assert rest[8 : 8 + int.from_bytes(rest[:8], "little")].endswith(b"lines")
        assert journal.write(render_fields(EVENTS[4]))
        data = opened.recv(65536)
        assert b"RECONCILE_RESULT=failed\n" in data
        assert b"MESSAGE=apply blog by ann: failed (1 actions, 1.0 s)\n" in data
    assert not journal.write({"MESSAGE": "x"}), "nobody is there any more"
    journal.close()


def test_only_what_systemd_opened_is_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "x").open("w") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not is_journal(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", "nonsense")
    assert not is_journal(2)
