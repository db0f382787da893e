"""What conmon runs when its container has ended: `python -I -S -E …/onexit/__main__.py BUNDLE`.

Turns an exit into a record and, where the bundle's policy says so, into a restart. Its neighbours are follow.py (what to
do) and waiting.py (how to sleep). Run by path and without site packages, for 50 of these may start at once.
"""

import os
import sys


def main() -> None:
    """Follow the exit of the container whose bundle is named by the first argument."""
    # Order: before any import of ours; -I leaves the folder of the package out of the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from reconciler.linux import failpoint
    from reconciler.onexit.follow import follow_exit

    if len(sys.argv) > 2:
        failpoint.arm(sys.argv[2])

    follow_exit(sys.argv[1], os.getppid())


if __name__ == "__main__":
    main()
