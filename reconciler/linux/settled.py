"""Whether somebody is writing a file just now, as the kernel knows it.

A read lease (fcntl(2), F_SETLEASE) is refused while any process has the file open for writing: whoever reads a file that
others write, and can't have them rename it into place, sees by this that it is whole.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path

_F_SETLEASE = 1024
_F_SETSIG = 10


def is_being_written(path: Path) -> bool:
    """Whether a regular file is open for writing somewhere. False where the file system has no leases (NFS), and for what
    is gone."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        # Race: who opens it for writing while we have the lease breaks it, and the kernel's SIGIO would end us. Nobody is
        # ended by SIGURG.
        fcntl.fcntl(number, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(number, _F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    else:
        fcntl.fcntl(number, _F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(number)
