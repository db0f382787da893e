"""The one tree of errors. Each takes facts and says: resource, what was tried, the tool's words, what to do next.

    ReconcileError                      exit  arises
    ├── Failed                          1     something outside: registry, disk, kernel, a program, a port
    │   ├── ProgramMissing
    │   ├── ProgramFailed
    │   ├── PortTaken, SubnetTaken, AddressTaken, AddressesUsedUp, NameTaken
    │   ├── RegistryError, ContentError, CannotDecrypt, PlatformMissing
    │   ├── NotRoot, RootError
    │   ├── NotFound                          a name that no record answers to
    │   ├── NotLent                           what is borrowed of another stack is not there
    │   ├── DataGone                          a recorded volume without its data
    │   ├── ConvergeFailed                    some actions failed; the others are done
    │   ├── SourceFailed                      a repository did not give what was asked of it, or what it gave is not taken
    │   ├── MachineRefused                    the kernel, where nobody expected it
    │   └── TimedOut
    ├── Refused                         3     a rule that a flag or an answer can lift
    │   ├── StalePlan, OriginDiffers, Borrowed, NotAllowed, NeedsYes, NeedsAllowDelete, RootInUse
    ├── RolledBack                      4     an apply failed, and the stack is back at its last good revision
    ├── LockTimeout                     5
    ├── Usage                           64    flags
    ├── BadManifest                     65    whatever `validate` can know; carries all problems of a file
    └── Interrupted                     130   Ctrl-C, or nobody wants it any more

Rooms that own a library map its exceptions here, once, with `raise … from`. No message contains a secret.
"""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from reconciler.model.key import RUN_STACK


class ReconcileError(Exception):
    """Base of everything that we raise for people. `brief` is one line; `hint` says what to do next."""

    exit_code = 1
    retry = False
    """Whether trying again without a change may help."""

    def __init__(self, brief: str, detail: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.detail = detail
        self.hint = hint


class Failed(ReconcileError):
    """Tried, and met something outside."""


class ProgramMissing(Failed):
    """A program that we need is not installed."""

    def __init__(self, program: str, package: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for}: the program {program} is not installed",
            hint=f"apt-get install {package}, or see `reconcile doctor`",
        )
        self.program = program


class ProgramFailed(Failed):
    """A program that we ran failed; `words` is what it said, cut to its last lines. `code` is what `run` ends with: 126 and
    127 where a container's command can't be executed or found."""

    def __init__(self, resource: str, tried: str, words: str, hint: str = "", *, code: int = 125) -> None:
        super().__init__(f"{resource}: {tried} failed", detail=words.strip(), hint=hint)
        self.code = code


class PortTaken(Failed):
    """Another process listens where a port was to be published."""

    def __init__(self, key: str, port: str, holder: str, hint: str = "") -> None:
        super().__init__(
            f"publish {port} for {key}: the port is held by {holder}",
            hint=hint or "stop it, or choose another host port",
        )


class SubnetTaken(Failed):
    """A subnet that the host routes already, or that another network of ours holds."""

    def __init__(self, key: str, subnet: str, holder: str, hint: str = "") -> None:
        super().__init__(
            f"{key}: the subnet {subnet} overlaps {holder}",
            hint=hint or "choose another subnet, or leave it out and take one of the pool",
        )


class AddressTaken(Failed):
    """An address that was asked for and can't be given: another container's, the gateway's, outside of the subnet."""

    def __init__(self, key: str, address: str, network: str, holder: str) -> None:
        super().__init__(
            f"address {address} on {network} for {key}: {holder}",
            hint="choose another ipv4, or leave it out and take the lowest free one",
        )


class AddressesUsedUp(Failed):
    """A subnet without a free address."""

    def __init__(self, key: str, network: str, subnet: str) -> None:
        super().__init__(
            f"an address on {network} for {key}: all of {subnet} are given away",
            hint="give the network a larger subnet",
        )


class NameTaken(Failed):
    """A generated name, id or MAC that another resource holds already: chance, so that the next try takes another."""

    retry = True

    def __init__(self, key: str, what: str, holder: str) -> None:
        super().__init__(f"{what} for {key}: it is held by {holder}", hint="apply again: another one is generated")


class RegistryError(Failed):
    """A registry did not give what was asked of it."""

    def __init__(self, reference: str, tried: str, words: str, hint: str = "", *, retry: bool = False) -> None:
        super().__init__(f"{reference}: {tried}: {words}", hint=hint)
        self.retry = retry


class ContentError(Failed):
    """Content is not what its digest, its size or its form promised; nothing of it was kept."""

    def __init__(self, what: str, expected: str, found: str, hint: str = "") -> None:
        super().__init__(f"{what}: expected {expected}, found {found}; nothing of it was kept", hint=hint)


