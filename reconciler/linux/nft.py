"""Loads nftables rulesets with `nft`, and reads tables back from the kernel without it (NETLINK_NETFILTER).

Loading is text in, one transaction. Reading asks the kernel for one table's chains, rules and sets as it holds them:
ten small dumps, about a millisecond, where `nft -j list` costs a process and its JSON (docs/decisions/0011). Rules come
as a digest of their expressions and their comment, elements as bytes: enough to compare, not to print. What was read is
not read again as long as the kernel's rules are of the same generation; elements are changed without nft. Raises OSError.
"""

import errno
import hashlib
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from reconciler.linux import failpoint, process
from reconciler.linux.nlsocket import (
    CREATE,
    EXCLUSIVE,
    NETFILTER,
    Change,
    NetlinkSocket,
    attribute,
    nested,
    parse_attributes,
    text,
    walk_attributes,
)

FAMILIES = {"inet": 1, "ip": 2, "bridge": 7}
"""NFPROTO_* by nft's word."""

_SUBSYSTEM = 10
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_GENERATION, _ADD_ELEMENTS, _REMOVE_ELEMENTS = (
    _SUBSYSTEM << 8 | number for number in (1, 4, 7, 10, 13, 16, 12, 14)
)
_TABLE, _NAME = 1, 2
_TABLE_NAME, _TABLE_FLAGS = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _POLICY_DROP = 1, b"\0\0\0\0"
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_SET_SHAPE = (3, 4, 5, 6, 7)
"""Flags, key type and length, data type and length."""
_SET_NAME, _ELEMENTS = 2, 3
_ELEMENT_KEY, _ELEMENT_DATA = 1, 2
_ELEMENT, _GENERATION = 1, 1
_AT_ONCE = 256
"""Elements in one message: their attribute must stay below 64 KiB."""
_PATIENCE = 5
"""How often tables are read anew because they changed meanwhile."""
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 2, 1
_USERDATA_COMMENT = 0

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_DEADLINE = 20.0
"""Seconds. It is loaded under the lock of a root: less than anybody waits for that."""


class Rule(NamedTuple):
    """One rule of a chain."""

    comment: str
    digest: str
    """Of what it does: the same for the same rule on the same kernel."""


class Chain(NamedTuple):
    """One chain: its rules in their order."""

    shape: str
    """Hook, priority, type and policy as the kernel has them, in hex; empty for one that is only jumped to."""
    rules: tuple[Rule, ...]


class Set(NamedTuple):
    """One set or map: value by key, both as the kernel has them; the value of a verdict is its code,
    32 bits in network order."""

    shape: str
    """Flags and types, in hex."""
    elements: dict[bytes, bytes]


class Table(NamedTuple):
    """One table, chains and sets by name."""

    flags: int
    chains: dict[str, Chain]
    sets: dict[str, Set]


class ElementsChange(NamedTuple):
    """What is to become of one set or map. A value that changes is removed and added."""

    family: str
    table: str
    name: str
    removed: Sequence[bytes]
    added: Mapping[bytes, bytes]
    verdicts: bool
    """Whether its values are verdicts."""


_known: "dict[tuple[bytes, str, str], tuple[int, Table | None]]" = {}
"""What was read last, by network namespace, family and name, and of which generation it is (none is 0)."""


def load_ruleset(ruleset: str) -> None:
    """Have `nft` load a text in one transaction: all of it holds afterwards, or nothing changed.

    Raises FileNotFoundError where there is no nft, OSError with its own words where it refuses, or hangs and was killed.
    """
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "the program nft is not installed", "nft")
    try:
        with failpoint.change("nft"):
            done = subprocess.run(
                [program, "-f", "-"],
                input=ruleset.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_DEADLINE,
                check=False,
                cwd="/",
                env={"LC_ALL": "C", "PATH": _PATH},
            )
    except subprocess.TimeoutExpired as late:
        raise OSError(errno.ETIMEDOUT, f"nft: it did not end within {_DEADLINE:g} s and was killed") from late
    if done.returncode:
        words = done.stderr.decode(errors="replace")[:2000].strip()
        raise OSError(errno.EINVAL, "nft: " + (words or process.describe_end(done.returncode)))


