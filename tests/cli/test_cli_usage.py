"""What a command says before it does anything: help, flags, names that it does not know."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from reconciler.cli import main

SHOWN = tuple(main.COMMANDS)


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(main.cli, **main.cli.context_settings)
    for name in SHOWN:
        command = main.cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command of this process, on a root that does not exist."""
    monkeypatch.delenv("RECONCILE_DEBUG", raising=False)
    monkeypatch.setenv("RECONCILE_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main.run(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return call


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_says_what_it_does_with_an_example(run, name: str) -> None:
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    assert out.startswith("Usage: reconcile")
    assert "Example: reconcile " in out
    if name != "run":  # where it is Docker's --hostname
        assert run(*name.split(), "-h")[:2] == (0, out)


def test_help_lists_every_command(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in SHOWN)


@pytest.mark.parametrize("example", [(name, one.epilog or "") for name, one in commands()], ids=lambda pair: pair[0])
def test_example_parses(example: tuple[str, str]) -> None:
    """Each example names flags and arguments that its command has."""
    name, text = example
    words = text.removeprefix("Example: reconcile ").partition(" > ")[0].replace("'", "")
    assert words.startswith(name.removesuffix(" ls") if name == "images" else name), text
    parent = click.Context(main.cli, **main.cli.context_settings)
    rest = words.split(" ")[len(name.split()) :] if name != "images" else []
    dict(commands())[name].make_context(name, rest, parent=parent, resilient_parsing=True)


@pytest.mark.parametrize("verb", sorted(main.NOT_BUILT))
def test_verbs_of_the_design_that_are_not_built_say_so(run, verb: str) -> None:
    code, _, err = run(verb, "x", "--whatever")
    assert code == 64
    assert f"reconcile {verb}" in err
    assert "not built yet" in err


NOT_BUILT_FLAGS = [
    ("get", "--watch"),
    ("logs", "web", "--until", "5m"),
]


@pytest.mark.parametrize("arguments", NOT_BUILT_FLAGS, ids=" ".join)
def test_flags_that_are_not_built_say_so(run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 64
    assert "not built yet" in err
    assert next(word for word in arguments if word.startswith("--")) in err


USAGE = [
    (("aply",), "apply"),
    (("imagse",), "images"),
    (("plan",), "PATHS"),
    (("apply", "x.yaml", "--dryrun"), "--dry-run"),
    (("get", "-o", "xml"), "json"),
    (("apply", "x.yaml", "--timeout", "soon"), "soon"),
    (("apply", "x.yaml", "--var", "novalue"), "NAME=VALUE"),
    (("logs", "web", "--tail", "few"), "few"),
    (("logs", "web", "--since", "yesterday"), "yesterday"),
    (("kill", "web", "-s", "NOSUCH"), "NOSUCH"),
    (("exec", "web"), "COMMAND"),
    (("schema", "contanier"), "container"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_wrong_usage_is_64_and_says_what_was_meant(run, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = run(*arguments)
    assert code == 64, err
    assert says in err
    assert out == ""


def test_no_command_shows_help_and_is_wrong_usage(run) -> None:
    code, out, err = run()
    assert code == 64
    assert "Usage: reconcile" in out + err


def test_bad_manifest_is_65_with_its_place(run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("apiVersion: reconcile/v1\nname: a\ncontainers:\n  web: {image: b:1, memry: 1}\n")
    for verb in ("validate", "plan", "apply"):
        code, _, err = run(verb, "bad.yaml")
        assert code == 65
        assert "bad.yaml:4:" in err
        assert "memry" in err
        assert "^" in err
    code, out, _ = run("validate", "bad.yaml", "-o", "json")
    assert code == 65
    assert [problem["line"] for problem in json.loads(out)] == [4]
    assert not (tmp_path / "root").exists()


def test_name_that_is_no_name_is_refused_before_there_is_a_root(run, tmp_path: Path) -> None:
    code, _, err = run("run", "--name", "$(id)", "nginx:1")
    assert code == 125
    assert '--name $(id): found "$(id)"; expected a name' in err
    assert not (tmp_path / "root").exists()


def test_manifest_that_is_not_there_is_65_and_named(run) -> None:
    code, _, err = run("plan", "lost.yaml")
    assert code == 65
    assert "lost.yaml" in err


def fresh(program: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A Python of its own, for what is imported there."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **(env or {})})


THIRD = "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"


def test_version_imports_click_and_nothing_else() -> None:
    loaded = f"import sys; from reconciler.cli import main; main.run(['version']); {THIRD}"
    done = fresh(loaded)
    version, names = done.stdout.splitlines()
    assert version.startswith("reconcile ")
    started_with = set(fresh(f"import sys; {THIRD}").stdout.split())
    assert set(names.split()) - started_with == {"click", "reconciler"}, names


def test_version_as_json(run) -> None:
    code, out, _ = run("version", "-o", "json")
    assert code == 0
    assert set(json.loads(out)) == {"version"}


def test_schemas_are_printed_whole(run) -> None:
    for kind in ("stack", "image", "network", "volume", "container", "plan", "get", "events"):
        code, out, _ = run("schema", kind)
        assert code == 0
        assert json.loads(out)["$schema"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_RECONCILE_COMPLETE" in out
