"""Converging on the memory engine: a root in a temporary folder, a machine of values, clocks that the machine drives."""

import hashlib
import itertools
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from reconciler.converge import run
from reconciler.converge.grants import take_job
from reconciler.converge.ground import Ground
from reconciler.converge.resume import Folded, fold_intents, resume
from reconciler.converge.run import converge
from reconciler.converge.terms import Options, Result
from reconciler.converge.view import compose_view
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.events import ActionFailed, AnyEvent
from reconciler.model.key import Key
from reconciler.model.plan import Action, Plan
from reconciler.model.record import ApplyId, Desired, ImageFact, Record, Stack, StackRecord
from reconciler.model.spec import ImageSpec
from reconciler.plan.decide import PlanOptions
from reconciler.plan.delete import make_delete_plan
from reconciler.plan.explain import render_plan
from reconciler.plan.make import make_plan
from reconciler.store.store import Store, open_store


@dataclass
class Bench:
    """One root on one machine, applied to in process."""

    store: Store
    machine: Machine
    events: list[AnyEvent] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.engine = MemoryEngine(self.machine, read_content=self.store.read_content)
        self.ground = Ground(
            root_id="aaaaa",
            store=self.store,
            engine=self.engine,
            apply=ApplyId(pid=1, start_time=1, boot_id="boot-1"),
            lock_root=lambda _: nullcontext(),
            now=lambda: self.machine.now,
            clock=lambda: self.machine.now,
            pause=lambda _: None,
            token=lambda digits: hashlib.sha256(b"%d" % next(self.numbers)).hexdigest()[:digits],
        )

    def publish(self, name: str, digest: str, **facts: object) -> None:
        self.machine.registry[f"registry.test/{name}:1"] = Published(digest=digest, **facts)  # type: ignore[arg-type]

    def records(self) -> dict[Key, Record]:
        with self.store.read() as tx:
            return tx.records()

    def fold(self) -> Folded:
        with self.store.read() as tx:
            records, intents = tx.records(), tx.intents()
        view = compose_view(records, intents, keep_old=True)
        return fold_intents(records, intents, self.engine.observe(view))

    def plan(
        self, *stacks: Stack, resume_holds: bool = False, accept: Collection[str] = (), started: Collection[Key] = ()
    ) -> Plan:
        with self.store.read() as tx:
            recorded = tx.stacks()
        folded = self.fold()
        view = compose_view(folded.records, [])
        facts = {
            key: self._fact(key, spec, folded)
            for stack in stacks
            for key, spec in stack.specs.items()
            if isinstance(spec, ImageSpec)
        }
        return make_plan(
            Desired(stacks=stacks, images=facts),
            stacks=recorded,
            records=folded.records,
            observation=self.engine.observe(view),
            options=PlanOptions(resume=resume_holds, accept_loss=frozenset(accept), resume_keys=frozenset(started)),
            now=self.machine.now,
        )

    def _fact(self, key: Key, spec: ImageSpec, folded: Folded) -> ImageFact:
        record = folded.records.get(key)
        return self.engine.images.resolve(key, spec, recorded=record.image if record else "", offline=False)

    def apply(self, *stacks: Stack, wait: bool = True, **options: Any) -> Result:
        folded = self.fold()
        if folded.intents:
            resume(folded, self.ground, self.events.append)
        self.own(*stacks)
        return self.run(self.plan(*stacks, **options), wait=wait)

    def own(self, *stacks: Stack) -> None:
        """Record whose the stacks are, as an apply does before it converges."""
        with self.store.write() as tx:
            for stack in stacks:
                tx.put_stack(StackRecord(name=stack.name, origin=stack.origin))

    def delete(self, stack: str, *volumes: Key) -> Result:
        return self.run(self.plan_delete(stack, *volumes))

    def begin(self, action: Action, plan: Plan) -> None:
        """Write the intent of an action, as another process does that is at it now."""
        with self.store.write() as tx:
            tx.put_intents([take_job(tx, action, plan, tx.records(), self.ground).intent])

    def plan_delete(self, stack: str, *volumes: Key) -> Plan:
        with self.store.read() as tx:
            records, recorded = tx.records(), tx.stacks()
        return make_delete_plan(
            [key for key in records if key.split("/")[1] == stack],
            volumes=volumes,
            stacks=recorded,
            records=records,
            observation=self.engine.observe(compose_view(records, [])),
        )

    def run(self, plan: Plan, *, wait: bool = True, workers: int = 16) -> Result:
        options = Options(wait=wait, timeout=60.0, workers=workers)
        return converge(plan, self.ground, options, self.events.append)

    def lines(self, *stacks: Stack) -> list[str]:
        return render_plan(self.plan(*stacks))

    def failures(self) -> list[ActionFailed]:
        return [event for event in self.events if isinstance(event, ActionFailed)]

    def pids(self) -> dict[Key, int]:
        return {thing.made.key: thing.pid for thing in self.machine.containers.values() if thing.pid}


class Died(BaseException):
    """The process ended here."""


def die_after(bench: Bench, wanted: Stack, calls: int) -> bool:
    """Apply, and die as a kill would before the driver call after so many; whether it came so far.

    All in this thread, so that nothing is written after the death.
    """
    left, called = calls, bench.machine.called

    def dying(verb: str, key: Key) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Died
        called(verb, key)

    bench.machine.called = dying  # type: ignore[method-assign]
    try:
        with mock.patch.object(run, "ThreadPoolExecutor", Now), mock.patch.object(run.perform, "clean_up"):
            bench.apply(wanted)
    except Died:
        return True
    finally:
        bench.machine.called = called  # type: ignore[method-assign]
    return False


class Now:
    """An executor that works at once, in the caller's thread."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "Now":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work, *arguments, **named):
        future: Future[object] = Future()
        future.set_result(work(*arguments, **named))
        return future


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = open_store(tmp_path / "root", create=True)
    made = Bench(store=store, machine=Machine())
    made.publish("app", "sha256:" + "a" * 64)
    yield made
    store.close()
