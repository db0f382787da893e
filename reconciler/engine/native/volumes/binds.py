"""Bind mounts of the host's own files: the source must exist, for a folder made by accident hides the mistake.

Compat: Docker's `-v` makes a missing source as an empty folder of root's; its `--mount` refuses, as we do.
"""

from pathlib import Path

from reconciler.model.errors import Failed


def check_source(key: str, target: str, source: str) -> Path:
    """The source of a bind mount (absolute: relative ones were resolved by the manifest). Raises Failed naming the
    container, both paths, and the first folder that is missing."""
    path = Path(source)
    try:
        path.stat()
    except OSError as error:
        raise Failed(
            f"{key}: bind {source} to {target}: {error.strerror}",
            detail=_say_missing(path),
            hint="make it, or correct the source in the manifest; it is never made for you",
        ) from error
    return path


def _say_missing(path: Path) -> str:
    """What of a path is there and what is not."""
    missing = path
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    if missing.is_symlink():
        return f"{missing} is a link to {missing.readlink()}, which does not exist"
    return f"{missing.parent} exists, {missing.name} is not in it" if missing.parent.is_dir() else ""
