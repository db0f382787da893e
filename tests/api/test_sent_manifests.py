"""Manifests that are sent with what they name: read as by path, of no files but what came, owned by where they are."""

import os
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from api.conftest import Served
from reconciler.api import asks
from reconciler.api.answers import answer
from reconciler.api.frames import Listener
from reconciler.api.problem import Question, Unanswered
from reconciler.cli.main import run
from reconciler.engine.memory.machine import Published
from reconciler.manifest.files import HERE, SentFiles
from reconciler.model.content import LIMIT
from reconciler.model.errors import BadManifest, Failed, OriginDiffers, ReconcileError, Usage
from reconciler.model.sent import Sent
from reconciler.verbs import approval, sending
from reconciler.verbs.audit import acting_as

MANIFEST = """\
apiVersion: reconcile/v1
name: blog
configs: {page: {file: ./page.html}}
secrets: {token: {file: ./token}}
containers:
  web: {image: box:1, configs: [page], secrets: [token], mounts: ["./motd:/motd:ro"], env_file: web.env, env: {T: "${TAG}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest and all that it names."""
    made = tmp_path / "blog"
    made.mkdir()
    texts = {
        "stack.yaml": MANIFEST,
        "page.html": "hello",
        "token": "swordfish",
        "motd": "hi",
        "web.env": "A=1\n",
        ".env": "TAG=2\n",
    }
    for name, text in texts.items():
        (made / name).write_text(text)
    (made / ".env").write_text("TAG=2\n")
    (made / "motd").chmod(0o664)
    return made


def by_path(folder: Path, name: str = "stack.yaml") -> asks.Manifests:
    return asks.Manifests(paths=(name,), folder=str(folder))


def sent(folder: Path, name: str = "stack.yaml", *, sender: str = "", **more: Any) -> asks.Manifests:
    """As a client sends it."""
    gathered = sending.gather([folder / name], variables={}, environment={}, sender=sender, **more)
    return asks.Manifests(
        paths=(name,), folder=str(folder), files=gathered.files, origins=gathered.origins, sender=sender
    )  # fmt: skip


def answered(served: Served, ask: asks.Ask, *, uid: int = 4242, listener: Listener | None = None) -> Any:
    """What somebody is answered who is not root."""

    @contextmanager
    def opened(**_: object) -> Iterator[Any]:
        yield served.root

    with acting_as("ann", uid=uid):
        return answer(opened, ask, listener or Listener())


def apply(served: Served, manifests: asks.Manifests, **more: Any) -> Any:
    return answered(served, asks.Apply(manifests=manifests, yes=True, **more))["done"]


def test_what_is_sent_is_what_is_there_and_the_same_origin(served: Served, folder: Path) -> None:
    first = served.client.call(asks.Apply(manifests=by_path(folder), yes=True))
    assert first["done"] == 5
    assert apply(served, sent(folder)) is None
    (folder / "token").write_text("other")
    assert apply(served, sent(folder)) == 2
    assert served.client.call(asks.Apply(manifests=by_path(folder), yes=True))["done"] is None


def test_it_comes_through_the_socket_with_a_folder_of_manifests(served: Served, folder: Path) -> None:
    gathered = sending.gather([folder], variables={}, environment={})
    manifests = asks.Manifests(paths=("blog",), folder=str(folder.parent), files=gathered.files, origins=gathered.origins)
    assert {Path(path).name for path in gathered.files} == {path.name for path in folder.iterdir()}
    assert served.client.call(asks.Apply(manifests=manifests, yes=True))["done"] == 5
    assert served.client.call(asks.Delete(what="blog", manifests=manifests, yes=True))["done"] == 5


