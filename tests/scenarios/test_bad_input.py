"""Bad input of every sort: one clear error, the right exit code, nothing half-made, what ran before still running."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.images import lab_images
from lab.registry import start_registry
from lab.world import World, open_world

pytestmark = pytest.mark.root

HEAD = "apiVersion: reconcile/v1\nname: bad\n"
BOMB = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x-{name}: &{name} [{','.join(['*' + below] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def one(**container: Any) -> str:
    lines = "".join(f"    {name}: {value}\n" for name, value in {"image": "127.0.0.1:5000/busybox:1", **container}.items())
    return HEAD + f"containers:\n  it:\n{lines}"


@dataclass(frozen=True)
class Bad:
    """What is given, how it ends, and words that the error must have."""

    text: str | bytes
    words: tuple[str, ...]
    code: int = 65


MANIFESTS: dict[str, Bad] = {
    "empty": Bad("", ("empty",)),
    "binary": Bad(bytes(range(256)) * 8, ("stack.yaml",)),
    "latin-1": Bad((HEAD + "x-a: caf\xe9\n").encode("latin-1"), ("UTF-8",)),
    "nul": Bad(HEAD.encode() + b"x-a: \0\n", ("stack.yaml",)),
    "tabs": Bad(HEAD + "containers:\n\tit: {}\n", ("tab", ":4:")),
    "duplicate key": Bad(HEAD + "name: other\n", ("name", "twice", ":3:1")),
    "alias bomb": Bad(HEAD + BOMB, ("alias",)),
    "deep": Bad(HEAD + "x-a: " + "[" * 20_000 + "]" * 20_000 + "\n", ("deep",)),
    "python tag": Bad(HEAD + "x-a: !!python/object/apply:os.system [id]\n", ("python",)),
    "wrong type": Bad(one(read_only="maybe"), ("read_only", "maybe", ":6:")),
    "unknown key": Bad(one(memry="5"), ("memry",)),
    "compose word": Bad(one(environment="{A: 1}"), ("environment", "env")),
    "unknown version": Bad("apiVersion: reconcile/v9\nname: bad\n", ("apiVersion", "reconcile/v9")),
    "no version": Bad("name: bad\n", ("apiVersion",)),
    "list at top": Bad("- a\n- b\n", ("list",)),
    "scalar": Bad("just words\n", ("stack.yaml",)),
    "not yaml": Bad("a: b: c: [\n", (":1:",)),
    "not built": Bad(one(privileged="true"), ("privileged", "not built")),
    "not built driver": Bad(HEAD + "networks: {n: {driver: macvlan}}\n", ("macvlan", "not built")),
    "port twice": Bad(
        one(ports='["8080:80"]') + '  two:\n    image: 127.0.0.1:5000/busybox:1\n    ports: ["8080:81"]\n', ("8080",)
    ),
    "address outside": Bad(
        HEAD
        + "networks: {n: {subnet: 10.9.0.0/24}}\ncontainers:\n"
        + "  it: {image: 127.0.0.1:5000/busybox:1, networks: {n: {ipv4: 10.8.0.1}}}\n",
        ("10.8.0.1", "10.9.0.0/24"),
    ),
    "host bits": Bad(HEAD + "networks: {n: {subnet: 10.9.0.1/24}}\n", ("10.9.0.1/24",)),
    "cycle": Bad(
        HEAD
        + "containers:\n"
        + "  a: {image: 127.0.0.1:5000/busybox:1, depends_on: [b]}\n"
        + "  b: {image: 127.0.0.1:5000/busybox:1, depends_on: [a]}\n",
        ("a", "b"),
    ),
    "unknown volume": Bad(one(mounts='["dta:/data"]'), ("dta",)),
    "unknown network": Bad(one(networks="[nowhere]"), ("nowhere",)),
    "unset variable": Bad(one(command='["${NO_SUCH:?say which}"]'), ("NO_SUCH", "say which")),
    "missing env file": Bad(one(env_file="./no.env"), ("no.env",)),
    "volume name": Bad(HEAD + "volumes: {../x: {}}\n", ("../x",)),
    "shell in a name": Bad(HEAD + 'containers: {"a;reboot": {image: 127.0.0.1:5000/busybox:1}}\n', ("a;reboot",)),
}

OUTSIDE: dict[str, Bad] = {
    "registry away": Bad(one(image="127.0.0.1:1/busybox:1"), ("127.0.0.1:1",), 1),
    "missing tag": Bad(one(image="127.0.0.1:5000/busybox:none"), ("busybox:none",), 1),
    "missing repository": Bad(one(image="127.0.0.1:5000/nobody/nothing:1"), ("nobody/nothing",), 1),
    "missing platform": Bad(one(image="127.0.0.1:5000/foreign:1"), ("foreign", "s390x"), 1),
    "zstd layer": Bad(one(image="127.0.0.1:5000/zstd:1"), ("zst",), 1),
    "no command": Bad(one(image="127.0.0.1:5000/nocmd:1"), ("command",), 1),
    "command not in the image": Bad(one(image="127.0.0.1:5000/badcmd:1"), ("/no/such/program",), 1),
    "user not in the image": Bad(one(user="nobody-here", command="[pause]"), ("nobody-here",), 1),
    "missing archive": Bad(HEAD + "images: {a: {archive: ./no.tar}}\n", ("no.tar",), 1),
}


def assert_one_clear_error(result: Any, bad: Bad) -> None:
    assert result.code == bad.code, str(result)
    assert all(word.lower() in (result.err + result.out).lower() for word in bad.words), str(result)
    assert len(result.err.splitlines()) < 40, "an error, not a flood"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Any:
    """A world where a good stack runs, shared by tests of which none may change anything."""
    world = open_world(tmp_path_factory.mktemp("bad") / "world", lab_storage)
    try:
        world.use("shop")
        world.run("apply", "stack.yaml", "--yes", check=0)
        yield world
        world.assert_nothing_left()
    finally:
        world.close()


@pytest.mark.parametrize("name", MANIFESTS)
def test_bad_manifest_is_told_by_validate_plan_and_apply(healthy: World, name: str):
    bad = MANIFESTS[name]
    before = healthy.records()
    path = str(healthy.write(bad.text, "bad/stack.yaml"))
    for verb in (["validate", path], ["plan", path], ["apply", path, "--yes"]):
        assert_one_clear_error(healthy.run(*verb), bad)
    assert healthy.records() == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_cannot_be_had_is_told_and_leaves_nothing(healthy: World, name: str):
    before = healthy.records()
    path = str(healthy.write(OUTSIDE[name].text, "bad/stack.yaml"))
    assert_one_clear_error(healthy.run("apply", path, "--yes"), OUTSIDE[name])
    if any("/bad/" in key for key in healthy.records()):
        healthy.run("delete", "bad", "--yes", check=0)
    assert healthy.records() == before
    assert "It works" in healthy.fetch("http://127.0.0.1:8080/")


def test_huge_manifest_is_refused_by_its_size(healthy: World):
    path = healthy.folder / "bad" / "huge.yaml"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(HEAD.encode() + b"x-a: ")
        file.seek(120_000_000)
        file.write(b"\n")
    result = healthy.run("validate", str(path), check=65)
    assert "large" in result.err or "size" in result.err or "MB" in result.err, str(result)
    path.unlink()


def test_missing_file_names_the_file(healthy: World):
    result = healthy.run("apply", "no/such.yaml", "--yes")
    assert result.code in (1, 64, 65), str(result)
    assert "no/such.yaml" in result.err


def test_all_errors_of_a_file_come_at_once_with_their_places(healthy: World):
    text = textwrap.dedent("""\
        apiVersion: reconcile/v1
        name: bad
        containers:
          it:
            image: 127.0.0.1:5000/busybox:1
            memry: 5
            ports: ["no"]
            networks: [nowhere]
        """)
    result = healthy.run("validate", str(healthy.write(text, "bad/stack.yaml")), check=65)
    for place in ("stack.yaml:6:5", "stack.yaml:7:", "stack.yaml:8:"):
        assert place in result.err + result.out, str(result)
    assert "^" in result.err + result.out


def test_flag_that_is_unknown_is_usage(healthy: World):
    assert healthy.run("apply", "stack.yaml", "--no-such-flag").code == 64
    assert healthy.run("frobnicate").code == 64


def corrupt_layer(blob: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


def truncate_layer(blob: Path) -> None:
    os.truncate(blob, blob.stat().st_size // 2)


@pytest.mark.parametrize("harm", [corrupt_layer, truncate_layer], ids=lambda harm: harm.__name__)
def test_layer_that_is_not_what_its_digest_says_is_refused(world: World, tmp_path: Path, harm: Callable[[Path], None]):
    assert world.registry
    original = lab_images()["busybox:1"]
    storage = tmp_path / "harmed"
    shutil.copytree(tmp_path_of(world), storage)
    layer = original.layer_blobs()[0].digest[7:]
    harm(storage / f"docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data")
    registry = start_registry(storage, tmp_path / "harmed-registry", port=5001, enter=world.enter)
    try:
        path = world.write(one(image="127.0.0.1:5001/busybox:1", command="[pause]"))
        result = world.run("apply", str(path), "--yes", check=1)
        assert original.layer_blobs()[0].digest[:19] in result.err + result.out, str(result)
        images = world.run("images", "ls", "-o", "json", check=0)
        assert original.manifest().digest not in images.out
    finally:
        world.signal(registry.process)
        registry.process.wait(10)
    world.edit(path, "5001", "5000")
    world.run("apply", str(path), "--yes", check=0)


def tmp_path_of(world: World) -> Path:
    """The storage that the world's registry serves."""
    assert world.registry
    config = json.loads((world.folder / "registry" / "registry.yml").read_text())
    return Path(config["storage"]["filesystem"]["rootdirectory"])


