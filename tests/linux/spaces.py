"""Runs a piece of a test in namespaces of its own, so that the host stays as it was."""

import ctypes
import os
import traceback
from collections.abc import Callable

from reconciler.linux import mounts

_CLONE_NEWNS = 0x20000


def in_mount_namespace(work: Callable[[], object]) -> None:
    """Run `work` in a child whose mounts are its own; its failure is ours."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_work_alone(work, write))
    os.close(write)
    with os.fdopen(read) as said:
        words = said.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, words


def _work_alone(work: Callable[[], object], write: int) -> int:
    try:
        assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        mounts.make_private("/", recursive=True)
        work()
    except BaseException:  # noqa: BLE001 - a child of fork must not return into pytest
        os.write(write, traceback.format_exc().encode())
        return 1
    return 0
