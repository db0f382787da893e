"""What `-o json` prints is what schemas/ promise, and plain output is fit for pipes and terminals."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from stacks import BOX, Machine, container, stack

from lab.world import RECONCILE, REPOSITORY
from reconciler.api.look import clean_log

pytestmark = pytest.mark.root
SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.fixture(scope="module")
def check() -> Callable[[str, Any], None]:
    """Holds a document against `schemas/NAME.schema.json`."""
    read = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema.json")}
    names = [(key, Resource.from_contents(one)) for name, one in read.items() for key in (name, one["$id"])]
    registry = Registry().with_resources(names)

    def against(name: str, document: Any) -> None:
        jsonschema.Draft202012Validator(read[f"{name}.schema.json"], registry=registry).validate(document)

    return against


def lines(text: str) -> Iterator[Any]:
    return (json.loads(line) for line in text.splitlines())


def test_plan_as_json(machine: Machine, check: Callable[[str, Any], None]) -> None:
    name = machine.name()
    path = machine.write(name, {"web": container(ports=["127.0.0.1:8080:80"], mounts=["data:/data"])}, volumes={"data": {}})
    made = machine.run("plan", path, "-o", "json", check=2).json()
    check("plan", made)
    assert made["stacks"] == [name]
    assert made["summary"]["create"] == len(made["actions"]) > 3
    machine.run("apply", path, "--yes", "--no-wait", check=0)
    made = machine.run("plan", path, "-o", "json", check=0).json()
    check("plan", made)
    assert made["actions"] == []


def test_replace_says_which_field_in_json(machine: Machine, check: Callable[[str, Any], None]) -> None:
    name = machine.applied({"web": container()})
    machine.write(name, {"web": container("sh", "-c", "exec pause")})
    made = machine.run("plan", f"{name}.yaml", "-o", "json", check=2).json()
    check("plan", made)
    [action] = made["actions"]
    assert (action["verb"], action["reason"]) == ("replace", "field-changed")
    assert [(one["path"], one["from"], one["effect"]) for one in action["changes"]] == [("/command", ["pause"], "replace")]


def test_get_as_json_and_yaml(machine: Machine, check: Callable[[str, Any], None]) -> None:
    name = machine.applied({"web": container(), "idle": container()})
    machine.run("stop", f"{name}/idle", check=0)
    seen = machine.run("get", "-o", "json", check=0).json()
    check("get", seen)
    assert {one["key"] for one in yaml.safe_load(machine.run("get", "-o", "yaml", check=0).out)} == {
        one["key"] for one in seen
    }
    found = {one["key"]: one["status"] for one in seen}
    assert found[f"container/{name}/web/1"]["phase"] == "running"
    assert found[f"container/{name}/idle/1"]["held"]["kind"] == "stop"
    one = machine.run("get", f"container/{name}/web", "-o", "json", check=0).json()
    assert [each["key"] for each in one] == [f"container/{name}/web/1"]


def test_singular_and_plural_mean_the_same(machine: Machine, standing: str) -> None:
    for kind in ("container", "network", "image", "volume"):
        one, many = (machine.run("get", word, "-o", "json", check=0).json() for word in (kind, f"{kind}s"))
        assert [each["key"] for each in one] == [each["key"] for each in many]


def test_apply_streams_events(machine: Machine, check: Callable[[str, Any], None]) -> None:
    name = machine.name()
    path = machine.write(name, {"web": container(), "bad": container("/no/such")})
    result = machine.run("apply", path, "--yes", "-o", "json", check=1)
    events = list(lines(result.out))
    for event in events:
        check("events", event)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert {"plan", "started", "done", "failed"} <= set(kinds)
    [failed] = [event for event in events if event["event"] == "failed"]
    assert failed["key"] == f"container/{name}/bad/1"
    recorded = list(lines(machine.run("events", "--stack", name, "-o", "json", check=0).out))
    for event in recorded:
        check("events", event)
    assert {event["stack"] for event in recorded} == {name}
    assert "failed" in {event["event"] for event in recorded}


def test_delete_history_drift_and_images_are_json_too(machine: Machine, check: Callable[[str, Any], None]) -> None:
    name = machine.applied({"web": container()})
    [revision] = machine.run("history", name, "-o", "json", check=0).json()
    assert (revision["stack"], revision["revision"], revision["result"]) == (name, 1, "done")
    assert machine.run("drift", name, "-o", "json", check=0).json()["actions"] == []
    assert any(BOX in image["names"] for image in machine.run("images", "ls", "-o", "json", check=0).json())
    assert machine.run("doctor", "-o", "json").json()
    deleted = machine.run("delete", name, "--yes", "-o", "json", check=0)
    for event in lines(deleted.out):
        check("events", event)


def test_plain_output_has_no_escape_sequences(machine: Machine, standing: str) -> None:
    for arguments in (("get", "-o", "wide"), ("plan", f"{standing}.yaml"), ("describe", "webserver"), ("doctor",)):
        assert "\x1b" not in machine.run(*arguments).out


@pytest.fixture
def program(machine: Machine) -> str:
    """The program as a shell command of the world."""
    return f"{sys.executable} -m reconciler.cli.main"


def test_terminal_has_colours_unless_no_color_is_set(machine: Machine, program: str, standing: str) -> None:
    _, shown = machine.on_terminal("sh", "-c", f"{program} get")
    assert "\x1b[32mrunning\x1b[0m" in shown
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, shown = machine.on_terminal("sh", "-c", f"{program} get", env=env)
        assert code == 0
        assert "running" in shown
        assert "\x1b" not in shown


def test_what_a_manifest_says_never_speaks_to_the_terminal(machine: Machine, program: str) -> None:
    """Hostile C7: titles, clipboards and cursors are the terminal's own business."""
    evil = "\x1b]0;pwned\x07\x1b[2J\x9b31m"
    name = machine.name()
    path = machine.write(name, {"web": container("sh", "-c", evil, labels={"a": evil}, env={"X": evil}, restart="no")})
    machine.run("apply", path, "--yes", "--no-wait")
    for command in (f"plan {path}", "get", f"describe {name}/web", "events", f"get {name}/web -o yaml"):
        _, shown = machine.on_terminal("sh", "-c", f"{program} {command}", env={"NO_COLOR": "1"})
        assert "\x1b" not in shown, command
        assert "\x07" not in shown, command
        assert "\x9b" not in shown, command


