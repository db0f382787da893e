"""The socket that the API listens at: where nobody else can put one in its place, for root and the group `reconcile`.

Row F5 of what is hostile: a folder that others may write to, a path that is somebody else's, are refused.
"""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from reconciler.linux import failpoint
from reconciler.linux.files import staging_name
from reconciler.linux.paths import say_whose
from reconciler.model.errors import Failed, Usage

GROUP = "reconcile"
"""Whose members may use it: they are as good as root."""
MOST = 88
"""Bytes of its path: unix(7) takes 107, of which the name that it is made under needs some."""


def read_address(text: str) -> Path:
    """`unix:///run/reconcile/api.sock` → the path. Raises Usage."""
    path = text.removeprefix("unix://")
    if path == text or not path.startswith("/"):
        hint = "write unix:///run/reconcile/api.sock"
        raise Usage(f"--listen {text}: only UNIX sockets are offered: whoever reaches it is as good as root", hint=hint)
    if len(os.fsencode(path)) > MOST:
        raise Usage(f"--listen {text}: it is longer than {MOST} bytes", hint="choose a shorter path")
    return Path(os.path.normpath(path))


def listen(path: Path, *, own: bool) -> socket.socket:
    """Listen there, in place of what a dead controller of this root left (`own`). Raises Failed; nothing was changed."""
    _check_folder(path)
    _check_place(path, own=own)
    staged = path.parent / staging_name(path.name)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with failpoint.at("api.listen"):
            made.bind(str(staged))
        group = _find_group()
        staged.chmod(0o600)
        if group is not None:
            os.chown(staged, os.geteuid(), group)
            staged.chmod(0o660)
        made.listen(512)
        # Order: it bears its name once it may be used by those that may use it, and by nobody else.
        staged.rename(path)
    except OSError as error:
        made.close()
        with suppress(OSError):
            staged.unlink()
        raise Failed(f"listen at {path}: {error.strerror}", hint="choose another path with --listen") from error
    return made


def _find_group() -> int | None:
    import grp

    with suppress(KeyError):
        return grp.getgrnam(GROUP).gr_gid
    return None


def _check_folder(path: Path) -> None:
    """Nobody else may put things into its folder, nor put another folder in its place."""
    words = say_whose(path.parent) if path.parent.exists() else "it is not there"
    if words:
        raise Failed(f"listen at {path}: its folder: {words}", hint="choose a folder of root's own with --listen")
    for folder in path.parent.parents:
        found = folder.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in (0, os.geteuid()) or (mode & 0o022 and not mode & stat.S_ISVTX):
            raise Failed(
                f"listen at {path}: others may put another folder in the place of what is in {folder}",
                hint="choose a folder of root's own with --listen",
            )


def _check_place(path: Path, *, own: bool) -> None:
    """What is there is gone, or was left by a dead controller of this root."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Failed(f"listen at {path}: there is something else", hint="remove it, or choose another with --listen")
    if found.st_uid != os.geteuid():
        raise Failed(
            f"listen at {path}: the socket there belongs to uid {found.st_uid}", hint="choose another with --listen"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            if own:
                return
            hint = "remove it, if nobody needs it, or choose another with --listen"
            raise Failed(
                f"listen at {path}: a socket is there that this root's controller did not leave", hint=hint
            ) from None
        except OSError:
            pass
    raise Failed(f"listen at {path}: somebody listens there", hint="choose another with --listen")
