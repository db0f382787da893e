"""Makes tars for tests, hostile ones too: bytes of headers by hand where Python's tarfile would refuse."""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconciler.engine.native.layers import layer
from reconciler.engine.native.layout import Layout


def new_layout(folder: Path) -> Layout:
    return Layout(root=folder / "root", run=folder / "run", root_id="test2")


def member(
    name: str,
    data: bytes = b"",
    *,
    type: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: float = 0,
    device: tuple[int, int] = (0, 0),
    xattrs: dict[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = type, link, mode, uid, gid, mtime
    info.size = len(data)
    info.devmajor, info.devminor = device
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    return info, data


def folder(name: str, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **more})  # type: ignore[arg-type] # passed through


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, link=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_header(
    name: bytes,
    *,
    type: bytes = b"0",
    size: bytes | int = 0,
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    rest: bytes = b"",
) -> bytes:
    """One block with a right checksum, whatever else is wrong with it."""
    length = size if isinstance(size, bytes) else b"%011o\0" % size
    block = b"%b%b%b0000000\0%b%b        %b%b%b" % (
        name.ljust(100, b"\0"), mode, uid, length, mtime, type, link.ljust(100, b"\0"), magic,
    )  # fmt: skip
    block = block.ljust(345, b"\0") + (rest or prefix)
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pieces(data: bytes, size: int = 10_007) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write(layout: Layout, data: bytes, *, form: str = "", what: str = "layer", again: bool = True, **more: object) -> str:
    """Write a layer of these bytes, and return its diff_id."""

    def reread() -> Iterable[bytes]:
        return pieces(data, 65536)

    layer.write_layer(
        layout, digest(data), pieces(data), what=what, reread=reread if again else None, form=form, **more,  # type: ignore[arg-type] # passed through
    )  # fmt: skip
    return digest(data)
