"""What may be asked of a root: one struct a call, whoever answers it (this process, or a controller over its socket).

The one list of the API: routes, client and OpenAPI document are made of it. Imports nothing that is slow to import.
"""

from typing import Any

from msgspec import Struct

from reconciler.api.sessions import Ask as Ask
from reconciler.api.sessions import Attach, CopyIn, CopyOut, Look, Run
from reconciler.api.sessions import Exec as Exec
from reconciler.model.sent import Sent


class Manifests(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Manifests as whoever asks calls them: by their paths on the machine of the root, or with all that is to be read."""

    paths: tuple[str, ...]
    """Files, folders, or `-` for `stdin`."""
    folder: str = "/"
    """What relative paths begin at: absolute."""
    variables: dict[str, str] = {}
    """Of `--var`."""
    environment: dict[str, str] = {}
    """Variables that `${NAME}` may mean where `variables` lack it: those that the manifests name, and no others."""
    stdin: str | None = None
    files: dict[str, Sent] | None = None
    """By absolute path all that is read, manifests and what they name, in place of files of the machine of the root.
    null: its own files, which only root may name; for others the same as none."""
    sender: str = ""
    """`ann@laptop` where `files` are of another machine; empty: of this one."""
    origins: dict[str, tuple[str, ...]] = {}
    """By absolute path of a manifest in `files`: `file:REALPATH`, in a repository `git:URL:PATH` before it; without any
    `file:` and its path."""


class Version(Ask, frozen=True, kw_only=True):
    """Which version answers."""


class Get(Ask, frozen=True, kw_only=True):
    """Resources with their state, in the order of kinds, stacks and names."""

    kind: str = ""
    """image | network | volume | config | secret | container; empty for all."""
    name: str = ""
    """A name, STACK/NAME, a key, or a stack."""
    measure: bool = False
    """Walk volumes for their sizes."""


class Describe(Ask, frozen=True, kw_only=True):
    """Everything known of the resources that a name means."""

    name: str
    kind: str = ""


class Status(Ask, frozen=True, kw_only=True):
    """How each stack is, and what is wrong."""

    stack: str = ""


class Drift(Ask, frozen=True, kw_only=True):
    """What was changed on the machine though no manifest changed."""

    stack: str = ""


class Plan(Ask, frozen=True, kw_only=True):
    """What apply would do, and why. Changes nothing."""

    manifests: Manifests
    offline: bool = False
    """Ask no registry."""
    resume: bool = False
    """Plan as if holds ended."""
    prune: bool = True
    """Delete what left the manifest."""
    take_over: bool = False
    """Plan a stack that another manifest owns."""
    accept_data_loss: tuple[str, ...] = ()
    why: str = ""
    """A resource, to be told why it is in the plan or is not."""
    save: bool = False
    """Give the plan as a file for `apply` too; sensitive values in it are sealed with the root's key."""


class Agreed(Ask, frozen=True, kw_only=True):
    """What calls share that may need a yes."""

    yes: bool = False
    """Ask nothing."""
    asks: bool = False
    """Whether somebody can be asked: the call then ends with a problem that holds the question and its token."""
    agreed: str = ""
    """The token of a question that was answered with yes; `no` for a no."""
    lock_timeout: float = 30.0
    """Seconds to wait for another command."""


class Converging(Agreed, frozen=True, kw_only=True):
    """What `apply` and `rollback` share."""

    offline: bool = False
    """Ask no registry."""
    accept_data_loss: tuple[str, ...] = ()
    allow_delete: bool = False
    """Let the plan delete more than half of what runs."""
    wait: bool = True
    """Wait until containers are seen running."""
    timeout: float = 300.0
    """Seconds that one container may take for that."""
    keep: int = 20
    """How many revisions of each stack stay."""


class Apply(Converging, frozen=True, kw_only=True):
    """Make the machine agree with manifests, or with the one saved plan that `manifests` names."""

    manifests: Manifests
    resume: bool = False
    """End the holds of the stacks."""
    prune: bool = True
    """Delete what left the manifest."""
    take_over: bool = False
    """Take a stack over from the manifest that owns it."""


class Lock(Ask, frozen=True, kw_only=True):
    """What each tag of manifests names now, for their lock files: an item a tag. Who asks writes them."""

    manifests: Manifests
    update: str = ""
    """Ask anew for what is locked: of one image, or `*` for all."""


class Rollback(Converging, frozen=True, kw_only=True):
    """Take a stack back to one of its revisions, and hold it there."""

    stack: str
    revision: int = 0
    """0: the last good one before this."""
    dry_run: bool = False
    """Only the plan."""
    note: str = ""
    """Why, for whoever finds the stack held."""


class Delete(Agreed, frozen=True, kw_only=True):
    """Delete a stack, the stack of a manifest, or one resource. Volumes stay unless they are named."""

    what: str
    manifests: Manifests
    """Where `what` may be a path: what is read then."""
    volumes: tuple[str, ...] = ()
    all_volumes: bool = False
    take_over: bool = False


class Waiting(Ask, frozen=True, kw_only=True):
    """What a source waits with until it is approved: a stack an item."""

    source: str
    stack: str = ""
    """Only this one."""


class Approve(Agreed, frozen=True, kw_only=True):
    """Carry out the plan that a stack of a source waits with."""

    source: str
    stack: str
    wait: bool = True
    """Wait until containers are seen running."""
    timeout: float = 300.0
    """Seconds that one container may take for that."""


class Boot(Ask, frozen=True, kw_only=True):
    """Bring everything back after a reboot, as recorded; what runs is left alone."""

    wait: bool = True
    timeout: float = 300.0
    accept_data_loss: tuple[str, ...] = ()
    """Volumes that may be made anew, empty."""
    lock_timeout: float = 30.0


class Export(Ask, frozen=True, kw_only=True):
    """A manifest of what is recorded of a stack, or of one container `run/NAME`."""

    what: str


class History(Ask, frozen=True, kw_only=True):
    """The kept revisions of a stack, oldest first."""

    stack: str


class Difference(Ask, frozen=True, kw_only=True):
    """What differs from one revision of a stack to another."""

    stack: str
    old: int
    new: int


class Forget(Ask, frozen=True, kw_only=True):
    """Drop all but the newest revisions of a stack."""

    stack: str
    keep: int


class Events(Ask, frozen=True, kw_only=True):
    """What happened, oldest first."""

    stack: str = ""
    after: int = 0
    """Only those with a larger id; 0: from the newest thousand on. `Last-Event-ID` says the same."""
    since: float = 0.0
    """Seconds since the epoch."""
    changes: bool = False
    """Only who changed what, with which result."""
    follow: bool = False


class Logs(Ask, frozen=True, kw_only=True):
    """The log of a container."""

    name: str
    tail: int = -1
    """So many of the last lines; -1 for all."""
    since: float = 0.0
    """Seconds since the epoch."""
    follow: bool = False


class ByHand(Ask, frozen=True, kw_only=True):
    """Containers or whole stacks, one after the other."""

    names: tuple[str, ...]


class Stop(ByHand, frozen=True, kw_only=True):
    """Stop containers and hold them."""

    grace: float | None = None
    """Seconds until they are killed; null for their own."""
    note: str = ""


class Start(ByHand, frozen=True, kw_only=True):
    """Start containers and end their hold."""


class Restart(ByHand, frozen=True, kw_only=True):
    """Stop and start containers."""

    grace: float | None = None


class Kill(ByHand, frozen=True, kw_only=True):
    """Send a signal to containers."""

    signal: str = "KILL"


class Pause(ByHand, frozen=True, kw_only=True):
    """Freeze containers and hold them so."""

    note: str = ""


class Unpause(ByHand, frozen=True, kw_only=True):
    """Let paused containers go on."""


class Wait(ByHand, frozen=True, kw_only=True):
    """Wait until containers have ended: an item each."""


class Images(Ask, frozen=True, kw_only=True):
    """The images that are here, and who needs them."""


class Inspect(Ask, frozen=True, kw_only=True):
    """Everything known of an image."""

    image: str


class Pull(Ask, frozen=True, kw_only=True):
    """Pull images by hand; prune keeps them."""

    references: tuple[str, ...]


class RemoveImage(Ask, frozen=True, kw_only=True):
    """Remove an image that no resource uses."""

    image: str


class Prune(Ask, frozen=True, kw_only=True):
    """Remove images and layers that nothing needs."""

    all: bool = False
    """Also what was pulled by hand and what only revisions need."""
    dry_run: bool = False


class Cancel(Ask, frozen=True, kw_only=True):
    """Have a call that runs end as Ctrl-C would: what has begun is finished, nothing else begins."""

    call: str
    """What its `Reconcile-Call` header said."""


class Call(Struct, frozen=True, kw_only=True):
    """One call."""

    ask: type[Ask]
    path: str
    """Below /v1."""
    by: str = ""
    """The module in `answers/` that has its answer, so that no other need be imported; empty: the server itself."""
    method: str = "GET"
    """GET: its fields are in the query; POST: in the body, as JSON."""
    streams: bool = False
    """Whether it tells while it is at it: a frame a line."""
    gives: str = ""
    """The schema of its answer, where `schemas/` has it; of each item, where it gives items."""
    many: bool = False
    """Whether the answer is a list of that."""

    @property
    def name(self) -> str:
        """Its name in the API: `remove-image`."""
        words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.ask.__name__)
        return words.removeprefix("-")


