"""What manifests and the files beside them are read from: this machine, or what whoever asks sent along.

`load.py` and `verbs/contents.py` read through it and open nothing themselves. Of what was sent, names are only names: no
path of a client is opened (docs/decisions/0105).
"""

import errno
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from reconciler.model.sent import Sent


class Found(NamedTuple):
    """What is at a path."""

    regular: bool
    folder: bool
    size: int
    """Bytes."""
    uid: int
    gid: int
    mode: int
    """Permission bits."""


class Files(Protocol):
    """Where files are read. Its methods raise OSError, `read_regular` ValueError too."""

    sender: str
    """`ann@laptop`, where they are another machine's; empty where paths mean this one's."""
    hint: str
    """What to do about one that is not there."""
    host_paths: bool
    """Whether a whole path of an image archive is the host's, and may be opened there: for root alone."""

    def look(self, path: str) -> Found:
        """What is there, links followed."""
        ...

    def read(self, path: str, most: int) -> bytes:
        """Its bytes, one more than `most` where there are more. A pipe or a device may be read too."""
        ...

    def read_regular(self, path: str, most: int) -> tuple[bytes, Found]:
        """All bytes of a regular file, and what it is. Raises ValueError for anything else, and for one that is larger."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is in a folder."""
        ...


def is_file(files: Files, path: str) -> bool:
    """Whether a regular file is there, as far as one can see."""
    try:
        return files.look(path).regular
    except (OSError, ValueError):
        return False


def is_folder(files: Files, path: str) -> bool:
    """Whether a folder is there, as far as one can see."""
    try:
        return files.look(path).folder
    except (OSError, ValueError):
        return False


class _Here:
    sender = ""
    hint = ""
    host_paths = True

    def look(self, path: str) -> Found:
        return _find(os.stat(path))  # noqa: PTH116 text is what we have

    def read(self, path: str, most: int) -> bytes:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(most + 1)

    def read_regular(self, path: str, most: int) -> tuple[bytes, Found]:
        # Without O_NONBLOCK the open of a pipe would wait for who writes.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(number, "rb") as file:  # noqa: PTH123 - a descriptor
            found = _find(os.fstat(number))
            if not found.regular:
                raise ValueError("it is no regular file")
            data = file.read(most + 1)
        return _bounded(data, most), found

    def names(self, folder: str) -> list[str]:
        return os.listdir(folder)  # noqa: PTH208


HERE: Files = _Here()
"""This machine."""


class SentFiles:
    """Files that were sent, by the absolute paths that they have where they come from. Nothing else is there."""

    hint = "what it names is to be sent with it, as `files`: a controller opens no file that a client names"

    def __init__(self, sent: Mapping[str, Sent], *, sender: str = "", host_paths: bool = False) -> None:
        self.sender, self.host_paths = sender, host_paths
        self._sent = {os.path.normpath(path): file for path, file in sent.items()}
        self._folders: dict[str, list[str]] = {}
        for path in self._sent:
            folder, _, name = path.rpartition("/")
            self._folders.setdefault(folder or "/", []).append(name)

    def look(self, path: str) -> Found:
        """A folder is what has files in it."""
        path = os.path.normpath(path)
        file = self._sent.get(path)
        if file is None:
            if path in self._folders:
                return Found(regular=False, folder=True, size=0, uid=0, gid=0, mode=0o755)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        size = file.size if file.data is None else len(file.data)
        regular = file.data is not None or file.size > 0
        return Found(regular=regular, folder=not regular, size=size, uid=file.uid, gid=file.gid, mode=file.mode)

    def read(self, path: str, most: int) -> bytes:
        """As `Files` says."""
        file = self._sent.get(os.path.normpath(path))
        if file is None or file.data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file.data[: most + 1]

    def read_regular(self, path: str, most: int) -> tuple[bytes, Found]:
        """As `Files` says."""
        return _bounded(self.read(path, most), most), self.look(path)

    def names(self, folder: str) -> list[str]:
        """As `Files` says."""
        return self._folders.get(os.path.normpath(folder), [])


def _find(found: os.stat_result) -> Found:
    return Found(
        regular=stat.S_ISREG(found.st_mode),
        folder=stat.S_ISDIR(found.st_mode),
        size=found.st_size,
        uid=found.st_uid,
        gid=found.st_gid,
        mode=stat.S_IMODE(found.st_mode) & 0o777,
    )


def _bounded(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"it is larger than {most >> 20} MiB")
    return data
