"""Kinds of links, on the real kernel."""

import os

import pytest

from reconciler.linux import netlink
from reconciler.linux.linkkinds import probe_link_kinds

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="because namespaces need root")]


def test_known_kinds_are_there_and_nonsense_is_not_and_nothing_is_left() -> None:
    before = set(netlink.read_links())
    found = probe_link_kinds(("bridge", "veth", "no-such-kind"))
    assert found == {"bridge": True, "veth": True, "no-such-kind": False}
    assert set(netlink.read_links()) == before
