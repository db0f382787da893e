"""Keys: the names by which stacks, records, plans and people speak of one resource.

A key is text, `kind/stack/name`, for a container `container/stack/name/index`. Keys are plain strings so that they are
JSON as they stand, hash fast and sort; this module is the only place that puts them together or takes them apart.
"""

from enum import StrEnum
from functools import lru_cache
from typing import NewType

from msgspec import Struct

Key = NewType("Key", str)


RUN_STACK = "run"
"""The stack of what `reconcile run` makes: no manifest may have its name."""


class Kind(StrEnum):
    """The kinds of resource, in the order in which one needs the other."""

    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "volume"
    CONFIG = "config"
    SECRET = "secret"
    CONTAINER = "container"


class KeyParts(Struct, frozen=True):
    """A key taken apart. `index` counts from 1 and is 0 for everything but containers."""

    kind: Kind
    stack: str
    name: str
    index: int


def make_key(kind: Kind, stack: str, name: str) -> Key:
    """The key of anything but a container. The name of an image may itself contain slashes."""
    return Key(f"{kind.value}/{stack}/{name}")


def container_key(stack: str, name: str, index: int = 1) -> Key:
    """The key of one container of a stack."""
    return Key(f"container/{stack}/{name}/{index}")


def is_incarnation(text: str) -> bool:
    """Whether a name is one that an incarnation bears: what is called otherwise we did not make."""
    return len(text) == 12 and set(text) <= _HEX


@lru_cache(maxsize=65536)
def named_key(kind: Kind, stack: str, name: str) -> Key:
    """The key that a name in a spec of a stack means: `front` is the stack's own, `edge/front` is borrowed of `edge`.

    What follows an `@` belongs to the name: the volumes of an image's VOLUMEs, `web-1@/data`, hold a path. Names of images
    are never borrowed, and hold slashes.
    """
    owner, slash, rest = name.partition("/")
    if slash and "@" not in owner and kind is not Kind.IMAGE:
        return make_key(kind, owner, rest)
    return make_key(kind, stack, name)


def name_in(stack: str, key: Key) -> str:
    """What a spec of a stack calls a network or a volume: the opposite of `named_key`."""
    parts = split_key(key)
    return parts.name if parts.stack == stack else f"{parts.stack}/{parts.name}"


def replica_volume(name: str, index: int) -> str:
    """What the volume of one replica is called, for a volume that each has of its own."""
    return f"{name}@{index}"


def split_replica_volume(name: str) -> tuple[str, int]:
    """A volume's name in the manifest and whose it is, `data@2` → data and 2; 0 for one that belongs to no replica."""
    base, sign, index = name.partition("@")
    return (base, int(index)) if sign and index.isascii() and index.isdigit() else (name, 0)


@lru_cache(maxsize=65536)
def split_key(key: Key) -> KeyParts:
    """Take a key apart. Raises ValueError for text that is no key."""
    kind, stack, name = key.split("/", 2)
    if kind == Kind.CONTAINER.value:
        name, _, index = name.rpartition("/")
        return KeyParts(Kind.CONTAINER, stack, name, int(index))
    return KeyParts(Kind(kind), stack, name, 0)


def kind_of(key: Key) -> Kind:
    """The kind of a key."""
    return split_key(key).kind


def stack_of(key: Key) -> str:
    """The name of the stack that a key belongs to."""
    return split_key(key).stack


def short_name(key: Key) -> str:
    """What people call a resource of a stack: `web`, and from the second on `web/2`."""
    parts = split_key(key)
    return parts.name if parts.index <= 1 else f"{parts.name}/{parts.index}"


def full_name(key: Key) -> str:
    """The same with its stack: `blog/web`, `blog/web/2`."""
    return f"{stack_of(key)}/{short_name(key)}"


def forms_of(key: Key, *, replicas: bool = False) -> frozenset[str]:
    """What people may write for a resource: its key, `web`, `web/2`, `web-2`, `blog/web`, `container/web`,
    `containers/web`, `container/blog/web`. A name without index is that of the first, with `replicas` that of all."""
    parts = split_key(key)
    names = {parts.name} if parts.index <= 1 or replicas else set()
    if parts.index:
        names |= {f"{parts.name}/{parts.index}", f"{parts.name}-{parts.index}"}
    names |= {f"{parts.stack}/{name}" for name in names}
    kinds = (parts.kind.value, f"{parts.kind.value}s")
    return frozenset((key, *names, *(f"{kind}/{name}" for name in names for kind in kinds)))


def sort_key(key: Key) -> tuple[int, str, str, int]:
    """What to sort keys by for people: kinds in order of need, then stack and name, indexes as numbers."""
    parts = split_key(key)
    return (_KIND_ORDER[parts.kind], parts.stack, parts.name, parts.index)


_HEX = frozenset("0123456789abcdef")
_KIND_ORDER = {kind: place for place, kind in enumerate(Kind)}
