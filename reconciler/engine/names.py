"""What containers are called on their networks: the same on every engine. Pure."""

from reconciler.model.key import split_key
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec


def names_on(made: Made, network: str) -> tuple[str, ...]:
    """The names of a container on a network that its spec names: `web`, which all of its replicas have, `web-2`, both with
    the network's name behind a dot, and its aliases. As written; names are told apart without regard to case."""
    assert isinstance(made.spec, ContainerSpec)
    parts = split_key(made.key)
    short = (parts.name, f"{parts.name}-{parts.index}")
    # A borrowed network is called what its owner calls it.
    place = network.rpartition("/")[2]
    attachment = made.spec.networks.get(network)
    return (*short, *(f"{name}.{place}" for name in short), *(attachment.aliases if attachment is not None else ()))
