"""Makes real OCI images out of Debian's busybox and tini, in memory: the same bytes and digests on every run.

`lab_images()` gives all of them; `push` sends one to a registry over HTTP, `save_docker` and `save_oci` write archives.
Neighbours: `lab.registry` serves what is pushed, `scripts/demo.py` and the tests run it. It never asks a package mirror
unless this machine's busybox is not static.
"""

import base64
import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
CREATED = "2024-01-01T00:00:00Z"
EPOCH = 1_704_067_200
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:82:82:www:/srv/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nwww:x:82:\nextra:x:900:www\nnogroup:x:65534:\n"
PAUSE = (
    "#!/bin/sh\n# Runs until it is told to end, which it does at once.\ntrap 'exit 0' TERM INT\nsleep 2147483647 &\nwait\n"
)


@dataclass(frozen=True)
class Blob:
    """Bytes with their media type."""

    media: str
    data: bytes

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media, "digest": self.digest, "size": len(self.data)}


@dataclass(frozen=True)
class Layer:
    """One layer: the tar as it is, and how it travels (gzip | none | zstd)."""

    tar: bytes
    packing: str = "gzip"

    @property
    def diff_id(self) -> str:
        return "sha256:" + hashlib.sha256(self.tar).hexdigest()

    def blob(self, *, docker: bool = False) -> Blob:
        """The layer as a registry holds it."""
        suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[self.packing]
        media = DOCKER + "image.rootfs.diff.tar.gzip" if docker else OCI + "layer.v1.tar" + suffix
        if self.packing == "gzip":
            return Blob(media, _gzip(self.tar))
        # Zstandard is not read yet, so nobody gets further than its first bytes.
        return Blob(media, b"\x28\xb5\x2f\xfd" + self.tar if self.packing == "zstd" else self.tar)


@dataclass(frozen=True)
class Image:
    """An image of one platform. `config` is the inner config: Cmd, Env, User …"""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ARCHITECTURE
    docker: bool = False
    """Whether its manifest is Docker's schema 2 instead of OCI's."""

    def config_blob(self) -> Blob:
        """The config with history and diff ids."""
        value = {
            "created": CREATED,
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Env": [PATH], **self.config},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created": CREATED, "created_by": f"lab layer {n}"} for n, _ in enumerate(self.layers)],
        }
        return json_blob(DOCKER + "container.image.v1+json" if self.docker else OCI + "config.v1+json", value)

    def layer_blobs(self) -> list[Blob]:
        """Oldest first."""
        return [layer.blob(docker=self.docker) for layer in self.layers]

    def manifest(self) -> Blob:
        """The manifest; its digest is the image's."""
        media = DOCKER + "distribution.manifest.v2+json" if self.docker else OCI + "manifest.v1+json"
        value = {
            "schemaVersion": 2,
            "mediaType": media,
            "config": self.config_blob().descriptor,
            "layers": [blob.descriptor for blob in self.layer_blobs()],
        }
        return json_blob(media, value)


@cache
def _gzip(tar: bytes) -> bytes:
    return gzip.compress(tar, compresslevel=1, mtime=0)