@pytest.mark.parametrize(
    "text",
    [
        "configs: {x: {file: %s}}",
        "secrets: {x: {file: %s}}",
        "secrets: {x: {age: %s}}",
        "secrets: {x: {sops: %s}}",
        "containers: {w: {image: box:1, env_file: %s}}",
        "images: {x: {archive: %s}}",
    ],
)
def test_f6_file_that_who_is_not_root_names_is_never_opened(served: Served, tmp_path: Path, text: str) -> None:
    path = tmp_path / "roots"
    path.write_text("A=swordfish\n")
    text = f"apiVersion: reconcile/v1\nname: x\n{text % path}\n"
    (tmp_path / "x.yaml").write_text(text)
    given = [
        asks.Manifests(paths=("-",), stdin=text, folder=str(tmp_path)),
        asks.Manifests(paths=("x.yaml",), folder=str(tmp_path)),
        asks.Manifests(paths=("x.yaml",), folder="/home/ann", files={"/home/ann/x.yaml": Sent(data=text.encode())}),
    ]
    touched = mock.Mock(side_effect=AssertionError("it was looked for here"))
    with mock.patch.multiple(type(HERE), look=touched, read=touched, read_regular=touched, names=touched):
        for manifests in given:
            for ask in (asks.Plan(manifests=manifests), asks.Apply(manifests=manifests), asks.Lock(manifests=manifests)):
                with pytest.raises(BadManifest) as caught:
                    answered(served, ask)
                assert "swordfish" not in f"{caught.value.brief}{caught.value.detail}"
    assert not touched.called


def test_f6_small_file_that_was_not_sent_is_not_read_and_a_saved_plan_neither(served: Served, folder: Path) -> None:
    text = 'apiVersion: reconcile/v1\nname: x\ncontainers: {w: {image: "box:1", mounts: ["./token:/t:ro"]}}\n'
    manifests = asks.Manifests(paths=("-",), stdin=text, folder=str(folder))
    with pytest.raises(BadManifest, match="1 problem") as caught:
        answered(served, asks.Plan(manifests=manifests))
    assert f"{folder}/token can't be read" in caught.value.detail
    plan = answered(served, asks.Plan(manifests=sent(folder), save=True))
    (folder / "plan").write_bytes(b64decode(plan["file"]))
    with pytest.raises(BadManifest):
        apply(served, by_path(folder, "plan"))
    assert apply(served, sent(folder, "plan")) == 5


def archive_manifests(archive: str, sender: str = "bob@laptop") -> asks.Manifests:
    text = (
        f'apiVersion: reconcile/v1\nname: x\nimages: {{app: {{archive: "{archive}"}}}}\ncontainers: {{w: {{image: app}}}}\n'
    )
    return asks.Manifests(
        paths=("x.yaml",), folder="/home/bob", files={"/home/bob/x.yaml": Sent(data=text.encode())}, sender=sender
    )


def test_f6_archive_is_opened_on_the_host_by_its_whole_path_for_root_alone(served: Served) -> None:
    served.machine.registry["/srv/app.tar"] = Published(digest="sha256:a0")
    assert answered(served, asks.Apply(manifests=archive_manifests("/srv/app.tar"), yes=True), uid=0)["done"]
    assert "sha256:a0" in served.machine.content
    told = {
        ("/srv/app.tar", "bob@laptop", 4242): [
            "the archive of image app is opened for root alone: /srv/app.tar",
            "ssh://root@",
        ],
        ("/srv/app.tar", "", 4242): ["is opened for root alone: /srv/app.tar", "have root apply it"],
        ("./app.tar", "", 4242): ["is opened for root alone: /home/bob/app.tar", "have root apply it"],
        ("./app.tar", "bob@laptop", 0): [
            "is on bob@laptop, and not sent: /home/bob/app.tar",
            "scp it to the host",
            "`from:`",
        ],
    }
    for (archive, sender, uid), words in told.items():
        with pytest.raises(BadManifest) as caught:
            answered(served, asks.Apply(manifests=archive_manifests(archive, sender), yes=True), uid=uid)
        assert all(word in caught.value.detail for word in ["x.yaml:3", *words]), caught.value.detail


def test_client_refuses_an_archive_that_is_only_here_before_anything_is_sent(tmp_path: Path) -> None:
    text = "apiVersion: reconcile/v1\nname: x\nimages: {app: {archive: %s}}\n"
    (tmp_path / "x.yaml").write_text(text % "./app.tar")
    with pytest.raises(BadManifest, match="1 problem") as caught:
        sending.gather([tmp_path / "x.yaml"], variables={}, environment={}, sender="bob@laptop")
    assert f"is on bob@laptop, and not sent: {tmp_path}/app.tar" in caught.value.detail
    (tmp_path / "x.yaml").write_text(text % "/srv/app.tar")
    gathered = sending.gather([tmp_path / "x.yaml"], variables={}, environment={}, sender="bob@laptop")
    assert [Path(path).name for path in gathered.files] == ["x.yaml"]


