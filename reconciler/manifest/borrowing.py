"""Networks and volumes with `from: STACK` -> the names by which container specs say whose they are. A step of `desire.py`.

What is borrowed has no spec of its own: it is its owner's, and nothing of it may be set here.
"""

from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Fault
from reconciler.model.key import Kind, named_key

_KINDS = {"networks": Kind.NETWORK, "volumes": Kind.VOLUME}


def is_borrowed(written: dict[str, Any] | None) -> bool:
    """Whether a network or volume is another stack's."""
    return bool(written) and "from" in (written or {})


def borrow(draft: Draft, section: str, name: str, written: dict[str, Any]) -> None:
    """Note what a name of this manifest means in another stack: `proxy` with `from: edge` is `edge/proxy`."""
    kind = _KINDS[section].value
    owner, slash, other = written["from"].partition("/")
    if owner == draft.name:
        hint = f"leave `from` out: it is this stack's own {kind}"
        draft.blame((section, name, "from"), f"the stack {owner} can't borrow of itself", hint)
    for word in written:
        if word != "from":
            text = f"a borrowed {kind} has no {word} of its own: it is as the stack {owner} says"
            draft.blame((section, name, word), text, "leave it out", at_key=True)
    draft.borrowed[section, name] = f"{owner}/{other if slash else name}"


def blame_borrowing(drafts: list[Draft]) -> None:
    """What is borrowed of a stack of the same command must be there, and be its own."""
    by_name = {draft.name: draft for draft in drafts}
    for draft in drafts:
        for (section, name), full in draft.borrowed.items():
            owner, _, other = full.partition("/")
            lender = by_name.get(owner)
            if lender is None or lender is draft or named_key(_KINDS[section], owner, other) in lender.specs:
                continue
            kind, path = _KINDS[section].value, (section, name, "from")
            if (section, other) in lender.borrowed:
                text, hint = f"{owner} borrows the {kind} {other} itself", f"from: {lender.borrowed[section, other]}"
            else:
                text = f"the stack {owner} has no {kind} named {other}"
                hint = lender.near(other, lender.names(section)) or f"declare it there: {section}: {{{other}: {{}}}}"
            if other not in lender.names(section) or (section, other) in lender.borrowed:
                draft.faults.append(Fault(path, text, hint))
