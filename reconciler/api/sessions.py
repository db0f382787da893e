"""What may be asked about the inside of a container: commands, streams, files. asks.py lists them with all others.

Imports nothing that is slow to import.
"""

from typing import Annotated

from msgspec import Meta, Struct

MOST_CELLS = 65_535
"""Rows or columns of a terminal."""


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all of them are."""


class Session(Ask, frozen=True, kw_only=True):
    """A call with streams: what follows its line in the request's body is input, signals and sizes, a line each."""


class Terminal(Session, frozen=True, kw_only=True):
    """One that may have a terminal, of the size of the one at this end."""

    stdin: bool = False
    """Pass input on."""
    rows: Annotated[int, Meta(ge=0, le=MOST_CELLS)] = 0
    """0 where there is none."""
    columns: Annotated[int, Meta(ge=0, le=MOST_CELLS)] = 0


class Exec(Terminal, frozen=True, kw_only=True):
    """Run a command in a container."""

    name: str
    command: tuple[str, ...]
    tty: bool = False
    """Give it a terminal."""
    user: str = ""
    workdir: str = ""
    env: dict[str, str] = {}


class Attach(Terminal, frozen=True, kw_only=True):
    """Join the streams of a container that runs, until it ends or is let go of."""

    name: str
    keys: bytes = b""
    """What to type on its terminal to let go of it, in base64."""
    signals: bool = True
    """Pass signals on."""


class Run(Terminal, frozen=True, kw_only=True):
    """Run a command in a new container of the stack `run`. Without `detach` its streams are joined, and one that is to be
    removed ends where nobody is there any more. Flags are as `reconcile run` has them."""

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    """Made up where it is empty."""
    detach: bool = False
    """Leave it running."""
    tty: bool = False
    remove: bool = False
    """Remove it, and its unnamed volumes, once it has ended."""
    env: tuple[str, ...] = ()
    """`K=V`, or `K` with its value in `environment`."""
    environment: dict[str, str] = {}
    folder: str = "/"
    """What relative paths begin at: absolute, on the machine of the root."""
    mounts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    entrypoint: str | None = None
    """In place of the image's; empty for none."""
    memory: str = ""
    cpus: float | None = None
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    restart: str = "no"
    labels: tuple[str, ...] = ()
    hostname: str = ""
    init: bool = False
    pull: str = "missing"
    stop_signal: str = ""
    keys: bytes = b""
    signals: bool = True


class Look(Ask, frozen=True, kw_only=True):
    """What is at a path of a container; null for nothing."""

    name: str
    path: str
    follow: bool = True
    """What a link leads to, not the link."""


class CopyOut(Ask, frozen=True, kw_only=True):
    """A tar of what is at a path of a container, as output."""

    name: str
    path: str
    top: str = ""
    """What it is called in the tar; empty: of a folder only what is in it."""
    follow: bool = False


class CopyIn(Session, frozen=True, kw_only=True):
    """A tar, which is the input, into a folder of a container."""

    name: str
    path: str
    owners: bool = False
    """Owners are as in the tar; else root."""