def test_c7_logs_are_raw_in_a_pipe_and_steer_no_terminal(machine: Machine, program: str) -> None:
    """Colours stay: programs write them. The last lines that a failed apply shows are as harmless."""
    evil = "\x1b]0;pwned\x07\x1b[2J\x1b[31mred\x1b[0m\x1b[8;1;1t\xc2\x9b2J"
    name = machine.name()
    script = "printf '%s\\n' '" + evil + "'; exit 3"
    path = machine.write(name, {"web": container("sh", "-c", script, restart="no")})
    _, shown = machine.on_terminal("sh", "-c", f"{program} apply {path} --yes", env={"NO_COLOR": "1"})
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}, shown
    raw = machine.run("logs", f"{name}/web", check=0).out
    assert "\x1b]0;pwned\x07\x1b[2J" in raw
    code, shown = machine.on_terminal("sh", "-c", f"{program} logs {name}/web")
    assert code == 0
    assert "\x1b[31mred\x1b[0m" in shown
    assert not set(shown.replace("\x1b[31m", "").replace("\x1b[0m", "")) & {"\x1b", "\x07", "\x9b"}, shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain \xc3\xa9\t.", b"plain \xc3\xa9\t."),
        (b"\x1b[1;31mred\x1b[m", b"\x1b[1;31mred\x1b[m"),
        (b"\x1b[38:2:1:2:3mx", b"\x1b[38:2:1:2:3mx"),
        (b"end\r", b"end"),
        (b"over\rwritten", "over\N{REPLACEMENT CHARACTER}written".encode()),
        (b"\x1b[2J", "\N{REPLACEMENT CHARACTER}[2J".encode()),
        (b"\x1b]52;c;AA==\x07", "\N{REPLACEMENT CHARACTER}]52;c;AA==\N{REPLACEMENT CHARACTER}".encode()),
        (b"\x9b2J\xc2\x9b2J", "\N{REPLACEMENT CHARACTER}2J\N{REPLACEMENT CHARACTER}2J".encode()),
        (b"\x1b[6n\x05\x00", ("\N{REPLACEMENT CHARACTER}[6n" + 2 * "\N{REPLACEMENT CHARACTER}").encode()),
    ],
)
def test_c7_a_line_for_a_terminal_has_colours_and_nothing_else_that_controls(line: bytes, shown: bytes) -> None:
    assert clean_log(line) == shown


