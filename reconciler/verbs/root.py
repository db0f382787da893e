"""One root, opened: its id, its store, its engine and its locks. Every verb begins here.

Three locks in one order: stacks (by name), a container's (in its bundle, taken by drivers), the root's (milliseconds). None
is waited for while a later one is held.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from reconciler.converge.ground import Ground, let_begin
from reconciler.engine.protocol import Engine
from reconciler.engine.registry import open_engine
from reconciler.linux import cores, failpoint, files, paths, process
from reconciler.model.errors import LockTimeout, NotRoot, RootError
from reconciler.model.record import ApplyId, Made
from reconciler.store.database import stage_path
from reconciler.store.store import Store, open_store
from reconciler.verbs.agekeys import AgeKeys
from reconciler.verbs.reserve import NAME as RESERVE
from reconciler.verbs.reserve import keep_reserve, release_reserve
from reconciler.verbs.serving import NAME as SAID
from reconciler.verbs.serving import read_last_socket

RUN = Path("/run/reconcile")
LOCK_TIMEOUT = 30.0
DATABASE = "reconcile.db"
_OURS = ("README", ".git", "lost+found", "key", "id.new-", "locks", RESERVE, DATABASE)
"""What the names begin with that may stand in a folder which becomes a root."""
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


class Root:
    """A root that exists or, while `exists` is false, one that nothing was ever applied to."""

    def __init__(self, path: Path, *, root_id: str, store: Store, engine: Engine) -> None:
        self.path = path
        self.root_id = root_id
        self.store = store
        self.engine = engine
        self.age_keys = AgeKeys(path)
        self.lock_timeout = LOCK_TIMEOUT
        self.used_reserve = False
        """Whether the disk was full, and what was kept for that moment is used up."""

    def close(self) -> None:
        """Let go of files; nothing that runs is touched."""
        self.engine.close()
        self.store.close()

    @contextmanager
    def lock_stacks(self, names: Sequence[str], doing: str, *, timeout: float | None = None) -> Iterator[None]:
        """Hold the locks of stacks, in the order of their names. Raises LockTimeout naming the holder."""
        with ExitStack() as held:
            for name in sorted(set(names)):
                held.enter_context(self._lock(_lock_file(name), f"stack {name}", doing, timeout))
            yield

    def read_holder(self, stack: str) -> str:
        """Who holds the lock of a stack now: `pid 4121 since 14:03:22 (apply)`; empty where nobody does."""
        return files.read_lock_holder(self.path / "locks" / _lock_file(stack))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the root's controller. Raises LockTimeout naming the one that is."""
        with self._lock("owner", f"root {self.path}", "serve", timeout=0):
            yield

    def forget_dead_controller(self) -> None:
        """Remove what a controller that was killed left: its socket, and what it said of itself."""
        socket = read_last_socket(self.path)
        if socket is None:
            return
        # Order: under the lock of a controller's life, for one that begins makes them anew.
        with suppress(LockTimeout), self.owned(), failpoint.at("root.forget"):
            socket.unlink(missing_ok=True)
            (self.path / SAID).unlink(missing_ok=True)

    @contextmanager
    def lock_root(self, doing: str) -> Iterator[None]:
        """Hold the root's lock."""
        with self._lock("root", f"root {self.path}", doing):
            yield

    @contextmanager
    def _lock(self, file: str, what: str, doing: str, timeout: float | None = None) -> Iterator[None]:
        folder = self.path / "locks"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = files.lock(folder / file, self.lock_timeout if timeout is None else timeout, doing=doing)
        except files.LockHeld as error:
            raise LockTimeout(what, error.holder) from error
        except OSError as error:
            hint = "mount the file system writable, free some space, or give another --root; nothing was changed"
            raise RootError(f"{what}: it can't be locked: {error.strerror}", str(folder / file), hint) from error
        with lock:
            yield

    def ground(self, created: Callable[[Made], None] | None = None) -> Ground:
        """What converge stands on; `created` is called with a new container before it begins."""
        return Ground(
            root_id=self.root_id,
            store=self.store,
            engine=self.engine,
            apply=this_process(),
            lock_root=self.lock_root,
            now=time.time,
            clock=time.monotonic,
            token=lambda digits: secrets.token_hex((digits + 1) // 2)[:digits],
            created=created or let_begin,
        )


def _lock_file(stack: str) -> str:
    """The lock's file is named by a digest: no path is built from a name."""
    return f"stack-{hashlib.sha256(stack.encode()).hexdigest()[:32]}"


def this_process() -> ApplyId:
    """Who we are, for marks and intents."""
    pid = os.getpid()
    return ApplyId(pid=pid, start_time=process.read_start_time(pid), boot_id=process.read_boot_id())


@contextmanager
def opened_root(path: Path, *, create: bool = False, frees: bool = False, engine: str = "native") -> Iterator[Root]:
    """Open a root, make it where `create` says so, and close it afterwards. Who `frees` may use what is reserved for that.

    A root that does not exist and is not created answers as an empty one; nothing is made, not even its folder. Raises
    NotRoot, RootError.
    """
    if os.geteuid() != 0 and engine == "native":
        raise NotRoot(f"open the root {path}")
    cores.forbid_core_dumps()
    path = path.resolve()
    _check_ours(path)
    root_id = read_root_id(path)
    if create and root_id is None:
        _check_free(path)
    # Order: before anything is written.
    freed = frees and release_reserve(path)
    # Order: the database before the id, for an id without a database means that it was lost.
    store = open_store(path, create=create)
    if root_id is None:
        root_id = _check_not_lost(path, store)
    if root_id is None and create:
        root_id = _create(path)
    opened = open_engine(engine, path, RUN, root_id or "", read_content=store.read_content)
    if create:
        _close_to_others(path)
        keep_reserve(path)
    root = Root(path, root_id=root_id or "", store=store, engine=opened)
    root.used_reserve = freed
    try:
        yield root
    finally:
        root.close()


def _check_ours(path: Path) -> None:
    """Raise RootError for a folder that others own or may write to: they would put their key or database there."""
    try:
        words = paths.say_whose(path)
    except OSError as error:
        raise RootError(f"{path}: the root can't be read: {error.strerror}", hint="look at its permissions") from error
    if words:
        hint = f"`chown root: {path} && chmod 700 {path}`, if what is in it is yours; or choose another with --root"
        raise RootError(f"{path}: the root must be root's alone: {words}", hint=hint)


def _close_to_others(path: Path) -> None:
    """Have a root that somebody opened (chmod 755) closed again: other users of the machine see nothing of it."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def _check_free(path: Path) -> None:
    """Raise RootError for a folder that somebody has other things in: a root is made 0700, and is ours alone."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise RootError(f"{path}: the root can't be made: {error.strerror}", hint="choose another with --root") from error
    others = [name for name in names if not name.startswith(_OURS)]
    if others and DATABASE not in names:
        raise RootError(
            f"{path}: this folder holds other things ({', '.join(others[:3])}{', …' if len(others) > 3 else ''})",
            detail="a root is a folder of its own, which nobody else may look into; nothing was changed",
            hint="give a new folder, or an empty one, with --root",
        )


def _check_not_lost(path: Path, store: Store) -> str | None:
    """Raise RootError for a root that lost its id: with another one, all that bears the old one would be a stranger's.
    Else the id that another process has given it since we looked, if one has."""
    if not store.path.exists():
        return None
    with closing(store), store.read() as reading:
        records = reading.records()
    # Race: who makes a root beside us writes its id before any record, so it is there by now.
    root_id = read_root_id(path)
    if root_id is not None or not records:
        return root_id
    grants = [record.grants for record in records.values()]
    links = [link for each in grants for link in (each.link, *(end.link for end in each.endpoints.values())) if link]
    root_id = next((link[1:6] for link in links), "ID")
    raise RootError(
        f"{path}: this root has lost its id, which {len(records)} resources on record bear; nothing was changed",
        str(path / "id"),
        f'if it is no copy of another root: `touch {path}/id && echo "{root_id} $(stat -c %i {path}/id)" >{path}/id`'
        + ("" if links else ", with the id of the folder in /run/reconcile"),
    )


def _create(path: Path) -> str:
    """Make the folder and its id. The id's file knows its own inode, so that a copied root is seen to be a copy."""
    return write_root_id(path, new_root_id())


def new_root_id() -> str:
    """A random id."""
    return "".join(secrets.choice(BASE32) for _ in range(5))


def write_root_id(path: Path, root_id: str) -> str:
    """Give a root its id; the one that it has, where another process was faster."""
    staged = stage_path(path / "id")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        staged.touch(mode=0o600)
        staged.write_text(f"{root_id} {staged.stat().st_ino}\n")
        try:
            (path / "id").hardlink_to(staged)
        except FileExistsError:  # Race: another process made it first; its id holds.
            return read_root_id(path) or root_id
        finally:
            staged.unlink()
    except OSError as error:
        raise RootError(f"{path}: the root can't be made: {error.strerror}", hint="choose another with --root") from error
    return root_id


def read_root_id(path: Path) -> str | None:
    """The root's id; None where there is none. Raises RootError for a copy."""
    try:
        text = (path / "id").read_text()
        inode = (path / "id").stat().st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RootError(f"{path}: the root can't be read: {error.strerror}", hint="look at its permissions") from error
    words = text.split()
    if len(words) != 2 or len(words[0]) != 5 or not set(words[0]) <= set(BASE32):
        return None
    if words[1] != str(inode):
        raise RootError(
            f"{path}: this root is a copy of another one (its id {words[0]} was made elsewhere)",
            detail="two roots with one id would take each other's links, tables and cgroups for their own",
            hint="use the original, or remove the copy's files id and reconcile.db to begin anew",
        )
    return words[0]
