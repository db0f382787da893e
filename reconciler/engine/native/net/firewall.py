"""Loads a root's ruleset, reads it back, and names what others removed or changed of it.

`rules.py` says what it must be; `settle.py` calls this. The elements of sets are compared one by one with what the view
means. The chains are compared with how the kernel gave them back right after they were loaded, which RUN/firewall.json
keeps: so neither nft's way of printing nor that of compiling matters, and no counter is part of it. Where only elements
differ the kernel is told of them alone, without nft (docs/decisions/0116).
"""

import errno
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net.rules import (
    Element,
    Ruleset,
    decode_words,
    encode_words,
    render_removal,
    render_ruleset,
    table_name,
)
from reconciler.engine.native.net.template import BRIDGE, INET, SETS
from reconciler.engine.native.net.words import saying
from reconciler.linux import conntrack, nft
from reconciler.linux.files import write_atomic
from reconciler.model.errors import Failed, ProgramFailed, ProgramMissing
from reconciler.model.key import Key
from reconciler.model.observation import PRESENT, Part, altered, missing

Tables = dict[tuple[str, str], nft.Table]
Shape = dict[str, list[str]]
"""What of the tables is the same for every view: by `inet chain passing` its hook, then its rules."""

_FAMILIES = ("inet", "bridge")
_TEMPLATE = sha256(repr((INET, BRIDGE, SETS)).encode()).hexdigest()
_PROTOCOLS = {"tcp": 6, "udp": 17}


def read_firewall(layout: Layout) -> Tables:
    """The tables of this root that are loaded: a handful of small dumps, no process."""
    with saying("firewall", "read the tables"):
        return nft.read_tables((family, table_name(layout.root_id)) for family in _FAMILIES)


def ensure_firewall(layout: Layout, ruleset: Ruleset) -> None:
    """Load a ruleset in one transaction, unless exactly it is loaded; forget the connections of ports that changed.

    Raises ProgramMissing, ProgramFailed with nft's words, Failed where what was read back is not what was loaded.
    """
    with saying("firewall", "read the tables"):
        generation = nft.read_generation()
    # Order: the tables after their generation, of which they are if it is the same when they are changed.
    before = read_firewall(layout)
    if not is_exactly(layout, ruleset, before) and not _change_elements(layout, ruleset, before, generation):
        _load(render_ruleset(ruleset))
        after = read_firewall(layout)
        _keep_shape(layout, after)
        if not is_exactly(layout, ruleset, after):
            raise Failed(
                "firewall: the tables read back are not what was loaded",
                hint=f"another program changes {table_name(layout.root_id)} at the same moment: find it and stop it",
            )
    # Order: only now; before, the next packet would have made the connection again by the old rules.
    _forget_connections(_published(before), _published(read_targets(ruleset)))


def _change_elements(layout: Layout, ruleset: Ruleset, tables: Tables, generation: int) -> bool:
    """Have the sets hold what the ruleset says, where the chains are right and nobody has changed anything since they were
    read. False where that is not so, or the kernel wants none of it: all is to be loaded then, and nft has the words."""
    if any(True for _ in _diff_shape(layout, tables)):
        return False
    try:
        changes = [
            _diff_elements(ruleset, name, tables[name[0], table_name(ruleset.root_id)].sets[name[1]].elements)
            for name in ruleset.sets
        ]
        return nft.change_elements(changes, generation=generation)
    except (OSError, OverflowError, ValueError):
        return False


def _diff_elements(ruleset: Ruleset, name: tuple[str, str], loaded: Mapping[bytes, bytes]) -> nft.ElementsChange:
    kind = SETS[name]
    wanted = {
        encode_words(kind.key, element.key): encode_words(kind.value, element.value) if kind.value else b""
        for element in ruleset.sets[name]
    }
    return nft.ElementsChange(
        family=name[0],
        table=table_name(ruleset.root_id),
        name=name[1],
        removed=[key for key, value in loaded.items() if wanted.get(key) != (value if kind.value else b"")],
        added={key: value for key, value in wanted.items() if key not in loaded or (kind.value and loaded[key] != value)},
        verdicts=kind.value == ("verdict",),
    )


