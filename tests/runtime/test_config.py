"""The OCI config as text that a reviewer can read, and the rules that it follows."""

import json
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import spec
from reconciler.engine.native.runtime.seccomp import render_seccomp
from reconciler.engine.native.runtime.users import Identity
from reconciler.model.capabilities import DEFAULT_CAPABILITIES
from reconciler.model.spec import ContainerSpec, Resources, Sensitive

GOLDEN = Path(__file__).parent / "golden"
IMAGE = {
    "Entrypoint": ["/entry"],
    "Cmd": ["serve"],
    "Env": ["PATH=/opt/bin", "LANG=C", "broken", "=x"],
    "WorkingDir": "/srv",
}


def place(**changes: object) -> spec.Place:
    given = {
        "rootfs": "/run/b/rootfs",
        "cgroup": "/reconcile-abcde/0123456789ab",
        "hostname": "web",
        "identity": Identity(),
    }
    return spec.Place(**given | changes)  # type: ignore[arg-type]  # keywords of the place


def wanted(**changes: object) -> ContainerSpec:
    return ContainerSpec(image="app", **changes)  # type: ignore[arg-type]  # keywords of the spec


def render(rendered: dict[str, object]) -> str:
    """With the long list of system calls as a number: it has a file of its own."""
    linux = json.loads(json.dumps(rendered["linux"]))
    linux["seccomp"] = f"{len(linux['seccomp']['syscalls'])} rules"
    return json.dumps({**rendered, "linux": linux}, indent=1, sort_keys=True) + "\n"


PLAIN = (wanted(), place())
FULL = (
    wanted(
        command=("run", "-v"),
        entrypoint=(),
        env={"B": "2", "SECRET": Sensitive("clear here")},
        workdir="work",
        read_only=True,
        tty=True,
        cap_add=("CAP_NET_RAW",),
        cap_drop=("CAP_MKNOD",),
        ulimits={"nofile": (10, 20), "core": (-1, -1)},
        sysctls={"net.core.somaxconn": "1024"},
        shm_size=1 << 20,
        resources=Resources(cpus=1.5, memory=256 << 20, pids=200),
    ),
    place(
        identity=Identity(1000, 1001, (33,), "/home/app"),
        netns="/run/netns/0123456789ab",
        init="/usr/bin/tini-static",
        mounts=(
            spec.Bind("/data", "/var/lib/app/inner", ("nosuid", "nodev", "ro")),
            spec.Tmpfs("/var/lib/app", 1 << 20, 0o700),
            spec.Bind("/run/b/hosts", "/etc/hosts", ("rw",)),
        ),
    ),
)


@pytest.mark.parametrize(("name", "case"), [("plain", PLAIN), ("full", FULL)])
def test_config_is_as_the_golden_file_says(name: str, case: tuple[ContainerSpec, spec.Place]) -> None:
    golden = GOLDEN / f"{name}.json"
    assert render(spec.render_config(case[0], IMAGE, case[1])) == golden.read_text()


@pytest.mark.parametrize(
    ("changes", "args"),
    [
        ({}, ["/entry", "serve"]),
        ({"command": ("x",)}, ["/entry", "x"]),
        ({"command": ()}, ["/entry"]),
        ({"entrypoint": ("/other",)}, ["/other"]),
        ({"entrypoint": ("/other",), "command": ("x",)}, ["/other", "x"]),
        ({"entrypoint": (), "command": ("x",)}, ["x"]),
    ],
)
def test_entrypoint_and_command_go_together_as_in_docker(changes: dict[str, object], args: list[str]) -> None:
    assert spec.choose_command(wanted(**changes), IMAGE) == args


@pytest.mark.parametrize("image", [{}, {"Cmd": None}, {"Cmd": [], "Entrypoint": []}, {"Cmd": "text"}, {"Cmd": [""]}])
def test_image_without_a_command_is_refused(image: dict[str, object]) -> None:
    with pytest.raises(spec.Unstartable):
        spec.choose_command(wanted(), image)


def test_environment_comes_in_dockers_order() -> None:
    env = spec.choose_env(wanted(env={"LANG": "de", "A": "1"}, tty=True), IMAGE, place(identity=Identity(home="/h")))
    assert env == {"PATH": "/opt/bin", "HOSTNAME": "web", "TERM": "xterm", "HOME": "/h", "LANG": "de", "A": "1"}


@pytest.mark.parametrize("env", [{"A=B": "1"}, {"": "1"}, {"A": "x\0y"}])
def test_illegal_environment_is_refused_b3(env: dict[str, str]) -> None:
    with pytest.raises(spec.Unstartable):
        spec.choose_env(wanted(env=env), {}, place())


