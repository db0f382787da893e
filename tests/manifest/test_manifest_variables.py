"""Variables in values: what they become, what is sensitive, what is refused."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_reading import HEAD, brief, told, web

from reconciler.manifest.envfile import parse_env_text
from reconciler.manifest.interpolate import CannotInterpolate, interpolate
from reconciler.manifest.load import load_stacks
from reconciler.model.errors import BadManifest
from reconciler.model.key import container_key
from reconciler.model.spec import ContainerSpec, Sensitive

VARIABLES = {"A": "1", "EMPTY": "", "B_2": "two"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}y${B_2}z", "x1ytwoz"),
        ("${NO:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${EMPTY}", ""),
        ("${NO:-}", ""),
        ("${NO:-a b:c}", "a b:c"),
        ("${NO:-${A}}", "1"),
        ("${NO:-${NEITHER:-x}}y", "xy"),
        ("${A:+set}", "set"),
        ("${NO:+set}", ""),
        ("${A:?must be set}", "1"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}$$", "$${A}$"),
        ("cost: 5$", "cost: 5$"),
        ("^a$|b", "^a$|b"),
        ("$1", "$1"),
    ],
)
def test_text_with_variables_becomes(text: str, result: str):
    assert interpolate(text, VARIABLES)[0] == result


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NO}", "the variable NO is not set"),
        ("${NO:?say which}", "the variable NO is not set: say which"),
        ("${EMPTY:?}", "the variable EMPTY is not set"),
        ("$HOME", "found $HOME; a variable is written ${HOME}"),
        ("${A", "found ${ without its closing }"),
        ("${}", "found ${}, which is no form of a variable"),
        ("${A:=x}", "found ${A:=x}, which is no form of a variable"),
        ("${1A}", "found ${1A}, which is no form of a variable"),
        ("${NO:-" * 12 + "}" * 12, "defaults nest deeper than 10 levels"),
    ],
)
def test_variable_that_cannot_be_put_in_is_refused(text: str, words: str):
    with pytest.raises(CannotInterpolate) as caught:
        interpolate(text, VARIABLES)
    assert words in caught.value.text


@given(st.text(), st.dictionaries(st.text("AB_", min_size=1), st.text()))
def test_text_whose_dollars_are_doubled_comes_through(text: str, variables: dict[str, str]):
    assert interpolate(text.replace("$", "$$"), variables) == (text, False)


@given(st.text(), st.text(), st.text())
def test_value_of_a_variable_is_never_read_again(before: str, value: str, after: str):
    text = before.replace("$", "$$") + "${A}" + after.replace("$", "$$")
    assert interpolate(text, {"A": value}) == (before + value + after, True)


@given(st.text("${}:-?+AB ", max_size=30))
def test_only_cannot_interpolate_is_raised(text: str):
    with contextlib.suppress(CannotInterpolate):
        assert isinstance(interpolate(text, VARIABLES)[0], str)


def test_values_of_env_that_name_a_variable_are_sensitive_and_no_others():
    spec = web("env: {A: '${A}', B: 'b ${A:-x}', C: 'c $$', D: d, E: 1.10}\ncommand: ['${A}']", variables=VARIABLES)
    assert spec.env == {"A": Sensitive("1"), "B": Sensitive("b 1"), "C": "c $", "D": "d", "E": "1.10"}
    assert spec.command == ("1",)


def test_list_of_env_marks_the_same_values_as_a_map():
    as_list = web("env: ['A=${A}', 'B=b ${A:-x}', C=c $$, D=d]", variables=VARIABLES)
    as_map = web("env: {A: '${A}', B: 'b ${A:-x}', C: c $$, D: d}", variables=VARIABLES)
    assert as_list == as_map


def test_env_shared_by_an_anchor_with_what_is_not_env_stays_sensitive():
    spec = web("command: &words ['A=${A}']\nenv: *words", variables=VARIABLES)
    assert spec.env == {"A": Sensitive("1")}
    assert type(spec.command[0] if spec.command else None) is str


def test_name_without_value_is_the_variable_of_that_name():
    assert web("env: [A]", variables=VARIABLES).env == {"A": Sensitive("1")}
    assert web("env: {A: }", variables=VARIABLES).env == {"A": Sensitive("1")}
    assert brief("containers: {web: {image: a/b:1, env: [NO]}}") == [
        "1:40 containers.web.env[0]: NO has no value here, and no variable of that name is set"
    ]


def test_number_that_a_variable_gives_is_a_number():
    spec = web(
        "resources: {pids: '${PIDS}', cpus: '${CPUS}'}\nread_only: ${RO}",
        variables={"PIDS": "20", "CPUS": "1.5", "RO": "true"},
    )
    assert (spec.resources.pids, spec.resources.cpus, spec.read_only) == (20, 1.5, True)


def test_variable_in_an_image_makes_an_ordinary_value():
    spec = web("labels: {a: '${A}'}", variables=VARIABLES)
    assert type(spec.labels["a"]) is str


def test_keys_are_not_interpolated():
    assert web("labels: {'${A}': x}", variables=VARIABLES).labels == {"${A}": "x"}


def test_errors_show_a_variable_as_it_is_written_not_its_value():
    text = HEAD + "containers: {web: {image: a/b:1, restart: '${SECRET}'}}\n"
    found = told(text, variables={"SECRET": "hunter2"})
    assert 'found "${SECRET}"; expected always' in found
    assert "hunter2" not in found


def test_value_of_a_variable_that_is_no_pair_is_not_shown():
    text = HEAD + "containers: {web: {image: a/b:1, env: ['${SECRET}']}}\n"
    found = told(text, variables={"SECRET": "hunter2"})
    assert "containers.web.env[0]: a name without a value can't come from a variable" in found
    assert "hunter2" not in found


def test_var_wins_over_the_environment_and_that_over_the_env_file(tmp_path: Path):
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    manifest = tmp_path / "stack.yaml"
    manifest.write_text(HEAD + "containers: {web: {image: a/b:1, command: ['${A}', '${B}', '${C}']}}\n")
    stack = load_stacks(
        [manifest],
        variables={"A": "flag"},
        environment={"A": "host", "B": "host"},
        origin_of=lambda path, _: f"file:{path}",
    )[0]
    spec = stack.specs[container_key("s", "web")]
    assert isinstance(spec, ContainerSpec)
    assert spec.command == ("flag", "host", "file")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *[
            ("A=b", "b"),
            ("A=", ""),
            ("export A=b", "b"),
            ("A = b ", "b"),
            ("A=b=c", "b=c"),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
        ],
        *[("A='b # c'", "b # c"), ("A='$B'", "$B"), ('A="\\$B"', "$B"), ('A="b" # c', "b"), ('A="b\\n\\"c\\""', 'b\n"c"')],
    ],
)
def test_line_of_an_env_file(line: str, value: str):
    assert parse_env_text(f"# comment\n\n{line}\n", file=".env") == {"A": value}


@pytest.mark.parametrize("line", ["A", "=b", "A='b", 'A="b" c', "A B=c"])
def test_bad_line_of_an_env_file_is_told_without_its_text(line: str):
    with pytest.raises(BadManifest) as caught:
        parse_env_text(f"X=1\n{line}-hunter2\n" if "=" in line else f"X=1\n{line}\n", file=".env")
    assert caught.value.detail.startswith(".env:2:1 expected NAME=VALUE")
    assert "hunter2" not in caught.value.detail


@given(st.text())
def test_env_text_never_raises_anything_else(text: str):
    with contextlib.suppress(BadManifest):
        assert isinstance(parse_env_text(text, file=".env"), dict)
