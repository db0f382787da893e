"""Restarts every container that is unhealthy, over the controller's socket. An example of the Python client.

python restart_unhealthy.py [/run/reconcile/api.sock]
"""

import sys

from reconciler.api.asks import Get, Restart
from reconciler.api.client import Client
from reconciler.api.frames import Listener
from reconciler.model.errors import ReconcileError


def main(path: str = "/run/reconcile/api.sock") -> int:
    """How it went, as an exit code."""
    client = Client(path)
    try:
        found = client.call(Get(kind="container"))
        sick = tuple(one["key"] for one in found if one["status"]["health"] == "unhealthy")
        print(f"{len(found)} containers, {len(sick)} unhealthy")
        if sick:
            client.call(Restart(names=sick), Listener(emit=print))
    except ReconcileError as error:
        print(f"{error.brief}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
