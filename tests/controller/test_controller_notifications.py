"""People are told, once, late where the place is down, and nothing waits for them."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from controller.conftest import Controlled
from lab.world import wait_until
from reconciler.controller import notifications, webhook
from reconciler.controller.notifications import Notifier
from reconciler.controller.settings import read_settings
from reconciler.controller.targets import Target, name_kind, read_url
from reconciler.controller.webhook import Notice, Refusal, post, render
from reconciler.model.errors import BadManifest, Failed
from reconciler.model.key import container_key
from reconciler.model.observation import missing


class Hook:
    """A real HTTP server that answers as the test says."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        """What is answered next; 200 where nothing is left. 0: nothing is, until `ended`."""
        self.took: list[dict] = []
        self.ended = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 0:
                    hook.ended.wait(10)
                    return
                self.send_response(status)
                self.send_header("Location", "http://169.254.169.254/")
                self.send_header("Content-Length", "0")
                if status == 200:
                    hook.took.append(body)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.ended.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.02), ("GAP", 0.0)):
        monkeypatch.setattr(notifications, name, value)


def target(folder: Path, url: str, name: str = "ops", **more: object) -> Target:
    path = folder / f"{name}-url"
    path.write_text(f"{url}\n")
    path.chmod(0o600)
    return Target(name=name, url_file=path, **more)  # type: ignore[arg-type]


class Told:
    """A notifier, and what it says and counts itself."""

    def __init__(self, folder: Path, *targets: Target) -> None:
        self.said: list[str] = []
        self.counts: list[str] = []
        self.notifier = Notifier(folder, say=self._say, count=self.counts.append)
        self.notifier.use(targets)

    def _say(self, about: str, words: str, over: str = "") -> None:
        self.said.append(words or over)

    def waits(self, hook: Hook, count: int) -> None:
        wait_until(lambda: len(hook.took) >= count, "it is told", lambda: str(self.said), seconds=10)


def test_kinds_of_what_is_said() -> None:
    assert name_kind("stack blog", over=False) == "failed"
    assert name_kind("back blog", over=False) == "rolled-back"
    assert name_kind("drift blog", over=False) == "drifted"
    assert name_kind("approval blog", over=False) == "waiting"
    assert name_kind("stack blog", over=True) == "recovered"
    assert name_kind("approval blog", over=True) == ""
    assert name_kind("notify ops", over=False) == ""


@pytest.mark.usefixtures("quick")
def test_what_fails_and_gets_well_is_told_in_turn_and_what_repeats_is_not(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, target(tmp_path, hook.url))
    told.notifier.tell("failed", "stack blog", "stack blog: no", "blog")
    told.waits(hook, 1)
    told.notifier.tell("failed", "stack blog", "stack blog: no", "blog")
    told.notifier.tell("recovered", "stack blog", "stack blog: well again", "blog")
    told.waits(hook, 2)
    told.notifier.tell("recovered", "stack shop", "nobody heard that it was not", "shop")
    told.notifier.stop()
    assert [(one["kind"], one["stack"], one["text"]) for one in hook.took] == [
        ("failed", "blog", "stack blog: no"),
        ("recovered", "blog", "stack blog: well again"),
    ]
    assert hook.took[0]["host"] == socket.gethostname()
    assert told.counts.count("repeated") == 2


def test_what_flaps_is_told_once_a_minute_with_its_last_state(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "GAP", 0.3)
    told, began = Told(tmp_path, target(tmp_path, hook.url)), time.monotonic()
    for number in range(20):
        told.notifier.tell("failed", "stack blog", f"no {number}", "blog")
        told.notifier.tell("recovered", "stack blog", "well", "blog")
        time.sleep(0.01)
    told.notifier.tell("failed", "stack blog", "no at last", "blog")
    wait_until(lambda: hook.took and hook.took[-1]["text"] == "no at last", "the last state is told", lambda: "", seconds=5)
    assert len(hook.took) <= 2 + (time.monotonic() - began) / notifications.GAP
    told.notifier.stop()


@pytest.mark.usefixtures("quick")
def test_what_is_over_while_it_is_being_told_is_told_too(tmp_path: Path, hook: Hook) -> None:
    hook.answers = [500] * 5
    told = Told(tmp_path, target(tmp_path, hook.url))
    told.notifier.tell("failed", "stack blog", "no", "blog")
    wait_until(lambda: told.said, "it is being told", lambda: "", seconds=5)
    told.notifier.tell("recovered", "stack blog", "well", "blog")
    told.waits(hook, 2)
    told.notifier.stop()
    assert [one["text"] for one in hook.took] == ["no", "well"]


@pytest.mark.usefixtures("quick")
def test_place_that_fails_is_tried_again_and_one_that_refuses_is_not(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, target(tmp_path, hook.url))
    hook.answers = [500, 429, 503]
    told.notifier.tell("failed", "stack blog", "a")
    told.waits(hook, 1)
    hook.answers = [404]
    told.notifier.tell("failed", "stack shop", "b")
    told.notifier.tell("failed", "stack wiki", "c")
    told.waits(hook, 2)
    told.notifier.stop()
    assert [(one["text"], one["left_out"]) for one in hook.took] == [("a", 0), ("c", 1)]
    assert "notification ops: it answers 500" in told.said
    assert "notification ops: taken again" in told.said
    assert "s3cret" not in str(told.said)


@pytest.mark.usefixtures("quick")
def test_slow_place_and_a_dead_one_keep_nobody_waiting_and_queues_are_bounded(tmp_path: Path, hook: Hook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        gone = f"http://127.0.0.1:{dead.getsockname()[1]}/"
    other = Hook()
    other.answers = [0]
    slow, dead_one = target(tmp_path, other.url, "slow"), target(tmp_path, gone, "gone", form="slack")
    told = Told(tmp_path, target(tmp_path, hook.url), slow, dead_one)
    began = time.monotonic()
    for number in range(notifications.MOST_QUEUED + 50):
        told.notifier.tell("failed", f"stack s{number}", "no")
    assert time.monotonic() - began < 5.0, "an answer takes 10 s"
    told.waits(hook, 100)
    wait_until(lambda: any("gone: Connection refused" in one for one in told.said), "it is said", lambda: "", seconds=5)
    assert other.took == []
    other.ended.set()
    told.waits(other, 90)
    assert any(one["left_out"] for one in other.took)
    other.server.shutdown()
    other.server.server_close()
    began = time.monotonic()
    told.notifier.stop()
    assert time.monotonic() - began < 2 * notifications.LAST


def test_redirects_are_not_followed_and_no_proxy_is_used(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    hook.answers = [302]
    with pytest.raises(Refusal, match="redirects are not followed") as caught:
        post(hook.url, b"{}")
    assert not caught.value.retry
    with pytest.raises(Refusal) as caught:  # It speaks no TLS.
        post(hook.url.replace("http:", "https:"), b"{}", timeout=2)
    assert caught.value.retry
    hook.answers = [0]
    with pytest.raises(Refusal, match="no answer in time"):
        post(hook.url, b"{}", timeout=0.2)


def test_certificate_that_nobody_vouches_for_is_not_accepted(hook: Hook, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run([*made.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    hook.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    hook.server.socket = context.wrap_socket(hook.server.socket, server_side=True, do_handshake_on_connect=False)
    with pytest.raises(Refusal, match="its certificate is not accepted: self-signed certificate"):
        post(hook.url.replace("http:", "https:"), b"{}", timeout=5)
    assert hook.took == []


def test_form_of_slack_mentions_nobody_and_is_cut() -> None:
    notice = Notice(kind="failed", text="<!channel> & " + "x" * 9000, stack="shop", at=1.0, host="h", root="/r", left_out=2)
    text = json.loads(render(notice, "slack"))["text"]
    assert text.startswith("*shop* failed on h: &lt;!channel&gt; &amp; xx")
    assert text.endswith("(2 more were left out)")
    assert len(text) < webhook.MOST_TEXT + 200


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("https://hooks.example/x", 0o644, "others may read it"),
        ("http://hooks.example/x", 0o600, "http:// is open to everybody on the way"),
        ("https://u:p@hooks.example/x", 0o600, "its URL has no host, or a user and password"),
        ("file:///etc/passwd", 0o600, "holds no URL of https"),
        ("https://a.example/\nhttps://b.example/", 0o600, "holds no URL of https"),
        ("https://[::1", 0o600, "holds no URL"),
    ],
)
def test_f4_file_with_the_url_is_closed_and_right_and_never_quoted(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = tmp_path / "url"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(Failed, match=told) as caught:
        read_url(path)
    assert text not in str(caught.value)


def test_configuration_names_places_and_refuses_what_can_not_be_told(tmp_path: Path) -> None:
    place = target(tmp_path, "https://hooks.example/x")
    head = "apiVersion: reconcile/v1\nsources: [{watch: /etc/stacks}]\nnotifications:\n"
    one = f"  - {{name: ops, url_file: {place.url_file}, form: slack, on: [failed], stacks: [shop]}}\n"
    path = tmp_path / "serve.yaml"
    path.write_text(head + one)
    path.chmod(0o644)
    [found] = read_settings(path).notifications
    assert (found.form, found.on, found.stacks) == ("slack", frozenset({"failed"}), frozenset({"shop"}))
    path.write_text(head + one + one + "  - {name: gone, url_file: /nowhere, on: [faild]}\n")
    with pytest.raises(BadManifest) as caught:
        read_settings(path)
    assert "did you mean failed?" in caught.value.detail
    path.write_text(head + one + one + "  - {name: gone, url_file: /nowhere}\n")
    with pytest.raises(BadManifest) as caught:
        read_settings(path)
    assert "ops is here twice" in caught.value.detail
    assert "/nowhere can't be read: No such file" in caught.value.detail


def test_what_a_controller_announces_has_no_log_and_no_line_of_a_manifest(open_controlled) -> None:
    controlled: Controlled = open_controlled(heal=False)
    told: list[tuple[str, str]] = []
    controlled.announce = lambda kind, _about, text, _stack: told.append((kind, text))
    controlled.write("blog")
    controlled.run(3)
    controlled.machine.drift(container_key("blog", "web"), "monitor", missing())
    controlled.run(controlled.policy.resync + 2)
    controlled.write("blog", image="done:1", command="bad")
    controlled.run(controlled.policy.poll + 2)
    (controlled.folder / "blog.yaml").write_text("password: hunter2\n")
    controlled.run(controlled.policy.poll + 2)
    controlled.write("blog", command="mended")
    controlled.run(controlled.policy.poll + controlled.policy.resync)
    kinds = [kind for kind, _ in told]
    assert kinds[:2] == ["drifted", "rolled-back"]
    assert set(kinds) == {"drifted", "rolled-back", "failed", "recovered"}
    everything = "\n".join(text for _, text in told)
    assert "hunter2" not in everything
    assert "made container/blog/web/1" not in everything, "that is of its log"
    assert "blog.yaml of " in everything
