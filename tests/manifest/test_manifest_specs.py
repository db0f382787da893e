"""What manifests become: one canonical spec for every way to write a thing."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_reading import HEAD, container, read, specs, web

from reconciler.manifest.emit import dump_yaml
from reconciler.model.key import Kind, container_key, make_key, sort_key
from reconciler.model.spec import (
    UNREAD,
    Attachment,
    ContainerSpec,
    Dependency,
    Healthcheck,
    ImageSpec,
    Logs,
    Mount,
    NetworkSpec,
    Resources,
    Update,
    VolumeSpec,
)

DESIGN = """\
apiVersion: reconcile/v1
name: blog
images:
  redis: {from: docker.io/library/redis:7, pull: missing}
  app: {archive: ./app.tar}
networks:
  front: {driver: bridge, subnet: 10.40.0.0/24}
volumes:
  data: {}
containers:
  cache:
    image: redis
    networks: [front]
    mounts: ["data:/data"]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 5s, retries: 3}
  web:
    image: app
    command: [serve, --port, "8080"]
    env: {REDIS: cache:6379}
    networks: {front: {aliases: [www], ipv4: 10.40.0.10}}
    ports: ["127.0.0.1:8080:8080"]
    mounts:
      - "./conf/app.toml:/etc/app.toml:ro"
      - {type: volume, source: data, target: /data, read_only: true, subpath: web}
      - {type: tmpfs, target: /tmp, size: 64M}
    resources: {cpus: 1.5, memory: 256M, pids: 200}
    depends_on: {cache: healthy}
