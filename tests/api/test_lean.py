"""`logs`, `exec` and `get` asked plainly: the same words and exit codes as those of the whole command line, sooner."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.conftest import MANIFEST, Served
from lab.world import RECONCILE, wait_until
from reconciler.api import tables, text
from reconciler.api.asks import Exec, Get
from reconciler.cli import lean, main
from reconciler.engine.memory.drivers import MemoryImages
from reconciler.engine.memory.engine import MemoryInside
from reconciler.engine.protocol import LogLine
from reconciler.linux import process as processes
from reconciler.model.events import Emit, Progress
from reconciler.model.record import ApplyId, Made
from reconciler.verbs import serving
from reconciler.verbs.serving import Serving, write_serving

Told = tuple[int | None, str, str]


LINES = (
    LogLine(at=1, stream="stdout", text=b"first", partial=True),
    LogLine(at=2, stream="stderr", text=b"second\xff", lost=True),
    LogLine(at=3, stream="stdout", text=b"a\x1b[2Jb"),
)


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    def logs(self: MemoryInside, made: Made, *, tail: int | None, **_: object) -> Iterator[LogLine]:
        return iter(LINES[len(LINES) - min(tail, len(LINES)) :] if tail is not None else LINES)

    with mock.patch.object(MemoryInside, "logs", logs):
        yield


def tell_where(root: Path, path: Path, monkeypatch: pytest.MonkeyPatch, *, pid: int = 0) -> None:
    """What a controller writes down of itself: this process, for its server is a thread of ours."""
    pid = pid or os.getpid()
    who = ApplyId(pid=pid, start_time=processes.read_start_time(pid), boot_id=processes.read_boot_id())
    write_serving(root, Serving(process=who, since=0.0, at=0.0, socket=str(path)))
    monkeypatch.setenv("RECONCILE_ROOT", str(root))
    monkeypatch.setenv("HOME", "/nowhere")
    for name in ("RECONCILE_HOST", "RECONCILE_LOCAL", "XDG_CONFIG_HOME", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asks(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[Callable[[list[str]], int | None], list[str]], Told]:
    served.apply()
    served.apply("other")
    tell_where(served.root.path, served.path, monkeypatch)

    def ask(way: Callable[[list[str]], int | None], words: list[str]) -> Told:
        capfd.readouterr()
        code = way(words)
        return (code, *capfd.readouterr())

    return ask


@pytest.mark.parametrize(
    "commands",
    [
        ["get", "get containers", "get network", "get blog", "get nothing"],
        ["logs blog/web", "logs -n 1 blog/web", "logs --tail 0 blog/web", "logs web", "logs nothing"],
        ["exec blog/web true", "exec nothing true"],
    ],
    ids=lambda commands: commands[0],
)
def test_it_says_what_the_whole_says(asks: Callable[..., Told], commands: list[str]) -> None:
    for command in commands:
        words = command.split()
        assert asks(lean.ask, words) == asks(main.run, words), command


def test_apply_says_what_the_whole_says(
    served: Served, asks: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLOUR", "blü\\e")
    heard = []
    for name, way in (("one", lean.ask), ("two", main.run)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(MANIFEST.format(name=name, command="'${COLOUR}'", more=""))
        done = [asks(way, ["apply", f"{name}.yaml", "--no-wait"]), asks(way, ["apply", "--yes", str(path)])]
        path.write_text("name: two\n")
        done.append(asks(way, ["apply", f"{name}.yaml"]))
        path.write_text(MANIFEST.format(name=name, command="b", more="").replace("web", "other"))
        done.append(asks(way, ["apply", f"{name}.yaml"]))
        # Two are done at once, and each takes another time each time.
        texts = [(code, sorted(re.sub(r"[\d.]+ s$", "", out, flags=re.M).splitlines()), err) for code, out, err in done]
        heard.append(texts)
    lean_one, whole = heard
    assert str(lean_one).replace("one", "two") == str(whole).replace("one", "two")
    assert [told[0] for told in whole] == [0, 0, 65, 3]
    [record] = [one for one in served.client.call(Get(kind="container", name="one/web"))]
    assert record["spec"]["command"] == ["blü\\e"]


def test_ctrl_c_ends_an_apply_at_its_next_action(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs in its first."""
    tell_where(served.root.path, served.path, monkeypatch)
    running = served.server._api.running
    called = served.machine.called

    def hang(begun: threading.Event, verb: str, key: str) -> None:
        begun.set()
        wait_until(lambda: all(stream.listener.gone() for stream in running.values()), "it is to end")
        called(verb, key)

    heard = []
    for name in ("lean", "main"):
        served.manifests(name)
        words = [sys.executable, "-m", f"reconciler.cli.{name}", "apply", str(served.folder / f"{name}.yaml")]
        begun = threading.Event()
        with mock.patch.object(served.machine, "called", partial(hang, begun)):
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            assert begun.wait(20)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        heard.append((process.returncode, err))
    assert heard[0] == heard[1]
    assert heard[0][0] == 130
    assert "interrupted" in heard[0][1]
    assert "not begun" in heard[0][1]


