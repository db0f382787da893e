"""What `scripts/demo` shows: the main job on examples/blog/, each step as a person would type it, with its real output.

A registry of its own on a loopback port, a root under state/demo, a copy of the manifest beside it that is edited. It
checks what it shows: where a step does not do what its words say, the demo ends with exit code 1, having cleaned up.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

from lab.images import lab_images, push
from lab.registry import Registry, free_port, start_registry

HERE = Path(__file__).resolve().parents[1]
STATE = HERE / "state"
ROOT = STATE / "demo"
WORK = STATE / "blog"
BOLD, DIM, PLAIN = (
    ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "", "")
)

RECONCILE = [str(HERE / ".venv/bin/reconcile")]


class Unexpected(Exception):
    """A step did not do what the demo says that it does."""


def say(text: str) -> None:
    """A heading between steps."""
    print(f"\n{BOLD}# {text}{PLAIN}", flush=True)


def show(command: str) -> None:
    print(f"{BOLD}$ {command}{PLAIN}", flush=True)


def reconcile(*arguments: str, expect: int | None = 0, shown: str = "") -> None:
    """Run `reconcile` before the viewer's eyes. Raises Unexpected for another exit code."""
    show(shown or shlex.join(["reconcile", *arguments]))
    code = subprocess.run([*RECONCILE, *arguments], cwd=WORK, check=False, stdin=subprocess.DEVNULL).returncode
    if code:
        print(f"{DIM}[exit {code}]{PLAIN}", flush=True)
    if expect is not None and code != expect:
        raise Unexpected(f"reconcile {arguments[0]} ended with {code}, not {expect}")


