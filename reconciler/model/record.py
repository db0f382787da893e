"""Records: what was wanted of each resource and what it was given, as stored; and the desired side of a diff.

`Desired` is what `resolve` hands to the planner; `Record` what the store hands to it; `Made` is the view of a record that
drivers and settle get. None of these holds anything observed but `Record.status`, the last outcome a driver reported.
"""

from typing import Any

from msgspec import Struct

from reconciler.model.key import Key
from reconciler.model.spec import Healthcheck, Sensitive, Spec

UNKNOWN = "unknown"
"""A digest that can't be known before the pull; planned as `known after pull`."""


DONE = "done"
"""The result of a revision that was reached."""
SOURCE = "source:"
"""What the origin of a stack begins with that a source of the controller owns."""
GOING_BACK = "rollback to "
"""How the source of a revision begins that a going back made, and no manifest; the number of where it went follows."""


class ImageFact(Struct, frozen=True, kw_only=True):
    """What `resolve` found out about one image. `digest` is that of the platform's manifest, or UNKNOWN."""

    digest: str
    local: bool = False
    """Whether its content is already in the root."""
    volumes: tuple[str, ...] = ()
    """The config's VOLUME paths, sorted."""
    healthcheck: Healthcheck | None = None
    warning: str = ""
    """Why the digest is UNKNOWN, or that a tag could not be asked for."""


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a config or secret comes from: exactly one of `file` and `value`."""

    file: str = ""
    """Absolute path."""
    value: Sensitive | None = None
    """What the manifest itself says, or the value of a variable."""
    form: str = ""
    """What is in the file: `age` or `sops` where it is encrypted, empty where it is the content itself."""
    select: str = ""
    """Of a SOPS file: the path of the value in it."""
    guessable: bool = False
    """Whether its plain digest would tell what a variable holds, so that it gets a keyed one."""
    path: str = ""
    """Where the manifest names it: `configs.app.file`."""


class Lock(Struct, frozen=True, kw_only=True):
    """A manifest's lock file: what its tags named when they were locked."""

    file: str
    """What a person calls it."""
    digests: dict[str, str]
    """Canonical reference with a tag to the digest of what that named: an index, or the image's own manifest."""


class Commit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The commit that a version of a stack is of. All but the id is what its author wrote."""

    id: str
    """In full."""
    subject: str = ""
    author: str = ""
    at: float = 0.0
    """When it was committed, as it says; seconds since the epoch."""
    url: str = ""
    ref: str = ""
    """The branch or tag that it was taken from, in full."""


class Stack(Struct, frozen=True, kw_only=True):
    """One manifest made canonical: the result of `manifest/`; once `resolve` was asked, also what a revision keeps."""

    name: str
    origin: str
    """`name:…`, `git:URL:PATH`, `file:REALPATH`, `file:USER@MACHINE:REALPATH`, `stdin` or `source:NAME`."""
    source: str
    """What a person calls it: the manifest's path as given."""
    former: str = ""
    """`file:REALPATH` where the origin is a repository: its origin while that had no remote."""
    specs: dict[Key, Spec]
    sources: dict[Key, Source] | None = None
    """What `resolve` has to read, by the key of the config or secret. None: it was read (a recorded revision), the specs
    hold all digests and values, and no file is looked at again: no config, no env file, no bound file."""
    lock: Lock | None = None
    """Its lock file, where it has one: the references of `specs` are pinned by it."""
    commit: Commit | None = None
    """Where it is of a git source."""


class Desired(Struct, frozen=True, kw_only=True):
    """Stacks and the facts about them, frozen: one input of the plan."""

    stacks: tuple[Stack, ...]
    images: dict[Key, ImageFact]
    """By image key, for every image key of the stacks."""
    contents: dict[str, Sensitive] = {}
    """What was read of files, by digest (`model/content.py`)."""
    live: dict[Key, tuple[str, ...]] = {}
    """By container: lines about files beside the manifest that are mounted as they are, and why."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """A container's place on one bridge: granted, unique in the root."""

    address: str
    mac: str
    link: str
    """Name of the veth's end on the host."""


