"""What answers Prometheus: three paths, over loopback, within bounds, whoever asks and however slowly."""

import http.client
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.conftest import Controlled
from lab.world import wait_until
from reconciler.controller import scrape
from reconciler.controller.metrics import METRICS_KIND, Metrics, State
from reconciler.controller.scrape import Answer, ScrapeServer
from reconciler.controller.tally import Tally
from reconciler.linux.usage import Traffic, Usage
from reconciler.model.events import Changed
from reconciler.model.key import container_key
from reconciler.model.observation import Health
from reconciler.model.record import ApplyId
from reconciler.verbs.look import look
from reconciler.verbs.serving import Serving, SourceState, StackState

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "monitoring"


@pytest.fixture
def server() -> Iterator[ScrapeServer]:
    def broken() -> Answer:
        raise ValueError

    paths = {
        "/metrics": lambda: Answer(200, b"up 1\n" * 100_000, METRICS_KIND),
        "/healthz": lambda: Answer(200, b"ok\n"),
        "/broken": broken,
    }
    made = ScrapeServer(("127.0.0.1", 0), paths)
    made.start()
    yield made
    made.stop()


def ask(server: ScrapeServer, method: str = "GET", path: str = "/healthz", **headers: str) -> tuple[int, bytes]:
    client = http.client.HTTPConnection(*server.address, timeout=5)
    client.request(method, path, headers=headers)
    answer = client.getresponse()
    found = answer.status, answer.read()
    client.close()
    return found


def send(server: ScrapeServer, raw: bytes) -> bytes:
    with socket.create_connection(server.address, timeout=5) as opened:
        opened.sendall(raw)
        return opened.makefile("rb").read()