def json_blob(media: str, value: Any) -> Blob:
    """JSON with sorted keys and no spaces: the same bytes each time."""
    return Blob(media, json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def index(images: Iterable[Image]) -> Blob:
    """An index over images of several platforms."""
    manifests = [
        {**image.manifest().descriptor, "platform": {"os": "linux", "architecture": image.architecture}} for image in images
    ]
    return json_blob(
        OCI + "index.v1+json", {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": manifests}
    )


# --- layers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One entry of a layer: a file by default, a folder with `folder`, a symbolic link with `link`."""

    name: str
    data: bytes | str = b""
    mode: int = 0o644
    owner: int = 0
    link: str = ""
    folder: bool = False


def layer(*entries: Entry, packing: str = "gzip") -> Layer:
    """A layer with these entries, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mtime, info.mode, info.uid, info.gid = EPOCH, entry.mode, entry.owner, entry.owner
            data = entry.data.encode() if isinstance(entry.data, str) else entry.data
            if entry.link:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
            elif entry.folder:
                info.type, info.mode = tarfile.DIRTYPE, entry.mode if entry.mode != 0o644 else 0o755
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if info.size else None)
    return Layer(out.getvalue(), packing)


@cache
def busybox_program() -> bytes:
    """Debian's static busybox: this machine's, or that of the package, unpacked aside, where this one is not static."""
    installed = shutil.which("busybox")
    if installed:
        data = Path(installed).read_bytes()
        if b"/ld-linux" not in data:
            return data
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-q", "busybox-static"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        package = next(Path(folder).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "tree"], cwd=folder, check=True)
        found = [path for path in (Path(folder) / "tree").rglob("busybox") if path.is_file() and path.stat().st_mode & 1]
        return found[0].read_bytes()


@cache
def applets() -> tuple[str, ...]:
    """The names that busybox answers to."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "busybox"
        program.write_bytes(busybox_program())
        program.chmod(0o755)
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return tuple(sorted(name for name in listed if name != "busybox"))


@cache
def busybox_layer() -> Layer:
    """A root file system: busybox with its applets, tini, users, and `pause`, which runs until it is told to end."""
    folders = [Entry(name, folder=True) for name in ("bin", "etc", "srv", "usr", "usr/bin", "var", "proc", "sys", "dev")]
    return layer(
        *folders,
        Entry("root", folder=True, mode=0o700),
        Entry("tmp", folder=True, mode=0o1777),
        Entry("etc/passwd", PASSWD),
        Entry("etc/group", GROUP),
        Entry("bin/busybox", busybox_program(), mode=0o755),
        Entry("bin/tini", Path("/usr/bin/tini-static").read_bytes(), mode=0o755),
        Entry("bin/pause", PAUSE, mode=0o755),
        *[Entry(f"bin/{name}", link="/bin/busybox") for name in applets()],
    )


def page_layer(text: str) -> Layer:
    """What the web server shows."""
    return layer(
        Entry("srv/www", folder=True),
        Entry("srv/www/index.html", f"<!doctype html><title>reconcile</title><h1>{text}</h1>\n"),
        Entry("srv/www/healthz", "ok\n"),
    )


# --- the images -----------------------------------------------------------------------------------------------------

HTTPD = {
    "Entrypoint": ["/bin/tini", "--"],
    "Cmd": ["httpd", "-f", "-v", "-p", "8080", "-h", "/srv/www"],
    "ExposedPorts": {"8080/tcp": {}},
    "WorkingDir": "/srv/www",
}
SECOND = 1_000_000_000
HEALTHCHECK = {
    "Test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/healthz"],
    "Interval": SECOND,
    "Timeout": 2 * SECOND,
    "Retries": 3,
    "StartPeriod": 5 * SECOND,
    "StartInterval": SECOND // 10,
}


@cache
def lab_images() -> Mapping[str, Image]:
    """All images of the lab by `repository:tag`. Each differs from `web:1` or `busybox:1` in what its name says."""
    base = busybox_layer()
    web = (base, page_layer("It works"))
    shell = {"Cmd": ["sh"]}
    return {
        "busybox:1": Image((base,), shell),
        "web:1": Image(web, HTTPD),
        "web:2": Image((base, page_layer("It works, second edition")), HTTPD),
        "web:health": Image(web, {**HTTPD, "Healthcheck": HEALTHCHECK}),
        "web:sick": Image(web, {**HTTPD, "Healthcheck": {**HEALTHCHECK, "Test": ["CMD", "false"], "StartPeriod": 0}}),
        "web:user": Image(web, {**HTTPD, "User": "www"}),
        "data:1": Image((base, _seed_layer()), {"Cmd": ["pause"], "Volumes": {"/data": {}}}),
        "nocmd:1": Image((base,), {}),
        "badcmd:1": Image((base,), {"Cmd": ["/no/such/program", "--flag"]}),
        "whiteout:1": Image((base, *_whiteout_layers()), {"Cmd": ["pause"]}),
        "plain:1": Image((Layer(base.tar, "none"),), shell),
        "schema2:1": Image((base,), shell, docker=True),
        "zstd:1": Image((base, layer(Entry("etc/zstd", "1"), packing="zstd")), shell),
        "foreign:1": Image((base,), shell, architecture="s390x"),
    }


def _seed_layer() -> Layer:
    return layer(
        Entry("data", folder=True, mode=0o750, owner=82),
        Entry("data/seed", "from the image\n", mode=0o640, owner=82),
        Entry("data/deep", folder=True),
        Entry("data/deep/link", link="../seed"),
    )


def _whiteout_layers() -> tuple[Layer, ...]:
    return (
        layer(
            Entry("opt", folder=True),
            Entry("opt/kept", "1"),
            Entry("opt/removed", "1"),
            Entry("opt/hidden", folder=True),
            Entry("opt/hidden/old", "1"),
        ),
        layer(
            Entry("opt/.wh.removed"),
            Entry("opt/hidden", folder=True),
            Entry("opt/hidden/.wh..wh..opq"),
            Entry("opt/hidden/new", "1"),
        ),
    )


# --- where they go --------------------------------------------------------------------------------------------------


def push(registry: str, name: str, image: Image, *, auth: str = "") -> str:
    """Send an image to `http://host:port`; the digest of its manifest. `auth` is the Authorization header's value."""
    repository, _, tag = name.partition(":")
    for blob in [image.config_blob(), *image.layer_blobs()]:
        _push_blob(registry, repository, blob, auth)
    return push_manifest(registry, repository, tag, image.manifest(), auth=auth)


def push_manifest(registry: str, repository: str, tag: str, manifest: Blob, *, auth: str = "") -> str:
    """Send a manifest or an index under a tag; its digest."""
    _call("PUT", f"{registry}/v2/{repository}/manifests/{tag}", manifest.data, manifest.media, auth)
    return manifest.digest


def push_index(registry: str, name: str, images: Iterable[Image]) -> str:
    """Send images and an index over them; the digest of the index."""
    repository, _, tag = name.partition(":")
    every = list(images)
    for image in every:
        push(registry, f"{repository}:{image.architecture}", image)
    return push_manifest(registry, repository, tag, index(every))


def push_all(registry: str) -> None:
    """Everything that the lab has, with `multi:1`, an index over this platform and a foreign one."""
    images = lab_images()
    for name, image in images.items():
        push(registry, name, image)
    push_index(registry, "multi:1", [images["foreign:1"], images["busybox:1"]])


def _push_blob(registry: str, repository: str, blob: Blob, auth: str) -> None:
    start = _call("POST", f"{registry}/v2/{repository}/blobs/uploads/", b"", "application/octet-stream", auth)
    where = urllib.parse.urljoin(registry, start["Location"])
    joint = "&" if "?" in where else "?"
    query = urllib.parse.urlencode({"digest": blob.digest})
    _call("PUT", f"{where}{joint}{query}", blob.data, "application/octet-stream", auth)


def _call(method: str, url: str, data: bytes, media: str, auth: str) -> Mapping[str, str]:
    headers = {"Content-Type": media, **({"Authorization": auth} if auth else {})}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(answer.headers.items())


def basic_authorization(user: str, password: str) -> str:
    """The Authorization header of a name and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def save_docker(path: Path, name: str, image: Image) -> None:
    """Write what `docker save NAME` writes (the old form: manifest.json and one tar a layer)."""
    config = image.config_blob()
    members = {f"{config.digest[7:]}.json": config.data}
    names = [f"{layer.diff_id[7:]}/layer.tar" for layer in image.layers]
    members |= {where: layer.tar for where, layer in zip(names, image.layers, strict=True)}
    manifest = [{"Config": f"{config.digest[7:]}.json", "RepoTags": [name], "Layers": names}]
    members["manifest.json"] = json.dumps(manifest).encode()
    _write_tar(path, members)


def save_oci(path: Path, name: str, image: Image) -> None:
    """Write an OCI layout as a tar file."""
    manifest = image.manifest()
    blobs = [image.config_blob(), *image.layer_blobs(), manifest]
    members = {f"blobs/sha256/{blob.digest[7:]}": blob.data for blob in blobs}
    named = {**manifest.descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
    _write_tar(path, members)


def _write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), EPOCH, 0o644
            tar.addfile(info, io.BytesIO(data))
