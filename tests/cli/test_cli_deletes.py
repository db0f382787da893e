"""`delete` as people call it: what may mean several things, what is asked for, and what stands on standard output."""

import json
from pathlib import Path

import pytest
from stacks import Machine, container

pytestmark = pytest.mark.root


def test_container_and_volume_of_one_name_are_told_apart(machine: Machine) -> None:
    name = machine.applied({"data": container(mounts=["data:/data"])}, volumes={"data": {}})
    whole = f"container/{name}/data, volume/{name}/data"
    machine.refused(1, "delete", f"{name}/data", "--yes", says=[f"there is more than one: {whole}", "in full"])
    machine.refused(3, "delete", f"volume/{name}/data", "--yes", says=[f"container/{name}/data/1 uses it"])
    out = machine.run("delete", f"container/{name}/data", "--yes", check=0).out
    assert f"the next apply of {name} makes it again, unless it is taken out there" in out
    machine.run("delete", f"volume/{name}/data", "--yes", check=0)
    assert f"volume/{name}/data" not in machine.records()
    machine.run("apply", f"{name}.yaml", "--no-wait", check=0)
    assert machine.pid(f"{name}/data")


def test_folder_that_is_called_as_a_container_is_told_apart(machine: Machine) -> None:
    name = machine.applied({"alone": container()})
    folder: Path = machine.world.folder / "alone"
    folder.mkdir()
    says = [f"it is a path and container/{name}/alone/1", "./alone"]
    machine.refused(1, "delete", "alone", "--yes", says=says)
    machine.refused(65, "delete", "./alone", "--yes", says=["no manifest in this folder"])
    machine.run("delete", f"{name}/alone", "--yes", check=0)
    folder.rmdir()


def test_all_volumes_go_with_a_whole_stack_only(machine: Machine) -> None:
    name = machine.applied({"web": container(mounts=["data:/data"])}, volumes={"data": {}})
    machine.refused(64, "delete", f"{name}/web", "--volumes", "--yes", says=["--volume NAME"])
    assert machine.pid(f"{name}/web")


def test_volumes_that_would_go_are_listed_where_nobody_can_be_asked(machine: Machine) -> None:
    web = container("sh", "-c", "echo 1 > /data/a; exec pause", mounts=["data:/data"])
    name = machine.applied({"web": web}, volumes={"data": {}})
    for form in ([], ["-o", "json"]):
        refused = machine.refused(3, "delete", name, "--volumes", *form, says=["of data will be lost", "--yes"])
        assert refused.out == ""
    done = machine.run("delete", name, "--volumes", "--yes", "-o", "json", check=0)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert any(
        "deletes its data" in note for e in events for a in e.get("plan", {}).get("actions", ()) for note in a["notes"]
    )


def test_manifest_that_was_renamed_does_not_delete_what_it_was(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    other = machine.name()
    text = (machine.world.folder / f"{name}.yaml").read_text()
    (machine.world.folder / f"{name}.yaml").write_text(text.replace(f'"name": "{name}"', f'"name": "{other}"'))
    machine.refused(1, "delete", f"{name}.yaml", "--yes", says=[f"no stack named {other}", f"did you mean {name}?"])
    assert machine.pid(f"{name}/web")


def test_empty_manifest_is_an_error_that_names_delete(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    machine.write(name, {})
    machine.refused(65, "apply", f"{name}.yaml", "--yes", "--allow-delete", says=["reconcile delete"])
    assert machine.pid(f"{name}/web")