def print_table(family: str, name: str) -> str:
    """A table in nft's words, for what is asked seldom. Raises as `load_ruleset`."""
    program = shutil.which("nft", path=_PATH)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "the program nft is not installed", "nft")
    command = [program, "-n", "list", "table", family, name]
    done = subprocess.run(
        command, capture_output=True, timeout=_DEADLINE, check=False, cwd="/", env={"LC_ALL": "C", "PATH": _PATH}
    )
    if done.returncode:
        raise OSError(errno.EINVAL, "nft: " + done.stderr.decode(errors="replace")[:2000].strip())
    return done.stdout.decode(errors="replace")


def read_tables(tables: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Table]:
    """Those of the tables (family, name) that are there, whole. Not to be changed by who gets them."""
    wanted = list(tables)
    with NetlinkSocket(NETFILTER) as opened:
        namespace = opened.read_namespace()
        for _ in range(_PATIENCE):
            generation = _read_generation(opened)
            found = {}
            for family, name in wanted:
                known, table = _known.get((namespace, family, name), (0, None))
                found[family, name] = table if known == generation else _read_table(opened, FAMILIES[family], name)
            if _read_generation(opened) == generation:
                if namespace:
                    _known.update({(namespace, *name): (generation, table) for name, table in found.items()})
                break
    return {name: table for name, table in found.items() if table is not None}


def read_generation() -> int:
    """The generation of the kernel's rules in this network namespace: each transaction of anybody makes a new one."""
    with NetlinkSocket(NETFILTER) as opened:
        return _read_generation(opened)


def _read_generation(opened: NetlinkSocket) -> int:
    _, payload = opened.get(_GET_GENERATION, _header(0))
    return int.from_bytes(parse_attributes(payload, 4)[_GENERATION], "big")


def change_elements(changes: Iterable[ElementsChange], *, generation: int) -> bool:
    """Change elements of sets in one transaction. False, and nothing is changed, where the rules are of another generation
    by now. Raises OSError in the kernel's words; then nothing is changed either."""
    messages = [message for change in changes for message in _render_changes(change)]
    if not messages:
        return True
    try:
        with NetlinkSocket(NETFILTER) as opened:
            opened.transact(_SUBSYSTEM, messages, generation=generation)
    except OSError as error:
        if error.errno == errno.ERESTART:
            return False
        raise
    return True


def _render_changes(change: ElementsChange) -> Iterator[Change]:
    removed = [_render_element(key) for key in change.removed]
    added = [_render_element(key, _render_data(value, verdict=change.verdicts)) for key, value in change.added.items()]
    head = _header(FAMILIES[change.family]) + text(_TABLE, change.table) + text(_NAME, change.name)
    # Order: a key whose value changes is removed before it is added.
    for kind, flags, elements in ((_REMOVE_ELEMENTS, 0, removed), (_ADD_ELEMENTS, CREATE | EXCLUSIVE, added)):
        for at in range(0, len(elements), _AT_ONCE):
            body = head + nested(_ELEMENTS, *elements[at : at + _AT_ONCE])
            yield Change(kind, flags, body, f"change the set {change.name}")


def _render_element(key: bytes, data: bytes = b"") -> bytes:
    inner = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, key))
    return nested(_ELEMENT, inner + (nested(_ELEMENT_DATA, data) if data else b""))


def _render_data(value: bytes, *, verdict: bool) -> bytes:
    if not value:
        return b""
    return nested(_DATA_VERDICT, attribute(_VERDICT_CODE, value)) if verdict else attribute(_DATA_VALUE, value)


def list_tables(family: str) -> list[str]:
    """The names of all tables of a family."""
    with NetlinkSocket(NETFILTER) as opened:
        answers = opened.dump(_GET_TABLE, _header(FAMILIES[family]))
    return [_string(parse_attributes(payload, 4).get(_TABLE_NAME)) for _, payload in answers]