CALLS: tuple[Call, ...] = (
    Call(ask=Version, by="reading", path="/version"),
    Call(ask=Get, by="reading", path="/resources", gives="get"),
    Call(ask=Describe, by="reading", path="/description"),
    Call(ask=Status, by="reading", path="/status", gives="status"),
    Call(ask=Drift, by="reading", path="/drift"),
    Call(ask=Plan, by="changing", path="/plan", method="POST"),
    Call(ask=Apply, by="changing", path="/apply", method="POST", streams=True),
    Call(ask=Rollback, by="changing", path="/rollback", method="POST", streams=True),
    Call(ask=Delete, by="changing", path="/delete", method="POST", streams=True),
    Call(ask=Lock, by="changing", path="/lock", method="POST"),
    Call(ask=Waiting, by="changing", path="/approvals"),
    Call(ask=Approve, by="changing", path="/approvals/approve", method="POST", streams=True),
    Call(ask=Boot, by="changing", path="/boot", method="POST", streams=True),
    Call(ask=Export, by="reading", path="/export"),
    Call(ask=History, by="reading", path="/history"),
    Call(ask=Difference, by="reading", path="/history/difference"),
    Call(ask=Forget, by="reading", path="/history/forget", method="POST"),
    Call(ask=Events, by="reading", path="/events", streams=True, gives="events"),
    Call(ask=Logs, by="hands", path="/logs", streams=True),
    Call(ask=Stop, by="hands", path="/containers/stop", method="POST", streams=True),
    Call(ask=Start, by="hands", path="/containers/start", method="POST", streams=True),
    Call(ask=Restart, by="hands", path="/containers/restart", method="POST", streams=True),
    Call(ask=Kill, by="hands", path="/containers/kill", method="POST", streams=True),
    Call(ask=Pause, by="hands", path="/containers/pause", method="POST", streams=True),
    Call(ask=Unpause, by="hands", path="/containers/unpause", method="POST", streams=True),
    Call(ask=Wait, by="hands", path="/containers/wait", streams=True),
    Call(ask=Exec, by="sessions", path="/containers/exec", method="POST", streams=True),
    Call(ask=Attach, by="sessions", path="/containers/attach", method="POST", streams=True),
    Call(ask=Run, by="sessions", path="/containers/run", method="POST", streams=True),
    Call(ask=Look, by="sessions", path="/containers/file"),
    Call(ask=CopyOut, by="sessions", path="/containers/files", streams=True),
    Call(ask=CopyIn, by="sessions", path="/containers/files", method="POST", streams=True),
    Call(ask=Images, by="images", path="/images"),
    Call(ask=Inspect, by="images", path="/images/inspect"),
    Call(ask=Pull, by="images", path="/images/pull", method="POST", streams=True),
    Call(ask=RemoveImage, by="images", path="/images/remove", method="POST"),
    Call(ask=Prune, by="images", path="/images/prune", method="POST"),
    Call(ask=Cancel, path="/cancel", method="POST"),
)

CALL_OF: dict[type[Any], Call] = {call.ask: call for call in CALLS}
