"""The chains of both tables, the same for every root, and the types of the sets that they look into. Only data.

Each rule bears a comment by which drift names it, so a comment is unique in its chain. No counter, no limit, no anonymous
set: nothing that changes while packets pass. `ROOTID` stands for the root's id.
"""

from msgspec import Struct


class SetType(Struct, frozen=True):
    """The types of a set's key and, in a map, of its value, in nft's words."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()


SETS = {
    ("inet", "bridges"): SetType(("ifname",)),
    ("inet", "internal"): SetType(("ifname",)),
    ("inet", "within"): SetType(("ifname", "ifname"), ("verdict",)),
    ("inet", "gateways"): SetType(("ipv4_addr",)),
    ("inet", "doors"): SetType(("ifname", "ipv4_addr")),
    ("inet", "hosts"): SetType(("ifname", "ipv4_addr")),
    ("inet", "egress"): SetType(("ipv4_addr",)),
    ("inet", "published"): SetType(("ipv4_addr", "inet_proto", "inet_service"), ("ipv4_addr", "inet_service")),
    ("inet", "published_everywhere"): SetType(("inet_proto", "inet_service"), ("ipv4_addr", "inet_service")),
    ("bridge", "senders"): SetType(("ifname", "ether_addr", "ipv4_addr")),
}

INET = """\
    chain loopback {
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop comment "containers reach no loopback address of the host"
    }
    chain published_ports {
        ip daddr @gateways udp dport 53 accept comment "names over udp stay with the resolver"
        ip daddr @gateways tcp dport 53 accept comment "names over tcp stay with the resolver"
        dnat ip to ip daddr . meta l4proto . th dport map @published comment "ports published on one address"
        dnat ip to meta l4proto . th dport map @published_everywhere comment "ports published on every address"
    }
    chain arriving {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local goto published_ports comment "published ports from outside"
    }
    chain starting {
        type nat hook output priority -100; policy accept;
        meta nfproto ipv4 fib daddr type local goto published_ports comment "published ports from the host"
    }
    chain passing {
        type filter hook forward priority filter; policy accept;
        iifname . oifname vmap @within comment "inside one network"
        iifname @bridges ct state invalid drop comment "no packet without its connection goes out"
        iifname @bridges ct state established,related accept comment "answers go out"
        oifname @bridges ct state established,related accept comment "answers come in"
        iifname @internal drop comment "internal networks reach nothing outside"
        oifname @bridges ct status dnat accept comment "published ports come in"
        oifname @bridges drop comment "nothing else comes in, from other networks neither"
    }
    chain entering {
        type filter hook input priority filter; policy accept;
        iifname "lo" accept comment "the host itself"
        iifname @internal ct state established,related accept comment "internal networks answer the host"
        iifname . ip daddr @doors udp dport 53 accept comment "names over udp"
        iifname . ip daddr @doors tcp dport 53 accept comment "names over tcp"
        iifname @internal drop comment "internal networks reach nothing of the host but names"
        ip daddr @gateways iifname . ip daddr != @doors drop comment "a gateway serves its own network only"
    }
    chain leaving {
        type nat hook postrouting priority srcnat; policy accept;
        oifname @bridges ip saddr 127.0.0.0/8 masquerade comment "loopback addresses do not leave the host"
        oifname . ip saddr @hosts ct status dnat masquerade comment "published ports from the same network"
        oifname @internal ct status dnat masquerade comment "published ports of internal networks"
        oifname != @bridges ip saddr @egress masquerade comment "containers go out by the address of the host"
    }
"""

BRIDGE = """\
    chain ports {
        type filter hook prerouting priority -300; policy accept;
        iifname "vROOTID*" goto sender comment "every frame of a container"
    }
    chain sender {
        ether type ip iifname . ether saddr . ip saddr @senders accept comment "ip from its own addresses"
        ether type arp iifname . ether saddr . arp saddr ip != @senders drop comment "arp from its own addresses"
        ether type arp iifname . arp saddr ether . arp saddr ip @senders accept comment "arp about its own addresses"
        drop comment "nothing else, IPv6 neither"
    }
"""
