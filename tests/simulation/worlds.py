"""A root on a machine of values, to which a schedule happens; what must hold is looked at after every step.

Everything runs in one thread: workers work at once, clocks are the machine's. A client that dies does so at a failpoint,
before or after a change, and reaches none any more; what it wrote stays, what it held (its stacks' locks) is let go.
"""

import hashlib
import itertools
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import structs

from plan.builders import after, container, stack, with_replicas
from reconciler.converge import run, workers
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.linux import failpoint
from reconciler.manifest.load import load_stacks
from reconciler.model.errors import Failed, NotFound, ReconcileError
from reconciler.model.events import ActionFailed, AnyEvent, silent
from reconciler.model.key import Key, Kind, container_key, kind_of, make_key
from reconciler.model.observation import Phase, missing
from reconciler.model.record import ApplyId, Stack
from reconciler.model.spec import ContainerSpec, Mount, NetworkSpec, Update
from reconciler.store.database import database_path
from reconciler.store.store import open_store
from reconciler.verbs import containers
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.boot import BootOptions, boot
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish, plan
from reconciler.verbs.rollback import Return, rollback
from reconciler.verbs.root import Root
from simulation.schedules import NAMES, PARTS, STACKS, Step

_EVERYTHING = Key("*")
BASES = 6
"""So many stacks are edited again and again: versions differ in little, as people's do."""
ALL = ApplyOptions(yes=True, allow_delete=True, timeout=30.0)


class Died(BaseException):
    """The client ended here."""


class Wrong(AssertionError):
    """Something that must hold does not."""