@pytest.mark.parametrize(
    ("given", "clean"), [("", "/"), ("a/b", "/a/b"), ("/a/../../..", "/"), ("//x", "/x"), ("/proc", "/proc")]
)
def test_working_directory_is_absolute_and_clean(given: str, clean: str) -> None:
    assert spec.choose_workdir(given) == clean


@pytest.mark.parametrize("given", ["/proc/self/fd/7", "/x/../proc/self/fd/8", "/sys/fs", "/dev/fd/7"])
def test_working_directory_in_the_kernels_file_systems_is_refused_b2(given: str) -> None:
    with pytest.raises(spec.Unstartable):
        spec.choose_workdir(given)


def test_capabilities_are_dockers_without_net_raw() -> None:
    assert len(spec.choose_capabilities((), ())) == 13
    assert "CAP_NET_RAW" not in spec.choose_capabilities((), ())
    assert spec.choose_capabilities(("CAP_SYS_TIME",), ("ALL",)) == ["CAP_SYS_TIME"]
    assert "CAP_CHOWN" not in spec.choose_capabilities(("ALL",), ("CAP_CHOWN",))
    assert "CAP_SYS_ADMIN" in spec.choose_capabilities(("ALL",), ())


def test_inheritable_and_ambient_capabilities_are_empty_b8() -> None:
    rendered = spec.render_config(*PLAIN[:1], IMAGE, PLAIN[1])["process"]["capabilities"]
    assert not rendered.get("inheritable")
    assert not rendered.get("ambient")


def allowed(rendered: dict[str, object]) -> set[str]:
    return {
        name
        for rule in rendered["syscalls"]  # type: ignore[attr-defined]  # plain JSON
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }


def test_filter_lets_ordinary_calls_through_and_keeps_the_dangerous_out() -> None:
    rendered = render_seccomp(DEFAULT_CAPABILITIES, machine="x86_64")
    names = allowed(rendered)
    assert {"openat2", "futex", "clone", "execve", "chroot", "arch_prctl", "landlock_create_ruleset"} - names == {"clone"}
    forbidden = {"mount", "unshare", "setns", "bpf", "keyctl", "add_key", "kexec_load", "io_uring_setup", "userfaultfd"}
    assert not names & (forbidden | {"open_by_handle_at", "init_module", "reboot", "swapon", "pivot_root", "iopl"})
    clone3 = next(rule for rule in rendered["syscalls"] if rule["names"] == ["clone3"])
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_filter_opens_what_an_added_capability_is_for() -> None:
    assert "mount" in allowed(render_seccomp(["CAP_SYS_ADMIN"], machine="x86_64"))
    assert "settimeofday" in allowed(render_seccomp(["CAP_SYS_TIME"], machine="x86_64"))
    assert "arch_prctl" not in allowed(render_seccomp([], machine="aarch64"))


def test_b7_image_that_asks_for_privileges_gets_what_every_image_gets() -> None:
    wishes: dict[str, object] = {
        "Privileged": True,
        "OomScoreAdj": -1000,
        "Sysctls": {"kernel.core_pattern": "|/evil"},
        "Devices": [{"PathOnHost": "/dev/sda"}],
        "CapAdd": ["ALL"],
        "Binds": ["/:/host"],
        "PidMode": "host",
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "MaskedPaths": [],
        "Runtime": "/evil",
        "Labels": {"io.kubernetes.cri-o.userns-mode": "host", "run.oci.hooks.stderr": "/dev/kmsg"},
    }
    wishes |= {"HostConfig": dict(wishes), "Annotations": {"org.systemd.property.Delegate": "true"}}
    hostile = {
        **IMAGE,
        **wishes,
        "privileged": True,
        "linux": {"namespaces": []},
        "hooks": {"prestart": [{"path": "/evil"}]},
    }
    wanted_, where = PLAIN
    assert spec.render_config(wanted_, hostile, where) == spec.render_config(wanted_, IMAGE, where)
    rendered = spec.render_config(wanted_, hostile, where)
    assert rendered["process"]["oomScoreAdj"] == 0
    assert rendered["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "hooks" not in rendered
    assert "annotations" not in rendered
    assert "devices" not in rendered["linux"]


def test_b8_who_is_not_root_is_given_no_capability() -> None:
    rendered = spec.render_capabilities(["CAP_CHOWN"], uid=1000)
    assert rendered == {"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []}
