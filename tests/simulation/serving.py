"""A controller over a folder, on a machine of values, to which a schedule happens: files that change, vanish, are invalid
or half written, a folder that is emptied or unmounted, drift, health, people, and deaths at failpoints.

As `worlds.py`, in one thread: the test takes keys from the queue, and gives the time. What must hold: nothing is deleted
but what its source has no more, where that is asked for and the source can be believed; nothing is touched that no plan
named; and once faults end, two looks later all is as the files say.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from reconciler.controller.keeper import ALL, Keeper
from reconciler.controller.policy import Policy
from reconciler.controller.probes import Probes
from reconciler.controller.queue import WorkQueue
from reconciler.controller.sources.directory import DirectorySource
from reconciler.model.errors import ReconcileError
from reconciler.model.events import AnyEvent, PlanMade, silent
from reconciler.model.key import Key, Kind, container_key, kind_of, split_key
from reconciler.model.observation import Phase, missing
from reconciler.model.spec import ContainerSpec
from reconciler.verbs import containers
from reconciler.verbs.apply import ApplyOptions
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from simulation.schedules import Step
from simulation.worlds import Died, World, Wrong, in_memory, let_happen

STACKS = ("blog", "shop", "mail")
WEIGHTS = {
    "write": 10, "invalid": 6, "half": 8, "remove": 7, "rename": 3, "empty": 2, "unmount": 2, "come-back": 4, "vanish": 2,
    "exit": 2, "drift": 2, "sick": 2, "stop": 1, "start": 1, "by-hand": 1, "kill": 3, "wait": 1, "bad-image": 2,
    "registry": 1,
}  # fmt: skip
DRIFTS = ("link/default", "monitor", "mount")
POLL, RESYNC = 60.0, 300.0


def make_serving(seed: int) -> list[Step]:
    """The schedule of a seed."""
    return list(_steps(random.Random(f"serving {seed}")))


def _steps(dice: random.Random) -> Iterator[Step]:
    verbs = list(WEIGHTS)
    for number in range(dice.randint(6, 14)):
        verb = "write" if number < 3 else dice.choices(verbs, list(WEIGHTS.values()))[0]
        stack = STACKS[number] if number < 3 else dice.choice(STACKS)
        fault = dice.choices(("", "die", "fail"), (5, 4, 2))[0]
        yield Step(
            verb=verb, stack=stack, name="web", seed=dice.randrange(1 << 30),
            fault=fault, hit=dice.randrange(40) if fault else 0,
        )  # fmt: skip


def draw_manifest(name: str, seed: int, *, bad: bool = False) -> str:
    """A version of a stack as a file; `bad`: of an image that ends at once."""
    dice = random.Random(f"{name} {seed}")
    lines = ["apiVersion: reconcile/v1", f"name: {name}", "volumes: {data: {}}", "containers:"]
    for each in ("web", *(("worker",) if dice.random() < 0.4 else ())):
        image = "bad" if bad else "app"
        lines += [f"  {each}:", f'    image: "registry.test/{image}:1"', f"    command: [v{seed}]", "    restart: always"]
        if each == "web":
            lines += ['    mounts: ["data:/data"]']
        if dice.random() < 0.5:
            lines += ["    healthcheck: {test: [CMD, ask], interval: 5s, retries: 2}"]
    return "\n".join(lines) + "\n"


def names_in(text: str) -> set[str]:
    """The containers of a manifest."""
    return set(re.findall(r"^  (\w+):$", text, re.MULTILINE))


class Served(World):
    """The root, its folder, and the controller that is at work now."""

    def __init__(self, path: Path, *, prune: bool) -> None:
        super().__init__(path)
        from reconciler.engine.memory.machine import Published

        self.machine.registry["registry.test/bad:1"] = Published(digest="sha256:" + "e" * 64, exits=3)
        self.folder, self.aside = path.parent / "stacks", path.parent / "aside"
        self.folder.mkdir()
        self.aside.mkdir()
        self.prune = prune
        self.now = 0.0
        self.sick = False
        self.open: dict[str, Any] = {}
        """Files that somebody writes, by stack: the handle and the rest of the text."""
        self.whole: dict[str, set[str]] = {}
        """The containers of the last whole version of each stack, where that can run."""
        self.may_go: set[str] = set()
        """Stacks that were seen to be gone while the folder could be believed."""
        self.named: set[Key] = set()
        self.begin()

    # --- the controller ---

    def begin(self) -> None:
        """One starts, after another one ended."""
        self.client = next(self.clients)
        self.queue = WorkQueue(chance=lambda: 0.0)
        source = DirectorySource(self.folder, variables={})
        policy = Policy(prune=self.prune, poll=POLL, resync=RESYNC, timeout=30.0)
        self.keeper = Keeper(
            self, [source], policy, renew=lambda key: self.queue.renew(key, self.now), add=self.add, tell=self.take,
            watch=self.follow,
        )  # fmt: skip
        self.probes = Probes(self, say=self.keeper.say, add=self.add, clock=lambda: self.now)
        self.probes.loop = mock.Mock(add=lambda key, after: self.add(f"probe {key}", after), drop=lambda _: None)
        for key in (f"source {self.folder}", ALL):
            self.queue.add(key, self.now)

    def add(self, key: str, after: float) -> None:
        self.queue.add(key, self.now + after)

    def follow(self, looked: Look) -> None:
        self.probes.follow(looked)

    def take(self, event: AnyEvent) -> None:
        self.hear(event)
        if isinstance(event, PlanMade):
            self.named |= {Key(action["key"]) for action in event.plan["actions"]}

    def run(self, seconds: float) -> None:
        """Let time pass, and have what is due looked at."""
        end = self.now + seconds
        while (at := self.queue.next_at()) is not None and at <= end:
            self.pass_time(max(self.now, at))
            key = self.queue.take(self.now)
            assert key is not None
            try:
                again = self.probes.work(key.removeprefix("probe ")) if key.startswith("probe ") else self.keeper.work(key)
            except Died:
                self.said.append(f"  the controller died at work on {key}")
                self.dead.add(self.client)
                self.begin()
            except ReconcileError as error:
                self.said.append(f"  {key}: {error.brief}")
                self.queue.fail(key, self.now)
            else:
                self.queue.done(key)
                if again is not None:
                    self.queue.add(key, self.now + again)
        self.pass_time(end)

    def pass_time(self, now: float) -> None:
        self.machine.now += now - self.now
        self.now = now

    # --- what happens ---

    def do(self, step: Step) -> None:
        """One step, and then some time in which a fault may strike the controller."""
        before, stacks = self.look_at_all(), self.recorded_containers()
        self.said, self.named, self.touched = [], set(), set(self.unfinished())
        dice = random.Random(step.seed)
        with suppress(ReconcileError):
            getattr(self, "do_" + step.verb.replace("-", "_"))(step)
        self.note_what_may_go()
        self.add(f"source {self.folder}", 0.15)  # inotify; without it the poll
        self.fault, self.left = step.fault, step.hit
        self.run(dice.choice((2.0, 20.0, POLL + 5, RESYNC + 5)))
        self.fault = ""
        self.check_step(before, stacks, deleted_by_hand=step.stack if step.verb == "by-hand" else "")
        self.put_rows()

    def file_of(self, stack: str) -> Path:
        return self.folder / f"{stack}.yaml"

    def put(self, stack: str, text: str) -> None:
        self.close(stack)
        if self.folder.is_dir():
            staged = self.folder / f".{stack}.new"
            staged.write_text(text)
            staged.rename(self.file_of(stack))

    def close(self, stack: str) -> None:
        if stack in self.open:
            file, rest = self.open.pop(stack)
            with file:
                file.write(rest)

    def do_write(self, step: Step) -> None:
        self.put(step.stack, draw_manifest(step.stack, step.seed))

    def do_bad_image(self, step: Step) -> None:
        self.put(step.stack, draw_manifest(step.stack, step.seed, bad=True))

    def do_invalid(self, step: Step) -> None:
        texts = (
            "",
            "name: [",
            f"apiVersion: reconcile/v1\nname: {step.stack}\ncontainers: {{web: {{imag: x}}}}\n",
            "a: 1\n",
        )
        self.put(step.stack, texts[step.seed % len(texts)])

    def do_half(self, step: Step) -> None:
        """Somebody writes it in place, and is not done."""
        self.close(step.stack)
        if self.folder.is_dir():
            text = draw_manifest(step.stack, step.seed)
            ends = [at + 1 for at, letter in enumerate(text) if letter == "\n"]
            cut = ends[step.seed % (len(ends) - 1)]
            file = self.file_of(step.stack).open("w")
            file.write(text[:cut])
            file.flush()
            self.open[step.stack] = (file, text[cut:])

    def do_remove(self, step: Step) -> None:
        self.close(step.stack)
        self.file_of(step.stack).unlink(missing_ok=True)

    def do_rename(self, step: Step) -> None:
        """The file gets another name, and the stack stays."""
        self.close(step.stack)
        if self.file_of(step.stack).exists():
            self.file_of(step.stack).rename(self.folder / f"{step.stack}-{step.seed}.yaml")

    def do_empty(self, step: Step) -> None:
        for path in self.manifests():
            path.rename(self.aside / path.name)

    def do_unmount(self, step: Step) -> None:
        if self.folder.is_dir() and not self.folder.with_name("unmounted").exists():
            self.folder.rename(self.folder.with_name("unmounted"))
            if step.seed % 2:
                self.folder.mkdir()  # a mount point without its mount

    def do_come_back(self, step: Step) -> None:
        elsewhere = self.folder.with_name("unmounted")
        if elsewhere.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
            elsewhere.rename(self.folder)
        for path in list(self.aside.iterdir()):
            path.rename(self.folder / path.name)

    def do_vanish(self, step: Step) -> None:
        key = container_key(step.stack, "web")
        self.touched.add(key)
        self.machine.vanish(key)

    def do_exit(self, step: Step) -> None:
        key = container_key(step.stack, "web")
        if any(thing.phase is Phase.RUNNING for thing in self.machine.find(key)):
            self.touched.add(key)
            self.machine.exit(key, 1, restarted=step.seed % 2 == 0)
            self.add(f"stack {step.stack}", 1.0)

    def do_drift(self, step: Step) -> None:
        self.machine.drift(container_key(step.stack, "web"), DRIFTS[step.seed % len(DRIFTS)], missing())

    def do_sick(self, step: Step) -> None:
        self.sick = not self.sick
        for published in self.machine.content.values():
            published.healthy = not self.sick

    def do_registry(self, step: Step) -> None:
        self.machine.registry_answers = not self.machine.registry_answers

    def do_stop(self, step: Step) -> None:
        self.by_hand(step, containers.stop)

    def do_start(self, step: Step) -> None:
        self.by_hand(step, containers.start)

    def by_hand(self, step: Step, act: Callable[..., object]) -> None:
        self.touched.add(container_key(step.stack, "web"))
        act(self, f"{step.stack}/web", emit=silent)

    def do_by_hand(self, step: Step) -> None:
        """Somebody deletes a stack."""
        delete(self, Doomed(stack=step.stack, take_over=True), ApplyOptions(yes=True), face=Face(emit=self.take))

    def do_kill(self, step: Step) -> None:
        self.dead.add(self.client)
        self.begin()

    def do_wait(self, step: Step) -> None:
        self.run(RESYNC)

    # --- what must hold ---

    def manifests(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.yaml")) if self.folder.is_dir() else []

    def being_written(self) -> set[str]:
        """Stacks whose files in the folder somebody writes; not those that went with what was mounted there."""
        here = {path.stat().st_ino for path in self.manifests()}
        return {stack for stack, (file, _) in self.open.items() if os.fstat(file.fileno()).st_ino in here}

    def recorded_containers(self) -> dict[str, set[str]]:
        """Their names, by stack; of a stack of which only volumes are left, none."""
        with self.store.read() as tx:
            keys = [split_key(key) for key in tx.records() if kind_of(key) is Kind.CONTAINER]
        return {stack: {key.name for key in keys if key.stack == stack} for stack in {key.stack for key in keys}}

    def note_what_may_go(self) -> None:
        """Whether the folder can be believed now, and what it has no more."""
        written = self.being_written()
        texts = [path.read_text() for path in self.manifests() if path.stem.partition("-")[0] not in written]
        whole = all(text.startswith("apiVersion") and "image:" in text for text in texts)
        there = {stack: text for text in texts for stack in STACKS if f"name: {stack}\n" in text and "image:" in text}
        for stack, text in there.items():
            self.whole[stack] = set() if "bad:1" in text else names_in(text)
        self.may_go -= there.keys() | written
        if self.prune and texts and whole and not written:
            self.may_go |= set(STACKS) - there.keys()

    def check_step(self, before: dict[str, tuple[Key, int]], stacks: dict[str, set[str]], *, deleted_by_hand: str) -> None:
        now, left = self.look_at_all(), self.recorded_containers()
        for stack in stacks.keys() - self.may_go - {deleted_by_hand}:
            if stack not in left:
                raise Wrong(f"{stack} was deleted, and the folder did not say so")
            if cut := (stacks[stack] - left[stack]) & self.whole.get(stack, set()):
                raise Wrong(f"{sorted(cut)} of {stack} were deleted, and its last whole version has them")
        data = {identity for identity, thing in self.machine.volumes.items() if thing.data.get("row") == identity.encode()}
        if lost := self.had - data:
            raise Wrong(f"data is gone: {sorted(lost)}")
        for incarnation, (key, pid) in before.items():
            if now.get(incarnation) != (key, pid) and key not in self.named | self.touched and not self.was_sick(key):
                raise Wrong(f"{key} was touched and no plan named it: {pid} -> {now.get(incarnation)}")
        self.check_unique(now)

    def was_sick(self, key: Key) -> bool:
        """Whether a probe may have restarted it."""
        with self.store.read() as tx:
            record = tx.record(key)
        return record is None or (isinstance(record.spec, ContainerSpec) and record.spec.healthcheck is not None)

    def settle_down(self) -> None:
        """Faults have ended: the folder is whole, a controller starts, and two looks at it later all is well."""
        self.do_come_back(Step("come-back", "", "", 0))
        self.machine.registry_answers = True
        self.sick = True
        self.do_sick(Step("sick", "", "", 0))
        wanted = {}
        for number, stack in enumerate(STACKS):
            self.close(stack)
            for path in self.manifests():
                if path.name.startswith(stack):
                    path.unlink()
            if number < 2:
                wanted[stack] = 900 + number
                self.put(stack, draw_manifest(stack, wanted[stack]))
            with suppress(ReconcileError):
                containers.start(self, f"{stack}/web", emit=silent)
        self.note_what_may_go()
        self.dead.add(self.client)
        self.begin()
        self.run(2 * POLL + 5)
        running = {key: thing.made.spec for key, thing in self.running_things().items()}
        for stack, version in wanted.items():
            spec = running.get(container_key(stack, "web"))
            if not isinstance(spec, ContainerSpec) or spec.command != (f"v{version}",):
                raise Wrong(f"{stack}: two looks later it is {spec and spec.command}, wanted v{version}: {self.said[-6:]}")
        unwanted = {split_key(key).stack for key in running} - wanted.keys()
        if unwanted and self.prune:
            raise Wrong(f"{sorted(unwanted)} are in no file and run")
        if behind := [one.stack for one in self.keeper.read_state()[1] if not one.synced and not one.gone]:
            raise Wrong(f"{behind} are as they should be, and that is not said")
        self.check_quiet()

    def running_things(self) -> dict[Key, Any]:
        return {thing.made.key: thing for thing in self.machine.containers.values() if thing.phase is Phase.RUNNING}

    def check_quiet(self) -> None:
        """A controller that starts now finds nothing to do."""
        calls = len(self.machine.calls)
        self.begin()
        self.run(RESYNC + 5)
        if did := [call for call in self.machine.calls[calls:] if not call.startswith("settle")]:
            raise Wrong(f"nothing was to be done, and it did {did[:5]}")


def run_serving(steps: list[Step], *, prune: bool, trace: Callable[[str], None] = lambda _: None) -> None:
    """Let a schedule happen to a new controller. Raises Wrong, or whatever else should not come out."""
    with in_memory() as folder:
        world = Served(folder / "root", prune=prune)
        try:
            with world.patched(), mock.patch("reconciler.converge.waits.SEEN_AFTER", 0.0):
                let_happen(world, steps, trace, end="faults end: the folder is whole, and a controller starts")
        finally:
            for stack in list(world.open):
                world.close(stack)
