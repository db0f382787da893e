"""Where the native engine keeps what: one root on disk, one run directory on tmpfs. No path is built from a name.

ROOT (`/var/lib/reconcile`, 0700) survives reboots; RUN (`/run/reconcile/ROOTID`, 0700, a tmpfs of its own) does not.
Every name in them is a digest, a generated id or an incarnation.
"""

from pathlib import Path

from msgspec import Struct


class Layout(Struct, frozen=True):
    """The folders of one root."""

    root: Path
    run: Path
    root_id: str
    """5 base32 characters (a-z2-7); every kernel name carries it."""

    @property
    def blobs(self) -> Path:
        """`ROOT/content/sha256/HEX`: manifests, configs and kept layer blobs, by digest."""
        return self.root / "content" / "sha256"

    @property
    def layers(self) -> Path:
        """`ROOT/layers/DIFFID-HEX.{erofs,squashfs}` with a small `.json` beside each."""
        return self.root / "layers"

    @property
    def images(self) -> Path:
        """`ROOT/images/HEX.json`: which names an image was pulled by."""
        return self.root / "images"

    @property
    def volumes(self) -> Path:
        """`ROOT/volumes/ID/{data/,volume.json}`."""
        return self.root / "volumes"

    @property
    def containers(self) -> Path:
        """`ROOT/containers/INCARNATION/{upper/,work/,logs/,record.json,ended.json}`: writable layers and logs."""
        return self.root / "containers"

    @property
    def bundles(self) -> Path:
        """`RUN/bundles/INCARNATION/{config.json,policy.json,container.json,rootfs/,…}`."""
        return self.run / "bundles"

    @property
    def netns(self) -> Path:
        """`RUN/netns/INCARNATION`: bind mounts that keep network namespaces."""
        return self.run / "netns"

    @property
    def layer_mounts(self) -> Path:
        """`RUN/layers/DIFFID-HEX`: each layer image, mounted once and shared."""
        return self.run / "layers"

    @property
    def names(self) -> Path:
        """`RUN/names`: aardvark-dns's folder."""
        return self.run / "names"

    @property
    def runc(self) -> Path:
        """`RUN/runc`: the OCI runtime's own state (`--root`)."""
        return self.run / "runc"
