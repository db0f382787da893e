"""`export`: what is recorded, as a manifest that plans nothing and tells no secret."""

import sys

import pytest

from lab.world import World

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"
STACK = """
apiVersion: reconcile/v1
name: one
origin: team
images: {web: {from: "127.0.0.1:5000/web:health"}}
networks: {front: {subnet: 10.77.0.0/24}}
volumes: {data: {labels: {team: web}}}
configs: {app: {content: "a: $$1\\n"}}
secrets: {token: {env: PLANTED}}
containers:
  web:
    image: web
    env: {TOKEN: "${PLANTED}", PRICE: "5$$"}
    networks: {front: {aliases: [www], ipv4: 10.77.0.9}}
    ports: ["127.0.0.1:8090:8080"]
    mounts: ["data:/data", "./motd:/etc/motd:ro"]
    configs: [app]
    secrets: [token]
    resources: {memory: 64M, cpus: 0.5}
  two: {image: "127.0.0.1:5000/busybox:1", command: [pause], replicas: 2, depends_on: {web: healthy}}
"""


def test_what_is_exported_plans_nothing_and_has_no_secret(world: World):
    (world.folder / "motd").write_text("hello\n")
    world.write(STACK)
    world.run("apply", "stack.yaml", "--yes", "--var", "PLANTED=planted-secret", check=0)
    result = world.run("export", "one", check=0)
    assert "planted-secret" not in result.out + result.err
    world.write(result.out, "again.yaml")
    secret = ["--var", "TOKEN=planted-secret", "--var", "TOKEN_=planted-secret"]
    assert world.plan("again.yaml", *secret)["actions"] == [], result.out
    assert "TOKEN" in world.run("plan", "again.yaml", check=65).err, "without its variables it says which are missing"


def test_container_of_run_becomes_a_stack_of_its_own(world: World):
    world.run(
        "run", "-d", "--name", "box", "-e", "TOKEN", "-v", "kept:/kept", BOX, "pause", env={"TOKEN": "planted"}, check=0
    )
    text = world.run("export", "run/box", check=0).out
    assert "planted" not in text
    world.run("delete", "container/run/box/1", "--yes", check=0)
    world.write(text, "box.yaml")
    world.run("apply", "box.yaml", "--yes", "--var", "TOKEN=planted", check=0)
    assert world.run("exec", "box", "sh", "-c", "echo $TOKEN", check=0).out == "planted\n"
    assert "run/nobody" in world.run("export", "run/nobody", check=1).err


def test_closed_streams_are_nobodys_file(world: World):
    """What is opened where a stream was closed must not get what is written to that stream."""
    command = f"{sys.executable} -m reconciler.cli.main run --rm -i {BOX} sh -c 'cat; seq 1 2000' <&- >&- 2>&-"
    world.nsenter("sh", "-c", command)
    assert world.run("run", "--rm", BOX, "echo", "still well", check=0).out == "still well\n"
    assert "Traceback" not in world.nsenter("sh", "-c", f"{sys.executable} -m reconciler.cli.main get >&-").err
