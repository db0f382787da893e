"""Gives scarce things away, each once: addresses, subnets, link names, MACs, host ports, ids of volumes.

All are rows of one table whose primary key is (pool, scope, value); what a primary key can't say (subnets that overlap,
a port on every address) is checked here, in the transaction that holds the write lock. Grants belong to a key. A replace
holds the old and the new ones together, then keeps those of the record that stays (`keep`). A replica that is scaled away
leaves its addresses reserved for as long as its volume is there (`reserve`). Never looks at the machine.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from reconciler.model.errors import AddressesUsedUp, AddressTaken, NameTaken, PortTaken, SubnetTaken
from reconciler.model.key import Key
from reconciler.model.record import Endpoint, Grants
from reconciler.store import statements

_NOTHING = Grants()
_WILDCARDS = {"0.0.0.0", "::"}

Place = tuple[str, str, str]
"""(pool, scope, value): what is unique."""


@lru_cache(maxsize=4096)
def _range(subnet: str) -> tuple[int, int]:
    """The first and the last address of a subnet, as numbers."""
    network = ip_network(subnet)
    return int(network.network_address), int(network.broadcast_address)


class Pools:
    """The grants as one transaction sees them: what it gives is kept here and written together by `flush`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._new: dict[Place, Key] = {}
        self._networks: dict[Key, _Addresses] = {}

    def forget(self) -> None:
        """Forget what was given since the last `flush`, and what was read: the database was rolled back to then."""
        self._new.clear()
        self._networks.clear()

    def flush(self) -> None:
        """Write what was given since the last time."""
        if self._new:
            rows = [
                dict(zip(("pool", "scope", "value"), place, strict=True), owner=key) for place, key in self._new.items()
            ]
            self._new.clear()
            self._sql.executemany(statements.PUT_GRANT, rows)

    def holder(self, pool: str, scope: str, value: str) -> Key | None:
        """Who holds one thing."""
        given = self._new.get((pool, scope, value))
        if given is not None:
            return given
        sql = "SELECT owner FROM grants WHERE pool = ? AND scope = ? AND value = ?"
        row = self._sql.execute(sql, (pool, scope, value)).fetchone()
        return Key(row[0]) if row else None

    def give(self, pool: str, value: str, owner: Key, *, scope: str = "") -> None:
        """Give one thing to a key, which may hold it already. Raises NameTaken where another key does."""
        holder = self.holder(pool, scope, value)
        if holder is None:
            self._new[(pool, scope, value)] = owner
        elif holder != owner:
            raise NameTaken(owner, f"{pool} {value}", holder)

    def give_address(self, network: Key, owner: Key, *, subnet: str, gateway: str, wanted: str | None, fresh: bool) -> str:
        """An address of the subnet: the wanted one, else the one that the owner holds there, else the lowest free.

        With `fresh` an owner gets another one besides what it holds. Raises AddressTaken, AddressesUsedUp.
        """
        addresses = self._addresses(network)
        free = _free_in(subnet, gateway)
        if wanted:
            address = int(IPv4Address(wanted))
            self._check_wanted(network, owner, wanted, subnet=subnet, gateway=gateway)
        elif held := [one for one in addresses.of_owner(owner) if one in free and not fresh]:
            address = min(held)
        else:
            address = addresses.lowest_free(free)
            if address < 0:
                raise AddressesUsedUp(owner, network, subnet)
        text = str(IPv4Address(address))
        if addresses.taken.get(address) is None:
            addresses.taken[address] = owner
            addresses.by_owner.setdefault(owner, []).append(address)
            self._new[("address", network, text)] = owner
        return text

    def give_subnet(self, network: Key, subnet: str) -> None:
        """Give a subnet to a network. Raises SubnetTaken where it overlaps one of another network."""
        wanted = ip_network(subnet)
        first, last = _range(str(wanted))
        self.flush()
        rows = self._sql.execute("SELECT value, owner FROM grants WHERE pool = 'subnet'").fetchall()
        for value, owner in rows:
            begins, ends = _range(value)
            if owner != network and begins <= last and first <= ends:
                raise SubnetTaken(network, subnet, f"{value} of {owner}")
        self.give("subnet", str(wanted), network)

    def give_ports(self, owner: Key, ports: Iterable[str]) -> None:
        """Give host ports, `HOST_IP:PORT/PROTO`. Raises PortTaken; then none of them is given.

        An address of 0.0.0.0 means all, so it meets every other address of the same port and protocol.
        """
        places = [split_port(port) for port in ports]
        for host, scope in places:
            self._check_port(owner, host, scope)
        for host, scope in places:
            self.give("port", host, owner, scope=scope)

    def free(self, owner: Key, *, keep: Grants = _NOTHING, ports: Iterable[str] = ()) -> None:
        """Take back all that a key holds but these grants and host ports."""
        self.flush()
        rows = self._sql.execute("SELECT pool, scope, value FROM grants WHERE owner = ?", (owner,)).fetchall()
        kept = _values(keep)
        kept_ports = {split_port(port) for port in ports}
        gone = [
            {"of_pool": pool, "of_scope": scope, "of_value": value}
            for pool, scope, value in rows
            if ((value, scope) not in kept_ports if pool == "port" else (pool, value) not in kept)
        ]
        if gone:
            self._networks.clear()
            self._sql.executemany(statements.DELETE_GRANT, gone)

    # Reservations: pool `reserved`, scope the volume that keeps it, value `NETWORK MAC`, owner the container

    def reserve(self, owner: Key, endpoints: Mapping[Key, Endpoint], volumes: Iterable[Key]) -> None:
        """Take back all that a key holds but its addresses and MACs, by network: they are its own while a volume stays."""
        kept = {network: Endpoint(address=place.address, mac=place.mac, link="") for network, place in endpoints.items()}
        self.free(owner, keep=Grants(endpoints={str(network): place for network, place in kept.items()}))
        for volume in volumes:
            for network, place in kept.items():
                self.give("reserved", f"{network} {place.mac}", owner, scope=volume)

    def reserved_mac(self, network: Key, owner: Key) -> str:
        """The MAC that is reserved for a key on a network, empty where none is."""
        sql = "SELECT value FROM grants WHERE owner = ? AND pool = 'reserved'"
        values = [value.split(" ") for (value,) in self._sql.execute(sql, (owner,))]
        return next((mac for name, mac in values if name == network), "")

    def withdraw(self, owner: Key) -> None:
        """Take back what a key was given and what did not come to be; what was reserved for it is so again."""
        self.flush()
        if self._reserved("owner = ?", owner):
            self._sql.execute(statements.WITHDRAW_GRANTS, {"of_owner": owner})
            self._networks.clear()
        else:
            self.free(owner)

    def end_reservations_of(self, volume: Key) -> None:
        """Free what is reserved because of a volume; a key with another such volume keeps it."""
        self.flush()
        owners = self._reserved("scope = ?", volume)
        self._sql.execute(statements.END_RESERVATIONS_OF_VOLUME, {"volume": volume})
        self._free_all(owners)

    def end_reservations_in(self, stack: str) -> None:
        """Free what is reserved in a stack."""
        self.flush()
        owners = f"container/{stack}/*"
        found = self._reserved("owner GLOB ?", owners)
        self._sql.execute(statements.END_RESERVATIONS_OF_OWNERS, {"owners": owners})
        self._free_all(found)

    def forget_network(self, network: Key) -> None:
        """Free the addresses of a network that are reserved, for it is gone."""
        self.flush()
        places = f"{network} *"
        owners = self._reserved("value GLOB ?", places)
        for owner in owners:
            self._sql.execute(statements.END_RESERVATIONS_ON_NETWORK, {"of_owner": owner, "places": places})
            if not self._is_used(owner):
                self._sql.execute(statements.FREE_ADDRESSES, {"of_owner": owner, "network": network})
        self._free_all(owners)

    def _free_all(self, owners: Iterable[Key]) -> None:
        """Free what keys hold that are not there and have nothing reserved any more."""
        for owner in owners:
            if not self._is_used(owner) and not self._reserved("owner = ?", owner):
                self.free(owner)

    def _reserved(self, where: str, value: str) -> list[Key]:
        sql = f"SELECT DISTINCT owner FROM grants WHERE pool = 'reserved' AND {where}"
        return [Key(owner) for (owner,) in self._sql.execute(sql, (value,)).fetchall()]

    def _is_used(self, owner: Key) -> bool:
        """Whether a key is on record, or about to be."""
        sql = "SELECT 1 FROM records WHERE key = ?1 UNION SELECT 1 FROM intents WHERE key = ?1"
        return self._sql.execute(sql, (owner,)).fetchone() is not None

    def pass_on(self, owner: Key, to: Key) -> None:
        """Let everything that a key holds, and what is reserved because of it, go over to another one."""
        self.flush()
        self._networks.clear()
        self._sql.execute(statements.PASS_ON_GRANTS, {"of_owner": owner, "to": to})
        self._sql.execute(statements.PASS_ON_RESERVATIONS, {"volume": owner, "to": to})

    def _check_wanted(self, network: Key, owner: Key, wanted: str, *, subnet: str, gateway: str) -> None:
        if int(IPv4Address(wanted)) not in _free_in(subnet, ""):
            raise AddressTaken(owner, wanted, network, f"it is no address for a container in {subnet}")
        if wanted == gateway:
            raise AddressTaken(owner, wanted, network, "it is the gateway's")
        holder = self._addresses(network).taken.get(int(IPv4Address(wanted)))
        if holder is not None and holder != owner:
            away = " (scaled away; its volume keeps it)" if self._reserved("owner = ?", holder) else ""
            raise AddressTaken(owner, wanted, network, f"it is held by {holder}{away}")

    def _check_port(self, owner: Key, host: str, scope: str) -> None:
        rows = self._sql.execute("SELECT value, owner FROM grants WHERE pool = 'port' AND scope = ?", (scope,)).fetchall()
        rows += [(place[2], key) for place, key in self._new.items() if place[:2] == ("port", scope)]
        for other, holder in rows:
            if holder != owner and meets(host, other):
                raise PortTaken(owner, f"{host}:{scope}", holder)

    def _addresses(self, network: Key) -> "_Addresses":
        if network not in self._networks:
            sql = "SELECT value, owner FROM grants WHERE pool = 'address' AND scope = ?"
            rows: list[tuple[str, str]] = self._sql.execute(sql, (network,)).fetchall()
            rows += [(place[2], key) for place, key in self._new.items() if place[:2] == ("address", network)]
            self._networks[network] = _Addresses(rows)
        return self._networks[network]


