"""Names for hosts, and what goes where: `reconcile context`, and `status` of several."""

import json
from pathlib import Path

import pytest

from reconciler.cli.main import run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("RECONCILE_HOST", "RECONCILE_LOCAL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "reconcile" / "contexts.json"


def test_names_are_kept_used_and_forgotten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["context", "add", "db1", "ssh://root@db1:2222"]) == 0
    assert run(["context", "use", "db1"]) == 0
    assert home.stat().st_mode & 0o077 == 0
    run(["context", "ls", "-o", "json"])
    listed = {one["name"]: one["current"] for one in json.loads(capsys.readouterr().out)}
    assert listed == {"local": False, "db1": True}
    assert run(["context", "rm", "db1"]) == 0
    run(["context"])
    assert "local *" in capsys.readouterr().out
    assert run(["context", "use", "db1"]) == 1
    assert "no context named db1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("-x", "ssh://a"), ("a/b", "ssh://a"), ("local", "ssh://a"), ("a", "ssh://-oProxyCommand=x"), ("a", "db1")]
)
def test_what_is_no_name_and_no_host_is_refused(home: Path, words: tuple[str, ...]) -> None:
    assert run(["context", "add", "--", *words]) == 64
    assert not home.exists()


def test_command_that_stays_here_says_so_while_a_context_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    run(["context", "add", "db1", "unix:///nowhere.sock"])
    run(["context", "use", "db1"])
    assert run(["keys"]) == 64
    assert "the context db1 is in use: add --local" in capsys.readouterr().err
    assert run(["version"]) == 0
    assert run(["status"]) == 1
    assert "unix:///nowhere.sock" in capsys.readouterr().err


def test_file_that_is_none_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.parent.mkdir()
    home.write_text("[]")
    assert run(["status"]) == 64
    assert f"{home} can't be read" in capsys.readouterr().err


def test_status_asks_several_and_tells_of_who_does_not_answer(serve, capsys: pytest.CaptureFixture[str]) -> None:
    served = serve()
    served.apply()
    run(["context", "add", "here", f"unix://{served.path}"])
    assert run(["--host", "here,unix:///nowhere.sock", "status"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("here:\n")
    assert "blog" in told.out
    assert "unix:///nowhere.sock" in told.err
    assert run(["--host", "here,here", "get"]) == 64
    run(["--host", "here,here", "status", "-o", "json"])
    assert list(json.loads(capsys.readouterr().out)) == ["here"]
    assert run(["--host", f"unix://{served.path},unix:///nowhere.sock", "status"]) == 1
    assert capsys.readouterr().out.startswith("here:\n")


def test_run_binds_no_path_of_another_machine_that_was_meant_for_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--host", "ssh://ann@nowhere", "run", "-v", "./data:/data", "box:1"]) == 64
    assert "-v ./data:/data: with --host it is a path of that host" in capsys.readouterr().err