def test_output_of_a_subshell_is_complete_for_no_child_keeps_it(machine: Machine, program: str) -> None:
    name = machine.name()
    path = machine.write(name, {"web": container()})
    script = f'x=$({program} apply {path} --yes --no-wait 2>&1 </dev/null); echo "got $x"'
    result = machine.world.nsenter("sh", "-c", script, timeout=30)
    assert "got" in result.out
    assert "done" in result.out
    script = f'x=$({program} restart {name}/web 2>&1); x=$({program} kill {name}/web 2>&1); echo "end"'
    assert machine.world.nsenter("sh", "-c", script, timeout=30).out.endswith("end\n")


def test_reader_that_goes_away_is_no_error(machine: Machine, program: str, standing: str) -> None:
    for command in ("get -o json", "schema", "events"):
        result = machine.world.nsenter("bash", "-c", f"{program} {command} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}")
        assert result.out.strip() in ("0", "141"), result
        assert result.err == "", result
    result = machine.world.nsenter("bash", "-c", f"{program} logs -f database | head -n 1; echo ${{PIPESTATUS[0]}}")
    assert result.out.split() == ["1", "141"], result
    assert result.err == ""


@pytest.mark.parametrize("command", ["version", "schema container"], ids=["fits the buffer", "larger"])
def test_full_output_is_an_error_and_no_traceback(machine: Machine, program: str, command: str) -> None:
    result = machine.world.nsenter("sh", "-c", f"{program} {command} >/dev/full", check=False)
    assert result.code == 1
    assert "No space left" in result.err
    assert "Traceback" not in result.err
    assert "mistake in reconcile" not in result.err


def complete(machine: Machine, program: str, line: str) -> list[str]:
    words = f"COMP_WORDS='reconcile {line}' COMP_CWORD={len(line.split(' '))} _RECONCILE_COMPLETE=bash_complete"
    out = machine.world.nsenter("sh", "-c", f"{words} {program}").out
    return [one.partition(",")[2] for one in out.splitlines() if one]


def test_completion_knows_verbs_flags_and_names(machine: Machine, program: str, standing: str) -> None:
    assert complete(machine, program, "appl") == ["apply"]
    assert "--take-over" in complete(machine, program, "apply --t")
    assert complete(machine, program, "logs webs") == ["webserver"]
    assert "database" in complete(machine, program, "exec data")
    assert standing in complete(machine, program, f"delete {standing}")
    assert complete(machine, program, "logs nobody") == []


def test_no_op_path_imports_nothing_that_it_does_not_need(machine: Machine, standing: str) -> None:
    loaded = (
        "import sys; from reconciler.cli import main; code = main.run(sys.argv[1:]);"
        " print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    for arguments in (("apply", f"{standing}.yaml", "--yes"), ("plan", f"{standing}.yaml"), ("get",)):
        done = machine.world.nsenter(sys.executable, "-c", loaded, *arguments)
        modules = set(done.err.split())
        assert not modules & {"alembic", "jsonschema", "httpx", "rich.live", "pytest"}, arguments


def test_stack_of_stdin_is_applied(machine: Machine) -> None:
    name = machine.name()
    result = machine.run("plan", "-", "-o", "json", stdin=json.dumps(stack(name, {"web": container()})))
    assert result.code == 2
    assert result.json()["stacks"] == [name]


def test_wide_table_is_cut_to_the_terminal(machine: Machine, program: str, standing: str) -> None:
    _, shown = machine.on_terminal("sh", "-c", f"{program} get -o wide", size=(24, 60), env={"NO_COLOR": "1"})
    assert all(len(line) <= 60 for line in shown.splitlines()), shown
    assert "…" in shown


def test_table_has_a_line_for_each_resource(machine: Machine, standing: str) -> None:
    out = machine.run("get", check=0).out
    for row in ("webserver +running", "data +", "default +bridge", "127.0.0.1:5000/busybox:1 +sha256:"):
        assert re.search(rf"^{standing} +{row}", out, re.MULTILINE), out


def test_command_line_is_a_program() -> None:
    """What was installed is the wheel's script, with the interpreter in its first line."""
    assert os.access(RECONCILE[1], os.X_OK)
    installed = Path(RECONCILE[1]).read_text().splitlines()
    ours = (REPOSITORY / "reconciler/cli/script.py").read_text().splitlines()
    assert installed[0].startswith("#!/")
    assert installed[1:] == ours[1:]
