"""Two roots, two clients, two stacks: one wins, the other waits or says for whom; nothing is given twice."""

import json
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from census import held_twice, inside, not_recorded, read_book

from lab.world import World, wait_until
from plan.builders import container, stack, volume_at
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.errors import LockTimeout, ReconcileError
from reconciler.model.observation import Phase
from reconciler.model.record import Stack
from reconciler.store.store import open_store
from reconciler.verbs import containers
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish
from reconciler.verbs.root import Root

BOX = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s"}
HOLDER = r"locked by pid (\d+) since \d\d:\d\d:\d\d \(apply\)"


def manifest(name: str, colour: str = "red", count: int = 2, **more: Any) -> dict[str, Any]:
    made = {f"c{number}": {**BOX, "networks": ["net"], "env": {"COLOUR": colour}} for number in range(count)}
    made["kept"] = {**BOX, "networks": ["net"]}
    return {"apiVersion": "reconcile/v1", "name": name, "networks": {"net": {}}, "containers": {**made, **more}}


def finish(running: Any, seconds: float = 60) -> tuple[int, str]:
    out, err = running.communicate(timeout=seconds)
    said = out.decode() + err.decode()
    assert "Traceback" not in said, said
    return running.returncode, said


def assert_each_once(world: World) -> None:
    book = read_book(world.root / "reconcile.db", world)
    assert held_twice(book) == []


@pytest.mark.root
def test_x10_two_applies_of_one_stack_at_once_end_well_one_after_the_other(world: World):
    world.write(manifest("one"))
    both = [world.popen("apply", "stack.yaml", "--yes") for _ in range(2)]
    ended = [finish(one) for one in both]
    assert [code for code, _ in ended] == [0, 0], ended
    assert sorted("nothing to do" in said for _, said in ended) == [False, True], ended
    assert world.plan("stack.yaml")["actions"] == []
    assert_each_once(world)


@pytest.mark.root
def test_x10_applies_of_two_stacks_at_once_get_each_their_own(world: World):
    for name in ("one", "two", "three"):
        world.write(manifest(name), f"{name}.yaml")
    running = [world.popen("apply", f"{name}.yaml", "--yes") for name in ("one", "two", "three")]
    ended = [finish(one) for one in running]
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert world.plan("one.yaml", "two.yaml", "three.yaml")["actions"] == []
    assert_each_once(world)


@pytest.mark.root
def test_x10_of_two_stacks_that_want_one_port_at_once_one_gets_it_and_the_other_is_told_by_whom(world: World):
    for name in ("one", "two"):
        web = {"image": "127.0.0.1:5000/web:1", "ports": ["127.0.0.1:8080:8080"]}
        world.write(manifest(name, count=0, web=web), f"{name}.yaml")
    running = [world.popen("apply", f"{name}.yaml", "--yes") for name in ("one", "two")]
    ended = [finish(one) for one in running]
    codes = [code for code, _ in ended]
    assert sorted(codes)[0] == 0, ended
    assert sorted(codes)[1] != 0, ended
    winner, loser = ("one", "two") if codes[0] == 0 else ("two", "one")
    assert f"container/{winner}/web/1" in ended[codes.index(0) ^ 1][1], ended
    assert world.pid(f"{winner}/web")
    assert_each_once(world)
    world.run("delete", winner, "--yes", check=0)
    world.run("apply", f"{loser}.yaml", "--yes", check=0)


