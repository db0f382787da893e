"""`replicas` and volumes of replicas: which specs they become, and what can't be had more than once."""

import pytest
from manifest_reading import brief, container, problems, specs

from reconciler.model.key import container_key
from reconciler.model.spec import Mount, VolumeSpec

ONE = "containers: {web: {image: a/b:1, replicas: COUNT}}\n"


def keys(text: str, kind: str) -> list[str]:
    return [key for key in specs(text) if key.startswith(f"{kind}/")]


@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_each_replica_is_a_container_of_its_own_index(count: int):
    wanted = [container_key("s", "web", index) for index in range(1, count + 1)]
    assert keys(ONE.replace("COUNT", str(count)), "container") == wanted


def test_how_many_there_are_is_no_part_of_a_spec():
    one = specs("containers: {web: {image: a/b:1}}\n")
    three = specs(ONE.replace("COUNT", "3"))
    assert one == {key: spec for key, spec in three.items() if key in one}
    assert len({id(spec) for key, spec in three.items() if key.startswith("container/")}) == 1


def test_a_name_without_replicas_can_be_depended_on():
    text = "containers:\n  web: {image: a/b:1, depends_on: [db]}\n  db: {image: a/b:1, replicas: 0}\n"
    assert keys(text, "container") == ["container/s/web/1"]
    assert set(container(text).depends_on) == {"db"}


PER_REPLICA = """\
volumes: {data: {per_replica: true, labels: {a: b}}, notes: {access: shared}}
containers:
  db: {image: a/b:1, replicas: 3, mounts: ["data:/data", "notes:/notes", "data:/again:ro"]}
  peek: {image: a/b:1, replicas: 2, mounts: ["data:/seen:ro"]}
"""


def test_each_replica_has_a_volume_of_its_own_and_all_have_the_others():
    found = specs(PER_REPLICA)
    volumes = {key: spec for key, spec in found.items() if key.startswith("volume/")}
    own = VolumeSpec(labels={"a": "b"})
    assert volumes == {
        "volume/s/notes": VolumeSpec(access="shared"),
        "volume/s/data@1": own,
        "volume/s/data@2": own,
        "volume/s/data@3": own,
    }
    for index in (1, 2, 3):
        assert found[container_key("s", "db", index)].mounts == {
            "/data": Mount(type="volume", source=f"data@{index}"),
            "/notes": Mount(type="volume", source="notes"),
            "/again": Mount(type="volume", source=f"data@{index}", read_only=True),
        }
    assert found[container_key("s", "peek", 2)].mounts == {"/seen": Mount(type="volume", source="data@2", read_only=True)}


FAULTS = {
    "port": (
        "containers:\n  web: {image: a/b:1, replicas: 2, ports: ['80:80']}\n",
        "2:36 containers.web.ports: a port of the host is for one container, and web has 2 replicas, "
        "until ports are balanced",
    ),
    "address": (
        "networks: {front: {subnet: 10.40.0.0/24}}\n"
        "containers: {web: {image: a/b:1, replicas: 3, networks: {front: {ipv4: 10.40.0.9}}}}\n",
        "2:72 containers.web.networks.front.ipv4: a fixed address is for one container, and web has 3 replicas, "
        "until ports are balanced",
    ),
    "writers": (
        "volumes: {data: {}}\ncontainers: {db: {image: a/b:1, replicas: 2, mounts: ['data:/data']}}\n",
        "2:46 containers.db.mounts: 2 replicas of db would write the volume data together, at /data",
    ),
    "both": (
        "volumes: {data: {access: shared, per_replica: true}}\ncontainers: {db: {image: a/b:1, mounts: ['data:/data']}}\n",
        "1:18 volumes.data.access: one volume for each replica is shared by none",
    ),
    "too many": (
        "containers: {web: {image: a/b:1, replicas: 1001}}\n",
        "1:44 containers.web.replicas: found 1001; expected a number of replicas from 0 to 1000",
    ),
    "fewer than none": (
        "containers: {web: {image: a/b:1, replicas: -1}}\n",
        "1:44 containers.web.replicas: found -1; expected a number of replicas from 0 to 1000",
    ),
    "named like a replica": (
        "containers:\n  web: {image: a/b:1, replicas: 0}\n  web-2: {image: a/b:1}\n",
        "3:3 containers.web-2: web-2 is another way to say web/2, a replica of web",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_replicas_cannot_have_is_a_fault(name: str):
    text, expected = FAULTS[name]
    assert brief(text) == [expected]


FINE = {
    "one replica may have all of it": (
        "networks: {front: {subnet: 10.40.0.0/24}}\nvolumes: {data: {}}\ncontainers:\n"
        "  web: {image: a/b:1, replicas: 1, ports: ['80:80'], mounts: ['data:/data'],\n"
        "  networks: {front: {ipv4: 10.40.0.9}}}\n"
    ),
    "read only": "volumes: {data: {}}\ncontainers: {web: {image: a/b:1, replicas: 2, mounts: ['data:/data:ro']}}\n",
    "shared": "volumes: {d: {access: shared}}\ncontainers: {web: {image: a/b:1, replicas: 2, mounts: ['d:/data']}}\n",
    "a folder of the host": "containers: {web: {image: a/b:1, replicas: 2, mounts: ['/srv:/srv']}}\n",
    "different containers that write one volume": (
        "volumes: {www: {}}\ncontainers:\n  nginx: {image: a/b:1, mounts: ['www:/www']}\n"
        "  php: {image: a/b:1, mounts: ['www:/www']}\n"
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_no_fault(name: str):
    assert specs(FINE[name])


def test_the_hint_of_writers_names_all_ways_out():
    text = "apiVersion: reconcile/v1\nname: s\n" + FAULTS["writers"][0]
    hint = problems(text)[0].hint
    assert all(way in hint for way in ("per_replica: true", "access: shared", "read_only"))


def test_access_of_a_mount_is_said_to_belong_to_the_volume():
    text = (
        "apiVersion: reconcile/v1\nname: s\nvolumes: {d: {}}\ncontainers:\n"
        "  web: {image: a/b:1, mounts: [{source: d, target: /d, access: shared, per_replica: true}]}\n"
    )
    assert [(fault.text, fault.hint) for fault in problems(text)] == [
        ("unknown key", "here it is volumes: {NAME: {access: shared}}"),
        ("unknown key", "here it is volumes: {NAME: {per_replica: true}}"),
    ]
