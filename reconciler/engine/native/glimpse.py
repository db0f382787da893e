"""One look at the machine, shared by all drivers of an `observe`: each bulk read is made once, when first asked for."""

from functools import cached_property

from reconciler.engine.native.layout import Layout
from reconciler.linux import mounts, netlink


class Glimpse:
    """What the kernel says, read in bulk and at most once. Not shared between threads."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @cached_property
    def links(self) -> dict[str, netlink.Link]:
        """Links of this network namespace by name: one dump."""
        return netlink.read_links()

    @cached_property
    def addresses(self) -> dict[int, tuple[str, ...]]:
        """IPv4 addresses with prefix (`10.1.0.1/24`) by link index: one dump."""
        return netlink.read_addresses()

    @cached_property
    def mounts(self) -> dict[str, mounts.MountEntry]:
        """Mounts of this mount namespace by mount point, the topmost where several lie on one point."""
        return {entry.point: entry for entry in mounts.read_mountinfo()}
