"""A secret planted everywhere appears nowhere: outputs, the root, the run directory, process lists, core dumps. Row F4."""

import base64
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyrage
import pytest

from lab import images as lab
from lab.registry import PASSWORD, start_registry
from lab.world import RECONCILE, World, wait_until
from reconciler.verbs.agekeys import AgeKeys
from scenarios.hostile import BUSYBOX

pytestmark = pytest.mark.root

KINDS = ("var", "dotenv", "environment", "envfile", "config", "file", "variable", "age", "by-hand", "exec")
PLANTED = {kind: f"plANted-{kind}-9f3aQ" for kind in KINDS}
LOGIN = base64.b64encode(f"lab:{PASSWORD}".encode()).decode()
NEEDLES = (*PLANTED.values(), *(f"{value}-2" for value in PLANTED.values()), LOGIN, "AGE-SECRET-KEY-1")
KEYS = ("container/one/it/1", "secret/one/file", "config/one/inline")
OURS = ("conmon", "aardvark", "runc", "onexit", "nft", "sqfstar", "mkfs", "/usr/bin/env")


@contextmanager
def watched(world: World) -> Iterator[dict[str, str]]:
    """Command lines and environments of all that runs meanwhile, but for what is the container's own or the caller's."""
    seen: dict[str, str] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for path in world.proc.iterdir():
                with suppress(OSError):
                    if path.name.isdigit():
                        command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        environment = (path / "environ").read_bytes().decode(errors="replace")
                        own = any(word in command.split(" ", 1)[0] or "onexit" in command for word in OURS)
                        seen[command] = environment if own else ""

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def stack(second: str = "", **more: Any) -> dict[str, Any]:
    it: dict[str, Any] = {
        "image": "private",
        "command": ["sh", "-c", "test -s /run/secrets/file && exec pause"],
        "stop_grace": "0s",
        "env": {"A": "${VAR}", "B": "${DOTENV}", "C": "before ${ENVIRONMENT} after"},
        "env_file": ["./planted.env"],
        "configs": ["inline"],
        "secrets": ["file", "variable", "encrypted"],
        "healthcheck": {"test": ["CMD-SHELL", 'test -n "$$A"'], "interval": "1s"},
        **more,
    }
    return {
        "apiVersion": "reconcile/v1",
        "name": "one",
        "images": {"private": {"from": "127.0.0.1:5001/private:1"}},
        "configs": {"inline": {"content": f"password = ${{CONFIG}}{second}\n"}},
        "secrets": {
            "file": {"file": "./planted"},
            "variable": {"env": "VARIABLE"},
            "encrypted": {"age": "./planted.age"},
        },
        "containers": {"it": it},
    }


@pytest.fixture
def planted(world: World) -> Iterator[World]:
    """A world with a registry that wants a password, and files that the manifest reads."""
    registry = start_registry(
        world.folder / "private", world.folder / "private-scratch", port=5001, enter=world.enter, auth=True
    )
    with world.network():
        lab.push("http://127.0.0.1:5001", "private:1", lab.lab_images()["busybox:1"], auth=f"Basic {LOGIN}")
    (world.home / ".docker").mkdir()
    (world.home / ".docker/config.json").write_text(json.dumps({"auths": {"127.0.0.1:5001": {"auth": LOGIN}}}))
    world.write(f"DOTENV={PLANTED['dotenv']}\n", ".env")
    world.run("keys", "new", check=0)
    set_files(world, "")
    yield world
    world.signal(registry.process)
    registry.process.wait(10)


def set_files(world: World, second: str) -> None:
    world.write(f"FROM_FILE={PLANTED['envfile']}{second}\n", "planted.env")
    world.write(PLANTED["file"] + second, "planted")
    recipient = pyrage.x25519.Recipient.from_str(AgeKeys(world.root).read()[0].recipient)
    (world.folder / "planted.age").write_bytes(pyrage.encrypt((PLANTED["age"] + second).encode(), [recipient]))
    names = {
        "ENVIRONMENT": "environment",
        "CONFIG": "config",
        "VARIABLE": "variable",
        "BY_HAND": "by-hand",
        "IN_EXEC": "exec",
    }
    world.env |= {name: PLANTED[kind] + second for name, kind in names.items()}


def found_in(where: str, text: str) -> list[tuple[str, str]]:
    return [(where, needle) for needle in NEEDLES if needle in text]


def search(world: World, *skipped: str) -> list[str]:
    """Files below the root and the run directory that hold a needle, those below a bundle of the run directory left out."""
    run = f"/run/reconcile/{world.root_ids()[0]}"
    words = [word for needle in NEEDLES for word in ("-e", needle)]
    left_out = [f"--exclude-dir={name}" for name in ("bundles", "layers", "keys", *skipped)]
    listed = world.nsenter("grep", "-raFl", *left_out, *words, str(world.root), run, check=False).out.split("\n")
    return [path for path in listed if path]