@pytest.mark.parametrize(
    "fields",
    [
        {"files": {"x.yaml": Sent(data=b"")}},
        {"files": {"/a/../x.yaml": Sent(data=b"")}},
        {"files": {"/a/x\0.yaml": Sent(data=b"")}},
        {"files": {"/" + "a" * 4096: Sent(data=b"")}},
        {"files": {}, "sender": "ann@laptop:/etc"},
        {"files": {}, "sender": "ann\n@x"},
        {"files": {"/x.yaml": Sent(data=MANIFEST.encode())}, "origins": {"x.yaml": ("git:a:b",)}},
        {"files": {"/x.yaml": Sent(data=b"name: x")}, "origins": {"/x.yaml": ("source:/etc/stacks",)}},
        {"files": {"/x.yaml": Sent(data=b"name: x")}, "origins": {"/x.yaml": ("file:ann@laptop:/x",)}},
    ],
)
def test_f6_names_that_are_none_are_refused(served: Served, fields: dict[str, Any]) -> None:
    text = b'apiVersion: reconcile/v1\nname: x\ncontainers: {w: {image: "box:1"}}\n'
    files = {path: Sent(data=text) if path == "/x.yaml" else file for path, file in fields["files"].items()}
    manifests = asks.Manifests(paths=("/x.yaml",), **{**fields, "files": files})
    with pytest.raises(Usage, match="expected"):
        answered(served, asks.Plan(manifests=manifests))


@pytest.mark.parametrize("file", [{"uid": -1}, {"gid": 2**32 - 1}, {"mode": 0o4755}, {"size": -1}, {"data": "#"}, {"x": 1}])
def test_f6_file_that_none_can_be_is_refused(served: Served, file: dict[str, Any]) -> None:
    status, body = served.post("/v1/plan", manifests={"paths": ["x"], "files": {"/x": file}})
    assert (status, b"does not fit" in body) == (400, True)


def test_errors_bear_the_names_and_places_of_whoever_asks(served: Served, folder: Path) -> None:
    (folder / "stack.yaml").write_text(MANIFEST.replace("image:", "imge:"))
    with pytest.raises(BadManifest) as near:
        sent(folder)
    assert near.value.problems[0].line == 6
    files = {f"{folder}/stack.yaml": Sent(data=(folder / "stack.yaml").read_bytes())}
    with pytest.raises(BadManifest) as far:
        answered(served, asks.Plan(manifests=asks.Manifests(paths=("./stack.yaml",), folder=str(folder), files=files)))
    assert {(one.file, one.line) for one in far.value.problems if "imge" in (one.path + one.text)} == {("./stack.yaml", 6)}


def test_origin_is_who_sent_it_from_where_and_owns_as_ever(served: Served, folder: Path) -> None:
    assert apply(served, sent(folder, sender="ann@laptop")) == 5
    [stack] = answered(served, asks.Status())["stacks"]
    assert stack["origin"] == f"file:ann@laptop:{folder}/stack.yaml"
    assert stack["source"] == "stack.yaml"
    assert apply(served, sent(folder, sender="ann@laptop")) is None
    for other in (sent(folder, sender="bob@laptop"), sent(folder), by_path(folder)):
        with pytest.raises(OriginDiffers) as caught:
            answered(served, asks.Apply(manifests=other, yes=True), uid=0)
        assert "not there any more" not in caught.value.detail
    assert apply(served, sent(folder, sender="bob@laptop"), take_over=True) is None
    with pytest.raises(OriginDiffers):
        apply(served, sent(folder, sender="ann@laptop"))


def test_work_tree_that_gets_a_remote_is_the_same_from_every_machine(served: Served, folder: Path) -> None:
    assert apply(served, sent(folder, sender="ann@laptop")) == 5
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text('[remote "origin"]\n\turl = https://ann:secret@git.test/blog\n')
    for manifests in (sent(folder, sender="ann@laptop"), sent(folder, sender="bob@desk"), by_path(folder)):
        answered(served, asks.Apply(manifests=manifests, yes=True), uid=0)
        assert answered(served, asks.Status())["stacks"][0]["origin"] == "git:https://git.test/blog:stack.yaml"


