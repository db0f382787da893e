"""Rulesets loaded whole or not at all, and read back as the kernel has them."""

import tempfile
from pathlib import Path

import pytest
from spaces import in_mount_namespace

from reconciler.linux import namespaces, nft

pytestmark = pytest.mark.root

TEXT = """\
table inet one {
    set names { type ifname . ipv4_addr; elements = { "eth0" . 10.0.0.1 }; }
    map verdicts { type ifname : verdict; elements = { "eth0" : drop }; }
    chain passing {
        type filter hook forward priority filter; policy accept;
        iifname vmap @verdicts comment "first"
        iifname . ip saddr @names counter accept
    }
}
table bridge one { chain ports { }; }
"""


@pytest.fixture
def alone(tmp_path):
    def run(work):
        def body():
            with namespaces.created(tmp_path / "netns"):
                work()

        in_mount_namespace(body)

    return run


def test_tables_are_read_as_loaded(alone):
    def work():
        nft.load_ruleset(TEXT)
        tables = nft.read_tables([("inet", "one"), ("bridge", "one"), ("inet", "two")])
        assert set(tables) == {("inet", "one"), ("bridge", "one")}
        table = tables["inet", "one"]
        assert table.sets["names"].elements == {b"eth0".ljust(16, b"\0") + bytes([10, 0, 0, 1]): b""}
        assert table.sets["verdicts"].elements == {b"eth0".ljust(16, b"\0"): bytes(4)}
        assert [rule.comment for rule in table.chains["passing"].rules] == ["first", ""]
        assert tables["bridge", "one"].chains["ports"].rules == ()
        assert nft.list_tables("inet") == ["one"]
        assert nft.read_elements("inet", "one", "none") == {}

    alone(work)


def test_same_text_loaded_again_reads_the_same(alone):
    def work():
        again = "add table inet one\ndelete table inet one\nadd table bridge one\ndelete table bridge one\n" + TEXT
        nft.load_ruleset(again)
        first = nft.read_tables([("inet", "one")])
        nft.load_ruleset(again)
        assert nft.read_tables([("inet", "one")]) == first

    alone(work)


def test_wrong_text_changes_nothing_and_says_why(alone):
    def work():
        nft.load_ruleset(TEXT)
        before = nft.read_tables([("inet", "one")])
        with pytest.raises(OSError, match="syntax error"):
            nft.load_ruleset("flush ruleset\nnonsense\n")
        with pytest.raises(OSError, match="No such file"):
            nft.load_ruleset("flush ruleset\nadd rule inet nowhere passing accept\n")
        assert nft.read_tables([("inet", "one")]) == before

    alone(work)


def test_thousands_of_elements_are_all_read(alone):
    def work():
        elements = ", ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(5000))
        nft.load_ruleset(f"table inet big {{ set many {{ type ipv4_addr; elements = {{ {elements} }}; }}; }}\n")
        assert len(nft.read_elements("inet", "big", "many")) == 5000

    alone(work)


ETH0, ETH1 = (name.ljust(16, b"\0") + bytes([10, 0, 0, 1]) for name in (b"eth0", b"eth1"))
TURNED = nft.ElementsChange("inet", "one", "verdicts", [ETH0[:16]], {ETH0[:16]: (1).to_bytes(4, "big")}, verdicts=True)


def test_elements_of_several_sets_are_changed_together(alone):
    def work():
        nft.load_ruleset(TEXT)
        change = nft.ElementsChange("inet", "one", "names", [ETH0], {ETH1: b""}, verdicts=False)
        assert nft.change_elements([change, TURNED], generation=nft.read_generation())
        table = nft.read_tables([("inet", "one")])["inet", "one"]
        assert table.sets["names"].elements == {ETH1: b""}
        assert table.sets["verdicts"].elements == {ETH0[:16]: (1).to_bytes(4, "big")}
        many = {b"many".ljust(16, b"\0") + number.to_bytes(4, "big"): b"" for number in range(2000)}
        change = nft.ElementsChange("inet", "one", "names", [], many, verdicts=False)
        assert nft.change_elements([change], generation=nft.read_generation())
        assert nft.read_tables([("inet", "one")])["inet", "one"].sets["names"].elements == {ETH1: b"", **many}

    alone(work)


def test_where_one_element_is_refused_none_is_changed(alone):
    def work():
        nft.load_ruleset(TEXT)
        before = nft.read_tables([("inet", "one")])
        there = nft.ElementsChange("inet", "one", "names", [], {ETH0: b""}, verdicts=False)
        with pytest.raises(FileExistsError, match="change the set names"):
            nft.change_elements([TURNED, there], generation=nft.read_generation())
        assert nft.read_tables([("inet", "one")]) == before

    alone(work)


def test_what_somebody_changed_meanwhile_is_not_changed_blindly(alone):
    def work():
        nft.load_ruleset(TEXT)
        generation = nft.read_generation()
        nft.load_ruleset("add table ip other")
        before = nft.read_tables([("inet", "one")])
        assert not nft.change_elements([TURNED], generation=generation)
        assert nft.read_tables([("inet", "one")]) == before

    alone(work)


def test_tables_are_dumped_again_only_after_a_change_of_anybody(alone, monkeypatch):
    dumped = []
    read = nft._read_table
    monkeypatch.setattr(nft, "_read_table", lambda opened, *name: dumped.append(name) or read(opened, *name))

    def look():
        dumped.clear()
        return nft.read_tables([("inet", "one"), ("inet", "two")])

    def work():
        nft.load_ruleset(TEXT)
        first = look()
        assert len(dumped) == 2
        assert look() == first
        assert dumped == []
        nft.load_ruleset("delete element inet one verdicts { eth0 }")
        assert look()["inet", "one"].sets["verdicts"].elements == {}
        assert len(dumped) == 2

    alone(work)


def test_tables_of_another_network_namespace_are_others(alone):
    """Each begins with the same generation."""

    def work():
        nft.load_ruleset("add table inet one { chain first { }; }")
        assert set(nft.read_tables([("inet", "one")])["inet", "one"].chains) == {"first"}

    def other():
        nft.load_ruleset("add table inet one { chain second { }; }")
        assert set(nft.read_tables([("inet", "one")])["inet", "one"].chains) == {"second"}

    def both():
        work()
        with namespaces.created(Path(tempfile.mkdtemp()) / "netns"):
            other()

    alone(both)