class CannotDecrypt(Failed):
    """An encrypted file that no key of this root opens, or that is damaged; nothing of it was taken."""


class SourceFailed(Failed):
    """A repository did not give what was asked of it, or what it gave is not taken; what runs stays as it is."""

    def __init__(self, url: str, words: str, hint: str = "", *, retry: bool = False) -> None:
        super().__init__(f"{url}: {words}", hint=hint)
        self.retry = retry


class PlatformMissing(Failed):
    """An index has no image for this machine."""

    def __init__(self, reference: str, platform: str, there: Sequence[str]) -> None:
        super().__init__(
            f"{reference}: no image for {platform}",
            detail="it has " + (", ".join(there) or "none"),
            hint="choose another tag, or an image built for this platform",
        )


class NotRoot(Failed):
    """The command needs root."""

    def __init__(self, tried: str) -> None:
        super().__init__(f"{tried}: this needs root", hint="run it with sudo")


class RootError(Failed):
    """The root can't be used as it is: copied, without its database, of a newer version, corrupt, read-only."""


class NotFound(Failed):
    """A name that nothing on record answers to. Suggested is the nearest of those `known`, or the one that is `meant`."""

    def __init__(self, what: str, name: str, known: Iterable[str] = (), *, meant: str = "") -> None:
        import difflib  # 5 ms that only an error needs

        near = [meant] if meant else difflib.get_close_matches(name, sorted(known), 1)
        hint = f"did you mean {near[0]}?" if near else "`reconcile get` lists what there is"
        super().__init__(f"no {what} named {name}", hint=hint)


class NotLent(Failed):
    """Networks or volumes of other stacks that can't be borrowed; nothing was changed."""

    def __init__(self, problems: Sequence[str], hints: Sequence[str]) -> None:
        super().__init__(problems[0], detail="\n".join(problems[1:]), hint="\n".join(hints))


class DataGone(Failed):
    """A volume is on record and its folder is not there: it is not made anew, empty, by itself."""

    def __init__(self, key: str, volume_id: str) -> None:
        super().__init__(
            f"{key}: its data is gone (volumes/{volume_id} of the root)",
            hint="mount or put back what holds it; `reconcile boot --accept-data-loss " + key + "` makes it anew, empty",
        )


class ConvergeFailed(Failed):
    """Some actions failed. What they said was told as events already; `causes` are the errors themselves."""

    def __init__(self, failed: Sequence[str], done: int, skipped: int, *, causes: Sequence["ReconcileError"] = ()) -> None:
        names = ", ".join(failed)
        super().__init__(
            f"{len(failed)} failed ({names}), {done} done, {skipped} not begun",
            hint="mend the cause and apply again: what is done stays done",
        )
        self.causes = tuple(causes)


class TimedOut(Failed):
    """Something did not happen in time."""

    retry = True


class MachineRefused(Failed):
    """The kernel refused what nobody expected it to: a disk that fails, no memory, no descriptors, no threads. `tried` may
    be empty."""

    def __init__(self, tried: str, refusal: OSError) -> None:
        full = "free some space first; " if refusal.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        super().__init__(
            f"{tried}{': ' if tried else ''}the machine refused: {words_of(refusal)}",
            hint=f"{full}what was begun is taken up by the next apply; RECONCILE_DEBUG=1 shows where it was",
        )


def words_of(refusal: Exception) -> str:
    """What the kernel said and of which path, without Python's number before it; of another error its text."""
    if not isinstance(refusal, OSError) or not refusal.strerror:
        return str(refusal)
    return refusal.strerror + (f": {refusal.filename}" if refusal.filename else "")


def find_refusal(error: BaseException) -> OSError | None:
    """What the kernel refused, where an exception means that; None for a mistake of ours."""
    if isinstance(error, OSError):
        return error if error.errno is not None else None
    if isinstance(error, MemoryError):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if isinstance(error, SystemError) and "without" in str(error):  # C code that gave no reason: for want of memory.
        return OSError(errno.ENOMEM, f"Python failed for want of memory, as it seems ({error})")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):  # Python has no better sign of it.
        return OSError(errno.EAGAIN, "no more threads can be started")
    return None


class Refused(ReconcileError):
    """A rule says no; a flag or an answer can lift it."""

    exit_code = 3


