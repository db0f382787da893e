"""What the manifests of a watched folder may ask for, by who may write them and by what its source allows."""

import os
from pathlib import Path

import pytest
from click import UsageError

from reconciler.cli.allowflags import read_allow
from reconciler.controller.serve import open_sources
from reconciler.controller.settings import Settings, WatchOptions, read_settings
from reconciler.controller.sources.sighting import Sighting
from reconciler.plan.allow import Allow

HOST = """\
apiVersion: reconcile/v1
name: web
networks: {net: {}}
containers:
  web:
    image: box:1
    networks: [net]
    ports: ["80:80"]
    mounts: ["/etc:/host:ro", "./site:/site:ro"]
    configs: [app]
configs: {app: {file: ./app.conf}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stacks"
    (made / "site").mkdir(parents=True)
    (made / "app.conf").write_text("a")
    (made / "web.yaml").write_text(HOST)
    return made


def read(folder: Path, allow: Allow | None = None) -> Sighting:
    [source] = open_sources(folder.parent, Settings(sources=(WatchOptions(folder=folder, allow=allow),)))
    return source.read()


def refused(seen: Sighting) -> str:
    assert seen.versions == {}
    return seen.problems["web.yaml"]


def test_what_only_root_may_write_may_ask_for_everything_unless_it_is_told_what(folder: Path) -> None:
    [version] = read(folder).versions.values()
    assert not version.confined
    told = refused(read(folder, Allow()))
    assert "/etc lies outside of the source" in told
    assert "port 80 of the host is below 1024" in told
    assert "site" not in told
    assert "app.conf" not in told
    [version] = read(folder, Allow(low_ports=True, host_paths=("/etc",))).versions.values()
    assert version.confined
    assert version.by_hand == ""


@pytest.mark.parametrize("what", ["the folder", "a manifest", "its owner"])
def test_h5_what_others_may_write_is_bounded_and_nothing_beside_it_is_taken(folder: Path, what: str) -> None:
    if what == "the folder":
        folder.chmod(0o777)
    elif what == "a manifest":
        (folder / "web.yaml").chmod(0o666)
    else:
        os.chown(folder / "web.yaml", 1000, 1000)
    told = refused(read(folder))
    assert "it may not ask for everything, for" in told
    assert "allow: {everything: true}" in told
    for asked in ("/etc lies outside", "port 80", f"{folder}/site lies outside", f"{folder}/app.conf lies outside"):
        assert asked in told, told
    # Said by who serves it, it may: he knows who these others are.
    [version] = read(folder, Allow(everything=True)).versions.values()
    assert not version.confined


def test_what_was_valid_stays_when_others_may_write_it(folder: Path) -> None:
    [source] = open_sources(folder.parent, Settings(sources=(WatchOptions(folder=folder),)))
    first = source.read().versions
    folder.chmod(0o777)
    seen = source.read()
    assert {name: version.token for name, version in seen.versions.items()} == {
        name: version.token for name, version in first.items()
    }
    assert "others may write to" in seen.problems["web.yaml"]
    folder.chmod(0o755)
    assert source.read().problems == {}


def test_it_is_set_in_the_configuration_and_a_reload_takes_it(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(
        f"apiVersion: reconcile/v1\nsources:\n  - {{watch: {folder}, allow: {{ports: [80], host_paths: [/etc]}}}}\n"
    )
    settings = read_settings(path)
    assert settings.sources == (WatchOptions(folder=folder, allow=Allow(ports=((80, 80),), host_paths=("/etc",))),)
    [source] = open_sources(tmp_path, settings)
    assert source.read().problems == {}
    path.write_text(f"apiVersion: reconcile/v1\nsources:\n  - {{watch: {folder}, allow: {{}}}}\n")
    [again] = open_sources(tmp_path, read_settings(path), {source.name: source})
    assert again is source
    assert "web.yaml" in again.read().problems


def test_flags_say_the_same() -> None:
    assert read_allow(()) is None
    assert read_allow(("nothing",)) == Allow()
    assert read_allow(("everything",)) == Allow(everything=True)
    words = ("low-ports", "host-paths=/srv/my-data", "host_paths=/b", "ports=8000-8100", "registries=my-registry:5000")
    assert read_allow(words) == Allow(
        low_ports=True, host_paths=("/srv/my-data", "/b"), ports=((8000, 8100),), registries=("my-registry:5000",)
    )
    for bad in ("all", "ports=9-1", "ports=x", "host_paths=srv", "devices", "privileged=yes"):
        with pytest.raises(UsageError):
            read_allow((bad,))
