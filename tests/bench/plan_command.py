"""How long `reconcile plan` takes over 10,000 unchanged containers, piece by piece: a manifest read from a file, records
from SQLite, an observation of the memory engine, the plan and its text. Not a test.

    PYTHONPATH=tests python tests/bench/plan_command.py [COUNT]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MANIFEST = """apiVersion: reconcile/v1
name: many
images:
  app: {from: registry.test/app:1}
containers:
"""
CONTAINER = """  c{number}:
    image: app
    command: [serve, --port, "8080"]
    env: {{LOG: info, NUMBER: "{number}"}}
    resources: {{memory: 64M}}
"""


def main() -> None:
    """Prepare a root in this process, then measure in a fresh one."""
    if len(sys.argv) > 2:
        measure(Path(sys.argv[2]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.yaml"
        path.write_text(MANIFEST + "".join(CONTAINER.format(number=number) for number in range(count)))
        prepare(Path(folder))
        subprocess.run([sys.executable, __file__, str(count), folder], check=True, env=dict(os.environ))


def prepare(folder: Path) -> None:
    """Record the manifest as if it had been applied."""
    from reconciler.model.record import Record, StackRecord
    from reconciler.store.store import open_store

    plan = make(folder, {}, None)[0]
    store = open_store(folder / "root", create=True)
    records = [
        Record(key=key, spec=spec, image="sha256:" + "a" * 64, incarnation=f"{number:012x}")
        for number, (key, spec) in enumerate(plan.specs.items())
    ]
    with store.write() as tx:
        tx.put_stack(StackRecord(name="many", origin="name:many"))
        tx.put_records(records)
    store.close()


def make(folder, records, observation):
    """Manifest to plan; with the seconds of each piece."""
    from reconciler.manifest.load import load_stacks
    from reconciler.model.key import Kind, kind_of
    from reconciler.model.observation import Observation
    from reconciler.model.record import Desired, ImageFact
    from reconciler.plan.decide import PlanOptions
    from reconciler.plan.make import make_plan

    began = time.perf_counter()
    stacks = load_stacks([folder / "many.yaml"], variables={}, environment={}, origin_of=lambda *_: "name:many")
    read = time.perf_counter()
    fact = ImageFact(digest="sha256:" + "a" * 64, local=True)
    images = {key: fact for stack in stacks for key in stack.specs if kind_of(key) is Kind.IMAGE}
    plan = make_plan(
        Desired(stacks=stacks, images=images),
        stacks={},
        records=records,
        observation=observation or Observation(statuses={}),
        options=PlanOptions(),
        now=0.0,
    )
    return plan, read - began, time.perf_counter() - read


def measure(folder: Path) -> None:
    """The pieces of the command, in a process of its own."""
    began = time.perf_counter()
    from reconciler.model.key import Kind, kind_of
    from reconciler.model.observation import Observation, Phase, Status
    from reconciler.plan.explain import render_plan
    from reconciler.store.store import open_store

    imported = time.perf_counter()
    store = open_store(folder / "root")
    with store.read() as tx:
        records = tx.records()
    recorded = time.perf_counter()
    statuses = {
        key: Status(
            phase=Phase.RUNNING if kind_of(key) is Kind.CONTAINER else Phase.PRESENT, incarnation=record.incarnation
        )
        for key, record in records.items()
    }
    observed = time.perf_counter()
    plan, reading, planning = make(folder, records, Observation(statuses=statuses))
    lines = render_plan(plan)
    total = time.perf_counter() - began - (observed - recorded)
    print(f"{len(records)} records: {lines[-1]}")
    pieces = {"imports": imported - began, "manifest": reading, "records": recorded - imported, "plan": planning}
    print(", ".join(f"{piece} {seconds:.2f} s" for piece, seconds in pieces.items()))
    print(f"all {total:.2f} s (without Python's own start, 0.02 s, and without looking at a machine)")


if __name__ == "__main__":
    main()