def by_hand(*command: str) -> str:
    """Run another program before the viewer's eyes; what it printed."""
    show(shlex.join(command))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode:
        raise Unexpected(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def quietly(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def records() -> dict[str, Any]:
    out = subprocess.run([*RECONCILE, "get", "-o", "json"], capture_output=True, text=True, check=True).stdout
    return {item["key"]: item for item in json.loads(out)}


def fetch(port: int, expect: str) -> None:
    """Fetch the page through the published port and show it; waits a moment for it."""
    url = f"http://127.0.0.1:{port}/"
    show(f"curl {url}")
    print(page(url, expect), end="", flush=True)


def page(url: str, expect: str) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                text = str(answer.read().decode())
                if expect in text:
                    return text
        except OSError as error:
            text = str(error)
        if time.monotonic() > deadline:
            raise Unexpected(f"{url} does not show {expect!r}: {text}")
        time.sleep(0.05)  # a poll with a deadline


# --- the steps --------------------------------------------------------------------------------------------------------


def plan_and_apply(variables: list[str], port: int) -> None:
    say("A manifest: one stack of images, networks, volumes and containers")
    show("cat stack.yaml")
    print((WORK / "stack.yaml").read_text(), end="")
    say("What would be done? Nothing is touched, nothing pulled")
    reconcile("plan", "stack.yaml", *variables, expect=2)
    say("Do it")
    reconcile("apply", "stack.yaml", *variables, "--yes")
    reconcile("get")
    fetch(port, "It works")
    say("Again: nothing to do")
    reconcile("plan", "stack.yaml", *variables)


def change_one_field(variables: list[str], port: int) -> None:
    say("Change one field: only its container is replaced, and the plan says why")
    path = WORK / "stack.yaml"
    before = {key: item["status"].get("pid") for key, item in records().items()}
    show("sed -i 's/GREETING: hello/GREETING: good morning/' stack.yaml")
    path.write_text(path.read_text().replace("GREETING: hello", "GREETING: good morning"))
    reconcile("plan", "stack.yaml", *variables, expect=2)
    reconcile("apply", "stack.yaml", *variables, "--yes")
    reconcile("exec", "web", "sh", "-c", "echo $GREETING")
    fetch(port, "It works")
    after = {key: item["status"].get("pid") for key, item in records().items()}
    changed = [key for key in before if before[key] != after[key]]
    if changed != ["container/blog/web/1"]:
        raise Unexpected(f"another container was touched: {changed}")


def drift_by_hand(variables: list[str], port: int) -> None:
    say("Somebody meddles: a port is taken off its bridge, a firewall rule is removed")
    links = json.loads(quietly("ip", "-j", "link", "show", "type", "veth"))
    root_id = (ROOT / "id").read_text().split()[0]
    mine = [link["ifname"] for link in links if root_id in link["ifname"] and "master" in link]
    by_hand("ip", "link", "set", mine[0], "nomaster")
    by_hand("nft", "delete", "rule", *dnat_rule(root_id))
    say("`drift` names what was changed behind our back; `apply` mends that and touches nothing else")
    before = {key: item["status"].get("pid") for key, item in records().items()}
    reconcile("drift", expect=2)
    reconcile("apply", "stack.yaml", *variables, "--yes")
    reconcile("drift")
    fetch(port, "It works")
    if {key: item["status"].get("pid") for key, item in records().items()} != before:
        raise Unexpected("a container was restarted by the mending")


def dnat_rule(root_id: str) -> list[str]:
    """Where the rule that publishes ports stands: family, table, chain, handle."""
    listed = json.loads(quietly("nft", "-j", "list", "ruleset"))["nftables"]
    for item in listed:
        rule = item.get("rule", {})
        if root_id in rule.get("table", "") and any("dnat" in part for part in rule["expr"]):
            return [rule["family"], rule["table"], rule["chain"], "handle", str(rule["handle"])]
    raise Unexpected("there is no rule that publishes a port")


def kill_one(port: int) -> None:
    say("A container is killed: it is back at once, without any daemon")
    pid = int(records()["container/blog/web/1"]["status"]["pid"])
    show(f"kill -KILL {pid}")
    os.kill(pid, signal.SIGKILL)
    fetch(port, "It works")
    reconcile("get", "containers")
    reconcile("events", expect=None)


def delete_all() -> None:
    say("Delete: containers, networks, links, rules, mounts go; volumes and images are kept, and listed")
    reconcile("delete", "blog", "--yes")
    reconcile("get")
    reconcile("images", "ls")
    root_id = (ROOT / "id").read_text().split()[0]
    left = {
        "links": [link["ifname"] for link in json.loads(quietly("ip", "-j", "link")) if root_id in link["ifname"]],
        "tables": [line for line in quietly("nft", "list", "tables").splitlines() if root_id in line],
        "cgroups": [name for name, _, _ in os.walk("/sys/fs/cgroup") if root_id in name],
        "mounts": [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if root_id in line],
    }
    say("What the kernel still has of it")
    for kind, names in left.items():
        print(f"{kind:8} {', '.join(names) or 'none'}")
    if left["links"] or left["tables"] or left["cgroups"]:
        raise Unexpected("something was left in the kernel")


def remove_the_rest() -> None:
    say("And the rest: volumes and images go only when that is said")
    reconcile("delete", "blog", "--volumes", "--yes")
    reconcile("images", "prune", "--all")


# --- before and after -------------------------------------------------------------------------------------------------


def start() -> tuple[Registry, int]:
    """A registry with the two images, and the port to publish on."""
    clean_up(None)
    WORK.mkdir(parents=True)
    shutil.copytree(HERE / "examples/blog", WORK, dirs_exist_ok=True)
    port = free_port(5000)
    print(f"demo: starting a registry on 127.0.0.1:{port} and pushing two images made from Debian's packages", flush=True)
    registry = start_registry(WORK / "registry", WORK / "registry-run", port=port)
    try:
        for name, image in (("demo/web:1", "web:1"), ("demo/busybox:1", "busybox:1")):
            print(f"demo: {registry.host}/{name} {push(registry.url, name, lab_images()[image])}", flush=True)
    except BaseException:
        registry.stop()
        raise
    print("demo: everything below runs in state/blog, with its root in state/demo", flush=True)
    return registry, free_port(8080)


def clean_up(registry: Registry | None) -> None:
    """Remove whatever this or an earlier demo has left."""
    if ROOT.exists():
        for command in (["delete", "blog", "--volumes", "--yes"], ["images", "prune", "--all"]):
            subprocess.run([*RECONCILE, *command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if registry:
        registry.stop()
    for folder in (ROOT, WORK):
        shutil.rmtree(folder, ignore_errors=True)


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Show everything; clean up however it ends."""
    signal.signal(signal.SIGTERM, interrupt)
    os.environ["RECONCILE_ROOT"] = str(ROOT)
    registry = None
    try:
        registry, port = start()
        variables = ["--var", f"REGISTRY={registry.host}"] if registry.host != "127.0.0.1:5000" else []
        variables += ["--var", f"PORT={port}"] if port != 8080 else []
        plan_and_apply(variables, port)
        change_one_field(variables, port)
        drift_by_hand(variables, port)
        kill_one(port)
        delete_all()
        remove_the_rest()
    except Unexpected as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        clean_up(registry)
    say("Done. Everything that the demo made is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
