"""What an engine is: a set of drivers, one a kind, and a settle, that know how to make resources real.

`converge/` is the only caller of the verbs that change something; `verbs/` calls what only looks. A driver knows one kind
on one engine, no plan and no database: it gets a `Made` (spec, grants, incarnation) and makes it so. Unless a method says
otherwise it may be called from worker threads, never twice at once for one key; it raises `model.errors` only.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from msgspec import Struct

from reconciler.model.events import Emit
from reconciler.model.key import Key, Kind
from reconciler.model.observation import Health, Observation, Status
from reconciler.model.record import ApplyId, ImageFact, Made, View
from reconciler.model.spec import ImageSpec, Sensitive

if TYPE_CHECKING:
    from tarfile import TarFile

    from reconciler.engine.tarentry import Entry

Uses = Mapping[Key, Made]
"""What a resource depends on, by key: for a container its image, its networks and its volumes."""

ReadContent = Callable[[str], bytes]
"""What is kept under the digest of a config, a secret or a bound file. An engine is opened with it, and asks when it writes
one: so whatever starts a container, the bytes are those of its spec. Raises Failed where they are not kept."""


class Driver(Protocol):
    """Images, networks, volumes, configs and secrets."""

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it, whatever half of it exists. Calling again with the same `made` changes nothing. On error some parts
        may exist; `delete` removes them."""

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Bring it from old to new in place; with old == new, mend the parts that are missing or altered."""

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Remove it; what is gone already is no error. A volume's content goes only with `data`."""


class VolumeDriver(Driver, Protocol):
    """Volumes: managed directories."""

    def measure(self, made: Made) -> int:
        """Bytes of its data, by walking it; 0 where it is not there."""

    def check(self, made: Made) -> None:
        """Raise Failed where this machine can't have such a volume (a `size` on a file system without quotas). Changes
        nothing; asked before an apply begins."""

    def pack(self, made: Made, tar: "TarFile") -> Sequence[str]:
        """Add its data to a tar, under `volumes/ID/`; what was left out, a line each. Others may write to it meanwhile."""

    def unpack(self, made: Made) -> "Unpacker":
        """What puts such entries back into a volume that was just made. The caller closes it."""


class Unpacker(Protocol):
    """Fills one volume from the entries of an archive, in their order. Entries may be hostile: ContentError."""

    def take(self, entry: "Entry", pieces: Iterable[memoryview]) -> None:
        """One entry, with its data."""

    def finish(self) -> None:
        """There are no more."""

    def close(self) -> None:
        """Let go; after an error the volume is half filled."""


class ImageDriver(Driver, Protocol):
    """Images. `create` pulls or loads `made.image` (a digest that `resolve` returned) for `made.spec`."""

    def resolve(self, key: Key, spec: ImageSpec, *, recorded: str, offline: bool) -> ImageFact:
        """Find out which digest a spec means now, without storing anything.

        `recorded` is the digest of the record, "" if there is none. Under `pull: missing` content that is here (the
        recorded digest) answers without the network. A registry that can't be reached gives UNKNOWN with a warning
        where nothing is here; `create` then fails with the registry's words. Raises RegistryError, ContentError for
        answers that are definite: no such tag, no such platform, not an image.
        """

    def read_tag(self, reference: str) -> str:
        """The digest of what a canonical reference with a tag names now at its registry: of an index where the image has
        several platforms. One small request; stores nothing. Raises RegistryError."""

    def prune(self, used: Sequence[str], *, dry_run: bool = False) -> Sequence[tuple[str, int]]:
        """Remove images, blobs and layers that no digest of `used` needs: what went (digest or name, bytes)."""

    def list_images(self) -> Sequence["LocalImage"]:
        """What is here, by digest."""


class LocalImage(Struct, frozen=True, kw_only=True):
    """An image whose content is in the root."""

    digest: str
    names: tuple[str, ...]
    """The references that it was pulled by, canonical."""
    config: dict[str, object]
    """The OCI image config as it is."""
    layers: tuple[str, ...]
    """Layer blob digests, oldest first."""
    size: int
    """Bytes of its layers as stored here."""
    platform: str
    created: str = ""


