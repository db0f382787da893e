"""A commit's files → a folder of ours: regular files only, bounded in number and size; what did not change is not touched.

A link to a file in the tree becomes a copy of that file; every other link is left out and said, and so is a
submodule unless they are asked for. The
folder is written file by file: who has one of its folders mounted sees the new files, and a file that did not change keeps
its inode and times.
"""

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from reconciler.controller.sources.gitmodules import fetch_modules
from reconciler.controller.sources.gitrun import Repository
from reconciler.linux import files
from reconciler.model.errors import SourceFailed
from reconciler.model.units import render_size_rounded

MOST_FILES = 20_000
MOST_BYTES = 256 * 1024**2
_LONGEST_LINK = 1024
_LONGEST_PATH, _DEEPEST = 1024, 32
"""Bytes and folders: what a container may be shown of it must be reached by name."""
_LONGEST_NAME = 200
"""Bytes: while it is written, a file bears a longer one."""
_CHUNK = 1024**2
_HOPS = 20
_LFS = b"version https://git-lfs.github.com/spec/"
_SUBMODULE = "160000"
_MANIFESTS = (".yaml", ".yml")


class Blob(Struct, frozen=True):
    """One file of a tree."""

    id: str
    mode: int
    """0o644 or 0o755."""
    size: int


class Tree(Struct, frozen=True, kw_only=True):
    """What of a commit is written."""

    files: dict[str, Blob]
    left_out: dict[str, str]
    """By path: why it is not."""

    @property
    def has_manifests(self) -> bool:
        """Whether anything in it is where a source looks for manifests."""
        return any(path.endswith(_MANIFESTS) and path.count("/") <= 1 for path in self.files)


class _Entry(Struct, frozen=True):
    kind: str
    id: str
    size: int


def read_tree(repository: Repository, commit: str, folder: str, *, submodules: bool = False) -> Tree:
    """The files of a commit's folder, with those of its submodules if that is asked for. Raises SourceFailed for more than
    is taken."""
    entries = parse_listing(repository.list_tree(commit, folder))
    wanted = {path: entry.id for path, entry in entries.items() if entry.kind == _SUBMODULE and not _judge_name(path)}
    whys: Mapping[str, str] = dict.fromkeys(wanted, "is a submodule: --submodules takes it (submodules: true)")
    if submodules:
        modules = fetch_modules(repository, commit, folder, wanted)
        whys = modules.left_out
        for path, identity in modules.commits.items():
            del entries[path]
            inside = parse_listing(repository.list_tree(identity, ""))
            entries |= {f"{path}/{name}": entry for name, entry in inside.items()}
    if len(entries) > MOST_FILES:
        raise SourceFailed(
            repository.place.url, f"commit {commit[:12]} has {len(entries):,} files; {MOST_FILES:,} are taken"
        )
    links = {path: entry for path, entry in entries.items() if entry.kind == "120000" and entry.size <= _LONGEST_LINK}
    targets = _read_links(repository, links)
    tree = choose_files(entries, targets, whys)
    folders = {folder for path in tree.files for folder in _folders_of(path)}
    if len(folders) > MOST_FILES:
        raise SourceFailed(repository.place.url, f"commit {commit[:12]} has more than {MOST_FILES:,} folders")
    if twice := sorted(folders & tree.files.keys()):
        raise SourceFailed(repository.place.url, f"commit {commit[:12]}: {twice[0]} is a file and a folder")
    size = sum(blob.size for blob in tree.files.values())
    if size > MOST_BYTES:
        found, most = render_size_rounded(size), render_size_rounded(MOST_BYTES)
        words = f"the files of commit {commit[:12]} have {found}; {most} are taken"
        raise SourceFailed(repository.place.url, words, "give --path FOLDER with what is to be served only")
    return tree


def parse_listing(data: bytes) -> dict[str, "_Entry"]:
    """What `ls-tree -r -z -l` printed, by path. What is no UTF-8 in a name keeps its bytes (surrogateescape)."""
    found = {}
    for line in data.split(b"\0"):
        if not line:
            continue
        head, _, name = line.partition(b"\t")
        mode, _, identity, size = head.split()
        found[os.fsdecode(name)] = _Entry(mode.decode(), identity.decode(), int(size) if size != b"-" else 0)
    return found


def choose_files(entries: Mapping[str, "_Entry"], targets: Mapping[str, str], whys: Mapping[str, str] = {}) -> Tree:
    """Which files are written, links resolved among them; `targets` is where links point to, `whys` is why submodules are
    not taken. Pure."""
    chosen, left_out = {}, {}
    for path in entries:
        why = _judge_name(path)
        found, seen = path, 0
        while not why and entries[found].kind == "120000":
            seen += 1
            target = targets.get(found, "")
            found = posixpath.normpath(posixpath.join(posixpath.dirname(found), target))
            if seen > _HOPS or not target:
                why = "is a link that leads nowhere"
            elif target.startswith("/") or found.startswith(".."):
                why = f"is a link out of the tree, to {target}"
            elif found not in entries:
                why = f"is a link to {target}, which is no file of the tree"
        kind = entries[found].kind if not why else ""
        if not why and kind not in ("100644", "100755", "100664"):
            why = whys.get(found, "is a submodule") if kind == _SUBMODULE else f"is neither file nor link (mode {kind})"
        if why:
            left_out[show_path(path)] = why
        else:
            chosen[path] = Blob(entries[found].id, 0o755 if kind == "100755" else 0o644, entries[found].size)
    return Tree(files=chosen, left_out=left_out)


