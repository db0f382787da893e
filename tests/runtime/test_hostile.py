"""Images and processes that ask for what is not theirs, against the real runtime. Rows of the hostile list in the names."""

import os
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import bundle, conmon, spec
from reconciler.engine.native.runtime.inside import NativeInside, log_path
from reconciler.model.errors import Failed, ProgramFailed
from reconciler.model.observation import Phase
from reconciler.model.spec import Logs
from tests.runtime.bundles import Bundles, wait_for

pytestmark = pytest.mark.root


def test_working_directory_that_is_a_link_to_a_descriptor_shows_nothing_of_the_host_b2(bundles: Bundles) -> None:
    for number in range(3, 12):
        made = bundles.make(
            "sh", "-c", "echo at $(pwd -P); ls ../../../../../root/.. ; sleep 1000", workdir="/trap", restart="no"
        )
        (bundles.path(made) / "rootfs/trap").symlink_to(f"/proc/self/fd/{number}")
        try:
            bundles.run(made)
        except ProgramFailed:
            continue  # The runtime saw that it leads out.
        wait_for(lambda made=made: "at /" in bundles.log(made))
        assert not any(word in bundles.log(made) for word in ("lib64", "boot", "home/", "usr"))


def test_image_that_names_a_descriptor_as_its_working_directory_is_refused_b2(bundles: Bundles) -> None:
    bundles.image_config = {"WorkingDir": "/proc/self/fd/8"}
    with pytest.raises(Failed, match="CVE-2024-21626"):
        bundles.make()


def test_image_user_that_wraps_to_root_is_refused_b1(bundles: Bundles) -> None:
    bundles.image_config = {"User": "4294967296"}
    with pytest.raises(Failed, match="is no id"):
        bundles.make()


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/proc/sys/kernel"])
def test_mount_over_proc_is_refused_by_the_runtime_b5(bundles: Bundles, target: str, tmp_path: Path) -> None:
    made = bundles.make()
    path = str(bundles.path(made))
    config = bundle.read_json(path, bundle.CONFIG)
    config["mounts"].append({"destination": target, "type": "bind", "source": str(tmp_path), "options": ["rbind"]})
    bundle.write_json(path, bundle.CONFIG, config)
    with pytest.raises(ProgramFailed, match="create failed") as failed:
        bundles.run(made)
    assert "proc" in failed.value.detail
    assert bundles.status(made).phase is Phase.CREATED


def test_mount_target_through_a_link_ends_in_the_container_b5(bundles: Bundles, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source/mark").touch()
    made = bundles.make("sh", "-c", "ls /link/sub; sleep 1000")
    (bundles.path(made) / "rootfs/link").symlink_to(tmp_path / "outside")
    path = str(bundles.path(made))
    config = bundle.read_json(path, bundle.CONFIG)
    source = str(tmp_path / "source")
    config["mounts"].append({"destination": "/link/sub", "type": "bind", "source": source, "options": ["rbind"]})
    bundle.write_json(path, bundle.CONFIG, config)
    bundles.run(made)
    wait_for(lambda: "mark" in bundles.log(made))
    assert os.listdir(tmp_path / "outside") == []  # noqa: PTH208


def test_flood_of_the_log_stays_within_its_bound_b6(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "seq 1 60000; echo ready; sleep 1000", logs=Logs(max_size=100_000, keep=2))
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made), 20)
    log = log_path(bundles.layout, made.incarnation)
    assert sum(path.stat().st_size for path in log.parent.iterdir()) <= 110_000
    lines = list(NativeInside(bundles.layout).logs(made, tail=None, since=0, follow=False, stop=lambda: True))
    assert lines[0].lost


def test_labels_and_environment_of_an_image_are_never_our_data_b3(bundles: Bundles) -> None:
    bundles.image_config = {
        "Labels": {"id": "other", "mark": "gone", "exit_command": "/bin/sh"},
        "Env": ["_OCI_SYNCPIPE=9", "restart=no"],
        "Healthcheck": {"Test": ["NONE"], "key": "container/other/x/1"},
    }
    made = bundles.make()
    monitor = bundle.read_json(str(bundles.path(made)), bundle.MONITOR)
    assert (monitor["id"], monitor["key"]) == (made.incarnation, made.key)
    command = conmon.render_command(str(bundles.path(made)), monitor)
    assert not any("other" in word or word == "/bin/sh" for word in command)
    assert bundles.run(made).phase is Phase.RUNNING


def test_container_with_no_more_than_the_kernels_devices(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "busybox mknod /tmp/disk b 254 0; cat /tmp/disk > /dev/null; echo code $?; sleep 1000")
    bundles.run(made)
    wait_for(lambda: "code" in bundles.log(made))
    assert "code 1" in bundles.log(made)
    assert "not permitted" in bundles.log(made)


def test_all_capabilities_are_named_once() -> None:
    assert len(set(spec.ALL_CAPABILITIES)) == len(spec.ALL_CAPABILITIES) == 41