class StalePlan(Refused):
    """A saved plan no longer fits what is recorded or seen."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: the plan is stale: {why}", hint="make it anew with `reconcile plan --out`")


class OriginDiffers(Refused):
    """A stack is owned by another manifest, or by a source of the controller; `gone`: the owner's file is not there now."""

    def __init__(self, stack: str, recorded: str, found: str, *, gone: bool = False) -> None:
        source = recorded.removeprefix("source:")
        if source != recorded:
            way = f"change it in the source {source}, which would undo what is done here"
        elif gone:
            way = "if the manifest was moved here, that is meant: give --take-over once"
        else:
            way = "rename one of the two (`name:`)"
        super().__init__(
            f"stack {stack} belongs to {recorded}, not to {found}",
            detail="that file is not there any more" if gone else "",
            hint=way if gone and source == recorded else f"{way}, or take it over with --take-over",
        )


class Borrowed(Refused):
    """A network or volume that containers of other stacks use, and that is to go or to be made anew."""

    def __init__(self, key: str, done: str, borrowers: Sequence[str]) -> None:
        parts = [borrower.split("/") for borrower in borrowers]
        stacks = sorted({stack for _, stack, *_ in parts if stack != RUN_STACK})
        # What `reconcile run` made is in no manifest.
        by_hand = sorted({f"{RUN_STACK}/{name}" for _, stack, name, *_ in parts if stack == RUN_STACK})
        way = f"delete {_and([*by_hand, *stacks])} first"
        if stacks and done == "replaced" and not by_hand:
            others = _and(f"that of {stack}" for stack in stacks)
            way = f"apply its manifest and {others} in one command: their containers are replaced with it"
        elif stacks:
            way += f", or take it out of {_and(f'the manifest of {stack}' for stack in stacks)} and apply"
        super().__init__(f"{key} can't be {done}: it is borrowed by {_and(borrowers)}", hint=way)


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


class NeedsYes(Refused):
    """A plan that needs a yes, and nobody to ask."""

    def __init__(self, tried: str, why: str, detail: str = "") -> None:
        super().__init__(f"{tried}: {why}", detail, "look at the plan, then give --yes")


class NeedsAllowDelete(Refused):
    """A plan that deletes more than half of what runs."""

    def __init__(self, stack: str, deleted: int, running: int) -> None:
        super().__init__(
            f"stack {stack}: the plan deletes {deleted} of {running} running containers",
            hint="if that is meant, give --allow-delete",
        )


class NotAllowed(Refused):
    """What a source's stack asks for and may not have."""

    def __init__(self, key: str, words: str) -> None:
        super().__init__(f"{key}: {words}", hint="what a source may ask for is its operator's to say: docs/gitops.md")


class RootInUse(Refused):
    """A database would be made where there is one."""

    def __init__(self, path: str, tried: str, hint: str) -> None:
        super().__init__(f"{tried}: {path} has a database: nothing was changed", hint=hint)


class RolledBack(ReconcileError):
    """An apply failed, and its stacks were taken back to where they were good."""

    exit_code = 4

    def __init__(self, back: Mapping[str, int], failed: ReconcileError) -> None:
        names = ", ".join(f"stack {stack} is back at revision {number}" for stack, number in sorted(back.items()))
        detail = f"{failed.brief}\n{failed.detail}".strip()
        super().__init__(f"{names}: the apply failed", detail, "mend the cause and apply again")
        self.back = dict(back)
        self.failed = failed


class LockTimeout(ReconcileError):
    """A lock was not had in time."""

    exit_code = 5
    retry = True

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(f"{what} is locked by {holder}", hint="wait for it, or give a longer --lock-timeout")


class Interrupted(ReconcileError):
    """Whoever asked wants it no more; what had begun was finished or taken back."""

    exit_code = 130


class Usage(ReconcileError):
    """A flag or argument that does not fit, or is not built yet."""

    exit_code = 64


class Problem(Struct, frozen=True, kw_only=True):
    """One thing wrong with a manifest. Line and column count from 1; 0 where there is no place."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    """`containers.web.memry`"""
    text: str
    """What was found and what was expected."""
    hint: str = ""
    source: str = ""
    """The line of text, for the caret."""


class BadManifest(ReconcileError):
    """All problems of one or more files."""

    exit_code = 65

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        files = sorted({problem.file for problem in problems})
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__(f"{', '.join(files)}: {count}", detail="\n".join(map(render_problem, problems)))


def render_problem(problem: Problem) -> str:
    """A problem as people read it: place, path, text, the line with a caret, the hint."""
    place = problem.file + (f":{problem.line}:{problem.column}" if problem.line else "")
    out = f"{place} {problem.path + ': ' if problem.path else ''}{problem.text}"
    if problem.source:
        indent = " " * (len(f"{problem.line}") + 1)
        caret = "".join("\t" if c == "\t" else " " for c in problem.source[: problem.column - 1])
        out += f"\n{problem.line} | {problem.source}\n{indent}| {caret}^"
    return out + (f"\n  hint: {problem.hint}" if problem.hint else "")