def show_path(path: str) -> str:
    """A path with a mark for every byte that is no UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def _judge_name(path: str) -> str:
    """Why a path is none that is written: git itself would refuse to check it out."""
    parts = path.split("/")
    if path != show_path(path):
        return "has a name that is no UTF-8"
    if len(parts) > _DEEPEST or len(path.encode()) > _LONGEST_PATH:
        return "lies too deep"
    if any(part in ("", ".", "..") or part.lower() == ".git" or len(part.encode()) > _LONGEST_NAME for part in parts):
        return "has a name that no file may have"
    if parts[-1].startswith(files.STAGING):
        return f"begins with {files.STAGING}, which is for files being written"
    return ""


def _read_links(repository: Repository, links: Mapping[str, "_Entry"]) -> dict[str, str]:
    """Where links point to, by path."""
    if not links:
        return {}
    number = os.memfd_create("links", os.MFD_CLOEXEC)
    try:
        with open(number, "rb", closefd=False) as out:
            repository.write_blobs([entry.id for entry in links.values()], number, size=MOST_BYTES)
            out.seek(0)
            return {path: _read_target(out) for path in links}
    finally:
        os.close(number)


def _read_head(out: BinaryIO) -> int:
    """The size of the next blob in the output of `cat-file --batch`; a newline follows its bytes."""
    words = out.readline().split()
    if len(words) != 3:
        raise OSError(errno.EIO, "git gave less than it has")
    return int(words[2])


def _read_target(out: BinaryIO) -> str:
    return os.fsdecode(out.read(_read_head(out) + 1)[:-1])


def write_tree(repository: Repository, tree: Tree, folder: Path, scratch: Path) -> dict[str, str]:
    """Make a folder hold the tree and nothing else; by path: why a file is left out after all.

    `scratch` is a name for a file beside it that this may use. Raises OSError, SourceFailed.
    """
    files.make_folders(folder)
    folder.chmod(0o755)
    remove_others(folder, tree)
    wanted = {path: blob for path, blob in tree.files.items() if not is_as(folder / path, blob)}
    for name in sorted({posixpath.dirname(path) for path in wanted}):
        make_path(folder, name)
    pointers: dict[str, str] = {}
    number = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(number, "rb", closefd=False) as out:
            repository.write_blobs([blob.id for blob in wanted.values()], number, size=2 * MOST_BYTES)
            out.seek(0)
            for path, blob in wanted.items():
                if not _write_next(out, folder / path, blob.mode):
                    pointers[path] = "is a pointer of git LFS, and not the file itself"
                    (folder / path).unlink(missing_ok=True)
    finally:
        os.close(number)
        scratch.unlink()
    return pointers


def _write_next(out: BinaryIO, path: Path, mode: int) -> bool:
    """Write the next blob to a path, whole or not at all; False, and nothing is written, for a pointer of LFS."""
    left = _read_head(out)
    chunk = out.read(min(left, _CHUNK))
    if chunk.startswith(_LFS):
        out.seek(left - len(chunk) + 1, os.SEEK_CUR)
        return False
    staged = path.with_name(files.staging_name(path.name))
    number = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while left:
            files.write_all(number, chunk)
            left -= len(chunk)
            chunk = out.read(min(left, _CHUNK))
            if left and not chunk:
                raise OSError(errno.EIO, "git gave less than it has")
        os.fchmod(number, mode)
    finally:
        os.close(number)
    staged.rename(path)
    out.seek(1, os.SEEK_CUR)
    return True


def is_as(path: Path, blob: Blob) -> bool:
    """Whether a file is a blob already, by its git id."""
    digest = hashlib.new("sha1" if len(blob.id) == 40 else "sha256", usedforsecurity=False)
    digest.update(b"blob %d\0" % blob.size)
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != blob.size or stat.S_IMODE(found.st_mode) != blob.mode:
            return False
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == blob.id


def make_path(folder: Path, name: str) -> None:
    """A folder in the folder, and those above it; what else bears such a name makes way."""
    here = folder
    for part in name.split("/") if name else []:
        here = here / part
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(here.lstat().st_mode):
                here.unlink()
        with suppress(FileExistsError):
            here.mkdir(0o755)
            here.chmod(0o755)


def _folders_of(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def remove_others(folder: Path, tree: Tree) -> None:
    """Remove what is in the folder and not in the tree; no link is followed."""
    kept = set(tree.files)
    kept |= {above for path in tree.files for above in _folders_of(path)}
    for here, names, found in os.walk(folder):
        inside = os.path.relpath(here, folder)
        for name in (*found, *names):
            path = name if inside == "." else f"{inside}/{name}"
            full = Path(here) / name
            is_folder = name in names and not full.is_symlink()
            if path in kept and (is_folder != (path in tree.files)):
                continue
            if is_folder:
                files.remove_tree(full)
                names.remove(name)
            else:
                full.unlink()