def test_only_what_there_is_is_answered(server: ScrapeServer) -> None:
    assert ask(server) == (200, b"ok\n")
    assert ask(server, "HEAD") == (200, b"")
    assert ask(server, path="/metrics?x=1")[1] == b"up 1\n" * 100_000
    assert ask(server, path="/../etc/passwd")[0] == 404
    assert ask(server, "POST", "/metrics")[0] == 405
    assert ask(server, path="/broken") == (500, b"a mistake of reconcile\n")
    assert ask(server) == (200, b"ok\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9323", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_f1_name_of_another_that_leads_here_is_refused(server: ScrapeServer, host: str) -> None:
    assert ask(server, Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9323", "127.0.0.1:1", "[::1]:9323", "[::1]"])
def test_names_of_loopback_are_answered(server: ScrapeServer, host: str) -> None:
    assert ask(server, Host=host)[0] == 200


def test_f2_large_odd_and_slow_requests_are_bounded_and_others_are_answered(
    server: ScrapeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert b" 431 " in send(server, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 9000)
    assert b" 400 " in send(server, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert b" 421 " in send(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n")
    monkeypatch.setattr(scrape, "LONGEST", 0.2)
    slow = [socket.create_connection(server.address) for _ in range(scrape.MOST_CONNECTIONS + 20)]
    for one in slow:
        one.send(b"GET /")
    assert ask(server) == (200, b"ok\n")
    slow[-1].settimeout(5)
    assert slow[-1].recv(1) == b"", "it was closed when its time was over"
    for one in slow:
        one.close()


PROCESS = ApplyId(pid=1, start_time=1, boot_id="b")
SERVING = Serving(
    process=PROCESS,
    since=1.0,
    at=2.0,
    sources=(SourceState(name='/etc/"odd"\n', broken="gone", problems={"a": "b"}),),
    stacks=tuple(
        StackState(stack=f"s{number}", source="/etc", file="f", synced=number != 7, since=1.0) for number in range(20)
    ),
)
STATE = State(serving=SERVING, queued={"work": 3}, working={"work": 1}, ready=True)


ORDER = ("stack", "container", "source", "verb", "kind", "queue", "phase", "result", "le")


def read(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and values of labels, as a parser of Prometheus' own reads it."""
    samples = [one for each in text_string_to_metric_families(metrics.render().decode()) for one in each.samples]
    return {(one.name, tuple(one.labels[name] for name in ORDER if name in one.labels)): one.value for one in samples}


def test_counts_and_states_are_told_as_prometheus_reads_them() -> None:
    tally = Tally(time.monotonic)
    tally.see(Changed(verb="apply", stack="blog", who="ann", result="rolled-back", count=3, took=0.3))
    tally.timed(lambda _: None)("stack blog")
    with pytest.raises(ValueError, match="x"):
        tally.timed(lambda _: int("x"))("source /etc")
    found = read(Metrics(tally, lambda: STATE, most_stacks=5))
    assert found["reconcile_changes_total", ("apply", "rolled-back")] == 1
    assert found["reconcile_looks_total", ("stack", "done")] == 1
    assert found["reconcile_looks_total", ("source", "failed")] == 1
    assert found["reconcile_change_seconds_bucket", ("apply", "0.25")] == 0
    assert found["reconcile_change_seconds_bucket", ("apply", "0.5")] == 1
    assert found["reconcile_change_seconds_sum", ("apply",)] == 0.3
    assert found["reconcile_source_broken", ('/etc/"odd"\n',)] == 1
    assert found["reconcile_queue_depth", ("work",)] == 3
    assert found["reconcile_drift_found_total", ()] == 0
    stacks = {labels[0]: value for (name, labels), value in found.items() if name == "reconcile_stack_synced"}
    assert stacks == {"s7": 0, "s0": 1, "s1": 1, "s10": 1, "s11": 1}, "what is not well is never left out"
    assert found["reconcile_stacks_left_out", ()] == 15


def test_containers_have_lines_of_their_own_as_far_as_the_bound_goes(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("blog", "shop", "wiki"):
        controlled.write(name)
    controlled.run(3)
    monkeypatch.setattr("reconciler.controller.metrics.find_own_cgroup", lambda pid, _: f"/{pid}")
    sizes = {"blog": 100, "shop": 300, "wiki": 200}
    pids = {f"/{controlled.machine.find(container_key(name, 'web'))[0].pid}": size for name, size in sizes.items()}
    monkeypatch.setattr("reconciler.controller.metrics.read_memory", pids.get)
    usage = Usage(cpu_seconds=1.5, memory=7, memory_limit=None, pids=2, oom_kills=0)
    monkeypatch.setattr("reconciler.controller.metrics.read_usage", lambda _: usage)
    monkeypatch.setattr("reconciler.controller.metrics.read_traffic", lambda _: Traffic(received=5, sent=6))
    sick = {container_key("blog", "web"): Health.UNHEALTHY, container_key("shop", "web"): Health.STARTING}
    metrics = Metrics(Tally(time.monotonic), lambda: STATE, read_health=lambda: sick, most_containers=2)
    metrics.follow(look(controlled.root))
    found = read(metrics)
    shown = {labels for name, labels in found if name == "reconcile_container_running"}
    assert shown == {("blog", "web/1"), ("shop", "web/1")}, "what is not well, then what uses most"
    assert {labels: value for (name, labels), value in found.items() if name == "reconcile_container_healthy"} == {
        ("blog", "web/1"): 0
    }
    assert found["reconcile_containers_left_out", ()] == 1
    assert found["reconcile_containers", ("running",)] == 3
    assert found["reconcile_container_cpu_seconds_total", ("shop", "web/1")] == 1.5
    assert found["reconcile_container_network_transmit_bytes_total", ("blog", "web/1")] == 6
    assert ("reconcile_container_memory_limit_bytes", ("shop", "web/1")) not in found


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_prometheus_itself_takes_the_rules_its_configuration_and_what_is_scraped() -> None:
    for check, name in (("rules", "alerts.yaml"), ("config", "prometheus.yaml")):
        done = subprocess.run(["promtool", "check", check, name], cwd=EXAMPLES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tally = Tally(time.monotonic)
    tally.see(Changed(verb="apply", stack="blog", who="ann", result="done", count=3, took=0.3))
    text = Metrics(tally, lambda: STATE).render()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian's package)")
def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    metrics = Metrics(Tally(time.monotonic), lambda: STATE)
    server = ScrapeServer(("127.0.0.1", 0), {"/metrics": lambda: Answer(200, metrics.render(), METRICS_KIND)})
    server.start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target = f"127.0.0.1:{server.address[1]}"
    config = tmp_path / "prometheus.yml"
    jobs = [{"job_name": "reconcile", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
    config.write_text(json.dumps({"scrape_configs": jobs}))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(["prometheus", *flags], stdout=log, stderr=log)

    def scraped() -> bool:
        query = f"http://127.0.0.1:{port}/api/v1/query?query=reconcile_stack_synced%7Bstack%3D%22s7%22%7D"
        try:
            with urllib.request.urlopen(query, timeout=2) as answer:
                return '"value":[' in answer.read().decode() and True
        except OSError:
            return False

    try:
        wait_until(scraped, "it has what we told", lambda: (tmp_path / "log").read_text()[-2000:], seconds=30)
    finally:
        running.terminate()
        running.wait(20)
        server.stop()
