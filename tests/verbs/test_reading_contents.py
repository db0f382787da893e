"""What `resolve` reads of files: digests and bytes, and what it says of those that it does not keep."""

import hashlib
import os
from pathlib import Path

import pytest

from reconciler.engine.memory.drivers import MemoryImages
from reconciler.engine.memory.machine import Machine
from reconciler.manifest.load import load_text
from reconciler.model.content import unpack
from reconciler.model.errors import BadManifest
from reconciler.model.key import container_key
from reconciler.model.record import Desired, Stack
from reconciler.model.spec import ContainerSpec, Sensitive
from reconciler.store.sealed import Sealer, write_key
from reconciler.verbs.agekeys import AgeKeys
from reconciler.verbs.resolve import resolve

WEB = container_key("s", "web")
TEXT = """
apiVersion: reconcile/v1
name: s
configs: {app: {file: ./app.conf}, level: {content: "level=${LEVEL}"}, plain: {content: plain}}
secrets: {token: {file: ./token}}
containers:
  web: {image: "a/b:1", configs: [app, level, plain], secrets: [token], mounts: ["./motd:/motd:ro"], env_file: ./web.env}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"app.conf": "listen 80\n", "token": "swordfish", "motd": "hi\n", "web.env": "A=1\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "motd").chmod(0o640)
    write_key(tmp_path / "key")
    return tmp_path


def load(folder: Path) -> Stack:
    return load_text(
        TEXT, file="s.yaml", folder=folder, variables={"LEVEL": "info"}, environment={}, origin_of=lambda *_: "name:s"
    )


def ask(folder: Path, stack: Stack | None = None, *, root: Path | None = None) -> Desired:
    images = MemoryImages(Machine())
    keyed, keys = Sealer(root or folder).digest, AgeKeys(root or folder)
    return resolve([stack or load(folder)], images=images, records={}, keyed=keyed, keys=keys, offline=True)


def web_of(desired: Desired) -> ContainerSpec:
    spec = desired.stacks[0].specs[WEB]
    assert isinstance(spec, ContainerSpec)
    return spec


def plain(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_digests_of_what_nobody_must_guess_are_keyed(folder: Path):
    web = web_of(ask(folder))
    assert web.configs["/app"].digest == plain(b"listen 80\n")
    assert web.configs["/plain"].digest == plain(b"plain")
    assert web.configs["/level"].digest.startswith("hmac-sha256:")
    assert web.secrets["/run/secrets/token"].digest.startswith("hmac-sha256:")
    assert plain(b"swordfish").removeprefix("sha256:") not in repr(ask(folder))


def test_contents_are_there_by_digest_and_in_no_representation(folder: Path):
    desired = ask(folder)
    found = {unpack(value) for value in desired.contents.values()}
    assert found == {b"listen 80\n", b"level=info", b"plain", b"swordfish", b"hi\n"}
    assert "swordfish" not in repr(desired)


def test_bound_file_keeps_its_owner_and_mode(folder: Path):
    mount = web_of(ask(folder)).mounts["/motd"]
    assert (mount.digest, mount.mode) == (plain(b"hi\n"), 0o640)
    assert (mount.uid, mount.gid) == (os.getuid(), os.getgid())


def test_other_root_gives_other_digests_and_the_same_root_the_same(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("other")
    write_key(other / "key")
    token = "/run/secrets/token"
    assert web_of(ask(folder)).secrets[token] == web_of(ask(folder)).secrets[token]
    assert web_of(ask(folder)).secrets[token] != web_of(ask(folder, root=other)).secrets[token]


def test_root_without_a_key_still_gives_digests_that_nobody_can_guess(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    nowhere = tmp_path_factory.mktemp("nowhere")
    first, second = (web_of(ask(folder, root=nowhere)).secrets["/run/secrets/token"].digest for _ in range(2))
    assert first != second
    assert list(nowhere.iterdir()) == []


def test_stack_that_was_resolved_needs_no_file_any_more(folder: Path):
    [stack] = ask(folder).stacks
    for name in ("app.conf", "token", "motd", "web.env"):
        (folder / name).unlink()
    again = ask(folder, stack)
    assert again.stacks == (stack,)
    assert again.contents == {}
    assert web_of(again).env == {"A": Sensitive("1")}


def test_file_that_went_since_is_a_bad_manifest(folder: Path):
    stack = load(folder)
    (folder / "token").unlink()
    (folder / "motd").unlink()
    with pytest.raises(BadManifest) as caught:
        ask(folder, stack)
    said = sorted((problem.file, problem.path, problem.text.split(": ")[-1]) for problem in caught.value.problems)
    missing = "No such file or directory"
    assert said == [("s.yaml", "containers.web.mounts", missing), ("s.yaml", "secrets.token.file", missing)]


def test_folders_and_large_files_stay_as_they_are_on_the_host(folder: Path):
    (folder / "motd").write_bytes(b"x" * (1 << 20 | 1))
    desired = ask(folder)
    assert web_of(desired).mounts["/motd"].digest == ""
    assert desired.live == {
        WEB: (f"/motd is not kept with the revision: {folder}/motd has 1,048,577 bytes, more than 1 MiB",)
    }
    (folder / "motd").unlink()
    (folder / "motd").mkdir()
    assert web_of(ask(folder)).mounts["/motd"].digest == ""


def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(folder: Path):
    stack = load(folder)
    (folder / "token").unlink()
    os.mkfifo(folder / "token")
    with pytest.raises(BadManifest) as caught:
        ask(folder, stack)
    assert "it is no regular file" in caught.value.problems[0].text
