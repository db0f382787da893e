"""Plans of sources that wait until a person approves them: `ROOT/approvals`, two files a stack, 0600.

The controller puts them there (`controller/approvals.py`), `reconcile approve` carries one out: the very plan that was
shown, or none. No plan is made here.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from reconciler.linux import files
from reconciler.model.errors import LockTimeout, NeedsYes, NotFound, ReconcileError, RootError, StalePlan
from reconciler.model.events import Note, silent
from reconciler.model.plan import Plan
from reconciler.plan.stale import check_fresh
from reconciler.verbs.apply import Applied, ApplyOptions, apply_saved
from reconciler.verbs.audit import acting_as, read_actor
from reconciler.verbs.face import Face
from reconciler.verbs.look import look
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root
from reconciler.verbs.saved import read_plan, write_plan

FOLDER = "approvals"
"""Below the root."""


class Waiting(Struct, frozen=True, kw_only=True):
    """A version of a stack that waits."""

    stack: str
    source: str
    token: str
    """Of the version, as its source gives it."""
    since: float
    summary: dict[str, int]
    """How many actions of each verb the plan has."""
    take_over: bool = False
    """Whether a person applied this very manifest before it was a source's."""

    @property
    def words(self) -> str:
        """What waits, in one line: `3 actions (2 create, 1 replace)`."""
        count = sum(self.summary.values())
        each = ", ".join(f"{number} {verb}" for verb, number in self.summary.items() if number)
        return f"{count} action{'s' if count != 1 else ''} ({each})"


def _path(root: Root, stack: str, suffix: str) -> Path:
    """A file of a stack. It is named by a digest: no path is built from a name."""
    return root.path / FOLDER / f"{hashlib.sha256(stack.encode()).hexdigest()[:32]}.{suffix}"


def put_waiting(root: Root, plan: Plan, *, stack: str, source: str, token: str, take_over: bool = False) -> Waiting:
    """Keep a plan until it is approved, in place of an earlier one of its stack. Raises RootError."""
    before = next((one for one in read_waiting(root) if one.stack == stack and one.token == token), None)
    since = before.since if before is not None else time.time()
    waiting = Waiting(stack=stack, source=source, token=token, since=since, summary=plan.summary, take_over=take_over)
    try:
        files.make_folders(root.path / FOLDER)
        # Order: the plan first: what is listed can be read.
        write_plan(root, plan, _path(root, stack, "plan"))
        files.write_atomic(_path(root, stack, "json"), msgspec.json.encode(waiting))
    except OSError as error:
        text = f"stack {stack}: the plan that waits for approval can't be kept: {error.strerror}"
        raise RootError(text, hint="free some space") from error
    return waiting


def drop_waiting(root: Root, stack: str) -> None:
    """Nothing of a stack waits any more."""
    for suffix in ("json", "plan"):
        _path(root, stack, suffix).unlink(missing_ok=True)


def read_waiting(root: Root) -> tuple[Waiting, ...]:
    """All that waits, by stack. What can't be read is left out: the controller makes it anew."""
    found = []
    for path in (root.path / FOLDER).glob("*.json"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Waiting))
        except (OSError, msgspec.MsgspecError):
            continue
    return tuple(sorted(found, key=lambda one: one.stack))


def choose_waiting(root: Root, source: str, stack: str = "") -> tuple[Waiting, ...]:
    """What of a source waits, or its one stack. Raises NotFound."""
    everything = read_waiting(root)
    of_source = [one for one in everything if one.source == source]
    if not of_source:
        error = NotFound("source with something that waits for approval", source, {one.source for one in everything})
        error.hint = error.hint if everything else "nothing waits; `reconcile status` says what sources want"
        raise error
    found = tuple(one for one in of_source if stack in ("", one.stack))
    if not found:
        raise NotFound(f"stack of {source} that waits for approval", stack, {one.stack for one in of_source})
    return found


def approve(root: Root, waiting: Waiting, options: ApplyOptions, *, face: Face) -> Applied:
    """Show the plan, ask, and carry it out in the name of its source and of who approves. Raises StalePlan for one that
    does not fit any more: the controller makes another; NeedsYes where the answer is no; and what an apply raises."""
    name = f"stack {waiting.stack} of {waiting.source}"
    plan = read_plan(root, _path(root, waiting.stack, "plan"), name=name)
    looked = look(root, stacks=[waiting.stack])
    try:
        check_fresh(plan, stacks=looked.stacks, records=looked.records, observation=looked.observation, path=name)
    except StalePlan as error:
        raise _drop_stale(root, waiting, name, error) from None
    face.show(plan)
    if not options.yes:
        _ask(waiting, face)
    approver = read_actor()
    try:
        with Recorder(root, face.emit, [waiting.stack]) as told:
            told(Note(text=f"{approver.name} approved {waiting.words} of {name}"))
        how = structs.replace(options, yes=True, sourced=True)
        asked = f"serve {waiting.source}, approved by {approver.name}"
        commit = next((stack.commit.id for stack in plan.wanted if stack.commit is not None), "")
        with acting_as(asked, uid=approver.uid, pid=approver.pid, source=waiting.source, commit=commit):
            applied = apply_saved(root, plan, name, how, take_over=waiting.take_over, face=Face(emit=face.emit))
    except StalePlan as error:
        raise _drop_stale(root, waiting, name, error) from None
    except (NeedsYes, LockTimeout):
        raise
    except BaseException:
        drop_waiting(root, waiting.stack)  # What is left of it, if it is to be tried again, waits anew.
        raise
    drop_waiting(root, waiting.stack)
    return applied


def _drop_stale(root: Root, waiting: Waiting, name: str, error: StalePlan) -> StalePlan:
    drop_waiting(root, waiting.stack)
    # Who asked is told by the error, also where it can't be recorded.
    with suppress(ReconcileError), Recorder(root, silent, [waiting.stack]) as told:
        text = f"{read_actor().name} approved {waiting.words} of {name}, which was refused: the plan is stale"
        told(Note(text=text, level="warning"))
    error.hint = "the controller plans it anew: look at `reconcile status`, then approve that"
    return error


def _ask(waiting: Waiting, face: Face) -> None:
    answer = face.confirm(f"of {waiting.source} waits for your approval")
    if answer is None:
        raise NeedsYes("approve", "nobody can be asked")
    if not answer:
        raise NeedsYes("approve", "not approved; nothing was changed")
