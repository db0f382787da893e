"""The container driver on the real kernel: images, links, volumes, observation and repair."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.points import failing
from reconciler.engine.native import engine
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.runtime.monitor import cgroup_parent
from reconciler.linux import cgroups, mounts, netlink, process
from reconciler.model.errors import Failed, ProgramFailed
from reconciler.model.events import silent
from reconciler.model.observation import Phase
from reconciler.model.record import Made, View
from reconciler.model.spec import Logs, Mount, Resources
from tests.runtime.bundles import this_apply, wait_for
from tests.runtime.machine import Machine, alone, save_image

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="because it needs root")]


@pytest.fixture
def on_machine(tmp_path: Path) -> Callable[[Callable[[Machine], object]], None]:
    save_image("busybox:1")  # before the fork: once for all tests

    def run(work: Callable[[Machine], object]) -> None:
        def inner() -> None:
            machine = Machine(tmp_path)
            try:
                work(machine)
            except BaseException:
                with contextlib.suppress(Exception):
                    machine.close()
                raise
            machine.close()

        alone(inner)

    return run


def shell(machine: Machine, made: Made, words: str) -> str:
    """What a shell inside says."""
    read_end, write_end = os.pipe()
    saved = os.dup(1)
    os.dup2(write_end, 1)
    os.close(write_end)
    try:
        code = machine.inside.exec(made, ["sh", "-c", words]).exit_code
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    with os.fdopen(read_end) as file:
        said = file.read()
    assert code == 0, (words, code, said)
    return said


def test_container_is_made_observed_stopped_and_gone(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web")
        assert machine.look(made)[made.key].phase is Phase.MISSING
        machine.containers.prepare(made, uses=machine.uses, emit=silent)
        machine.containers.prepare(made, uses=machine.uses, emit=silent)
        assert machine.look(made)[made.key].phase is Phase.CREATED
        started = machine.containers.start(made, uses=machine.uses)
        assert machine.look(made)[made.key].pid == started.pid
        assert machine.wrong(made) == {}
        # Order: until it is the container's own program, it is the runtime's that gets the signal, and ends with 2.
        wait_for(lambda: Path(f"/proc/{started.pid}/cmdline").read_bytes().startswith(b"sleep"))
        assert machine.containers.stop(made, mark="hold", apply=this_apply()).exit_code == 137
        assert machine.wrong(made) == {}
        machine.containers.delete(made)
        machine.containers.delete(made)
        assert machine.look(made)[made.key].phase is Phase.MISSING

    on_machine(work)


@pytest.mark.parametrize("name", ["monitor.json", "state.json", "policy.json", "container.json", "config.json", "lock"])
def test_x9_container_of_which_a_file_was_removed_is_stopped_and_deleted_all_the_same(
    on_machine: Callable[..., None], name: str
) -> None:
    def work(machine: Machine) -> None:
        for verb in ("stop", "delete"):
            made = machine.make("web")
            pid = machine.up(made).pid
            (machine.layout.bundles / made.incarnation / name).unlink()
            if verb == "stop":
                machine.containers.stop(made, mark="hold", apply=this_apply())
                assert not process.read_start_time(pid), "it runs"
            machine.containers.delete(made)
            assert not process.read_start_time(pid), "it runs"
            assert machine.look(made)[made.key].phase is Phase.MISSING

    on_machine(work)


def test_inside_is_as_docker_has_it(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web", init=True, extra_hosts={"db": "10.1.1.1"}, shm_size=1 << 20)
        machine.up(made)
        assert shell(machine, made, "hostname; cat /etc/hostname") == "web\nweb\n"
        assert "10.99.1.2\tweb\n10.1.1.1\tdb\n" in shell(machine, made, "cat /etc/hosts")
        assert shell(machine, made, "grep nameserver /etc/resolv.conf") == "nameserver 10.99.0.1\n"
        assert shell(machine, made, "cat /proc/1/comm").startswith("init")
        assert shell(machine, made, "cat /proc/net/dev | grep -c eth0") == "1\n"
        assert "size=1024k" in shell(machine, made, "grep /dev/shm /proc/mounts")
        masked = "for name in kcore keys timer_list interrupts; do test ! -e /proc/$name || wc -c < /proc/$name; done"
        assert set(shell(machine, made, masked).split()) == {"0"}
        capabilities = int(shell(machine, made, "grep CapBnd /proc/1/status").split()[1], 16)
        assert not capabilities & 1 << 13, "NET_RAW"
        assert shell(machine, made, "grep Seccomp: /proc/1/status").split()[1] == "2"
        refused = "! echo 1 2>/dev/null > /proc/sys/kernel/hostname && ! mount -t tmpfs none /tmp 2>/dev/null"
        shell(machine, made, f"{refused} && ! unshare -n true 2>/dev/null && ! mkdir /sys/fs/cgroup/pids/x 2>/dev/null")

    on_machine(work)


def test_update_changes_limits_policy_and_log_bounds_and_keeps_the_pid(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web")
        pid = machine.up(made).pid
        changes = {"resources": Resources(memory=64 << 20, cpus=0.5, pids=99), "restart": "no", "logs": Logs(max_size=1000)}
        new = replace(made, **changes)
        assert {"limits/memory", "limits/cpu", "limits/pids", "policy"} <= set(machine.wrong(new))
        assert machine.containers.update(made, new, uses=machine.uses, emit=silent).pid == pid
        assert machine.wrong(new) == {}
        assert machine.containers.update(new, made, uses=machine.uses, emit=silent).pid == pid
        assert machine.wrong(made) == {}
        group = f"/reconcile-{machine.layout.root_id}/{made.incarnation}"
        assert cgroups.read_limits(group) == {"memory": "max", "cpu": "max", "pids": "4096"}

    on_machine(work)


def replace(made: Made, **changes: object) -> Made:
    from msgspec import structs

    return structs.replace(made, spec=structs.replace(made.spec, **changes))


def test_what_is_taken_away_is_named_and_mended_beneath_the_same_pid(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web")
        pid = machine.up(made).pid
        link = made.grants.endpoints["default"].link
        bundle = machine.layout.bundles / made.incarnation

        def check(harm: Callable[[], object], *parts: str) -> None:
            harm()
            assert set(parts) <= set(machine.wrong(made)), (machine.wrong(made), parts)
            assert machine.containers.update(made, made, uses=machine.uses, emit=silent).pid == pid
            assert machine.wrong(made) == {}

        check(lambda: subprocess.run(["ip", "link", "set", link, "nomaster"], check=True), "link/default")
        check(lambda: subprocess.run(["ip", "link", "set", link, "down"], check=True), "up/default")
        check(lambda: subprocess.run(["ip", "link", "del", link], check=True), "link/default")
        check(lambda: mounts.unmount(machine.layout.netns / made.incarnation, lazy=True), "netns")
        check(lambda: (bundle / "config.json").unlink(), "bundle")
        check(lambda: cgroups.move(pid, f"/reconcile-{machine.layout.root_id}/monitors"), "cgroup")

    on_machine(work)


def test_lost_root_mount_and_dead_monitor_take_a_restart(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web")
        machine.up(made)
        shell(machine, made, "echo kept > /kept")
        mounts.unmount(machine.layout.bundles / made.incarnation / "rootfs", lazy=True)
        monitor = json.loads((machine.layout.bundles / made.incarnation / "state.json").read_text())["monitor"]
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: not process.read_start_time(monitor))
        assert machine.wrong(made) == {"mount": "missing restart", "monitor": "missing restart"}
        machine.containers.stop(made, mark="replaced", apply=this_apply())
        machine.containers.prepare(made, uses=machine.uses, emit=silent)
        machine.containers.unmark(made)
        assert machine.containers.start(made, uses=machine.uses).restarts == 0
        assert machine.wrong(made) == {}
        assert shell(machine, made, "cat /kept") == "kept\n"

    on_machine(work)


def test_start_makes_up_for_a_bundle_that_is_gone(on_machine: Callable[..., None]) -> None:
    """X2: after a reboot nothing of /run is left, and the writable layer is."""

    def work(machine: Machine) -> None:
        made = machine.make("web")
        machine.up(made)
        shell(machine, made, "echo kept > /kept")
        machine.containers.stop(made, mark="", apply=this_apply())
        machine.containers._end_lost(made)
        mounts.unmount(machine.layout.bundles / made.incarnation / "rootfs", lazy=True)
        subprocess.run(["rm", "-rf", str(machine.layout.bundles / made.incarnation)], check=True)
        assert machine.look(made)[made.key].phase is Phase.MISSING
        machine.containers.start(made, uses=machine.uses)
        assert shell(machine, made, "cat /kept") == "kept\n"

    on_machine(work)


def test_new_links_are_opened_as_the_old_are_closed(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        old, new = machine.make("web"), machine.make("web")
        machine.up(old)
        machine.containers.prepare(new, uses=machine.uses, emit=silent)
        first, second = (made.grants.endpoints["default"].link for made in (old, new))
        assert (netlink.read_links()[first].up, netlink.read_links()[second].up) == (True, False)
        machine.containers.stop(old, mark="replaced", apply=this_apply())
        assert not netlink.read_links()[first].muted
        machine.containers.start(new, uses=machine.uses, old=old)
        links = netlink.read_links()
        assert (links[first].muted, links[second].up, links[second].muted) == (True, True, False)
        statuses, others = machine.containers.observe([old, new], Glimpse(machine.layout), networks=machine.uses)
        assert (statuses[new.key].incarnation, set(others)) == (new.incarnation, {old.incarnation})

    on_machine(work)


def test_volumes_binds_and_tmpfs_are_where_they_should_be(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        machine.volume("data")
        folder = machine.layout.root / "bound"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/file").write_text("of the host\n")
        mounted = {
            "/var/lib/data": Mount(type="volume", source="data"),
            "/bound": Mount(type="bind", source=str(folder), read_only=True),
            "/bound/over": Mount(type="tmpfs", size=1 << 20, mode=0o700),
            "/only": Mount(type="bind", source=str(folder), subpath="inner/file"),
        }
        (folder / "over").mkdir()
        made = machine.make("web", mounts=mounted)
        machine.up(made)
        shell(
            machine,
            made,
            "echo x > /var/lib/data/x; ! touch /bound/y 2>/dev/null; touch /bound/over/z; cat /only | grep host",
        )
        options = shell(machine, made, "grep /var/lib/data /proc/mounts").split()[3].split(",")
        assert {"nosuid", "nodev", "rw"} <= set(options)
        assert machine.wrong(made) == {}

    on_machine(work)


def test_subpath_that_is_a_link_out_stays_in_the_volume_d2(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        volume = machine.volume("data")
        data = machine.layout.volumes / volume.grants.volume_id / "data"
        (data / "out").symlink_to("/etc")
        made = machine.make("web", mounts={"/data": Mount(type="volume", source="data", subpath="out")})
        with pytest.raises(Failed, match="out"):
            machine.containers.prepare(made, uses=machine.uses, emit=silent)

    on_machine(work)


def test_bind_without_a_source_is_refused_and_nothing_is_made_there(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        missing = machine.layout.root / "none"
        made = machine.make("web", mounts={"/x": Mount(type="bind", source=str(missing))})
        with pytest.raises(Failed, match="none"):
            machine.up(made)
        assert not missing.exists()

    on_machine(work)


def test_failed_start_leaves_it_prepared_with_its_links_down(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        made = machine.make("web", "nothing-here")
        with pytest.raises(ProgramFailed):
            machine.up(made)
        now = machine.look(made)[made.key]
        assert now.phase is Phase.CREATED
        assert "executable file not found" in now.error
        assert not netlink.read_links()[made.grants.endpoints["default"].link].up

    on_machine(work)


def test_strays_are_named_and_removed(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        kept, lost, bare = machine.make("kept"), machine.make("lost"), machine.make("bare")
        for made in (kept, lost, bare):
            machine.up(made)
        subprocess.run(["umount", "-l", str(machine.layout.bundles / bare.incarnation / "rootfs")], check=True)
        subprocess.run(["rm", "-rf", str(machine.layout.bundles / bare.incarnation)], check=True)
        view = View(made=(kept,))
        found = machine.containers.strays(view, Glimpse(machine.layout))
        assert {stray.name for stray in found if stray.kind == "bundle"} == {lost.incarnation}
        assert {stray.name for stray in found if stray.kind == "cgroup"} == {lost.incarnation, bare.incarnation}
        for stray in found:
            machine.containers.remove_stray(stray)
        assert machine.containers.strays(view, Glimpse(machine.layout)) == []
        assert machine.wrong(kept) == {}

    on_machine(work)


def test_container_on_the_hosts_network_has_no_namespace_of_its_own(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        from reconciler.model.key import Kind, make_key
        from reconciler.model.spec import NetworkSpec

        key = make_key(Kind.NETWORK, "blog", "host")
        machine.uses[key] = Made(key=key, spec=NetworkSpec(driver="host"))
        made = machine.make("web", network="host")
        pid = machine.up(made).pid
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")  # noqa: PTH115
        assert machine.wrong(made) == {}

    on_machine(work)


def test_sensitive_values_are_in_the_bundle_only(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        from reconciler.model.spec import Sensitive

        made = machine.make("web", env={"TOKEN": Sensitive("planted-in-clear")})
        machine.up(made)
        assert shell(machine, made, "echo $TOKEN") == "planted-in-clear\n"
        done = subprocess.run(["grep", "-rl", "planted-in-clear", str(machine.layout.root)], capture_output=True, text=True)
        assert done.stdout == ""
        for path in (machine.layout.bundles / made.incarnation).glob("*.json"):
            assert path.stat().st_mode & 0o077 == 0, path
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                assert b"planted-in-clear" not in cmdline.read_bytes()

    on_machine(work)


def test_x1_cgroup_of_a_root_of_which_one_hierarchy_was_left_goes(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        machine.layout.containers.mkdir(parents=True)
        parent = cgroup_parent(machine.layout)
        folder = next(folder for folder in cgroups.list_folders(parent))
        Path(folder).mkdir()
        [stray] = machine.containers.strays(View(), Glimpse(machine.layout))
        machine.containers.remove_stray(stray)
        assert not cgroups.exists(parent)
        assert machine.containers.strays(View(), Glimpse(machine.layout)) == []

    on_machine(work)


def test_x1_a_folder_of_the_run_directory_that_cannot_be_made_is_told(on_machine: Callable[..., None]) -> None:
    def work(machine: Machine) -> None:
        machine.layout.containers.mkdir(parents=True)
        machine.layout.runc.rmdir()
        with (
            failing("engine.native.engine.ensure_run/mkdir=6*off->1*raise(EIO)"),
            pytest.raises(Failed, match=r"the run directory can't be made: Input/output error"),
        ):
            engine.ensure_run(machine.layout)

    on_machine(work)