def test_of_another_machine_owners_are_root_and_modes_those_of_a_checkout(folder: Path) -> None:
    os.chown(folder / "motd", 4242, 4242)
    (folder / "token").chmod(0o600)
    files = sent(folder, sender="ann@laptop").files or {}
    seen = {Path(path).name: (one.uid, f"{one.mode:04o}") for path, one in files.items()}
    assert (seen["motd"], seen["token"]) == ((0, "0644"), (0, "0600"))
    files = sent(folder).files or {}
    assert (files[f"{folder}/motd"].uid, files[f"{folder}/motd"].mode) == (4242, 0o664)


@pytest.mark.parametrize(
    "mount", ["./motd:/motd", "./data:/data:ro", "./data:/data", "./large:/large:ro", "./none:/none:ro"]
)
def test_what_can_not_come_from_another_machine_is_refused_with_its_place(folder: Path, mount: str) -> None:
    (folder / "data").mkdir()
    (folder / "large").write_bytes(b"x" * (LIMIT + 1))
    (folder / "stack.yaml").write_text(MANIFEST.replace("./motd:/motd:ro", mount))
    with pytest.raises(BadManifest) as caught:
        sent(folder, sender="ann@laptop")
    assert caught.value.problems[0].line == 6
    assert "is on ann@laptop, and not sent" in caught.value.problems[0].text


@pytest.mark.parametrize("mount", ["./data:/data:ro", "./large:/large:ro", "/etc/hosts:/h:ro"])
def test_of_this_machine_folders_and_large_files_are_bound_as_by_path(served: Served, folder: Path, mount: str) -> None:
    (folder / "data").mkdir()
    (folder / "large").write_bytes(b"x" * (LIMIT + 1))
    (folder / "stack.yaml").write_text(MANIFEST.replace("./motd:/motd:ro", mount))
    told = [answered(served, asks.Plan(manifests=one), uid=0)["lines"] for one in (by_path(folder), sent(folder))]
    assert told[0] == told[1]
    assert any("is not kept with the revision" in line for line in told[0]) == ("large" in mount)


def test_more_than_fits_is_told_before_it_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MOST", 100)
    with pytest.raises(Failed, match="the most that is sent"):
        sent(folder)


def test_file_that_we_may_not_read_is_told_here(folder: Path) -> None:
    (folder / "stack.yaml").write_text(MANIFEST.replace("./token", "/proc/self/mem"))  # which can be opened, and not read
    with pytest.raises(BadManifest) as caught:
        sent(folder)
    [problem] = caught.value.problems
    assert (problem.path, "/proc/self/mem can't be read" in problem.text) == ("secrets.token.file", True)