class ContainerDriver(Protocol):
    """Containers. The order of a creation is prepare, start; of a removal stop, delete."""

    def prepare(self, made: Made, *, uses: Uses, emit: Emit) -> None:
        """Everything but running: writable layer, root mount, namespaces, veths (down), files, bundle. Nothing of another
        incarnation of the key is touched. Calling again changes nothing. May be called while the old one runs."""

    def premake(self, made: Made, *, uses: Uses) -> None:
        """As much of a first `prepare` and `start` as needs no network; both go on from there. Its image is there. Nothing
        of it runs, and `stop` and `delete` remove it. What goes wrong they tell."""

    def start(
        self,
        made: Made,
        *,
        uses: Uses,
        created: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        old: Made | None = None,
    ) -> Status:
        """Links up, runtime create under the monitor, runtime start. Takes the container's lock. One that runs already
        is left alone. `ready` is called once all is made, before it counts as running: it waits for its name, or it stops
        `old`, the incarnation whose addresses this one has, and whose links are closed as its own are opened. `created` is
        called just before it begins: who attaches there misses nothing. What they raise ends the start. On error it is
        prepared still, and `status.error` of the next observe has the words."""

    def stop(self, made: Made, *, mark: str, apply: ApplyId, grace: float | None = None) -> Status:
        """Write the mark (`hold`, `gone`, `replaced`, or "" for none: a restart follows) under the container's lock,
        then signal, wait `grace` (the spec's when None) seconds, kill; links down, but for `replaced`. One that does not
        run is marked only."""

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """In place, with the pid kept: limits, names, labels, restart policy, the files that it sees; mends parts whose
        mend is in-place. Where a file with a `signal` has another digest, or was altered, one that runs is sent it.
        One that is paused and is not to be (`new.paused`) goes on."""

    def states(self, mades: Sequence[Made]) -> Mapping[str, Status]:
        """By incarnation: phase, pid, exit and restarts of each, without parts. Cheap: asked several times a second while
        somebody waits."""

    def measure(self, made: Made) -> int:
        """Bytes of its writable layer, by walking it; 0 where it is not there."""

    def unmark(self, made: Made) -> None:
        """Take a mark off: the hold has ended, or the replace was undone. Does not start it."""

    def pause(self, made: Made) -> Status:
        """Mark it as held and freeze all of its processes; its pid, links and ports stay. One that is paused already is
        left alone. Raises Failed where it does not run."""

    def unpause(self, made: Made) -> Status:
        """Take the mark off and let its processes go on. One that is not paused is left alone."""

    def delete(self, made: Made) -> None:
        """Stop it if it runs, remove everything of this incarnation: process, monitor, netns, veths, mounts, cgroup,
        writable layer, bundle last. What is gone already is no error."""


class Traits(Struct, frozen=True, kw_only=True):
    """What an engine can do; the planner reads these, never the engine's name."""

    name: str
    network_drivers: tuple[str, ...] = ("bridge", "host", "none")
    probes: bool = True


class Recollection(Struct, frozen=True, kw_only=True):
    """What things say of themselves, without any record."""

    made: tuple[Made, ...]
    """Two of one container key where a replace was under way. `held` of a container says that it was stopped by hand;
    sensitive values are sealed."""
    sealed: dict[str, bytes] = {}
    """What is in the configs, secrets and bound files of containers, by digest, as the store had it: sealed."""
    unreadable: tuple[str, ...] = ()
    """A line for each thing that does not say what it is."""
    contents: dict[str, Sensitive] = {}
    """What containers have copies of, by digest, packed; nobody looked whether it fits."""


class Engine(Protocol):
    """A set of drivers over one root."""

    traits: Traits
    images: ImageDriver
    networks: Driver
    volumes: VolumeDriver
    containers: ContainerDriver
    inside: "Inside"

    def driver(self, kind: Kind) -> Driver:
        """The driver of anything but containers."""

    def observe(self, view: View, *, ports: Sequence[str] = (), of: Collection[Key] | None = None) -> Observation:
        """Look at the machine in bulk: one netlink dump, one mountinfo read, one nftables listing. A status for every
        `Made` of the view, strays of this root, and who holds the host ports asked for. Changes nothing, and makes
        nothing on a root that does not exist. Exits seen here are in the statuses.

        With `of` only these keys have a status, and nobody looks for strays: the view is still that of everything, for
        what derives from all of it is compared with all of it."""

    def settle(self, view: View, *, names: bool = True) -> None:
        """Bring firewall and, with `names`, name service to the one right form of the view, each in one transaction.
        Called under the root's lock. Policy first: nothing that the view does not name is open afterwards."""

    def lay_ground(self, view: View) -> None:
        """Make what the view's containers and networks stand in, if there are any; `settle` does it as well. Called under
        the root's lock, before anything of them is made."""

    def settle_names(self, view: View) -> None:
        """The second half of `settle` alone, for a view whose first half was done under the same lock."""

    def sweep(self, view: View) -> Sequence[str]:
        """Remove the strays of this root; one line for each that went. Called under the root's lock."""

    def choose_subnets(self, count: int, taken: Sequence[str]) -> Sequence[str]:
        """Free subnets of the pool that overlap neither `taken` nor a route of the host. Raises SubnetTaken when the
        pool is used up."""

    def check_subnet(self, key: Key, subnet: str) -> None:
        """Raise SubnetTaken where a route of the host, not ours, overlaps it."""

    def remember(self, made: Made, uses: Uses, contents: Mapping[str, bytes]) -> None:
        """Keep beside a thing that was made or changed what it is, for `recall`; sensitive values and contents come
        sealed. Called from worker threads. Goes with the thing."""

    def recall(self) -> Recollection:
        """What all things of this root say of themselves, for a database that was lost. Changes nothing."""

    def read_warnings(self) -> Sequence[str]:
        """What on this machine would keep published ports and networks from working, for people: other programs'
        firewalls. Changes nothing."""

    def close(self) -> None:
        """Let go of what is held open. Nothing that runs is touched."""