def test_f4_secret_planted_everywhere_appears_nowhere(planted: World):
    world, var = planted, ("--var", f"VAR={PLANTED['var']}")
    world.write(stack())
    world.run("apply", "stack.yaml", "--yes", *var, check=0)  # the first makes the root's key
    with watched(world) as seen:
        set_files(world, "-2")
        world.write(stack("-2"))
        second = ("--var", f"VAR={PLANTED['var']}-2")
        for form in ((), ("-o", "json")):
            world.run("plan", "stack.yaml", *second, *form, check=2)
        world.run("plan", "stack.yaml", *second, "--why", "container/one/it/1", check=2)
        world.run("plan", "stack.yaml", *second, "--out", "kept.plan", check=2)
        world.run("apply", "stack.yaml", "--yes", *second, check=0)
        for command in (
            *(["get", "-o", form] for form in ("table", "wide", "json", "yaml")),
            *(["describe", key, "-o", form] for key in KEYS for form in ("table", "json", "yaml")),
            *([verb, *form] for verb in ("status", "events", "drift") for form in ((), ("-o", "json"))),
            *(["history", "one", *form] for form in ((), ("-o", "json"), ("--diff", "1", "2"))),
            ["export", "one"], ["images", "ls"], ["images", "inspect", "127.0.0.1:5001/private:1"], ["doctor"],
            ["logs", "it"], ["keys"], ["keys", "ls", "-o", "json"], ["validate", "stack.yaml", *second], ["schema"],
        ):  # fmt: skip
            world.run(*command)
        # By hand, in errors, after a drift, in a rollback.
        world.run("run", "--rm", "-e", "BY_HAND", BUSYBOX, "true", check=0)
        world.run("run", "-d", "--name", "byhand", "-e", "BY_HAND", BUSYBOX, "pause", check=0)
        world.run("exec", "--env", "IN_EXEC", "it", "true")
        world.kill(world.pid("one/it"))
        world.run("exec", "it", "/no/such/program")
        world.write(stack("-2", command=["/no/such/program"], mounts=["./no-such:/x"]), "bad.yaml")
        world.run("apply", "bad.yaml", "--yes", "--take-over", *second, check=1)
        world.write(
            {**stack("-2"), "containers": {"it": {"image": "private", "env": {"A": ["${VAR}"]}, "user": "-1"}}},
            "worse.yaml",
        )
        world.run("apply", "worse.yaml", "--yes", "--take-over", *second, check=65)
        world.write(stack("-2", command=["false"], restart="no"), "fails.yaml")
        world.run("apply", "fails.yaml", "--yes", "--take-over", *second)
        world.run("rollback", "one", "1", "--yes")
        world.run("export", "run/byhand")
        world.run("events", "-o", "json")
    said = [hit for result in world.transcript for hit in found_in(result.command, result.out + result.err)]
    # What is written on the command line is the caller's own, but no answer repeats it.
    assert said == []
    assert found_in("kept.plan", (world.folder / "kept.plan").read_text(errors="replace")) == []
    assert search(world) == []
    ours = ("reconciler.cli.", RECONCILE[1])  # What somebody gives as a variable stands in his own command.
    commands = [one for one in seen if not any(program in one for program in ours) and not one.startswith("nsenter")]
    assert any("conmon" in command for command in commands)
    assert [hit for command in commands for hit in found_in(command, command + seen[command])] == []
    assert world.run("exec", "it", "sh", "-c", "echo $A", check=0).out == PLANTED["var"] + "\n", (
        "it has been there all along"
    )


def test_f4_only_the_bundle_on_its_tmpfs_has_a_secret_in_clear(planted: World):
    world = planted
    world.write(stack())
    world.run("apply", "stack.yaml", "--yes", "--var", f"VAR={PLANTED['var']}", check=0)
    run = Path(f"/run/reconcile/{world.root_ids()[0]}")
    words = [word for needle in PLANTED.values() for word in ("-e", needle)]
    listed = world.nsenter("grep", "-raFl", "--exclude-dir=rootfs", *words, str(run), check=False).out.split()
    names = {Path(path).relative_to(run / "bundles").parts[1] for path in listed}
    assert names <= {"config.json", "container.json", "contents"}
    assert "contents" in names
    mount = world.nsenter("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", str(run / "bundles")).out
    assert mount.startswith("tmpfs")
    modes = world.nsenter("stat", "-c", "%a", *(path for path in listed if path.endswith(".json"))).out.split()
    assert set(modes) == {"600"}
    world.run("delete", "one", "--yes", check=0)
    assert search(world) == []


def test_f4_no_core_of_a_command_is_written(world: World):
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("skipped because this machine's cores go to a program, not to files")
    world.write(
        {"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": {"image": BUSYBOX, "command": ["pause"]}}}
    )
    world.run("apply", "stack.yaml", "--yes", check=0)

    def abort(sign: str, *command: str) -> None:
        """Have it end by SIGQUIT, where a core could be written, once a process runs whose command line is `sign`."""
        # Whoever runs the suite in the background of a script has SIGQUIT ignored, and we would inherit that.
        heard = ["env", "--default-signal=QUIT"]
        process = world.spawn([*heard, "sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", *command])
        wait_until(lambda: sign in world.processes().values(), "it runs")
        pid = next(pid for pid, line in world.processes().items() if line == " ".join(command))
        world.nsenter("sh", "-c", f"kill -{signal.SIGQUIT.value} {pid}")
        process.wait(30)
        world.run("kill", "it", check=0)  # what was run in it holds the other end of the pipes
        process.communicate(timeout=30)

    def cores() -> list[str]:
        return [path.name for path in world.folder.iterdir() if path.name.startswith("core")]

    abort("sleep 4444", sys.executable, "-m", "reconciler.cli.main", "exec", "it", "sleep", "4444")
    assert cores() == []
    abort("sleep 5555", "sleep", "5555")
    assert cores() != [], "nobody's core is written here, so the first told nothing"
