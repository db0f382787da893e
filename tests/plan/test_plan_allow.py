"""What manifests of a repository may ask for: nothing of the machine's, until its operator says so."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.manifest.load import load_text
from reconciler.model.record import Stack
from reconciler.model.spec import ContainerSpec
from reconciler.plan.allow import JUDGED, Allow, find_refused

FOLDER = "/root/sources/tree"
FREE = frozenset(
    (
        "command", "entrypoint", "env", "workdir", "user", "hostname", "labels", "stop_signal", "stop_grace", "read_only",
        "tty", "stdin", "init", "restart", "job", "remove", "resources", "depends_on", "healthcheck", "update", "logs",
        "cap_drop", "ulimits", "sysctls", "shm_size", "extra_hosts", "dns", "dns_search",
    )
)  # fmt: skip
"""Fields by which a container asks for nothing that is the machine's."""


def read(manifest: dict[str, Any], folder: str = FOLDER) -> Stack:
    text = msgspec.json.encode({"apiVersion": "reconcile/v1", "name": "blog", **manifest})
    return load_text(
        text, file="blog.yaml", folder=Path(folder), variables={}, environment={}, origin_of=lambda *_: "x"
    )  # fmt: skip


def refused(manifest: dict[str, Any], folder: str = FOLDER, **allow: Any) -> list[str]:
    found = find_refused(read(manifest, folder), Allow(**allow), folder=folder)
    return [f"{problem.path}: {problem.text}" for problem in found]


def web(**fields: Any) -> dict[str, Any]:
    return {"containers": {"web": {"image": "app:1", **fields}}}


def test_every_field_of_a_container_was_thought_of() -> None:
    assert set(ContainerSpec.__struct_fields__) == JUDGED | FREE


ASKED = {
    "a path of the host": (web(mounts=["/etc:/x"]), {"host_paths": ("/etc",)}, "containers.web.mounts: /etc lies outside"),
    "a path above": (web(mounts=["../x:/x:ro"]), {"host_paths": ("/root/sources",)}, "mounts: /root/sources/x lies"),
    "the socket of Docker": (
        web(mounts=["/run/docker.sock:/d"]), {"host_paths": ("/run/docker.sock",)}, "mounts: /run/docker.sock lies",
    ),
    "the network of the host": (web(networks=["host"]), {"host_network": True}, "the network of the host is not allowed"),
    "a low port": (web(ports=["443:443"]), {"low_ports": True}, "ports: port 443 of the host is below 1024"),
    "a port of others": (web(ports=["9000:80"]), {"ports": ((9000, 9000),)}, ""),
    "a capability": (web(cap_add=["SYS_ADMIN"]), {"privileged": True}, "cap_add: CAP_SYS_ADMIN: capabilities beyond"),
    "every capability": (web(cap_add=["ALL"]), {"privileged": True}, "cap_add: ALL: capabilities beyond the usual"),
    "a program as runtime": (web(runtime="sh"), {"privileged": True}, "runtime: the program sh as runtime"),
    "an archive": ({**web(), "images": {"x": {"archive": "/srv/x.tar"}}}, {"host_paths": ("/srv",)}, "images.x.archive: "),
    "a folder as volume": (
        {**web(), "volumes": {"d": {"driver_opts": {"type": "none", "o": "bind", "device": "/home/ann"}}}},
        {"host_paths": ("/home",)},
        "volumes.d.driver_opts.device: /home/ann is not allowed",
    ),
    "a device as volume": (
        {**web(), "volumes": {"d": {"driver_opts": {"type": "ext4", "device": "/dev/sda1"}}}},
        {"devices": ("/dev/sda1",)},
        "volumes.d.driver_opts.device: /dev/sda1 is not allowed",
    ),
    "a share as volume": (
        {**web(), "volumes": {"d": {"driver_opts": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}}}},
        {"devices": (":/x",)},
        "volumes.d.driver_opts.device: :/x is not allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_g2_what_is_asked_of_the_machine_is_refused_until_it_is_allowed(what: str) -> None:
    manifest, allow, words = ASKED[what]
    if words:
        [found] = refused(manifest)
        assert words in found
    assert refused(manifest, **allow) == []


@pytest.mark.parametrize("section", ["configs", "secrets", "env_file"])
def test_g2_files_outside_of_the_source_are_refused(section: str, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    for path in (tmp_path / "out.txt", folder / "in.txt"):
        path.write_text("A=1\n")
    for file, number in (("./in.txt", 0), ("../out.txt", 1), (str(tmp_path / "out.txt"), 1)):
        manifest = (
            web(env_file=file) if section == "env_file" else {**web(**{section: ["app"]}), section: {"app": {"file": file}}}
        )
        found = refused(manifest, str(folder))
        assert len(found) == number
        assert all("out.txt lies outside of the source" in text for text in found)


def test_what_needs_nobodys_word() -> None:
    (fine,) = [
        web(
            mounts=["./conf:/conf:ro", "data:/data", {"type": "tmpfs", "target": "/tmp"}],
            ports=["8080:80", "127.0.0.1:1024:81"],
            cap_drop=["ALL"],
            cap_add=["NET_BIND_SERVICE"],
            networks=["front"],
        )
    ]
    tmpfs = {"driver_opts": {"type": "tmpfs"}}
    assert refused({**fine, "networks": {"front": {}}, "volumes": {"data": {}, "fast": tmpfs}}) == []


def test_folder_of_the_commit_is_read_only_to_containers() -> None:
    [found] = refused(web(mounts=["./data:/data"]))
    assert "/data would be written to the files of the commit" in found
    assert len(refused(web(mounts=["./data:/data"]), host_paths=("/",))) == 1


def test_lists_of_ports_and_registries_leave_nothing_else() -> None:
    assert refused(web(ports=["8080:80"]), ports=((8000, 8100),)) == []
    assert refused(web(ports=["80:80"]), ports=((80, 80),)) == []
    [found] = refused(web(ports=["9000:80"]), ports=((80, 80), (8000, 8100)))
    assert "port 9000 of the host is not one of this source's: 80, 8000-8100" in found
    assert refused(web(), registries=("docker.io",)) == []
    [found] = refused(web(), registries=("registry.local:5000",))
    assert "the registry docker.io is not one of this source's: registry.local:5000" in found


def test_path_that_only_begins_like_an_allowed_one_is_another() -> None:
    assert len(refused(web(mounts=["/srv/data-of-others:/x"]), host_paths=("/srv/data",))) == 1
    assert len(refused(web(mounts=["/root/sources/tree2:/x:ro"]))) == 1