class Now:
    """An executor that works at once, in the caller's thread."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "Now":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future

    def map(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [work(*each) for each in zip(*arguments, strict=False)]


def _replicas(step: Step) -> set[Key]:
    return {container_key(step.stack, step.name, index) for index in (1, 2)}


def _draw_edit(dice: random.Random) -> dict[str, Any]:
    """One field of a container, as somebody changes it in an editor."""
    changes: list[dict[str, Any]] = [
        {"command": (dice.choice("abcd"),)},
        {"env": {"LOG": dice.choice(("debug", "info", "warning"))}},
        {"restart": dice.choice(("always", "on-failure", "no"))},
        {"image": dice.choice(("app", "next"))},
        {"depends_on": {}},
    ]
    return dice.choice(changes)


def draw_version(name: str, seed: int) -> Stack:
    """A version of a stack: containers, replicas, order, ports, networks, volumes, ways to update."""
    dice = random.Random(f"{name} {seed % BASES}")
    made: dict[str, ContainerSpec] = {}
    first_port = 8000 + 100 * STACKS.index(name)
    for number, each in enumerate(sorted(dice.sample(NAMES, dice.randint(1, 4)))):
        before = dice.choice(sorted(made)) if made and dice.random() < 0.6 else ""
        ports = {f"0.0.0.0:{first_port + dice.randrange(4) * 4 + number}/tcp": 80} if dice.random() < 0.4 else {}
        first = not ports and dice.random() < 0.2
        volumes = [v for v in ("data", "logs") if not first and dice.random() < 0.3]
        made[each] = container(
            dice.choice(("app", "app", "app", "next")),
            command=(dice.choice("abc"),),
            networks=tuple(n for n in ("front", "back") if dice.random() < 0.6),
            mounts={f"/{v}": Mount(type="volume", source=v, read_only=each != "web") for v in volumes},
            ports=ports,
            env={"LOG": dice.choice(("debug", "info"))},
            depends_on=after({before: "started"}) if before else {},
            restart=dice.choice(("always", "on-failure", "no")),
            update=Update(
                order="start-first" if first else "stop-first", on_failure=dice.choice(("stop", "stop", "rollback"))
            ),
        )
    edit = random.Random(f"edit {seed}")
    for each in sorted(made):
        if edit.random() < 0.4:
            made[each] = structs.replace(made[each], **_draw_edit(edit))
    networks = {"front": NetworkSpec(internal=dice.random() < 0.2)}
    wanted = stack(name, networks=networks, origin=f"name:{name}", **made)
    counts = {each: 2 for each, spec in made.items() if not spec.ports and not spec.mounts and dice.random() < 0.3}
    return with_replicas(wanted, **counts)


class World(Root):
    """The root, its machine, and whoever acts on it now."""

    def __init__(self, path: Path) -> None:
        self.machine = Machine()
        for image, letter in (("app", "a"), ("next", "b")):
            self.machine.registry[f"registry.test/{image}:1"] = Published(digest="sha256:" + letter * 64)
        store = open_store(path, create=True)
        engine = MemoryEngine(self.machine, read_content=store.read_content)
        super().__init__(path, root_id="aaaaa", store=store, engine=engine)
        self.lock_timeout = 0.0
        self.wanted: dict[str, Stack] = {}
        self.clients = itertools.count(1)
        self.client = 0
        self.dead: set[int] = set()
        self.tokens = itertools.count(1)
        self.plans: list[Any] = []
        self.failures: list[str] = []
        self.face = Face(emit=self.hear, show=self.plans.append)
        self.had: set[str] = set()
        """The volumes that had their data after the last step."""
        self.touched: set[Key] = set()
        """What the step itself is about, beside its plan."""
        self.cut_short: set[str] = set()
        """What a stop that did not get to its end was asked for."""
        self.asked_to_go: set[str] = set()
        """The volumes whose data the step was told to remove."""
        self.copies: list[bytes] = []
        self.fault, self.left, self.between = "", -1, ""
        self.said: list[str] = []

    def hear(self, event: AnyEvent) -> None:
        if isinstance(event, ActionFailed):
            self.failures.append(f"{event.verb} {event.key}: {event.brief} {event.detail}")
            self.said.append(f"  failed: {self.failures[-1]}")

    # --- clients, failpoints ---

    def ground(self, created: Any = None) -> Any:
        made = super().ground(created)

        def token(digits: int) -> str:
            return hashlib.sha256(b"%d" % next(self.tokens)).hexdigest()[:digits]

        return structs.replace(
            made, now=lambda: self.machine.now, clock=lambda: self.machine.now, pause=lambda _: None, token=token,
            apply=self.me(),
        )  # fmt: skip

    def me(self) -> ApplyId:
        return ApplyId(pid=self.client, start_time=1, boot_id=self.machine.boot_id)

    def lives(self, who: ApplyId) -> bool:
        return who.boot_id == self.machine.boot_id and who.pid not in self.dead

    def reach(self, name: str) -> None:
        """Every failpoint, before and after; what the step's fault does, at its hit."""
        if self.client in self.dead:
            raise Died
        if not self.fault:
            return
        if self.fault == "other" and not name.startswith("memory.container."):
            return  # Elsewhere this thread holds the root's lock, and would wait for itself.
        self.left -= 1
        if self.left >= 0:
            return
        fault, self.fault = self.fault, ""
        self.said.append(f"  {fault} at {name}")
        if fault == "die":
            self.dead.add(self.client)
            raise Died
        if fault == "fail" and name.endswith("/commit"):
            raise sqlite3.OperationalError("database or disk is full")
        if fault == "fail":
            if name.startswith("memory.") and not name.endswith(failpoint.AFTER):
                raise Failed(f"{name}: made to fail")
            return
        if fault == "other":
            self.act_between()

    def act_between(self) -> None:
        """Another client does something short while this one is in the middle of a driver's call."""
        mine, self.client = self.client, next(self.clients)
        self.touched.add(_EVERYTHING)
        dice = random.Random(self.between)
        try:
            name = dice.choice(NAMES)
            with suppress(ReconcileError):
                getattr(containers, dice.choice(("stop", "start", "pause")))(self, name, emit=silent)
            other = dice.choice(STACKS)
            with suppress(ReconcileError):
                if other in self.wanted:
                    apply(self, Wish(stacks=(self.wanted[other],)), ALL, face=self.face)
        finally:
            self.dead.add(self.client)
            self.client = mine

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Our threads, clocks and failpoints instead of the real ones."""
        with (
            mock.patch.object(run, "ThreadPoolExecutor", Now),
            mock.patch("concurrent.futures.ThreadPoolExecutor", Now),
            mock.patch.object(run, "TICK", 0.0005),
            mock.patch.object(workers, "GATHER", 0),
            mock.patch.object(failpoint, "_terms", {}),
            mock.patch.object(failpoint, "reach", self.reach),
            mock.patch("reconciler.verbs.root.this_process", self.me),
            mock.patch("reconciler.verbs.containers.this_process", self.me),
            mock.patch("reconciler.verbs.look.lives", self.lives),
            mock.patch("reconciler.verbs.apply.lives", self.lives),
        ):
            yield

    # --- steps ---

    def do(self, step: Step) -> None:
        """One step as a new client; whatever it says, nothing but our own errors may come out."""
        before = self.look_at_all()
        self.client, self.plans[:] = next(self.clients), []
        self.fault, self.left, self.between = step.fault, step.hit, f"{step.seed} {step.hit}"
        self.said, self.touched, self.asked_to_go = [], set(), set()
        unfinished = self.unfinished()
        self.copies.append(self.read_database())
        try:
            getattr(self, "do_" + step.verb.replace("-", "_"))(step)
        except Died:
            pass
        except ReconcileError as error:
            self.said.append(f"  {type(error).__name__}: {error.brief.replace(str(self.path.parent), '')}")
        finally:
            self.fault = ""
            self.dead.add(self.client)
        self.check(step, before, unfinished)
        self.put_rows()

    def do_apply(self, step: Step) -> None:
        wanted = draw_version(step.stack, step.seed)
        self.wanted[step.stack] = wanted
        self.apply(wanted)

    def apply(self, wanted: Stack, *, resume: bool = False) -> Any:
        with self.store.read() as tx:
            known = {*tx.records(), *wanted.specs}
        accept = frozenset(key for key in known if kind_of(key) in (Kind.VOLUME, Kind.CONTAINER))
        return apply(self, Wish(stacks=(wanted,), resume=resume, accept_loss=accept), ALL, face=self.face)

    def do_delete(self, step: Step) -> None:
        self.wanted.pop(step.stack, None)
        delete(self, Doomed(stack=step.stack), ALL, face=self.face)

    def do_delete_key(self, step: Step) -> None:
        key = container_key(step.stack, step.name)
        delete(self, Doomed(stack=step.stack, keys=(key,)), ALL, face=self.face)

    def do_delete_data(self, step: Step) -> None:
        """The one request after which data may be gone: it names the volume."""
        self.wanted.pop(step.stack, None)
        key = make_key(Kind.VOLUME, step.stack, "data")
        self.asked_to_go = {identity for identity, thing in self.machine.volumes.items() if thing.made.key == key}
        delete(self, Doomed(stack=step.stack, volumes=("data",)), ALL, face=self.face)

    def do_stop(self, step: Step) -> None:
        self.touched |= _replicas(step)
        name = f"{step.stack}/{step.name}"
        self.cut_short.add(name)
        containers.stop(self, name, emit=silent)
        self.cut_short.discard(name)

    def do_start(self, step: Step) -> None:
        self.touched |= _replicas(step)
        containers.start(self, f"{step.stack}/{step.name}", emit=silent)

    def do_pause(self, step: Step) -> None:
        self.touched |= _replicas(step)
        containers.pause(self, f"{step.stack}/{step.name}", emit=silent)

    def do_rollback(self, step: Step) -> None:
        rollback(self, Return(stack=step.stack), ALL, face=self.face)

    def do_boot(self, step: Step) -> None:
        self.machine.reboot()
        self.touched.add(_EVERYTHING)
        boot(self, BootOptions(wait=False), face=self.face)

    def do_exit(self, step: Step) -> None:
        key = container_key(step.stack, step.name)
        self.touched.add(key)
        running = [thing for thing in self.machine.find(key) if thing.phase is Phase.RUNNING]
        if running:
            self.machine.exit(key, random.Random(step.seed).choice((0, 1, 137)), restarted=step.seed % 2 == 0)

    def do_drift(self, step: Step) -> None:
        self.machine.drift(container_key(step.stack, step.name), PARTS[step.seed % len(PARTS)], missing())

    def do_vanish(self, step: Step) -> None:
        if step.seed % 3:
            self.touched.add(container_key(step.stack, step.name))
            self.machine.vanish(container_key(step.stack, step.name))
        else:
            self.machine.vanish(make_key(Kind.NETWORK, step.stack, "front"))

    def do_publish(self, step: Step) -> None:
        digest = f"sha256:{step.seed:064x}"
        self.machine.registry["registry.test/app:1"] = Published(digest=digest)

    def do_sick(self, step: Step) -> None:
        self.machine.registry["registry.test/next:1"] = Published(digest=f"sha256:{step.seed:064x}", exits=3)

    def do_registry(self, step: Step) -> None:
        self.machine.registry_answers = not self.machine.registry_answers

    def do_lost_write(self, step: Step) -> None:
        """A power cut that took what was written last: the database is that of some steps ago, and all memory is gone."""
        self.machine.reboot()
        self.touched.add(_EVERYTHING)
        at = max(0, len(self.copies) - 1 - step.seed % 2)
        self.store.close()
        path = database_path(self.path)
        for beside in path.parent.glob(path.name + "-*"):
            beside.unlink()
        path.write_bytes(self.copies[at])
        for beside in self.path.glob("serial*"):
            beside.unlink()
        self.store = open_store(self.path, create=True)
        self.engine = MemoryEngine(self.machine, read_content=self.store.read_content)
        boot(self, BootOptions(wait=False), face=self.face)

    def do_half_file(self, step: Step) -> None:
        """The manifest vanished, is empty or half written: an error with its place, and nothing changes."""
        path = self.path.parent / "stack.yaml"
        texts = ("", "apiVersion: reconcile/v1\nname: blog\ncontainers:\n  web: {image: 'app", "name: [", None)
        text = texts[step.seed % 4]
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        read = load_stacks([path], variables={}, environment={}, origin_of=lambda *_: "name:blog")
        raise Wrong(f"a manifest that is no manifest was read: {text!r}: {read}")

    # --- what must hold ---

    def read_database(self) -> bytes:
        from reconciler.store.store import copy_database

        return copy_database(self.path)

    def look_at_all(self) -> dict[str, tuple[Key, int]]:
        live = {n: t for n, t in self.machine.containers.items() if t.phase is Phase.RUNNING}
        return {incarnation: (thing.made.key, thing.pid) for incarnation, thing in live.items()}

    def unfinished(self) -> set[Key]:
        with self.store.read() as tx:
            return {intent.key for intent in tx.intents()}

    def put_rows(self) -> None:
        for identity, thing in self.machine.volumes.items():
            thing.data.setdefault("row", identity.encode())
        self.had = set(self.machine.volumes)

    def check(self, step: Step, before: dict[str, tuple[Key, int]], unfinished: set[Key]) -> None:
        now = self.look_at_all()
        data = {identity for identity, thing in self.machine.volumes.items() if thing.data.get("row") == identity.encode()}
        if gone := self.had - data - self.asked_to_go:
            raise Wrong(f"data is gone: {sorted(gone)}")
        named = {action.key for each in self.plans for action in each.actions} | unfinished | self.touched
        for incarnation, (key, pid) in before.items():
            if now.get(incarnation) != (key, pid) and key not in named and _EVERYTHING not in named:
                raise Wrong(f"{key} was touched and no plan named it: {pid} -> {now.get(incarnation)}")
        self.check_unique(now)

    def check_unique(self, now: dict[str, tuple[Key, int]], *, settled: bool = False) -> None:
        with self.store.read() as tx:
            records, intents = tx.records(), tx.intents()
        many: dict[Key, int] = {}
        for key, _ in now.values():
            many[key] = many.get(key, 0) + 1
        unfinished = {intent.key for intent in intents}
        for key, count in many.items():
            if count > (2 if key in unfinished else 1):
                raise Wrong(f"{key} runs {count} times")
        taken: dict[str, Key] = {}
        for record in records.values():
            for network, place in record.grants.endpoints.items():
                for what in (f"{network} {place.address}", f"link {place.link}", f"mac {place.mac}"):
                    if not what.endswith(" ") and taken.setdefault(what, record.key) != record.key:
                        raise Wrong(f"{what} is granted to {taken[what]} and to {record.key}")
        for port, key in self.machine.open_ports.items():
            record = records.get(key)
            recorded = record is not None and isinstance(record.spec, ContainerSpec) and port in record.spec.ports
            if settled and not recorded and key not in unfinished:  # Before that a client may have died on the way there.
                raise Wrong(f"{port} is open for {key}, which has no such port on record")
        with closing(sqlite3.connect(database_path(self.path))) as rows:
            grants = rows.execute("SELECT owner, pool, value FROM grants").fetchall()
        if lost := {owner for owner, _, _ in grants} - {*records, *unfinished}:
            raise Wrong(f"grants that nobody has: {sorted(lost)}")
        for owner, pool, value in grants:
            made = kind_of(owner) is Kind.CONTAINER and owner not in unfinished
            places = records[owner].grants.endpoints.values() if made else ()
            if made and pool == "link" and value not in {place.link for place in places}:
                raise Wrong(f"link {value} is granted to {owner}, which is made without it")
        for key, record in records.items():
            if settled and record.hold is not None and key in many and not intents:
                raise Wrong(f"{key} is held by a {record.hold.kind} and runs")

    def check_wanted(self, wanted: Stack) -> None:
        """What runs is made as its manifest says."""
        for thing in self.machine.containers.values():
            made, spec = thing.made.spec, wanted.specs.get(thing.made.key)
            if isinstance(made, ContainerSpec) and isinstance(spec, ContainerSpec):
                for field in ("command", "env", "ports", "restart", "depends_on"):
                    if getattr(made, field) != getattr(spec, field):
                        raise Wrong(f"{thing.made.key}: {field} is {getattr(made, field)}, wanted {getattr(spec, field)}")

    def settle_down(self) -> None:
        """Faults have ended: two applies converge, a third does nothing; then everything goes, and data last."""
        self.client, self.fault = next(self.clients), ""
        self.machine.registry_answers = True
        self.machine.registry["registry.test/next:1"] = Published(digest="sha256:" + "b" * 64)
        for published in self.machine.content.values():
            published.exits = None
        for name in STACKS:
            wanted = self.wanted.get(name)
            if wanted is None:
                continue
            error: ReconcileError | None = None
            for _ in range(2):
                try:
                    self.apply(wanted, resume=True)
                    error = None
                except ReconcileError as raised:
                    error = raised
            if error is not None:
                raise Wrong(f"{name}: two applies do not converge: {error.brief}: {self.failures[-3:]}")
        for name, wanted in self.wanted.items():
            left, _ = plan(self, Wish(stacks=(wanted,)), now=self.machine.now)
            if left.actions:
                still = [(action.verb.value, action.key, action.reason.value) for action in left.actions]
                raise Wrong(f"{name}: converged, and still to do: {still}")
            running = {key for key, _ in self.look_at_all().values()}
            for key, spec in wanted.specs.items():
                if isinstance(spec, ContainerSpec) and spec.restart == "always" and key not in running:
                    raise Wrong(f"{key} is wanted and does not run")
            self.check_wanted(wanted)
        for name in self.cut_short:  # "though it runs: `reconcile stop` again", where no apply has ended the hold
            if name.partition("/")[0] not in self.wanted:
                with suppress(NotFound):
                    containers.stop(self, name, emit=silent)
        self.check_unique(self.look_at_all(), settled=True)
        data = set(self.machine.volumes)
        for name in STACKS:
            with suppress(ReconcileError):
                delete(self, Doomed(stack=name), ALL, face=self.face)
        if set(self.machine.volumes) != data:
            raise Wrong("a delete took volumes that nobody named")
        machine = self.machine
        for what in (machine.containers, machine.networks, machine.open_ports, machine.names):
            if what:
                raise Wrong(f"left after the last delete: {what}")
        with self.store.read() as tx:
            left_over = {key for key in tx.records() if kind_of(key) is not Kind.VOLUME}, tx.intents()
        if any(left_over):
            raise Wrong(f"rows left after the last delete: {left_over}")


def run_schedule(steps: list[Step], *, trace: Callable[[str], None] = lambda _: None) -> None:
    """Let a schedule happen to a new world. Raises Wrong, or whatever else should not come out."""
    with in_memory() as folder:
        world = World(folder / "root")
        with world.patched():
            let_happen(world, steps, trace, end="faults end: apply twice, plan, delete")


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder for one schedule, on a tmpfs where there is one."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    with tempfile.TemporaryDirectory(dir=memory, prefix="simulation-") as folder:
        yield Path(folder)


def let_happen(world: World, steps: Iterable[Step], trace: Callable[[str], None], *, end: str) -> None:
    """Every step with what was said of it, and then an end without faults. Lets go of the world's store."""
    try:
        for step in steps:
            trace(str(step))
            try:
                world.do(step)
            finally:
                for line in world.said:
                    trace(line)
        trace(end)
        world.settle_down()
    finally:
        world.store.close()


def fails_like(error: Exception) -> Callable[[list[Step]], bool]:
    """Whether a schedule fails as this one did: the same kind of error with the same first words but for names."""

    def kind(raised: Exception) -> tuple[str, ...]:
        words = [word for word in str(raised).split() if "/" not in word and not word.endswith(":")]
        return (type(raised).__name__, *words[:3])

    def fails(steps: list[Step]) -> bool:
        try:
            run_schedule(steps)
        except Exception as raised:  # noqa: BLE001
            return kind(raised) == kind(error)
        return False

    return fails
