"""Files to stacks: folders, several manifests, what can't be read, what is between stacks, and what it costs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from manifest_reading import HEAD

from reconciler.manifest.load import load_stacks, load_text
from reconciler.model.errors import BadManifest, Problem
from reconciler.model.record import Stack
from reconciler.model.spec import ContainerSpec

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/stack.yaml"))


def load(*paths: Path, stdin: str | None = None) -> tuple[Stack, ...]:
    return load_stacks(paths, variables={}, environment={}, origin_of=lambda path, _: f"file:{path}", stdin=stdin)


def problems(*paths: Path) -> list[Problem]:
    with pytest.raises(BadManifest) as caught:
        load(*paths)
    return list(caught.value.problems)


def manifest(path: Path, *, name: str, text: str = "volumes: {v: }") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"apiVersion: reconcile/v1\nname: {name}\n{text}\n")
    return path


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_validates_and_is_named_after_its_folder(name: str):
    stacks = load(ROOT / "examples" / name / "stack.yaml")
    assert [stack.name for stack in stacks] == [name]


def test_there_is_an_example_for_each_major_feature():
    features = {"ports", "volumes", "networks", "health", "variables", "limits", "replicas", "migration"}
    assert {"blog", "three-tier", *features} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_files_that_an_example_binds_are_beside_it(name: str):
    for stack in load(ROOT / "examples" / name / "stack.yaml"):
        for spec in stack.specs.values():
            if isinstance(spec, ContainerSpec):
                assert all(Path(mount.source).exists() for mount in spec.mounts.values() if mount.type == "bind")


def test_folder_means_its_manifests_by_name_and_nothing_else(tmp_path: Path):
    manifest(tmp_path / "b.yaml", name="b")
    manifest(tmp_path / "a.yml", name="a")
    manifest(tmp_path / "c.json", name="c")
    manifest(tmp_path / "below" / "d.yaml", name="d")
    assert [stack.name for stack in load(tmp_path)] == ["a", "b"]
    assert [stack.name for stack in load(tmp_path / "b.yaml", tmp_path)] == ["b", "a"]


def test_dash_is_standard_input(tmp_path: Path):
    stacks = load(Path("-"), stdin=HEAD + "volumes: {v: }")
    assert [(stack.name, stack.source) for stack in stacks] == [("s", "-")]


def test_missing_files_empty_folders_and_bad_manifests_are_told_together(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: reconcile/v1\nname: x\nvolumez: {}\n")
    found = problems(tmp_path / "no.yaml", tmp_path / "empty", bad)
    assert [(Path(problem.file).name, problem.text) for problem in found] == [
        ("empty", "no manifest in this folder"),
        ("no.yaml", "no such file"),
        ("bad.yaml", "unknown key"),
    ]


def test_what_can_not_be_read_is_told(tmp_path: Path):
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert "can't be read" in problems(tmp_path / "loop.yaml")[0].text
    assert "can't be read" in problems(Path("a\0b"))[0].text


def test_endless_file_is_read_to_the_bound_only():
    assert [problem.text for problem in problems(Path("/dev/zero"))] == [
        "larger than 8 MiB, the most that a manifest may be"
    ]


def test_one_stack_in_two_manifests_is_a_problem_of_the_second(tmp_path: Path):
    first, second = manifest(tmp_path / "1.yaml", name="x"), manifest(tmp_path / "2.yaml", name="x")
    found = problems(first, second)
    assert [(problem.file, problem.line) for problem in found] == [(str(second), 2)]
    assert found[0].text == "another manifest of this command is the stack x too"


def test_ports_and_subnets_of_two_stacks_may_not_meet(tmp_path: Path):
    text = "networks: {n: {subnet: 10.0.0.0/24}}\ncontainers: {w: {image: a/b:1, networks: [n], ports: ['80:80']}}"
    first = manifest(tmp_path / "1.yaml", name="x", text=text)
    second = manifest(tmp_path / "2.yaml", name="y", text=text)
    assert [(problem.file, problem.text) for problem in problems(first, second)] == [
        (str(second), "10.0.0.0/24 overlaps 10.0.0.0/24 of x/n"),
        (str(second), "the host port 0.0.0.0:80/tcp is x/w's already"),
    ]


def test_relative_paths_begin_at_the_manifests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = manifest(
        tmp_path / "a" / "s.yaml", name="x", text="containers: {w: {image: a/b:1, mounts: ['../b:/b'], env_file: e}}"
    )
    (tmp_path / "a" / "e").write_text("")
    monkeypatch.chdir(tmp_path)
    spec = load(path.relative_to(tmp_path))[0].specs["container/x/w/1"]
    assert isinstance(spec, ContainerSpec)
    assert (spec.mounts["/b"].source, spec.env_file) == (f"{tmp_path}/b", (f"{tmp_path}/a/e",))


def test_bad_env_file_beside_a_manifest_is_told(tmp_path: Path):
    (tmp_path / ".env").write_text("A=1\nnonsense\n")
    path = manifest(tmp_path / "s.yaml", name="x")
    assert [(Path(problem.file).name, problem.line) for problem in problems(path)] == [(".env", 2)]


def test_right_manifest_imports_neither_jsonschema_nor_what_only_errors_need():
    code = """
import sys
import time
from pathlib import Path
from reconciler.manifest.load import load_stacks
load_stacks([Path("examples/blog")], variables={}, environment={}, origin_of=lambda path, named: "x")
heavy = {"jsonschema", "referencing", "difflib", "reconciler.manifest.places", "httpx", "sqlalchemy"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_ten_thousand_containers_are_read():
    lines = "".join(
        f"  w{number}: {{image: a/b:1, env: {{A: b}}, ports: ['{number + 1}:80']}}\n" for number in range(10_000)
    )
    stack = load_text(
        f"{HEAD}containers:\n{lines}",
        file="big.yaml",
        folder=Path("/nonexistent"),
        variables={},
        environment={},
        origin_of=lambda path, _: f"file:{path}",
    )
    assert len(stack.specs) == 10_002


SLIPS = {
    "unknown key": "{image: a/b:1, typo: 1}",
    "unknown dependency": "{image: a/b:1, depends_on: [nobody]}",
    "unknown network": "{image: a/b:1, networks: [nowhere]}",
    "one port": "{image: a/b:1, ports: ['80:80']}",
    "wide range": "{image: a/b:1, ports: ['1-65535:1-65535']}",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_g1_one_slip_three_thousand_times_is_told_in_good_time(slip: str):
    lines = "".join(f"  w{number}: {SLIPS[slip]}\n" for number in range(3_000))
    begun = time.monotonic()
    with pytest.raises(BadManifest) as caught:
        load(Path("-"), stdin=f"{HEAD}containers:\n{lines}")
    assert caught.value.problems[-1].text.endswith("more problems")
    assert len(caught.value.problems) == 201
    assert time.monotonic() - begun < 60


def test_ports_on_different_addresses_do_not_meet(tmp_path: Path):
    text = "containers:\n  a: {image: a/b:1, ports: ['127.0.0.1:80:80', '127.0.0.2:80:80', '80:80/udp']}"
    assert load(manifest(tmp_path / "s.yaml", name="x", text=text))
    meets_any = text + "\n  b: {image: a/b:1, ports: ['0.0.0.0:80:80']}"
    found = problems(manifest(tmp_path / "s.yaml", name="x", text=meets_any))
    assert [problem.text for problem in found] == ["the host port 0.0.0.0:80/tcp is a's already (127.0.0.1:80)"]
