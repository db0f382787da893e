"""The plan: an ordered graph of actions, each with its reason and its field changes. Plain data; it decides nothing."""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from reconciler.model.key import Key
from reconciler.model.record import ImageFact, Stack
from reconciler.model.spec import Sensitive, Spec


class Verb(StrEnum):
    """What an action does."""

    CREATE = "create"
    UPDATE = "update"
    """In place: a running container keeps its pid."""
    RESTART = "restart"
    REPLACE = "replace"
    DELETE = "delete"


class Effect(StrEnum):
    """What a changed property means, as `x-change` in the schemas says."""

    IN_PLACE = "in-place"
    RESTART = "restart"
    REPLACE = "replace"
    REFUSE = "refuse"
    IGNORE = "ignore"


class Reason(StrEnum):
    """Why an action is in the plan. Closed: each member says when it arises."""

    NEW = "new"
    """In the manifest and not on record."""
    GONE = "gone-from-machine"
    """On record, and nothing of it is on the machine."""
    FIELD_CHANGED = "field-changed"
    """The manifest wants another value than the record has; the changes say which."""
    DEPENDENCY_REPLACED = "dependency-replaced"
    """A network that it sits on is replaced, or a volume that it has mounted is made anew."""
    DEPENDENCY_RESTARTED = "dependency-restarted"
    """It depends with `restart: true` on a container that is restarted or replaced."""
    DRIFTED = "drifted"
    """A part of it was removed or altered though no manifest changed."""
    NOT_RUNNING = "not-running"
    """It should run by its restart policy and does not."""
    JOB_FAILED = "job-failed"
    """A job that did not succeed, or was stopped, runs again."""
    UNFINISHED = "unfinished"
    """An earlier apply ended between its intent and its outcome."""
    RESUMED = "resumed"
    """Its hold was ended by `start` or `apply --resume`."""
    NOT_WANTED = "not-in-manifest"
    """On record and no longer in the manifest."""
    MOVED = "moved"
    """A volume takes over the folder of the one that it is `moved: {from: …}`."""
    REQUESTED = "requested"
    """Asked for by name: `delete`."""


class Change(Struct, frozen=True, kw_only=True):
    """One field change. `path` is a JSON pointer into the spec, or `/parts/NAME` for drift. `old` and `new` are plain
    data fit to be shown: sensitive values stand as `(sensitive)`, unknown digests as `known after pull`."""

    path: str
    old: Any
    new: Any
    effect: Effect


class Action(Struct, frozen=True, kw_only=True):
    """One operation on one resource. `after` names actions that must be done before it begins."""

    id: int
    verb: Verb
    key: Key
    after: tuple[int, ...] = ()
    reason: Reason
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    """Lines for people: what a port opens, what the writable layer discards, what is kept."""
    order: str = ""
    """A container's replace: `start-first`, or empty for stop-first."""


class Line(Struct, frozen=True, kw_only=True):
    """Something that the plan does not do and people must know: a kept volume, a hold, a tag that could not be asked."""

    key: Key
    text: str


class Base(Struct, frozen=True, kw_only=True):
    """What of a stack's recorded state the plan was made from; a saved plan is stale where it differs."""

    stack: str
    serial: int
    origin: str


class Plan(Struct, frozen=True, kw_only=True):
    """What must be done so that recorded and desired agree; no action is how "converged" is spelled."""

    stacks: tuple[str, ...]
    actions: tuple[Action, ...]
    lines: tuple[Line, ...] = ()
    specs: dict[Key, Spec] = {}
    """The completed desired spec of every key of the stacks, changed or not: what converge makes and records."""
    images: dict[Key, ImageFact] = {}
    """By image key: the pins."""
    bases: tuple[Base, ...] = ()
    phases: dict[Key, str] = {}
    """Phase and parts digest of each resource that an action names or depends on, for the test of staleness."""
    awaits: tuple[Key, ...] = ()
    """Jobs that run already and that no action starts: an apply waits until they have completed."""
    lost: tuple[Key, ...] = ()
    """Volumes on record whose folder is gone, and that this plan does not make anew: only plans of drift have them."""
    wanted: tuple[Stack, ...] = ()
    """The stacks as wanted, recorded with the revision; empty for deletes."""
    remarks: tuple[str, ...] = ()
    """Lines about whole stacks: what holds one, what ends that."""
    released: tuple[str, ...] = ()
    """Stacks that a rollback held and that follow their manifest again."""
    contents: dict[str, Sensitive] = {}
    """What was read of files, by digest: converge keeps it before anything is made of it."""

    @property
    def summary(self) -> dict[str, int]:
        """How many actions of each verb there are."""
        return {verb.value: sum(action.verb == verb for action in self.actions) for verb in Verb}