def remove_firewall(layout: Layout) -> None:
    """Leave no table and no file of this root's firewall; forget the connections of its ports."""
    before = read_firewall(layout)
    if before:
        _load(render_removal(layout.root_id))
        _forget_connections(_published(before), {})
    with saying("firewall", f"remove {_shape_file(layout)}"):
        _shape_file(layout).unlink(missing_ok=True)


def _load(ruleset: str) -> None:
    try:
        nft.load_ruleset(ruleset)
    except FileNotFoundError as gone:
        raise ProgramMissing("nft", "nftables", "firewall") from gone
    except OSError as refusal:
        hint = "what is loaded stays as it is; `reconcile doctor` looks at the programs, then apply again"
        raise ProgramFailed("firewall", "load the rules with nft", refusal.strerror or str(refusal), hint) from refusal


# ---------------------------------------------------------------- comparing


def is_exactly(layout: Layout, ruleset: Ruleset, tables: Tables) -> bool:
    """Whether what is loaded is the ruleset, to the last element."""
    return not any(True for _ in _differences(layout, ruleset, tables))


def diff_firewall(
    layout: Layout, ruleset: Ruleset, tables: Tables, networks: Mapping[str, Key]
) -> dict[Key, dict[str, Part]]:
    """The parts of networks and containers that are rules, by key: what the view means against what is loaded.

    `networks` gives the keys of bridge networks by their links: what can't be said of one resource is said of all.
    """
    parts: dict[Key, dict[str, Part]] = {key: {"rules": PRESENT} for key in networks.values()}
    for elements in ruleset.sets.values():
        for element in elements:
            parts.setdefault(element.owner, {})[element.part] = PRESENT
    for owner, name, part in _differences(layout, ruleset, tables):
        for key in [owner] if owner is not None else networks.values():
            if parts.setdefault(key, {}).get(name, PRESENT) is PRESENT:
                parts[key][name] = part
    return parts


def _differences(layout: Layout, ruleset: Ruleset, tables: Tables) -> Iterator[tuple[Key | None, str, Part]]:
    """Everything that differs: whose it is (None: of all networks), which part, and how."""
    yield from _diff_shape(layout, tables)
    for (family, name), elements in ruleset.sets.items():
        table = tables.get((family, table_name(ruleset.root_id)))
        loaded = table.sets.get(name) if table is not None else None
        yield from _diff_set((family, name), elements, {} if loaded is None else loaded.elements)


def _diff_set(
    name: tuple[str, str], elements: tuple[Element, ...], loaded: Mapping[bytes, bytes]
) -> Iterator[tuple[Key | None, str, Part]]:
    kind = SETS[name]
    wanted = {encode_words(kind.key, element.key): element for element in elements}
    for key, element in wanted.items():
        found = loaded.get(key)
        if found is None:
            yield element.owner, element.part, missing()
        elif kind.value and found != encode_words(kind.value, element.value):
            yield (
                element.owner,
                element.part,
                altered(f"{name[1]} {' . '.join(element.key)}", " . ".join(element.value), decode_words(kind.value, found)),
            )
    for key in loaded.keys() - wanted.keys():
        value = f" : {decode_words(kind.value, loaded[key])}" if kind.value else ""
        yield None, "rules", altered(f"{name[0]} set {name[1]}", "", decode_words(kind.key, key) + value)


def _diff_shape(layout: Layout, tables: Tables) -> Iterator[tuple[Key | None, str, Part]]:
    if not tables:
        yield None, "rules", missing()
        return
    kept, loaded = _read_shape(layout), _shape_of(tables)
    for name in sorted(kept.keys() | loaded.keys()):
        if kept.get(name) == loaded.get(name):
            continue
        yield None, "rules", _explain(name, kept.get(name), loaded.get(name))


def _explain(name: str, kept: list[str] | None, loaded: list[str] | None) -> Part:
    if kept is None or loaded is None:
        return altered(name, _there(kept is not None), _there(loaded is not None))
    gone = [_comment(rule) for rule in kept if rule not in loaded]
    come = [_comment(rule) for rule in loaded if rule not in kept]
    if not gone and not come:
        return altered(name, "its rules in order", "in another order")
    return altered(name, "; ".join(gone) or "nothing more", "; ".join(come) or "missing")