class _Addresses:
    """The addresses of one network that are given away, as numbers."""

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.taken = {int(IPv4Address(value)): Key(owner) for value, owner in rows}
        self.by_owner: dict[Key, list[int]] = {}
        self._searched: dict[range, int] = {}
        for address, owner in self.taken.items():
            self.by_owner.setdefault(owner, []).append(address)

    def of_owner(self, owner: Key) -> list[int]:
        """What a key holds on this network."""
        return self.by_owner.get(owner, [])

    def lowest_free(self, free: "_Free") -> int:
        """The lowest address that nobody holds, -1 where there is none.

        All below the place where the last search ended are taken: within a transaction addresses are only given, and
        what is taken back starts anew.
        """
        for address in range(self._searched.get(free.addresses, free.addresses.start), free.addresses.stop):
            if address != free.gateway and address not in self.taken:
                self._searched[free.addresses] = address
                return address
        return -1


class _Free:
    """What may be given in a subnet: all but its own address, broadcast and gateway."""

    def __init__(self, subnet: IPv4Network, gateway: str) -> None:
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        # RFC 3021: a /31 has neither network address nor broadcast; a /32 is its one address.
        self.addresses = range(first, last + 1) if subnet.prefixlen > 30 else range(first + 1, last)
        self.gateway = int(IPv4Address(gateway)) if gateway else -1

    def __contains__(self, address: int) -> bool:
        return address in self.addresses and address != self.gateway


def _free_in(subnet: str, gateway: str) -> _Free:
    return _Free(IPv4Network(subnet), gateway)


def _values(grants: Grants) -> set[tuple[str, str]]:
    """All that a record's grants name, by pool."""
    named = {("link", grants.link), ("subnet", grants.subnet), ("volume", grants.volume_id)}
    for endpoint in grants.endpoints.values():
        named |= {("address", endpoint.address), ("mac", endpoint.mac), ("link", endpoint.link)}
    return named


def split_port(port: str) -> tuple[str, str]:
    """`127.0.0.1:8080/tcp` as address and `8080/tcp`; an IPv6 address stands in brackets."""
    host, _, rest = port.rpartition(":")
    return str(ip_address(host.strip("[]"))), rest


def meets(host: str, other: str) -> bool:
    """Whether two addresses can't both have one port: they are the same, or one of them stands for all."""
    return host == other or host in _WILDCARDS or other in _WILDCARDS
