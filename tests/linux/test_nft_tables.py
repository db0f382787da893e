"""Rulesets loaded whole or not at all, and read back as the kernel has them."""

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