def test_full_disk_is_told_and_what_runs_goes_on(world: World):
    world.root.mkdir()
    world.nsenter("mount", "-t", "tmpfs", "-o", "size=24M,mode=0700", "tmpfs", str(world.root))
    try:
        world.use("shop")
        world.run("apply", "stack.yaml", "--yes", check=0)
        world.nsenter("sh", "-c", f"dd if=/dev/zero of={world.root}/filler bs=64k 2>/dev/null", check=False)
        path = world.write(one(image="127.0.0.1:5000/plain:1", command="[pause]"), "bad/stack.yaml")
        result = world.run("apply", str(path), "--yes", check=1)
        assert "space" in result.err + result.out or "disk" in result.err, str(result)
        assert "It works" in world.fetch("http://127.0.0.1:8080/")
        world.nsenter("rm", f"{world.root}/filler")
        world.run("apply", str(path), "--yes", check=0)
        world.delete_everything()
    finally:
        world.nsenter("umount", "-l", str(world.root), check=False)


def test_without_root_it_says_so(world: World):
    world.use("shop")
    command = ["setpriv", "--reuid", "65534", "--clear-groups", *python_reconcile(), "apply", "stack.yaml", "--yes"]
    world.nsenter("chmod", "-R", "a+rX", str(world.folder))
    for parent in (world.folder, *world.folder.parents[:4]):  # pytest keeps its folders from other users
        parent.chmod(parent.stat().st_mode | 0o011)
    result = world.nsenter(*command, check=False)
    assert result.code == 1, str(result)
    assert "root" in result.err
    assert "Traceback" not in result.err


def python_reconcile() -> list[str]:
    return [sys.executable, "-m", "reconciler.cli.main"]
