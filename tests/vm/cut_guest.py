"""One life of the virtual machine of `power_cuts.py`: from a boot after a cut to the next cut. Runs inside it.

It mounts the disk, brings everything back with `boot`, applies, and compares with what was there before the cut. Then it
begins what is to be cut and waits for its end. What the host has to know it says on the console, a line of JSON each.
Commands run in children of one process that has imported everything, for starting a Python takes ten seconds here.
"""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from census import read_book
from cut_kinds import KINDS, Kind
from ordeal import CALM, CANARY, Leaked, Lost, Ordeal, definitions, storm
from stacks import Machine

from lab.world import Result, World, open_world, wait_until

MARK = "\x01vm "
"""What a line for the host begins with: nothing else writes that."""
MODULES = (
    *(
        "virtio_blk",
        "ext4",
        "loop",
        "squashfs",
        "erofs",
        "overlay",
        "bridge",
        "veth",
        "nf_tables",
        "nft_chain_nat",
        "nft_ct",
    ),
    *("nft_fib_inet", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_numgen", "nft_redir", "nft_reject_inet"),
)
"""What a machine has loaded when its services start. Amid a command each would cost seconds of its deadlines."""
FOLDER = Path("/dev/shm/world")
STACKS = ("storm.yaml", "calm.yaml")
SCRIPT = (
    "n=$(tail -n 1 /kept/log 2>/dev/null || echo 0); "
    "while :; do n=$((n + 1)); echo $n >>/kept/log; sync -d /kept/log && echo $n >/tmp/synced; sleep 0.5; done"
).replace("$", "$$")
"""A container that writes, syncs, and says then what it has synced, as a database does."""
LEDGER = {
    **CALM,
    "containers": {"still": {**CALM["containers"]["still"], "command": ["sh", "-c", SCRIPT], "stop_grace": "0s"}},
}


def tell(what: str) -> None:
    """Tell the host how far it is."""
    say("step", what=what, uptime=float(Path("/proc/uptime").read_text().split()[0]))


def say(event: str, **facts: Any) -> None:
    """Tell the host."""
    print(f"{MARK}{json.dumps({'event': event, **facts})}", flush=True)


class QuickWorld(World):
    """A world whose commands run in children of one process that has imported everything."""

    machine: Machine | None = None

    def run(self, *arguments: str, check: int | None = None, **options: Any) -> Result:
        """As `World.run`."""
        if self.machine is None:
            self.machine = Machine(self)
        result = self.machine.run(*arguments, check=check, **options)
        self.transcript.append(result)
        return result

    def leftovers(self) -> list[str]:
        """As `World.leftovers`, when nothing is run any more."""
        if self.machine is not None:
            self.machine.close()
            self.machine = None
        return super().leftovers()


@dataclass
class Life(Ordeal):
    """The two stacks of torture, of which `calm` writes and syncs all the time."""

    given: dict[str, Any] = field(default_factory=dict)
    """What each container held before the cut, by its name."""
    keys: list[str] = field(default_factory=list)
    """Everything that was recorded before the cut."""
    applies: int = 0
    kind: Kind = KINDS["apply"]
    seed: int = 0
    boot: int = 0

    def draw(self) -> None:
        """As torture's, with fewer replicas; where something else is cut than an apply, with none."""
        self.version = storm(self.chance)
        made = self.version["containers"]
        made["worker"]["replicas"] = min(made["worker"]["replicas"], 2)
        if self.kind.small:
            self.version["containers"] = {name: made[name] for name in ("store", "web")}
        self.versions = [*self.versions[-1:], self.version]

    def apply(self, *, check: int | None = None) -> Result:
        """Apply both stacks as they are wanted now."""
        self.applies += 1
        result = self.world.run("apply", *STACKS, "--yes", "--allow-delete")
        if result.code not in ((0, 1) if check is None else (check,)):
            raise Lost(f"exit {result.code}\n{result}")
        return result

    def prepare(self) -> None:
        """The manifests as the last version wants them."""
        self.world.write(LEDGER, "calm.yaml")
        self.world.write(self.version, "storm.yaml")

    def first(self) -> None:
        """Bring both stacks up on an empty disk, and write what must not be lost."""
        self.draw()
        self.prepare()
        for _ in range(3):  # nothing is cut yet, and a program may miss its deadline
            if self.apply().code == 0:
                break
        tell("applied")
        for name, folder in (("still", "kept"), ("store", "data")):
            put = f"printf %s '{CANARY}' >/{folder}/canary; sync -d /{folder}/canary; sync -d /{folder}"
            self.world.run("exec", name, "sh", "-c", put, check=0)
        self.note_state()

    # --- before and after ---

    def note_before(self) -> None:
        """Tell the host what must be after the cut; from here on it may come."""
        if self.kind.draws:
            self.draw()
            self.prepare()
        if not self.kind.fresh:
            self.given = self.read_given()
            self.keys = [row.key for row in read_book(self.world.root / "reconcile.db").rows]
        say("begin", version=self.version, versions=self.versions, given=self.given, keys=self.keys)

    def read_given(self) -> dict[str, Any]:
        """What each container holds: incarnation, addresses, MACs, ports."""
        book = read_book(self.world.root / "reconcile.db")
        rows = {row.key.removeprefix("container/"): row for row in book.rows if row.kind == "container"}
        ports: dict[str, list[str]] = {}
        for pool, scope, value, owner in book.grants:
            if pool == "port":
                ports.setdefault(owner.removeprefix("container/"), []).append(f"{value}:{scope}")
        return {
            key: {
                "incarnation": row.incarnation,
                "ends": row.grants.get("endpoints", {}),
                "ports": sorted(ports.get(key, [])),
            }
            for key, row in rows.items()
        }

    def judge_given(self, versions: list[dict[str, Any]]) -> None:
        """Who is made as before has what he had; who was made anew kept the addresses of networks that he is still on."""
        now = self.read_given()
        same = set.intersection(*(set(definitions(one).items()) for one in versions))
        kept = {f"storm/{name}" for name, _ in same} | {"calm/still"}
        for key in sorted(set(self.given) & set(now)):
            before, after = self.given[key], now[key]
            if key.rpartition("/")[0] in kept and before != after:
                raise Lost(f"{key} is made as before and had {before}, now {after}")
            for network in set(before["ends"]) & set(after["ends"]):
                if before["ends"][network]["address"] != after["ends"][network]["address"]:
                    raise Lost(f"{key} had {before['ends'][network]} on {network}, now {after['ends'][network]}")

    def judge_volumes(self) -> None:
        """As torture's, where something was written."""
        if not self.kind.fresh:
            super().judge_volumes()

    def judge_ledger(self, synced: int) -> int:
        """What was synced is there, and what is there is whole; the last number."""
        numbers = [number for log in self.world.root.glob("volumes/*/data/log") for number in log.read_text().split()]
        if numbers != [str(number + 1) for number in range(len(numbers))]:
            raise Lost(f"the log of the volume is not whole: {numbers[-20:]}")
        if len(numbers) < synced:
            raise Lost(f"{synced} was synced, and the log of the volume ends with {len(numbers)}")
        return len(numbers)

    def judge_content(self) -> int:
        """Each blob is its digest; each layer, all of which were mounted, is what was noted when it was made. How many."""
        blobs = [(path, path.name) for path in self.world.root.glob("content/sha256/*") if len(path.name) == 64]
        layers = []
        for facts in self.world.root.glob("layers/*.json"):
            noted = json.loads(facts.read_text()).get("sha256", "").removeprefix("sha256:")
            layers += [(path, noted) for path in facts.parent.glob(f"{facts.stem}.*") if path != facts and noted]
        for path, digest in blobs + layers:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise Lost(f"{path.relative_to(self.world.root)} is {found}, noted was {digest}")
        return len(blobs) + len(layers)

    def judge_disk(self) -> None:
        """The file system came through; else nothing that is found here says anything of us."""
        said = subprocess.run(["busybox", "dmesg"], capture_output=True, text=True, check=True).stdout
        if bad := re.findall(r".*EXT4-fs (?:error|warning).*", said):
            raise Lost("the file system is damaged: " + "; ".join(bad[:5]))

    def judge_after_cut(self, synced: int, finished: bool) -> None:
        """Boot, apply at most twice, and compare. `finished` says that the command had ended before the cut."""
        self.touched.add("*")
        booted = self.world.run("boot")
        if booted.code not in (0, 1):
            raise Lost(f"boot\n{booted}")
        tell(f"boot {booted.code}")
        if finished and (left := self.what_is_left()):
            raise Lost(f"the command had said done, and after boot there is a plan\n{left}")
        self.kind.after(self)
        self.applies, versions = 0, self.versions
        self.judge()
        tell(f"{self.applies} applies")
        self.judge_given(versions)
        last, checked = self.judge_ledger(synced), self.judge_content()
        self.judge_disk()
        tell(f"{synced} of {last} synced, {checked} digests right")

    def start_anew(self) -> None:
        """An empty root, as on a new machine."""
        if (self.world.root / "id").exists():
            with suppress(AssertionError):  # a program may miss its deadline here
                self.world.delete_everything()
            self.world.delete_everything()
        for path in self.world.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        subprocess.run(["sync"], check=True)
        self.version, self.versions = {}, []


def tell_synced(world: World) -> None:
    """Say what the container has synced, as soon as it says so."""
    told = ""
    while True:
        for path in world.root.glob("containers/*/upper/tmp/synced"):
            text = path.read_text().strip()
            if text and text != told:
                say("synced", number=int(text))
                told = text
        time.sleep(0.2)  # until the power goes


def open_disk() -> None:
    """The disk as the root of the world to be."""
    root = FOLDER / "root"
    root.mkdir(parents=True)
    subprocess.run(["modprobe", "-a", *MODULES], check=False)
    wait_until(lambda: Path("/dev/vda").exists(), "the disk is there")
    subprocess.run(["mount", "-t", "ext4", "/dev/vda", root], check=True)
    root.chmod(0o700)


def live(orders: dict[str, Any]) -> None:
    """From the boot to the cut, or to the end of all."""
    open_disk()
    world = open_world(FOLDER, Path(orders["storage"]), QuickWorld)
    kind, boot = orders["kind"], orders["boot"]
    chance = random.Random(f"{orders['seed']}/{kind}/{boot}")
    it = Life(world, chance, small=False, kind=KINDS[kind], seed=orders["seed"], boot=boot)
    tell("up")
    try:
        if state := orders.get("state"):
            it.version, it.versions, it.given, it.keys = (state[name] for name in ("version", "versions", "given", "keys"))
            it.prepare()
            it.judge_after_cut(orders["synced"], orders["finished"])
        elif not it.kind.fresh:
            it.first()
        if orders["last"]:
            world.assert_nothing_left(seconds=30)
            say("clean")
            return
        if it.kind.fresh:
            it.start_anew()
        # Order: of what went with the root before, nothing is to be there.
        threading.Thread(target=tell_synced, args=(world,), daemon=True).start()
        it.kind.before(it)
        it.note_before()
        began = time.monotonic()
        it.kind.cut(it)
        say("done", seconds=round(time.monotonic() - began, 1))
        time.sleep(600)  # the power goes
    except (AssertionError, OSError, LookupError, ValueError) as error:
        leaked = isinstance(error, Leaked) or "nothing is left" in str(error)
        story = "\n\n".join(map(str, world.transcript))
        say("found", kind="leaked" if leaked else "lost", error=f"{type(error).__name__}: {error}", story=story[-20000:])
    finally:
        subprocess.run(["sync"], check=True)


if __name__ == "__main__":
    live(json.loads(Path(sys.argv[1]).read_text()))