class ExecResult(Struct, frozen=True, kw_only=True):
    """How an exec ended."""

    exit_code: int


LET_GO = 0
"""On the bell of `Streams`: whoever is there lets go."""


class Streams(Struct, frozen=True, kw_only=True):
    """Where the streams of a command or a container lead that are not our own: descriptors, which the caller closes."""

    stdin: int
    stdout: int
    stderr: int
    bell: int
    """On it come signals, a byte each, its number: SIGWINCH where the size is another, LET_GO; its end says that nobody is
    there any more."""
    size: Callable[[], tuple[int, int] | None]
    """Rows and columns of the terminal at the other end, where there is one."""
    begun: Callable[["Begun"], None]
    """Called once it runs."""


class Begun(Struct, frozen=True, kw_only=True):
    """A command that runs, or a container that streams were joined to."""

    tty: bool = False
    """It has a terminal."""
    stdin: bool = False
    """It reads what is given to it."""
    send_signal: Callable[[int], None] | None = None
    """What sends it a signal, from any thread; None where it hears the bell."""


class LogLine(Struct, frozen=True, kw_only=True):
    """One line of a container's log. `at` in nanoseconds since the epoch; `lost` says that lines before it are gone."""

    at: int
    stream: str
    """stdout | stderr"""
    text: bytes
    """Without its newline."""
    partial: bool = False
    """The line goes on in the next one."""
    lost: bool = False


class Attached(Struct, frozen=True, kw_only=True):
    """How a line to a container ended."""

    exit_code: int | None = None
    """Its exit code; None where it goes on: the line was let go, or nobody reads what it writes any more."""
    unread: bool = False
    """Nobody reads our output any more."""


class Line(Protocol):
    """A line to a container's first process, opened by `Inside.attach`: what it writes is kept until `relay`."""

    def relay(self, *, stdin: bool, keys: bytes = b"", signals: bool = True, streams: Streams | None = None) -> Attached:
        """Pass everything through until it ends: its stdout and stderr to ours, our stdin (if asked) to its; a terminal is
        raw, and its size follows. `keys` typed on a terminal let go of it; `signals` that we get are passed on. Called from
        the main thread, but with `streams` that are not ours. Raises Failed where nobody can say how it ended."""

    def close(self) -> None:
        """Let go of it. It goes on."""


class FileSeen(Struct, frozen=True, kw_only=True):
    """What is at a path."""

    folder: bool = False
    link: bool = False
    """A symbolic link that was not followed."""


class Inside(Protocol):
    """What looks into containers that run: a second, separate protocol."""

    def look(self, made: Made, path: str, *, follow: bool) -> FileSeen | None:
        """What is at a path of the container, its volumes and mounts included while it runs; None for nothing. With
        `follow` what a link leads to. No path leads out of the container. Raises Failed where its files can't be had."""

    def copy_out(
        self, made: Made, path: str, to: IO[bytes], *, top: str, follow: bool, skipped: Callable[[str], None]
    ) -> None:
        """Write a tar of what is at a path, under the name `top`; of a folder with `top` "" only what is in it. Devices and
        sockets are left out, and told."""

    def copy_in(
        self,
        made: Made,
        folder: str,
        stream: IO[bytes],
        *,
        owner: tuple[int, int] | None,
        skipped: Callable[[str], None],
    ) -> None:
        """Unpack a tar into a folder that is there; all of it is `owner`'s, None: as the tar says. Links in the container
        lead about inside it. On an error what came before it is there."""

    def logs(
        self, made: Made, *, tail: int | None, since: float, follow: bool, stop: Callable[[], bool]
    ) -> Iterator[LogLine]:
        """The log, oldest line first, over rotated files too; with `follow`, on until `stop()` or the container is gone."""

    def exec(
        self,
        made: Made,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] = {},
        streams: Streams | None = None,
    ) -> ExecResult:
        """Run a command in it with our own stdin (if asked), stdout and stderr, or with `streams`. With `tty` the terminal
        is passed through, with its size. Once nobody is there it ends. 126: not executable, 127: not found."""

    def end_abandoned(self) -> Iterable[str]:
        """Kill the commands of `exec` whose own process was killed, and say which."""

    def attach(self, made: Made) -> Line:
        """Open a line to one that was made or runs. Raises Failed where nothing runs."""

    def wait(self, made: Made, *, seconds: float) -> Status:
        """Wait until it has ended and is not about to be started again, at most so long; its status then."""

    def probe(self, made: Made, *, timeout: float) -> tuple[Health, str]:
        """Run its health check once: healthy or unhealthy, and the end of what the check printed."""

    def kill(self, made: Made, signal: int) -> None:
        """Send a signal to its first process, by pidfd after a look at its start time. A paused one is thawed for SIGKILL,
        and takes any other signal when it goes on."""