@pytest.mark.root
def test_x10_a_stopped_client_is_named_to_whoever_waits_and_goes_on_where_it_was(world: World):
    path = world.write(manifest("one"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    kept = world.pid("one/kept")
    path.write_text(path.read_text().replace("red", "blue"))
    running = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: read_book(world.root / "reconcile.db").intents, "an intent is open")
    world.signal(running, signal.SIGSTOP)
    beside = world.run("apply", "stack.yaml", "--yes", "--lock-timeout", "500ms", check=5)
    [pid] = re.findall(HOLDER, beside.err)
    assert "bin/reconcile apply" in world.processes()[int(pid)]
    assert "--lock-timeout" in beside.err
    looks = [world.run("get", check=0), world.run("plan", "stack.yaml"), world.run("status")]
    assert all(look.code in (0, 2) for look in looks), looks
    world.signal(running, signal.SIGCONT)
    code, said = finish(running)
    assert code == 0, said
    assert world.plan("stack.yaml")["actions"] == []
    assert world.pid("one/kept") == kept
    assert_each_once(world)


@pytest.mark.root
def test_x10_a_second_writer_that_was_paused_past_its_turn_says_so_and_changes_nothing(world: World):
    """Who waited while another brought the same thing finds nothing to do; who approved a plan that is old is refused."""
    path = world.write(manifest("one"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    path.write_text(path.read_text().replace("red", "blue"))
    world.run("plan", "stack.yaml", "--out", "old.plan", check=2)
    world.run("apply", "stack.yaml", "--yes", check=0)
    pids = {name: world.pid(f"one/{name}") for name in ("c0", "c1", "kept")}
    told = world.run("apply", "old.plan", "--yes")
    assert told.code == 3, told
    assert {name: world.pid(f"one/{name}") for name in pids} == pids


@pytest.mark.root
def test_x10_verbs_by_hand_beside_an_apply_neither_hang_nor_are_forgotten(world: World):
    path = world.write(manifest("one"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    path.write_text(path.read_text().replace("red", "blue"))
    running = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: read_book(world.root / "reconcile.db").intents, "an intent is open")
    world.run("stop", "one/kept", check=0)
    doomed = world.popen("delete", "one", "--yes", "--lock-timeout", "30s")
    code, said = finish(running)
    assert code == 0, said
    assert finish(doomed)[0] == 0
    assert world.records("container") == {}
    assert_each_once(world)


@pytest.mark.root
def test_what_a_killed_delete_left_is_gone_after_a_reboot_and_one_apply(world: World):
    """Its bundle went with the tmpfs; its folder on disk is still there, and it was its intent that named it."""
    world.write(manifest("one"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.write(manifest("one", count=1))
    running = world.popen("apply", "stack.yaml", "--yes", "--allow-delete")
    wait_until(lambda: "delete container/one/c1/1" in read_book(world.root / "reconcile.db").intents, "it is deleted")
    world.signal(running)
    running.communicate()
    world.reboot()
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.run("drift").code == 0
    assert not_recorded(world, read_book(world.root / "reconcile.db")) == []


@pytest.mark.root
def test_x10_an_apply_beside_exit_commands_that_restart_leaves_each_container_once(world: World):
    """Containers that end all the time are restarted by their exit commands while an apply replaces them."""
    ends = {**BOX, "command": ["sh", "-c", "usleep 50000; exit 1"], "restart": "always", "networks": ["net"]}
    wanted = manifest("one", count=0, **{f"e{number}": ends for number in range(3)})
    path = world.write(wanted)
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    kept = world.pid("one/kept")
    for colour in ("red", "blue"):
        for number in range(3):
            wanted["containers"][f"e{number}"] = {**ends, "env": {"COLOUR": colour}}
        world.write(wanted, path.name)
        world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
        assert_each_once(world)
    book = read_book(world.root / "reconcile.db")
    wait_until(lambda: not not_recorded(world, book), "only what is recorded is there", lambda: not_recorded(world, book))
    assert world.pid("one/kept") == kept


@pytest.mark.root
def test_x10_two_roots_on_one_machine_do_not_collide(world: World):
    """The same manifest, but for the host port, in two roots at once; the end of one is nothing to the other."""
    roots = [str(world.folder / name) for name in ("left", "right")]
    for number, root in enumerate(roots):
        web = {"image": "127.0.0.1:5000/web:1", "networks": ["net"], "ports": [f"127.0.0.1:{8080 + number}:8080"]}
        world.write(manifest("one", web=web), f"{Path(root).name}.yaml")
    running = [world.popen("apply", f"{Path(root).name}.yaml", "--yes", "--root", root) for root in roots]
    ended = [finish(one) for one in running]
    assert [code for code, _ in ended] == [0, 0], ended
    assert all("It works" in world.fetch(f"http://127.0.0.1:{8080 + number}/") for number in range(2))
    books = [read_book(Path(root) / "reconcile.db") for root in roots]
    assert [held_twice(book) for book in books] == [[], []]
    links, subnets = ([{v for p, _, v, _ in book.grants if p == pool} for book in books] for pool in ("link", "subnet"))
    assert not links[0] & links[1]
    assert not subnets[0] & subnets[1]
    world.run("delete", "one", "--yes", "--root", roots[0], check=0)
    assert world.run("drift", "--root", roots[1]).code == 0
    assert "It works" in world.fetch("http://127.0.0.1:8081/")
    world.run("delete", "one", "--yes", "--root", roots[1], check=0)
    for root in roots:
        world.run("images", "prune", "--all", "--root", root, check=0)
    wait_until(lambda: not world.leftovers(), "nothing is left of either", world.leftovers)


@pytest.mark.root
def test_x11_a_pid_that_is_another_process_by_now_is_never_signalled(world: World):
    """Its monitor was killed, so nobody noted its end; its pid is a stranger's by now, begun at another time."""
    world.write(manifest("one", count=0, c0={**BOX, "restart": "no"}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    pid, made = world.pid("one/c0"), world.record("one/c0")["status"]["incarnation"]
    [monitor] = [one for one, words in world.processes().items() if f"--cid {made}" in words]
    world.kill(monitor)
    world.kill(pid)
    wait_until(lambda: not {pid, monitor} & world.processes().keys(), "both have ended")
    stranger = world.spawn(["sleep", "1000"])
    wait_until(lambda: [one for one, words in world.processes().items() if words == "sleep 1000"], "a stranger runs")
    [other] = [one for one, words in world.processes().items() if words == "sleep 1000"]
    [state] = inside(world, Path("/run/reconcile")).glob(f"*/bundles/{made}/state.json")
    told = json.loads(state.read_text())
    state.write_text(json.dumps({**told, "pid": other, "monitor": other}))
    for command in (["kill", "one/c0"], ["stop", "one/c0"], ["delete", "one", "--yes"]):
        world.run(*command)
        assert stranger.poll() is None, world.transcript[-1]
    world.signal(stranger)
    stranger.communicate()


# --- interleavings, on the memory engine ---


class Crowd:
    """One root on one machine of values, opened by several clients, each in a thread of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path, self.machine = folder / "root", Machine()
        self.chance = random.Random(seed)
        self.machine.registry["registry.test/app:1"] = Published(digest="sha256:" + "a" * 64)
        self.clients = [self._open() for _ in range(3)]
        called, jitter = self.machine.called, random.Random(seed + 1)

        def slowly(verb: str, key: Any) -> None:
            time.sleep(jitter.choice((0, 0, 0, 0.0003, 0.001)))  # what interleaves them
            called(verb, key)

        self.machine.called = slowly  # type: ignore[method-assign]

    def _open(self) -> Root:
        store = open_store(self.path, create=True)
        engine = MemoryEngine(self.machine, read_content=store.read_content)
        return Root(self.path, root_id="aaaaa", store=store, engine=engine)

    def version(self, name: str) -> Stack:
        """Some version of a stack; `one` and `two` want the same ports and fixed addresses now and then."""
        chance = self.chance
        made = {}
        for each in chance.sample(("web", "cache", "db"), chance.randint(1, 3)):
            ports = {f"0.0.0.0:{chance.choice((8000, 8001, 8002))}/tcp": 80} if chance.random() < 0.4 else {}
            mounts = volume_at("/data", "data") if each == "db" else {}
            made[each] = container(command=(chance.choice("ab"),), networks=("front",), ports=ports, mounts=mounts)
        ports_of = [port for spec in made.values() for port in spec.ports]
        if len(ports_of) != len(set(ports_of)):
            return self.version(name)
        return stack(name, origin=f"name:{name}", **made)

    def work(self) -> Callable[[Root], object]:
        """What one client does."""
        name, verb = self.chance.choice(("one", "one", "two")), self.chance.random()
        wish, options = Wish(stacks=(self.version(name),)), ApplyOptions(yes=True, allow_delete=True, wait=False)
        if verb < 0.65:
            return lambda root: apply(root, wish, options, face=Face())
        if verb < 0.75:
            return lambda root: delete(root, Doomed(stack=name), options, face=Face())
        act = containers.stop if verb < 0.85 else containers.start
        return lambda root: act(root, f"{name}/web", emit=lambda _: None)

    def step(self) -> list[Exception]:
        """All clients at once; what any of them was told."""
        told: list[Exception] = []

        def run(root: Root, work: Callable[[Root], object]) -> None:
            try:
                work(root)
            except Exception as error:  # noqa: BLE001 judged by who called us
                told.append(error)

        threads = [threading.Thread(target=run, args=(root, self.work())) for root in self.clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a client waits for ever"
        return told

    def judge(self) -> None:
        """Nothing twice in the rows, nothing under way, nothing on the machine that is not on record."""
        book = read_book(self.path / "reconcile.db")
        assert held_twice(book) == []
        assert book.intents == ()
        assert set(self.machine.containers) <= book.incarnations
        running = [thing.made for thing in self.machine.containers.values() if thing.phase is Phase.RUNNING]
        places = Counter(place.address for made in running for place in made.grants.endpoints.values())
        assert not [address for address, times in places.items() if times > 1]
        assert len(running) == len({made.key for made in running})

    def converge(self) -> None:
        """Both stacks, one client, alone: everything is as it is wanted afterwards."""
        for name in ("one", "two"):
            with self.clients[0].store.read() as tx:
                known = name in tx.stacks()
            if known:
                delete(self.clients[0], Doomed(stack=name), ApplyOptions(yes=True, allow_delete=True), face=Face())
        assert self.machine.containers == self.machine.networks == self.machine.open_ports == {}

    def close(self) -> None:
        for root in self.clients:
            root.close()


@pytest.mark.parametrize("seed", range(10))
def test_x10_a_hundred_random_interleavings_of_three_clients_give_nothing_twice(seed: int) -> None:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        crowd = Crowd(Path(folder), seed)
        for number in range(100):
            for error in crowd.step():
                assert isinstance(error, ReconcileError), repr(error)
            crowd.judge()
            if number % 25 == 24:
                crowd.converge()
        crowd.close()


def test_x10_who_holds_a_lock_is_named_with_since_when_and_what_for(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path, 1)
    one, two = crowd.clients[:2]
    two.lock_timeout = 0.05
    with one.lock_stacks(["one"], "apply"), pytest.raises(LockTimeout) as caught, two.lock_stacks(["one"], "delete"):
        pass
    assert re.search(rf"stack one is locked by pid {os.getpid()} since \d\d:\d\d:\d\d \(apply\)", str(caught.value))
    assert caught.value.exit_code == 5
    crowd.close()