@pytest.mark.parametrize("verb", ["run", "pull"])
def test_ctrl_c_ends_a_pull_and_nothing_is_left(served: Served, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    tell_where(served.root.path, served.path, monkeypatch)
    ended = threading.Event()

    def create(_: MemoryImages, made: Made, *, uses: object, emit: Emit) -> None:
        with closing(mock.Mock(close=ended.set)):
            for done in range(2000):
                emit(Progress(key=made.key, part="layer", done=done, total=2000, text="downloading"))
                ended.wait(0.01)

    words = [*RECONCILE, verb, "box:1", *(["true"] if verb == "run" else [])]
    with mock.patch.object(MemoryImages, "create", create):
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        shown = process.stderr if verb == "run" else process.stdout
        assert "downloading" in shown.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert ended.wait(10)
    assert (process.returncode, "interrupted" in err) == (130, True)
    wait_until(lambda: not served.server._api.running, "nothing runs any more")
    assert served.client.call(Get()) == []


def test_what_is_not_plain_is_left_to_the_whole(asks: Callable[..., Told]) -> None:
    for words in (
        [],
        ["get", "-o", "json"],
        ["get", "container/web"],
        ["logs", "-f", "web"],
        ["logs", "web", "--tail", "3"],
        ["logs", "--tail", "all", "web"],
        ["logs", "we b"],
        ["logs", "--help"],
        ["exec", "-it", "web", "sh"],
        ["exec", "web"],
        ["exec", "web", "--", "true"],
        ["exec", "web", "echo", "\U0001f433"],
        ["apply", "/nowhere/x.yaml"],
        ["apply", "/dev/null"],
        ["apply", "-"],
        ["apply", "--dry-run", __file__],
        ["apply", __file__, __file__],
        ["--local", "get"],
    ):
        assert asks(lean.ask, words) == (None, "", ""), words


@given(st.lists(st.text(st.sampled_from('ab- "\\\n\t\x00\x7f\xe9\u2028\ud7ff')), min_size=1))
def test_command_arrives_as_it_was_written(words: list[str]) -> None:
    request = lean._render_request(["exec", "web", *words])
    if words[0] == "--":
        assert request is None
        return
    assert request
    body = request.partition(b"\r\n\r\n")[2].split(b"\r\n", 1)[1].removesuffix(b"\r\n")
    assert msgspec.json.decode(body, type=Exec) == Exec(name="web", command=tuple(words))


def test_it_knows_what_the_rooms_beneath_it_know() -> None:
    """It imports none of them."""
    assert Path(lean.DEFAULT_ROOT) == serving.DEFAULT_ROOT
    assert lean.DEFAULT_SOCKET == serving.DEFAULT_SOCKET
    assert tables.HEADS.keys() == lean.KINDS
    assert lean.RAW_TYPE == text.RAW_TYPE


@pytest.mark.parametrize("name", ["RECONCILE_HOST", "RECONCILE_LOCAL"])
def test_who_wants_another_answer_gets_it(asks: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert asks(lean.ask, ["get"])[0] is None


def test_controller_of_another_process_is_not_believed(
    served: Served, asks: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_where(served.root.path, served.path, monkeypatch, pid=1)
    assert asks(lean.ask, ["get"])[0] is None
    (served.root.path / serving.NAME).unlink()
    assert asks(lean.ask, ["get"])[0] is None


@pytest.mark.parametrize(
    ("answer", "words", "code", "said"),
    [
        (b"", ["logs", "web"], 1, "hung up"),
        (b"", ["exec", "web", "true"], 125, "hung up"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ncontent-length: 0\r\n\r\n", ["get"], None, ""),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ncontent-length: 0\r\n\r\n",
            ["exec", "web", "true"],
            125,
            "another version",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.reconcile.raw-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"8\r\n\x01\0\0\0\x02hi\x02\r\n0\r\n\r\n",
            ["logs", "web"],
            1,
            "hung up",
        ),
    ],
)
def test_answer_that_ends_too_early_or_is_of_another_kind(
    short: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: bytes, words: list[str],
    code: int | None, said: str,
) -> None:  # fmt: skip
    path = short / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        tell_where(short, path, monkeypatch)

        def serve() -> None:
            line = listener.accept()[0]
            with line:
                line.recv(65536)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert lean.ask(words) == code
        thread.join()
    assert said in capfd.readouterr().err


def test_controller_that_hangs_is_told(
    short: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = short / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        tell_where(short, path, monkeypatch)
        with mock.patch.object(lean, "PATIENCE", 0.05), mock.patch("reconciler.api.client.CONNECT", 0.05):
            assert lean.ask(["get"]) is None
            assert lean.ask(["exec", "web", "true"]) == 125
    assert "does not answer" in capfd.readouterr().err


PROGRAM = """
import os, sys
before = set(sys.modules)
from reconciler.cli import lean
code = lean.ask(sys.argv[1:])
new = {name for name in set(sys.modules) - before if not name.startswith("reconciler")}
print(code, *sorted(new), file=sys.stderr)
"""


def test_it_imports_next_to_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.apply()
    tell_where(served.root.path, served.path, monkeypatch)
    done = subprocess.run([sys.executable, "-I", "-c", PROGRAM, "get"], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0", "_socket"]
    assert "running" in done.stdout


def test_program_as_installed_imports_no_more(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.apply()
    tell_where(served.root.path, served.path, monkeypatch)
    python, program = RECONCILE
    done = subprocess.run([python, "-X", "importtime", program, "get"], capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "reconciler.cli.lean" in imported
    assert imported.isdisjoint({"re", "enum", "functools", "runpy", "typing"})


def test_output_that_nobody_takes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.apply()
    tell_where(served.root.path, served.path, monkeypatch)
    command = [*RECONCILE, "get"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: write the output: No space left on device\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")
    closed = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=False)
    assert closed.returncode in (0, 1)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", text.Reader()),
        ("stdout colours columns=80", text.Reader(terminals=frozenset({"stdout"}), look=text.Look(80, True))),
        ("columns=x9 \x00 stderr", text.Reader(terminals=frozenset({"stderr"}))),
        (f"columns={'9' * 5000}", text.Reader()),
    ],
)
def test_terminal_is_described(header: str, expected: text.Reader) -> None:
    assert text.read_reader(header) == expected


def test_terminal_is_not_steered(served: Served) -> None:
    served.apply()
    for terminal, expected in (("", b"a\x1b[2Jb\n"), ("stdout", "a�[2Jb\n".encode())):
        _, body = served.ask("/v1/logs?name=web", Accept=text.RAW_TYPE, Reconcile_Terminal=terminal)
        assert expected in body
        _, lines = served.ask("/v1/logs?name=web", Reconcile_Terminal=terminal)
        assert json.loads(lines.split(b"\r\n")[1].splitlines()[0])["type"] == "item"
    _, body = served.ask("/v1/resources", Accept="text/plain", Reconcile_Terminal="stdout colours columns=20")
    assert "\x1b[1mSTACK" in body.decode()