def list_policies(family: str, hook: int) -> list[tuple[str, str, bool]]:
    """The chains of a family that see the packets of one hook (NF_INET_*): table, chain, whether its policy is drop."""
    with NetlinkSocket(NETFILTER) as opened:
        answers = opened.dump(_GET_CHAIN, _header(FAMILIES[family]))
    found = []
    for _, payload in answers:
        chain = parse_attributes(payload, 4)
        number = parse_attributes(chain.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER)
        if number is not None and int.from_bytes(number, "big") == hook:
            drops = chain.get(_CHAIN_POLICY) == _POLICY_DROP
            found.append((_string(chain.get(_TABLE)), _string(chain.get(_CHAIN_NAME)), drops))
    return found


def read_elements(family: str, table: str, name: str) -> dict[bytes, bytes]:
    """The elements of one set or map, none where it does not exist."""
    with NetlinkSocket(NETFILTER) as opened:
        try:
            return _read_elements(opened, FAMILIES[family], table, name)
        except FileNotFoundError:
            return {}


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)


def _string(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")


def _read_table(opened: NetlinkSocket, family: int, name: str) -> Table | None:
    try:
        _, payload = opened.get(_GET_TABLE, _header(family) + text(_TABLE_NAME, name))
    except FileNotFoundError:
        return None
    flags = parse_attributes(payload, 4).get(_TABLE_FLAGS, b"\0\0\0\0")
    try:
        rules = _read_rules(opened, family, name)
        chains = {chain: Chain(shape, tuple(rules.get(chain, ()))) for chain, shape in _read_chains(opened, family, name)}
        sets = {
            item: Set(shape, _read_elements(opened, family, name, item)) for item, shape in _read_sets(opened, family, name)
        }
    except FileNotFoundError:  # Race: somebody removed it while we read.
        return None
    return Table(int.from_bytes(flags, "big"), chains, sets)


def _read_chains(opened: NetlinkSocket, family: int, table: str) -> Iterable[tuple[str, str]]:
    for _, payload in opened.dump(_GET_CHAIN, _header(family)):  # Kernel: this dump has no filter by table.
        found = parse_attributes(payload, 4)
        if _string(found.get(_TABLE)) == table:
            shape = b"|".join(found.get(kind, b"") for kind in (_CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE))
            yield _string(found[_CHAIN_NAME]), shape.hex()


def _read_rules(opened: NetlinkSocket, family: int, table: str) -> dict[str, list[Rule]]:
    rules: dict[str, list[Rule]] = {}
    for _, payload in opened.dump(_GET_RULE, _header(family) + text(_TABLE, table)):
        found = parse_attributes(payload, 4)
        if _string(found.get(_TABLE)) != table:
            continue
        userdata = found.get(_RULE_USERDATA, b"")
        digest = hashlib.sha256(found.get(_RULE_EXPRESSIONS, b"") + b"|" + userdata).hexdigest()[:16]
        rules.setdefault(_string(found[_RULE_CHAIN]), []).append(Rule(_comment(userdata), digest))
    return rules


def _comment(userdata: bytes) -> str:
    if len(userdata) > 2 and userdata[0] == _USERDATA_COMMENT:
        return _string(userdata[2 : 2 + userdata[1]])
    return ""


def _read_sets(opened: NetlinkSocket, family: int, table: str) -> Iterable[tuple[str, str]]:
    for _, payload in opened.dump(_GET_SET, _header(family) + text(_TABLE, table)):
        found = parse_attributes(payload, 4)
        if _string(found.get(_TABLE)) == table:
            yield _string(found[_SET_NAME]), b"|".join(found.get(kind, b"") for kind in _SET_SHAPE).hex()


def _read_elements(opened: NetlinkSocket, family: int, table: str, name: str) -> dict[bytes, bytes]:
    elements: dict[bytes, bytes] = {}
    for _, payload in opened.dump(_GET_ELEMENTS, _header(family) + text(_TABLE, table) + text(_NAME, name)):
        listed = parse_attributes(payload, 4).get(_ELEMENTS, b"")
        for _, element in walk_attributes(listed):
            found = parse_attributes(element)
            elements[_data(found.get(_ELEMENT_KEY))] = _data(found.get(_ELEMENT_DATA))
    return elements


def _data(data: bytes | None) -> bytes:
    if data is None:
        return b""
    found = parse_attributes(data)
    if _DATA_VERDICT in found:
        return parse_attributes(found[_DATA_VERDICT]).get(_VERDICT_CODE, b"")
    return found.get(_DATA_VALUE, b"")
