"""A clock that can be set, for all processes of a world or for one: never the machine's."""

import subprocess
from pathlib import Path

from lab.world import World

_SOURCE = Path(__file__).with_suffix(".c")


def build_clock(folder: Path) -> Path:
    """The preload, compiled. `CLOCK_FILE` names the file with the seconds to add."""
    built = folder / "clock.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", built, _SOURCE], check=True, timeout=60)
    return built


class Clock:
    """The clock of a world: what is started in it from now on goes by it, and follows its jumps."""

    def __init__(self, world: World) -> None:
        self._world = world
        built = build_clock(world.folder)
        # An /etc of this world alone: conmon and what it starts get no environment of ours.
        folders = (
            "mkdir /run/etc /run/work && mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work etc /etc"
        )
        world.nsenter("sh", "-ec", f"{folders} && echo {built} >/etc/ld.so.preload")
        world.note_mounts()

    def jump(self, seconds: int) -> None:
        """It is as many seconds before or after the machine's from now on."""
        self._world.nsenter("sh", "-ec", f"echo {seconds} >/run/clock.new && mv /run/clock.new /run/clock")
