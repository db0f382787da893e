"""The draft of a stack: what the steps of `desire.py` hand on to each other while one manifest becomes specs.

`containers.py`, `networks.py`, `mounts.py` and `ports.py` fill it, `conflicts.py` reads it. It decides nothing.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from msgspec import Struct, field

from reconciler.manifest.faults import Fault, Path
from reconciler.manifest.suggest import suggest_value
from reconciler.model.key import Key
from reconciler.model.record import Source
from reconciler.model.spec import ContainerSpec, Spec

_NAMES_LOOKED_AT = 1000
_FAULTS_WITH_NEAR = 20


class PortClaim(Struct, frozen=True):
    """A host port that a container wants."""

    host: str
    port: int
    protocol: str
    container: str
    path: Path


class SubnetClaim(Struct, frozen=True):
    """A subnet that a network wants; `first` and `last` are its addresses as numbers."""

    first: int
    last: int
    text: str
    network: str
    path: Path


class Draft(Struct, kw_only=True):
    """One manifest on its way."""

    written: Any
    """The manifest's data as they are."""
    data: dict[str, Any]
    """What of them fits the schema."""
    folder: str
    """Absolute: what relative paths begin at."""
    variables: Mapping[str, str]
    name: str = ""
    specs: dict[Key, Spec] = field(default_factory=dict)
    containers: dict[str, ContainerSpec] = field(default_factory=dict)
    """By name, as written; `replicas.py` makes specs of them, one for each replica."""
    faults: list[Fault] = field(default_factory=list)
    ports: list[PortClaim] = field(default_factory=list)
    env_files: list[tuple[str, Path]] = field(default_factory=list)
    """Absolute path of each file that a container's `env_file` names, and where it is named."""
    binds: list[tuple[str, bool, Path]] = field(default_factory=list)
    """Absolute path of what a relative bind mount names, whether it is read-only, and where it is named."""
    sources: dict[Key, Source] = field(default_factory=dict)
    """Where each config and secret comes from."""
    subnets: list[SubnetClaim] = field(default_factory=list)
    borrowed: dict[tuple[str, str], str] = field(default_factory=dict)
    """Section and name of each network and volume that is another stack's, to `STACK/NAME`."""

    def section(self, name: str) -> dict[str, Any]:
        """A section of the manifest (`images`, `containers`, …): by name, what is written there."""
        return self.data.get(name) or {}

    def names(self, section: str) -> list[str]:
        """All names of a section, also of what does not fit: they are known, whatever is wrong with them."""
        found = self.written.get(section) if isinstance(self.written, dict) else None
        return list(found) if isinstance(found, dict) else []

    def meant(self, section: str, name: str) -> str:
        """What container specs call a network or a volume of this manifest: `edge/front` for what is borrowed."""
        return self.borrowed.get((section, name), name)

    def near(self, word: str, names: Iterable[str]) -> str:
        """A hint at the name that may have been meant. Bounded: only for the first faults, among the first names."""
        return suggest_value(word, [*islice(names, _NAMES_LOOKED_AT)]) if len(self.faults) < _FAULTS_WITH_NEAR else ""

    def blame(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note a fault."""
        self.faults.append(Fault(path, text, hint, at_key))
