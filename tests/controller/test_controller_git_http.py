"""A repository over smart HTTP: credentials go where they belong and nowhere else; servers that are none of git's."""

import base64
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.githttp import Served, serving
from controller.gitlab import Pushed
from controller.test_controller_git import manifest
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.gitplace import parse_place
from reconciler.controller.sources.gitrun import Access, Bounds

SECRET = "hunter2-in-no-list"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    made = Pushed(tmp_path)
    made.commit("first", {"blog.yaml": manifest("blog")})
    return made


@pytest.fixture
def server(pushed: Pushed, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.write_text(f"ann:{SECRET}\n")
    file.chmod(0o600)
    return file


def source(server: Served, tmp_path: Path, credentials: Path | None = None, **bounds: float) -> GitSource:
    place = parse_place(f"{server.url}/bare.git")
    options = GitOptions(
        place=place, ref="refs/heads/main", access=Access(credentials=credentials), bounds=Bounds(**bounds)  # type: ignore[arg-type]
    )  # fmt: skip
    return GitSource(options, tmp_path / "root")


def everything_of(processes: str) -> str:
    """Command lines and environments of all processes of a name, as ps shows them."""
    out = ""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes()
            if processes.encode() in line:
                out += f"{line!r} {(path / 'environ').read_bytes()!r}\n"
        except OSError:
            continue
    return out


def test_h2_credentials_reach_the_server_and_stand_in_no_process_and_no_file(
    pushed: Pushed, server: Served, credentials: Path, tmp_path: Path
) -> None:
    server.credentials = f"Basic {BASIC}"
    looks: list[str] = []
    server.before = lambda: looks.append(everything_of(f"{server.url}/bare.git"))
    made = source(server, tmp_path, credentials)
    seen = made.read()
    assert (seen.broken, set(seen.versions)) == ("", {"blog"})
    assert all(header == f"Basic {BASIC}" for _, header in server.seen)
    assert "ls-remote" in looks[0]
    assert "remote-http" in looks[0]
    kept = "".join(path.read_bytes().decode("latin-1") for path in made.folder.rglob("*") if path.is_file())
    for secret in (SECRET, BASIC):
        assert secret not in "".join(looks) + kept


def test_h2_wrong_credentials_are_told_and_shown_nowhere(server: Served, credentials: Path, tmp_path: Path) -> None:
    server.credentials = "Basic of-somebody-else"
    broken = source(server, tmp_path, credentials).read().broken
    assert "ask the host: " in broken
    assert f"hint: {credentials} is not accepted" in broken
    assert SECRET not in broken
    assert BASIC not in broken
    assert "hint: give --credentials FILE" in source(server, tmp_path).read().broken


def test_h2_credentials_that_others_may_read_or_that_are_none_are_refused(
    server: Served, credentials: Path, tmp_path: Path
) -> None:
    credentials.chmod(0o644)
    assert f"hint: chmod 600 {credentials}" in source(server, tmp_path, credentials).read().broken
    credentials.chmod(0o600)
    for text in ("", "a:b\nX-Injected: yes\n", "\x00"):
        credentials.write_text(text)
        assert "holds no credentials" in source(server, tmp_path, credentials).read().broken
    assert server.seen == []


def test_h2_redirect_to_another_host_is_not_followed(server: Served, credentials: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as other:
        server.redirect = other.url
        broken = source(server, tmp_path, credentials).read().broken
        assert "redirects are not followed" in broken
        assert other.seen == []
        assert [header for _, header in server.seen] == [f"Basic {BASIC}"]


def test_h1_server_that_knows_nothing_of_git_is_told_and_not_walked(pushed: Pushed, server: Served, tmp_path: Path) -> None:
    """Over plain HTTP each object is a file of its own: no bound would hold."""
    pushed.git("update-server-info", cwd=pushed.bare)
    server.plain = True
    broken = source(server, tmp_path).read().broken
    assert "dumb http transport does not support shallow" in broken
    assert "hint: it is served as plain files" in broken
    assert not [path for path, _ in server.seen if "/objects/" in path]


def test_certificate_that_nobody_vouches_for_is_told(server: Served, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    place = parse_place(f"https://127.0.0.1:{server.server_port}/bare.git")
    broken = GitSource(GitOptions(place=place), tmp_path / "root").read().broken
    assert "certificate" in broken
    assert "update-ca-certificates" in broken


def test_x5_server_that_does_not_answer_meets_a_deadline(server: Served, tmp_path: Path) -> None:
    waits = threading.Event()
    server.before = lambda: waits.wait(20)
    broken = source(server, tmp_path, ask_seconds=0.3).read().broken
    assert "ls-remote: it was not done after 0.3 s" in broken
    assert everything_of(f"{server.url}/bare.git") == "", "nothing of it is left"
    waits.set()


def test_x5_server_that_is_gone_or_answers_nonsense_leaves_what_was_taken(server: Served, tmp_path: Path) -> None:
    made = source(server, tmp_path)
    first = made.read()
    server.plain = True
    server.folder = tmp_path / "empty"
    seen = made.read()
    assert seen.versions == first.versions
    assert "not found" in seen.stale
    server.shutdown()
    server.server_close()
    seen = made.read()
    assert seen.versions == first.versions
    assert "Failed to connect" in seen.stale


@pytest.mark.parametrize("how", ["amended", "pushed back", "another repository"])
def test_h3_x8_by_the_first_protocol_what_does_not_follow_is_not_taken_and_said(
    pushed: Pushed, server: Served, tmp_path: Path, how: str
) -> None:
    server.first_protocol = True
    made = source(server, tmp_path)
    taken = pushed.commit("second", {"blog.yaml": manifest("blog", "2")})
    made.read()
    if how == "another repository":
        (tmp_path / "other").mkdir()
        other = Pushed(tmp_path / "other")
        other.commit("stranger", {"shop.yaml": manifest("shop")})
        pushed.bare.rename(tmp_path / "aside")
        other.bare.rename(pushed.bare)
    else:
        pushed.git(*(["commit", "-q", "--amend", "-m", "x"] if how == "amended" else ["reset", "-q", "--hard", "HEAD~"]))
        pushed.push()
    seen = made.read()
    assert set(seen.versions) == {"blog"}
    assert f"commit {taken[:12]}, which was taken before, is not in its history, which was rewritten" in seen.stale
    assert "--allow-backwards" in seen.stale
    if how != "another repository":
        pushed.git("reset", "-q", "--hard", taken)
        pushed.commit("third", {"blog.yaml": manifest("blog", "3")})
        assert made.read().stale == ""