def _there(is_there: bool) -> str:  # noqa: FBT001 - a word for a flag
    return "present" if is_there else "missing"


def _comment(rule: str) -> str:
    return rule.partition(" ")[2] or "a rule without a comment"


def _shape_of(tables: Tables) -> Shape:
    shape: Shape = {}
    for (family, _), table in tables.items():
        shape[f"table {family}"] = [f"{table.flags} flags {table.flags}"]
        for name, chain in table.chains.items():
            rules = [f"{rule.digest} {rule.comment}".rstrip() for rule in chain.rules]
            shape[f"{family} chain {name}"] = [f"{chain.shape} hook and policy", *rules]
        for name, item in table.sets.items():
            shape[f"{family} set {name}"] = [f"{item.shape} type"]
    return shape


def _shape_file(layout: Layout) -> Path:
    return layout.run / "firewall.json"


def _keep_shape(layout: Layout, tables: Tables) -> None:
    content = json.dumps({"template": _TEMPLATE, "shape": _shape_of(tables)})
    with saying("firewall", f"write {_shape_file(layout)}"):
        write_atomic(_shape_file(layout), content.encode())


def _read_shape(layout: Layout) -> Shape:
    """As it was right after the load; empty where that is not known, or was another version's: all differs then."""
    try:
        kept = json.loads(_shape_file(layout).read_bytes())
        return dict(kept["shape"]) if kept["template"] == _TEMPLATE else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# ---------------------------------------------------------------- connections of ports that changed

Published = dict[tuple[str, int, int], tuple[str, int]]
"""Host address (empty: all), protocol and port, to the container's address and port."""


def read_targets(ruleset: Ruleset) -> Tables:
    """A ruleset's published ports in the form in which tables are read."""
    sets = {}
    for name in ("published", "published_everywhere"):
        kind = SETS["inet", name]
        sets[name] = nft.Set(
            "",
            {
                encode_words(kind.key, element.key): encode_words(kind.value, element.value)
                for element in ruleset.sets["inet", name]
            },
        )
    return {("inet", table_name(ruleset.root_id)): nft.Table(0, {}, sets)}


def _published(tables: Tables) -> Published:
    found: Published = {}
    for table in tables.values():
        for name in ("published", "published_everywhere"):
            kind = SETS["inet", name]
            if name not in table.sets:
                continue
            for key, value in table.sets[name].elements.items():
                *host, protocol, port = decode_words(kind.key, key).split(" . ")
                address, inner = decode_words(kind.value, value).split(" . ")
                found[(host or [""])[0], _PROTOCOLS.get(protocol, 0), int(port)] = (address, int(inner))
    return found


def _forget_connections(before: Published, after: Published) -> None:
    """Forget what went to a published port that is no longer, or goes elsewhere now.

    A UDP port that is newly published too: who sends to it all the time would keep its old, untranslated connection.
    """
    changed = {key for key, target in before.items() if after.get(key) != target}
    changed |= {key for key in after.keys() - before.keys() if key[1] == _PROTOCOLS["udp"]}
    if not changed:
        return
    with saying("firewall", "forget connections of removed ports"):
        conntrack.delete_connections(
            [
                connection
                for connection in _list_connections()
                if _concerns(connection, changed, before) and not _is_right(connection, after)
            ]
        )


def _list_connections() -> list[conntrack.Connection]:
    try:
        return conntrack.list_connections()
    except OSError as refusal:
        # Kernel: without ctnetlink (an own kernel, no module) connections end when they are idle, which must do.
        if refusal.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            return []
        raise


def _keys(connection: conntrack.Connection) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    address, port = connection.destination
    return (address, connection.protocol, port), ("", connection.protocol, port)


def _concerns(connection: conntrack.Connection, changed: set[tuple[str, int, int]], before: Published) -> bool:
    return any(
        key in changed and (key not in before or connection.answering == before[key] or key[1] == _PROTOCOLS["udp"])
        for key in _keys(connection)
    )


def _is_right(connection: conntrack.Connection, after: Published) -> bool:
    return any(after.get(key) == connection.answering for key in _keys(connection))