"""


def test_manifest_of_the_design_becomes_its_specs():
    stack = read(DESIGN)
    assert (stack.name, stack.source, stack.origin) == ("blog", "stack.yaml", "file:/nonexistent/folder/stack.yaml")
    assert stack.specs == {
        "image/blog/redis": ImageSpec(reference="docker.io/library/redis:7"),
        "image/blog/app": ImageSpec(archive="/nonexistent/folder/app.tar"),
        "network/blog/front": NetworkSpec(subnet="10.40.0.0/24"),
        "volume/blog/data": VolumeSpec(),
        "container/blog/cache/1": ContainerSpec(
            image="redis",
            networks={"front": Attachment()},
            mounts={"/data": Mount(type="volume", source="data")},
            healthcheck=Healthcheck(test=("CMD", "redis-cli", "ping"), interval=5.0, retries=3),
        ),
        "container/blog/web/1": ContainerSpec(
            image="app",
            command=("serve", "--port", "8080"),
            env={"REDIS": "cache:6379"},
            networks={"front": Attachment(aliases=("www",), ipv4="10.40.0.10")},
            ports={"127.0.0.1:8080/tcp": 8080},
            mounts={
                "/etc/app.toml": Mount(
                    type="bind", source="/nonexistent/folder/conf/app.toml", read_only=True, digest=UNREAD
                ),
                "/data": Mount(type="volume", source="data", read_only=True, subpath="web"),
                "/tmp": Mount(type="tmpfs", size=64 << 20),
            },
            resources=Resources(cpus=1.5, memory=256 << 20, pids=200),
            depends_on={"cache": Dependency(condition="healthy")},
        ),
    }


SAME = {
    "env": ("env: {A: 1, B: x y}", "env: [A=1, B=x y]"),
    "env order": ("env: {A: 1, B: 2}", "env: {B: 2, A: 1}"),
    "labels": ("labels: {a: b, c: ''}", "labels: [a=b, c]"),
    "ports": ("ports: ['8080:80', '127.0.0.1:53:53/udp']", "ports: {8080: 80, '127.0.0.1:53/udp': 53}"),
    "port range": ("ports: ['8000-8002:80-82']", "ports: ['8002:82', '8001:81/tcp', '0.0.0.0:8000:80/TCP']"),
    "command": ("command: echo 'a b' c", "command: [echo, a b, c]"),
    "entrypoint": ("entrypoint: ''", "entrypoint: []"),
    "networks": ("networks: [default]", "networks: {default: }"),
    "no networks": ("{}", "networks: [default]"),
    "aliases": ("networks: {default: {aliases: [b, a, b]}}", "networks: {default: {aliases: [a, b]}}"),
    "bind": ("mounts: ['./a:/b']", "mounts: [{type: bind, source: a/../a, target: /b/}]"),
    "bind by path": ("mounts: ['/a:/b:ro']", "mounts: [{source: /a, target: /b, read_only: true}]"),
    "tmpfs mode": ("mounts: [{type: tmpfs, target: /t}]", "mounts: [{type: tmpfs, target: /t, mode: 1777, size: 0}]"),
    "octal": ("mounts: [{type: tmpfs, target: /t, mode: 755}]", "mounts: [{type: tmpfs, target: /t, mode: 0o755}]"),
    "depends_on": ("depends_on: [w2]", "depends_on: {w2: started}"),
    "depends_on long": ("depends_on: {w2: healthy}", "depends_on: {w2: {condition: healthy}}"),
    "update": ("{}", "update: {order: stop-first}"),
    "durations": ("stop_grace: 90s", "stop_grace: 1m30s"),
    "seconds": ("stop_grace: 5", "stop_grace: 5000ms"),
    "sizes": ("shm_size: 1G", "shm_size: 1024Mi"),
    "defaults": (
        "{}",
        "restart: always\nstop_grace: 10s\ntty: false\nruntime: runc\nlogs: {max_size: 10000000, keep: 3}\nshm_size: 64M",
    ),
    "restart": ("restart: unless-stopped", "restart: always"),
    "restart no": ("restart: no", "restart: 'no'"),
    "capabilities": ("cap_add: [NET_ADMIN, CAP_CHOWN]", "cap_add: [CAP_CHOWN, CHOWN, CAP_NET_ADMIN]"),
    "all capabilities": ("cap_drop: [ALL, CHOWN]", "cap_drop: [CAP_ALL]"),
    "ulimits": ("ulimits: {nofile: 10}", "ulimits: {nofile: {soft: 10, hard: 10}}"),
    "sysctls": ("sysctls: {net.core.somaxconn: 10}", "sysctls: [net.core.somaxconn=10]"),
    "hosts": ("extra_hosts: {a: 10.0.0.1, b: '::1'}", "extra_hosts: ['b:[::1]', a=10.0.0.1]"),
    "dns": ("dns: 9.9.9.9", "dns: [9.9.9.9]"),
    "env_file": ("{}", "env_file: []"),
    "signal": ("stop_signal: 15", "stop_signal: TERM"),
    "real-time signal": ("stop_signal: SIGRTMIN+3", "stop_signal: 37"),
    "health http": ("healthcheck: {http: ':80/z'}", "healthcheck: {http: {port: 80, path: /z, status: 200-399}}"),
    "health http port": ("healthcheck: {http: 80}", "healthcheck: {http: 'http://:80/', on_unhealthy: restart}"),
    "health https": ("healthcheck: {http: 'https://:443/'}", "healthcheck: {http: {port: 443, scheme: https}}"),
    "health tcp": ("healthcheck: {tcp: 6379}", "healthcheck: {tcp: {port: 6379}, interval: 30s}"),
    "health": ("healthcheck: {test: a b}", "healthcheck: {test: [CMD-SHELL, a b], interval: 30s, timeout: 30, retries: 3}"),
    "user": ("user: 1000", "user: '1000'"),
    "image": ("{}", "# the same\n{}"),
}


def written(properties: str) -> ContainerSpec:
    lines = "\n".join(f"    {line}" for line in properties.splitlines() if line != "{}")
    return container(f"containers:\n  w2: {{image: a/b:1}}\n  web:\n    image: a/b:1\n{lines}\n")


@pytest.mark.parametrize("name", SAME)
def test_two_ways_to_write_a_thing_are_one_spec(name: str):
    first, second = SAME[name]
    assert written(first) == written(second)


@pytest.mark.parametrize(
    ("properties", "field", "value"),
    [
        ("entrypoint: []", "entrypoint", ()),
        ("{}", "entrypoint", None),
        ("command: sh -c 'echo $1 > x; id'", "command", ("sh", "-c", "echo $1 > x; id")),
        (
            "env: {A: 1.10, B: true, C: '', D: 010, E: 1e3, F: on, G: 2024-01-01}",
            "env",
            {"A": "1.10", "B": "true", "C": "", "D": "010", "E": "1e3", "F": "on", "G": "2024-01-01"},
        ),
        ("env: ['A', B=, 'C= d=e ']", "env", None),
        ("stop_signal: QUIT", "stop_signal", "SIGQUIT"),
        ("restart: on-failure:3", "restart", "on-failure:3"),
        ("ports: ['127.0.0.1:8000-8001:80-81/udp']", "ports", {"127.0.0.1:8000/udp": 80, "127.0.0.1:8001/udp": 81}),
        ("logs: {max_size: 1M}", "logs", Logs(max_size=1 << 20)),
        ("cap_add: [NET_RAW]", "cap_add", ("CAP_NET_RAW",)),
        ("ulimits: {nofile: {soft: 1, hard: -1}}", "ulimits", {"nofile": (1, -1)}),
        ("mounts: [{type: tmpfs, target: /t, mode: 0700}]", "mounts", {"/t": Mount(type="tmpfs", mode=0o700)}),
        ("networks: [none]", "networks", {"none": Attachment()}),
        ("extra_hosts: {v6: '2001:DB8::0:1'}", "extra_hosts", {"v6": "2001:db8::1"}),
        ("hostname: 'on'", "hostname", "on"),
        ("workdir: /a/../b/", "workdir", "/b"),
    ],
)
def test_property_becomes(properties: str, field: str, value: Any):
    if value is None and field == "env":
        spec = web(properties, variables={"A": "x"})
        assert {name: type(text).__name__ for name, text in spec.env.items()} == {"A": "Sensitive", "B": "str", "C": "str"}
        assert spec.env["C"] == " d=e "
        return
    assert getattr(written(properties), field) == value


def test_reference_of_a_container_becomes_an_image_of_its_own():
    found = specs("containers: {a: {image: redis:7}, b: {image: docker.io/library/redis:7}, c: {image: x/y}}")
    images = {key: spec for key, spec in found.items() if key.startswith("image/")}
    assert images == {
        make_key(Kind.IMAGE, "s", name): ImageSpec(reference=name)
        for name in ("docker.io/library/redis:7", "docker.io/x/y:latest")
    }
    spec = found[container_key("s", "a")]
    assert isinstance(spec, ContainerSpec)
    assert spec.image == "docker.io/library/redis:7"


def test_default_network_is_there_only_when_a_container_names_none():
    assert make_key(Kind.NETWORK, "s", "default") in specs("containers: {a: {image: x/y}}")
    assert make_key(Kind.NETWORK, "s", "default") not in specs(
        "networks: {n: }\ncontainers: {a: {image: x/y, networks: [n]}}"
    )
    declared = specs("networks: {default: {internal: true}}\ncontainers: {a: {image: x/y}}")
    assert declared[make_key(Kind.NETWORK, "s", "default")] == NetworkSpec(internal=True)


def test_host_and_none_are_networks_without_a_declaration():
    found = specs("containers: {a: {image: x/y, networks: [host]}, b: {image: x/y, networks: {none: }}}")
    assert found[make_key(Kind.NETWORK, "s", "host")] == NetworkSpec(driver="host")
    assert found[make_key(Kind.NETWORK, "s", "none")] == NetworkSpec(driver="none")


def test_stack_without_containers_is_one():
    assert list(specs("volumes: {a: , b: {labels: [x=y]}}")) == ["volume/s/a", "volume/s/b"]


def test_origin_that_the_manifest_names_wins():
    assert read(HEAD + "origin: team-web\nvolumes: {v: }").origin == "name:team-web"


# Documents for properties: names and values that fit, in Python.

NAMES = st.sampled_from(["a", "b", "c1", "d-e", "f_g", "x"])
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="$="), max_size=8)
CONTAINERS = st.fixed_dictionaries(
    {"image": st.sampled_from(["a/b:1", "redis:7"])},
    optional={
        "command": st.lists(TEXTS, max_size=3),
        "env": st.dictionaries(NAMES, TEXTS, max_size=4),
        "labels": st.dictionaries(NAMES, TEXTS, max_size=4),
        "networks": st.dictionaries(st.sampled_from(["default", "n1", "n2"]), st.none(), min_size=1),
        "restart": st.sampled_from(["always", "no", "on-failure", "on-failure:2"]),
        "resources": st.fixed_dictionaries({}, optional={"pids": st.integers(1, 99), "cpus": st.sampled_from([0.5, 2])}),
        "read_only": st.booleans(),
        "stop_grace": st.sampled_from(["1s", 5, 0.5, "1m"]),
        "mounts": st.sampled_from(
            [[], ["v1:/a"], ["v1:/a", "./x:/b:ro"], [{"type": "tmpfs", "target": "/t", "size": "1M"}]]
        ),
        "user": st.sampled_from(["root", 1000, "1000:1000"]),
    },
)
MANIFESTS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("reconcile/v1"),
        "name": st.just("s"),
        "networks": st.just({"n1": None, "n2": {"internal": True}}),
        "volumes": st.just({"v1": {}}),
        "containers": st.dictionaries(NAMES, CONTAINERS, min_size=1, max_size=4),
    }
)


def dump(data: Any) -> str:
    return dump_yaml(data)


def as_list(pairs: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in pairs.items()]


@given(MANIFESTS)
def test_list_and_map_forms_give_the_same_spec(data: dict[str, Any]):
    other = {**data, "containers": {}}
    for name, properties in data["containers"].items():
        changed = dict(properties)
        for word in ("env", "labels"):
            if word in changed:
                changed[word] = as_list(changed[word])
        if "networks" in changed:
            changed["networks"] = list(changed["networks"])
        other["containers"][name] = changed
    assert read(dump(data)).specs == read(dump(other)).specs


def shuffled(value: Any, chance: random.Random) -> Any:
    """Maps in another order; lists stay as they are, for their order may mean something."""
    if isinstance(value, dict):
        pairs = [(key, shuffled(below, chance)) for key, below in value.items()]
        chance.shuffle(pairs)
        return dict(pairs)
    return [shuffled(below, chance) for below in value] if isinstance(value, list) else value


@given(MANIFESTS, st.randoms(use_true_random=False))
def test_order_of_the_input_changes_nothing(data: dict[str, Any], chance: random.Random):
    first, second = read(dump(data)).specs, read(dump(shuffled(data, chance))).specs
    assert first == second
    for key in sorted(first, key=sort_key):
        assert repr(first[key]) == repr(second[key]), "maps within specs are sorted"


@given(MANIFESTS)
def test_a_manifest_that_was_emitted_is_read_as_the_same(data: dict[str, Any]):
    assert read(dump(data)) == read(dump(data))


def test_update_of_the_stack_holds_for_containers_that_say_nothing_else():
    text = "update: {order: start-first, on_failure: rollback}\ncontainers:\n  web:\n    image: a/b:1\n"
    assert container(text).update == Update(order="start-first", on_failure="rollback")
    assert container(text + "    update: {order: stop-first}\n").update == Update(on_failure="rollback")
    assert container(text + "    update: {on_failure: stop}\n").update == Update(order="start-first", on_failure="stop")


def test_start_first_may_read_a_volume():
    web = "  web: {image: a/b:1, mounts: ['v:/v:ro'], update: {order: start-first}}\n"
    assert container(f"volumes: {{v: }}\ncontainers:\n{web}").update.order == "start-first"


def test_start_first_may_write_a_volume_that_is_shared():
    web = "  web: {image: a/b:1, mounts: ['v:/v'], update: {order: start-first}}\n"
    assert container(f"volumes: {{v: {{access: shared}}}}\ncontainers:\n{web}").update.order == "start-first"
