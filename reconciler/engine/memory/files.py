"""Files of containers that are values: paths to bytes. What `cp` of the memory engine reads and writes."""

import io
import posixpath
import tarfile
from collections.abc import Mapping
from typing import IO

from reconciler.engine.protocol import FileSeen


def look(data: Mapping[str, bytes], path: str) -> FileSeen | None:
    """A file of that name, or a folder with something in it."""
    clean = posixpath.normpath(path)
    if clean in data:
        return FileSeen()
    return FileSeen(folder=True) if clean == "/" or any(name.startswith(f"{clean}/") for name in data) else None


def pack(data: Mapping[str, bytes], path: str, top: str, to: IO[bytes]) -> None:
    """A tar of a file or a folder."""
    clean = posixpath.normpath(path)
    with tarfile.open(fileobj=to, mode="w|") as tar:
        for name, content in sorted(data.items()):
            if name == clean or name.startswith(clean.rstrip("/") + "/"):
                header = tarfile.TarInfo(f"{top}{name[len(clean.rstrip('/')) :]}".lstrip("/"))
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def unpack(data: dict[str, bytes], folder: str, stream: IO[bytes]) -> None:
    """The files of a tar, below a folder."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for entry in tar:
            source = tar.extractfile(entry) if entry.isreg() else None
            if source is not None:
                data[posixpath.normpath(f"{folder.rstrip('/')}/{entry.name}")] = source.read()
