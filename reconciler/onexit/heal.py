"""What undoes a replace whose apply died: is the new incarnation running, and if not, the old one's way is opened again.

Used by follow.py, only after it found that apply dead. Reads other bundles, changes none of them.
"""

import os

from reconciler.engine.native.runtime import bundle
from reconciler.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUNS, BUSY, NONE = "runs", "busy", "none"
SHORT_LOOK, LONGEST_LOOK = 0.2, 60.0
"""Seconds: until the next look at a bundle that somebody works on; and at most, in case no wake comes."""


def look_for_successor(path: str, monitor: "dict[str, Any]") -> str:
    """RUNS when another incarnation of this key runs, BUSY when somebody is just working on one, else NONE."""
    folder, own = os.path.split(path)
    found = NONE
    for name in sorted(os.listdir(folder)):
        other = f"{folder}/{name}"
        if name == own or bundle.read_json(other, bundle.MONITOR).get("key") != monitor["key"]:
            continue
        # Race: only tried, never waited for: while we hold one lock we wait for no other.
        lock = bundle.try_lock(other)
        if lock < 0:
            found = BUSY
            continue
        os.close(lock)
        state = bundle.read_json(other, bundle.STATE)
        if process.is_alive(int(state.get("pid", 0)), int(state.get("start_time", 0))):
            return RUNS
    return found


def raise_links(monitor: "dict[str, Any]") -> None:
    """The links that the dead apply had muted or lowered; one that is gone is the next apply's to mend."""
    if not monitor["links"]:
        return
    from reconciler.linux import ifflags

    for link in monitor["links"]:
        try:
            ifflags.reset(link)
        except OSError:
            continue
