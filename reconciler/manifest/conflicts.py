"""What can't be true together, in a stack or between the stacks of one command -> faults. The last step of `desire.py`.

Unknown and circular dependencies, names that stand for each other, one port or address or subnet twice.
"""

from collections import defaultdict
from collections.abc import Sequence

from reconciler.manifest.draft import Draft, PortClaim
from reconciler.manifest.faults import Fault, Path
from reconciler.manifest.ports import ANY


def blame_names(draft: Draft) -> None:
    """`web-2` is another way to say `web/2`: a container can't have that name beside `web`."""
    names = set(draft.names("containers"))
    for name in sorted(names):
        base, _, number = name.rpartition("-")
        if base in names and number.isascii() and number.isdigit():
            text = f"{name} is another way to say {base}/{number}, a replica of {base}"
            draft.blame(("containers", name), text, "choose another name", at_key=True)


def blame_dependencies(draft: Draft) -> None:
    """Containers that must come after one that is not there, after themselves, or after one without a health check."""
    names = draft.names("containers")
    known = set(names)
    for name, spec in draft.containers.items():
        # A list has its own places; faults of a map are at the key.
        written = draft.section("containers")[name].get("depends_on")
        for other, asked in spec.depends_on.items():
            where = written.index(other) if isinstance(written, list) else other
            path = ("containers", name, "depends_on", where)
            at_key = not isinstance(written, list)
            if other not in known:
                draft.blame(path, f"no container named {other}", draft.near(other, names), at_key=at_key)
            elif asked.condition == "completed" and not _is_job(draft, other):
                draft.blame(
                    path, f"{other} is no job: it never completes", "wait for healthy, or make it a job", at_key=at_key
                )
            elif asked.condition == "healthy" and _is_job(draft, other):
                draft.blame(path, f"{other} is a job: it ends", "wait for completed", at_key=at_key)
            elif asked.condition == "healthy" and _has_no_check(draft, other):
                draft.blame(
                    path, f"{other} has its health check switched off", "give it one, or wait for started", at_key=at_key
                )
    _blame_cycle(draft)


def _is_job(draft: Draft, name: str) -> bool:
    spec = draft.containers.get(name)
    return spec is not None and spec.job


def _has_no_check(draft: Draft, name: str) -> bool:
    spec = draft.containers.get(name)
    return spec is not None and spec.healthcheck is not None and spec.healthcheck.test == ("NONE",)


def _blame_cycle(draft: Draft) -> None:
    """A circle of dependencies, shown as the way around it from its first name."""
    after = {name: list(spec.depends_on) for name, spec in draft.containers.items() if spec.depends_on}
    if not after:
        return
    # Imported here: a stack without dependencies does not pay for it.
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        circle = error.args[1][:0:-1]
        turn = circle.index(min(circle))
        way = [*circle[turn:], *circle[: turn + 1]]
        path = ("containers", way[0], "depends_on")
        draft.blame(path, f"the dependencies go in a circle: {' → '.join(way)}", "take one of them out", at_key=True)


def blame_addresses(draft: Draft) -> None:
    """One fixed address for two containers of a network."""
    holders: dict[tuple[str, str], str] = {}
    for name, spec in draft.containers.items():
        for network, attachment in spec.networks.items():
            if not attachment.ipv4:
                continue
            holder = holders.setdefault((network, attachment.ipv4), name)
            if holder != name:
                written = next((local for (_, local), full in draft.borrowed.items() if full == network), network)
                path = ("containers", name, "networks", written, "ipv4")
                draft.blame(path, f"{attachment.ipv4} is {holder}'s already", "choose another address of the subnet")


def blame_between(drafts: Sequence[Draft]) -> None:
    """Host ports and subnets that two containers or networks of the same command want."""
    _blame_ports(drafts)
    _blame_subnets(drafts)


def _blame_ports(drafts: Sequence[Draft]) -> None:
    taken: dict[tuple[int, str], dict[str, tuple[Draft, PortClaim]]] = defaultdict(dict)
    for draft in drafts:
        blamed: set[Path] = set()
        for claim in draft.ports:
            hosts = taken[claim.port, claim.protocol]
            # All addresses of the machine meet each one of them.
            first = next(iter(hosts.values()), None) if claim.host == ANY else None
            found = hosts.get(claim.host) or hosts.get(ANY) or first
            if found and claim.path not in blamed:
                blamed.add(claim.path)
                draft.faults.append(_port_fault(claim, *found, draft=draft))
            hosts.setdefault(claim.host, (draft, claim))


def _port_fault(claim: PortClaim, other_draft: Draft, other: PortClaim, *, draft: Draft) -> Fault:
    whose = other.container if other_draft is draft else f"{other_draft.name}/{other.container}"
    text = f"the host port {claim.host}:{claim.port}/{claim.protocol} is {whose}'s already"
    text += f" ({other.host}:{other.port})" if other.host != claim.host else ""
    return Fault(claim.path, text, "choose another port of the host")


def _blame_subnets(drafts: Sequence[Draft]) -> None:
    """Order: by first address, so that each subnet need only be compared with the widest one before it."""
    claims = sorted(
        ((claim, draft) for draft in drafts for claim in draft.subnets), key=lambda pair: (pair[0].first, -pair[0].last)
    )
    widest: tuple[int, str] = (-1, "")
    for claim, draft in claims:
        if claim.first <= widest[0]:
            text = f"{claim.text} overlaps {widest[1]}"
            draft.faults.append(Fault(claim.path, text, "choose a subnet that no other network has"))
        if claim.last > widest[0]:
            widest = (claim.last, f"{claim.text} of {'/'.join(filter(None, (draft.name, claim.network)))}")


def blame_same_names(drafts: Sequence[Draft]) -> None:
    """Two manifests of one command that name the same stack: a fault of the second."""
    seen: set[str] = set()
    for draft in drafts:
        if draft.name in seen:
            draft.blame(
                ("name",), f"another manifest of this command is the stack {draft.name} too", "rename one of the two"
            )
        seen.add(draft.name)
