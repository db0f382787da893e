"""Where the targets of a container's mounts end in its root, which is the image's and its own: whether one is in another.

Used by trees.py, and by conmon.py at each start, so it imports no more than `os`. Never looks into what is mounted.
"""

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MOST_LINKS = 40


def resolve(rootfs: str, target: str, stops: "Collection[str]") -> str:
    """Where a target ends in a root that nothing runs in: its links followed inside it, up to a path of `stops`, where
    another mount will be and what lies in it is not the root's. Raises OSError for links in a circle."""
    done, rest = "/", target.split("/")
    for _ in range(_MOST_LINKS):
        while rest:
            part = rest.pop(0)
            here = os.path.normpath(os.path.join(done, part))
            if part == ".." or here == done:
                done = here
                continue
            if here in stops:
                # What `..` leads to in there is for who writes there to say: it counts as inside.
                return os.path.join(here, *(each for each in rest if each not in ("", ".", "..")))
            try:
                link = os.readlink(rootfs + here)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR) and ".." not in rest:
                    return os.path.normpath(os.path.join(here, *rest))
                done = here
                continue
            rest = [*link.split("/"), *rest]
            if link.startswith("/"):
                done = "/"
            break
        else:
            return done
    raise OSError(errno.ELOOP, f"{target}: more than {_MOST_LINKS} links on the way")


def find_outer(target: str, placed: "Collection[str]") -> str:
    """The innermost of the mounts that a target lies in, "" for none."""
    above = target
    while above != "/":
        above = os.path.dirname(above)
        if above in placed:
            return above
    return ""


def check(rootfs: str, listed: "Iterable[tuple[str, bool]]") -> None:
    """Raise OSError where links that the container itself has made since it was prepared lead one mount of the runtime's
    into another that others may write to. `listed` is each target, and whether it is a bind mount."""
    placed: dict[str, bool] = {}
    for destination, bound in listed:
        target = resolve(rootfs, destination, placed)
        outer = find_outer(target, placed)
        if outer and placed[outer]:
            raise OSError(errno.ELOOP, f"links of its own lead {destination} into what is mounted at {outer}")
        placed.setdefault(target, bound)