class Grants(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The scarce things that a resource holds. Which fields are filled follows from its kind."""

    link: str = ""
    """Network: the bridge's name."""
    subnet: str = ""
    gateway: str = ""
    volume_id: str = ""
    """Volume: the generated id that is its folder's name."""
    endpoints: dict[str, Endpoint] = {}
    """Container: by network name in its stack, bridges only."""


class Hold(Struct, frozen=True, kw_only=True):
    """A wish made by hand that outlives applies: of a container, or (a rollback) of a whole stack."""

    kind: str
    """stop | pause | rollback"""
    who: str
    when: float
    """Seconds since the epoch."""
    why: str = ""


class Record(Struct, frozen=True, kw_only=True):
    """One resource as stored."""

    key: Key
    spec: Spec
    image: str = ""
    """Containers and images: the digest that this record was made with."""
    grants: Grants = Grants()
    incarnation: str = ""
    """Containers: 12 hex digits."""
    hold: Hold | None = None
    status: dict[str, Any] = {}
    """The last outcome, as `Status` in builtins; never read for decisions but `phase` and what a container was given."""
    serial: int = 0
    """The root's serial when this record last changed."""
    created_at: float = 0.0
    unfinished: str = ""
    """The verb of an intent that nobody finished, if there is one."""


class StackRecord(Struct, frozen=True, kw_only=True):
    """A stack as stored."""

    name: str
    origin: str
    source: str = ""
    serial: int = 0
    """Grows with every change of the stack's records; a saved plan is stale when it differs."""
    revision: int = 0
    hold: Hold | None = None
    """A rollback made by hand: applies of what was wanted before leave the stack at it."""


class Made(Struct, frozen=True, kw_only=True):
    """A record as drivers see it: what to make or what was made. Holds all that a driver may know of a resource."""

    key: Key
    spec: Spec
    image: str = ""
    grants: Grants = Grants()
    incarnation: str = ""
    held: bool = False
    """A stop or a pause holds it: it is not started."""
    paused: bool = False
    """What holds it is a pause: what runs of it stays frozen, its ports and names stay."""
    created_at: float = 0.0

    @property
    def away(self) -> bool:
        """Whether it has neither open ports nor names: a stop does that, a pause does not."""
        return self.held and not self.paused


def record_of(made: Made) -> Record:
    """What is on record of it once it is there."""
    return Record(
        key=made.key,
        spec=made.spec,
        image=made.image,
        grants=made.grants,
        incarnation=made.incarnation,
        created_at=made.created_at,
    )


class View(Struct, frozen=True, kw_only=True):
    """All records with every open intent laid over them: what settle renders and observe compares with.

    Two `Made` of one container key stand here while it is being replaced.
    """

    made: tuple[Made, ...] = ()
    pending: tuple[Key, ...] = ()
    """Networks that are on their way: their policy is loaded already, their names only once the bridge has its address."""
    nameless: tuple[str, ...] = ()
    """Incarnations that nobody finds by a name: of two that run side by side the one that is not seen yet, then the one
    that is to go."""


class ApplyId(Struct, frozen=True, kw_only=True):
    """Which process does or did this: written into intents and marks, so that others can tell whether it still lives."""

    pid: int
    start_time: int
    """Field 22 of /proc/PID/stat, clock ticks since boot."""
    boot_id: str


class Intent(Struct, frozen=True, kw_only=True):
    """A row of the journal: what an action is about to do, from before its first change until its outcome is recorded.

    `create` has only `new`, `delete` only `old`; `update` and `restart` have both with one incarnation, `replace` both
    with two.
    """

    id: int = 0
    """Given by the store."""
    key: Key
    stack: str
    verb: str
    apply: ApplyId
    begun_at: float
    old: Made | None = None
    new: Made | None = None
    stage: str = ""
    """A container's replace: `start-first` while the old one runs beside the new one, `moved` from when the new one was
    seen, is on record and has the names. Empty: the old one stops before the new one starts."""
