"""The firewall of a view as a value and as text; nothing of the machine is asked."""

import re

from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.native.net.rules import (
    Ruleset,
    choose_ruleset,
    decode_words,
    encode_words,
    render_removal,
    render_ruleset,
)
from reconciler.engine.native.net.template import BRIDGE, INET, SETS
from reconciler.model.record import View


def blog(build):
    front, back = build.network("front", 1), build.network("back", 2, internal=True, icc=False)
    web = build.container(
        "web", front, back, ports={"0.0.0.0:8080/tcp": 80, "127.0.0.1:5353/udp": 53}, incarnation="1" * 12
    )
    return View(made=(front, back, web))


SETS_OF_BLOG = """\
table inet reconcile_abcde {
    set bridges {
        type ifname
        elements = {
            "babcde00000001",
            "babcde00000002",
        }
    }
    set internal {
        type ifname
        elements = {
            "babcde00000002",
        }
    }
    map within {
        type ifname . ifname : verdict
        elements = {
            "babcde00000001" . "babcde00000001" : accept,
            "babcde00000002" . "babcde00000002" : drop,
        }
    }
    set gateways {
        type ipv4_addr
        elements = {
            10.64.1.1,
            10.64.2.1,
        }
    }
    set doors {
        type ifname . ipv4_addr
        elements = {
            "babcde00000001" . 10.64.1.1,
            "babcde00000002" . 10.64.2.1,
        }
    }
    set hosts {
        type ifname . ipv4_addr
        elements = {
            "babcde00000001" . 10.64.1.2,
            "babcde00000002" . 10.64.2.2,
        }
    }
    set egress {
        type ipv4_addr
        elements = {
            10.64.1.2,
        }
    }
    map published {
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = {
            127.0.0.1 . udp . 5353 : 10.64.1.2 . 53,
        }
    }
    map published_everywhere {
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = {
            tcp . 8080 : 10.64.1.2 . 80,
        }
    }
"""

SENDERS_OF_BLOG = """\
table bridge reconcile_abcde {
    set senders {
        type ifname . ether_addr . ipv4_addr
        elements = {
            "vabcde111111110" . 02:00:0a:40:01:02 . 10.64.1.2,
            "vabcde111111111" . 02:00:0a:40:02:02 . 10.64.2.2,
        }
    }
"""


def test_ruleset_of_a_stack(build):
    text = render_ruleset(choose_ruleset("abcde", blog(build)))
    begin = "add table {0} reconcile_abcde\ndelete table {0} reconcile_abcde\n"
    inet = begin.format("inet") + SETS_OF_BLOG + INET + "}\n"
    bridge = begin.format("bridge") + SENDERS_OF_BLOG + BRIDGE.replace("ROOTID", "abcde") + "}\n"
    assert text == inet + bridge


def test_order_of_the_view_changes_nothing(build):
    view = blog(build)
    turned = View(made=view.made[::-1])
    assert render_ruleset(choose_ruleset("abcde", view)) == render_ruleset(choose_ruleset("abcde", turned))


def test_rules_do_not_grow_with_containers(build):
    front = build.network("front", 1)
    many = [build.container(f"c{number}", front, host=number) for number in range(2, 200)]
    few, lots = (render_ruleset(choose_ruleset("abcde", View(made=(front, *some)))) for some in (many[:1], many))
    assert lots.count("comment") == few.count("comment")


def test_older_of_two_incarnations_has_the_port_until_it_is_gone(build):
    front, back = build.network("front", 1), build.network("back", 2)
    ports = {"0.0.0.0:80/tcp": 80}
    old = build.container("web", back, ports=ports, incarnation="f" * 12, created_at=1.0)
    new = build.container("web", front, ports=ports, incarnation="0" * 12, created_at=2.0)
    both = choose_ruleset("abcde", View(made=(front, back, new, old))).sets["inet", "published_everywhere"]
    assert [element.value for element in both] == [("10.64.2.2", "80")]
    after = choose_ruleset("abcde", View(made=(front, back, new))).sets["inet", "published_everywhere"]
    assert [element.value for element in after] == [("10.64.1.2", "80")]
    senders = choose_ruleset("abcde", View(made=(front, back, new, old))).sets["bridge", "senders"]
    assert len(senders) == 2, "both may send"


def test_loopback_is_routed_only_where_a_port_is_published_on_it(build):
    nets = [build.network(name, number) for number, name in enumerate(("a", "b", "c", "d"), 1)]
    ports = ({"127.0.0.2:1/tcp": 1}, {"0.0.0.0:2/tcp": 2}, {"192.0.2.2:3/tcp": 3}, {})
    webs = [
        build.container(f"w{number}", net, ports=some) for number, (net, some) in enumerate(zip(nets, ports, strict=True))
    ]
    found = choose_ruleset("abcde", View(made=(*nets, *webs))).loopback
    assert found == {nets[0].grants.link, nets[1].grants.link}


def test_a_network_of_the_host_has_no_rule(build):
    host = build.network("host", 1, driver="host")
    found: Ruleset = choose_ruleset("abcde", View(made=(host, build.container("web", host))))
    assert not any(found.sets.values())


def test_every_rule_has_a_comment_of_its_own_and_no_state():
    for chains in (INET, BRIDGE):
        for chain in chains.split("chain ")[1:]:
            rules = [line for line in chain.splitlines()[1:] if line.strip(" }") and "type " not in line]
            comments = [re.search(r'comment "([^"]{1,127})"$', line) for line in rules]
            assert all(comments), rules
            assert len({found[1] for found in comments if found}) == len(rules)
        assert not re.search(r"\b(counter|limit|quota|last)\b", re.sub(r'"[^"]*"', "", chains))


def test_removal_leaves_nothing():
    assert render_removal("abcde") == (
        "add table inet reconcile_abcde\ndelete table inet reconcile_abcde\n"
        "add table bridge reconcile_abcde\ndelete table bridge reconcile_abcde\n"
    )


ADDRESS = st.ip_addresses(v=4).map(str)
WORDS = {
    "ifname": st.from_regex(r"\A[bv][a-z2-7]{5}[0-9a-f]{1,9}\Z"),
    "ipv4_addr": ADDRESS,
    "ether_addr": st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":")),
    "inet_proto": st.sampled_from(["tcp", "udp"]),
    "inet_service": st.integers(0, 65535).map(str),
    "verdict": st.sampled_from(["accept", "drop"]),
}


@given(st.data())
def test_what_is_encoded_is_decoded(data):
    kind = data.draw(st.sampled_from(sorted(SETS.values(), key=repr)))
    for types in filter(None, (kind.key, kind.value)):
        words = tuple(data.draw(WORDS[type_]) for type_ in types)
        assert decode_words(types, encode_words(types, words)) == " . ".join(words)


@given(st.binary(max_size=40), st.sampled_from(sorted(SETS.values(), key=repr)))
def test_what_others_put_into_a_set_is_readable_whatever_it_is(raw, kind):
    assert isinstance(decode_words(kind.key, raw), str)


def test_held_container_has_no_open_port_and_keeps_its_address(build):
    front = build.network("front", 1)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80}, held=True)
    found = choose_ruleset("abcde", View(made=(front, web)))
    assert found.sets["inet", "published_everywhere"] == ()
    assert found.loopback == frozenset()
    assert len(found.sets["bridge", "senders"]) == 1