def test_what_is_piped_in_begins_at_its_folder(served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    gathered = sending.gather([Path("-")], variables={}, environment={}, stdin=MANIFEST)
    monkeypatch.chdir("/")
    for files in (gathered.files, None):
        manifests = asks.Manifests(paths=("-",), folder=str(folder), stdin=MANIFEST, files=files)
        answered(served, asks.Apply(manifests=manifests, yes=True), uid=0)
    assert answered(served, asks.Status())["stacks"][0]["origin"] == "stdin"


def test_name_of_a_stack_that_is_a_folder_too_is_sent_as_far_as_it_can_be(served: Served, folder: Path) -> None:
    apply(served, sent(folder))
    (folder / "stack.yaml").write_text("name: [")
    gathered = sending.gather([folder], variables={}, environment={}, lenient=True)
    manifests = asks.Manifests(paths=("blog",), folder=str(folder.parent), files=gathered.files)
    with pytest.raises(BadManifest):
        answered(served, asks.Delete(what="./blog", manifests=manifests, yes=True))
    assert answered(served, asks.Delete(what="container/blog/web/1", manifests=manifests, yes=True))["done"] == 1


def test_tags_are_asked_for_where_images_are_pulled_and_nothing_is_written_there(served: Served, folder: Path) -> None:
    [entry] = answered(served, asks.Lock(manifests=sent(folder)))
    assert entry == {
        "file": "stack.yaml.lock", "tag": "docker.io/library/box:1", "digest": "sha256:b0", "was": "", "what": "new",
    }  # fmt: skip
    assert not (folder / "stack.yaml.lock").exists()


def test_lock_file_is_sent_and_pins(served: Served, folder: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    (folder / "stack.yaml.lock").write_text(
        f'apiVersion: reconcile/v1\nlocked: {{"docker.io/library/box:1": "{digest}"}}\n'
    )
    [entry] = answered(served, asks.Lock(manifests=sent(folder)))
    assert (entry["digest"], entry["what"]) == (digest, "kept")


@pytest.mark.parametrize("file", ["/etc/passwd", "other.yaml.lock", "sub/stack.yaml.lock", "stack.yaml"])
def test_lock_writes_no_file_that_was_not_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(folder)
    (folder / "other.yaml").touch()
    entry = {"file": file, "tag": "docker.io/library/box:1", "digest": "sha256:b0", "was": ""}
    with mock.patch("reconciler.cli.lock.ask", return_value=[entry]):
        assert run(["--host", "unix:///nowhere", "lock", "stack.yaml"]) == 1
    assert not (folder / file).exists() or file in ("/etc/passwd", "stack.yaml")
    assert (folder / "stack.yaml").read_text() == MANIFEST


def test_name_that_is_no_text_is_told(served: Served, folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = folder / os.fsdecode(b"\xff.yaml")
    path.write_text(MANIFEST)
    assert run(["--host", f"unix://{served.path}", "plan", str(path)]) == 64
    assert b"that is no text" in capfdbinary.readouterr().err


def test_sent_files_are_found_by_any_spelling_and_folders_are_what_has_files() -> None:
    files = SentFiles({"/a/b/x.yaml": Sent(data=b"12345"), "/a/big": Sent(size=9), "/a/folder": Sent()})
    assert files.read("/a/./b/../b/x.yaml", 3) == b"1234"
    assert (files.names("/a/b"), files.look("/a/b").folder, files.look("/a/folder").folder) == (["x.yaml"], True, True)
    assert (files.look("/a/big").size, files.look("/a/big").regular) == (9, True)
    for ask in (lambda: files.read("/a/big", 9), lambda: files.look("/etc/passwd"), lambda: files.read("/etc/passwd", 9)):
        with pytest.raises(FileNotFoundError):
            ask()


def test_what_waits_is_approved_by_a_question_and_is_kept_until_that_is_answered(served: Served, folder: Path) -> None:
    plan, _ = _plan(served, folder)
    approval.put_waiting(served.root, plan, stack="blog", source="/stacks", token="t")
    [waiting] = served.client.call(asks.Waiting(source="/stacks"))
    assert (waiting["stack"], sum(waiting["summary"].values())) == ("blog", 5)
    wanted = asks.Approve(source="/stacks", stack="blog", asks=True)
    asked: list[Question] = []

    def reply(answer: bool | None) -> Callable[[Question], bool | None]:
        return lambda question: asked.append(question) or answer  # type: ignore[func-returns-value]

    with pytest.raises(Unanswered):
        served.client.call(wanted, Listener(confirm=reply(None)))
    with pytest.raises(ReconcileError, match="not approved"):
        served.client.call(wanted, Listener(confirm=reply(False)))
    with pytest.raises(Usage):
        served.client.call(asks.Approve(source="/stacks", stack="", yes=True))
    assert served.client.call(wanted, Listener(confirm=reply(True)))["done"] == 5
    assert "waits for your approval" in asked[0].text
    with pytest.raises(ReconcileError, match="no source with something that waits"):
        served.client.call(asks.Waiting(source="/stacks"))


def _plan(served: Served, folder: Path) -> Any:
    from reconciler.api.answers.manifests import load
    from reconciler.verbs.plan import Wish, plan

    return plan(served.root, Wish(stacks=load(by_path(folder), HERE)), now=1.0)


def test_boot_and_export_go_through_the_socket(served: Served, folder: Path) -> None:
    served.client.call(asks.Apply(manifests=by_path(folder), yes=True))
    assert served.client.call(asks.Boot(wait=False))["done"] is None
    assert "name: blog" in served.client.call(asks.Export(what="blog"))["manifest"]
