"""Everything scarce that a record says it holds → given to it again in a database that knows nothing of it yet."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.model.key import Key, Kind, named_key, stack_of
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec

if TYPE_CHECKING:
    from reconciler.store.writing import Writing


def claim_grants(tx: "Writing", record: Record, records: Mapping[Key, Record]) -> None:
    """Give a record what it holds; `records` has the networks that it sits on. Raises what the pools say where another
    holds one of these things: NameTaken, AddressTaken, SubnetTaken, PortTaken."""
    grants, key = record.grants, record.key
    if grants.link:
        tx.grant_link(grants.link, key)
    if grants.subnet:
        tx.grant_subnet(key, grants.subnet)
    if grants.volume_id:
        tx.grant_volume_id(grants.volume_id, key)
    for name, endpoint in grants.endpoints.items():
        tx.grant_link(endpoint.link, key)
        tx.grant_mac(endpoint.mac, key)
        network = records.get(named_key(Kind.NETWORK, stack_of(key), name))
        if network is not None and network.grants.subnet:
            tx.grant_address(network.key, key, network.grants.subnet, network.grants.gateway, endpoint.address, fresh=False)
    if isinstance(record.spec, ContainerSpec):
        tx.grant_ports(key, record.spec.ports)
