"""A root, a driver, a real registry and registries that lie."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_registry import Certificate, HostileRegistry, make_certificate

from lab.registry import Registry, free_port, render_config, start_registry, wait_until_listening
from reconciler.engine.native.drivers.image import ImageDriver
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.registry import client


@pytest.fixture(autouse=True)
def no_credentials_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see only credentials that they write."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    return Layout(root, tmp_path / "run", "aaaaa")


@pytest.fixture
def driver(layout: Layout) -> Iterator[ImageDriver]:
    made = ImageDriver(layout)
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., HostileRegistry]]:
    """Starts registries that do what a test says."""
    started: list[HostileRegistry] = []

    def start(**options: object) -> HostileRegistry:
        started.append(HostileRegistry(**options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's registry, empty, for anybody."""
    folder = tmp_path_factory.mktemp("registry")
    started = start_registry(folder / "data", folder, port=free_port(0))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's registry, empty, for `lab` alone."""
    folder = tmp_path_factory.mktemp("guarded")
    started = start_registry(folder / "data", folder, port=free_port(0), auth=True)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def encrypted(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Certificate]]:
    """Debian's registry over TLS alone, with what `registry` has, for `lab`."""
    folder = tmp_path_factory.mktemp("encrypted")
    tls, port = make_certificate(folder), free_port(0)
    storage = registry.log.parent / "data"
    config = render_config(storage, folder, port=port, auth=True)
    config["http"]["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    (folder / "registry.yml").write_text(json.dumps(config))
    with (folder / "registry.log").open("wb") as out:
        command = ["docker-registry", "serve", str(folder / "registry.yml")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    wait_until_listening(process, folder / "registry.log")
    started = Registry(process, f"https://127.0.0.1:{port}", folder / "registry.log")
    yield started, tls
    started.stop()
