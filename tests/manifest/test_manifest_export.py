"""What is exported means what was recorded: read again, it gives the same specs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_reading import read

from reconciler.manifest.export import export_stack
from reconciler.manifest.load import load_stacks
from reconciler.model.key import Key, container_key, split_key
from reconciler.model.record import Stack
from reconciler.model.spec import ContainerSpec, Sensitive, Spec
from reconciler.schema.load import load_schema, resolve_reference

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/stack.yaml"))
SECRETS = {"TOKEN": "planted-secret", "GREETING": "planted-hello", "TAG": "1"}


def text_of(data: dict[str, Any]) -> str:
    """A manifest as JSON, which is YAML where nothing is a surrogate."""
    return json.dumps(data, ensure_ascii=False)


def secrets_of(stack: Stack) -> dict[str, str]:
    """Every sensitive value of a stack, by the name that its variable has."""
    containers = [spec for spec in stack.specs.values() if isinstance(spec, ContainerSpec)]
    return {name: value.value for spec in containers for name, value in spec.env.items() if isinstance(value, Sensitive)}


def assert_comes_back(stack: Stack, folder: Path = Path("/")) -> str:
    given = {key: source.value.value for key, source in stack.sources.items() if source.value}
    inline = {key: text.encode() for key, text in given.items() if key.startswith("config/")}
    kept = {key: Path(source.file).read_bytes() for key, source in stack.sources.items() if source.file}
    text = export_stack(stack.name, stack.specs, contents=kept | inline, folder=str(folder))
    secrets = {split_key(key).name.upper(): "planted" for key in stack.specs if key.startswith("secret/")}
    again = read(text, variables=secrets_of(stack) | secrets, folder=folder)
    assert {key: again.sources[key].value for key in inline} == {key: stack.sources[key].value for key in inline}
    assert {key: comparable(spec) for key, spec in again.specs.items()} == {
        key: comparable(spec) for key, spec in stack.specs.items()
    }, text
    for value in secrets_of(stack).values():
        assert not value or value not in text, text
    return text


def comparable(spec: Spec) -> Spec:
    """Without the files that an environment came from: their values are in it."""
    from msgspec import structs

    return structs.replace(spec, env_file=()) if isinstance(spec, ContainerSpec) else spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_each_example_comes_back(path: Path):
    (stack,) = load_stacks([path], variables=SECRETS, environment={}, origin_of=lambda found, _: f"file:{found}")
    assert_comes_back(stack, folder=path.parent)


BESIDE = {"env_file"}
"""Properties whose examples name files."""


def written_examples() -> Iterator[tuple[str, Any]]:
    """Each property of a container with the example that its schema gives."""
    for name, below in load_schema("container")["properties"].items():
        schema = resolve_reference(below)
        if "x-example" in schema and "x-not-built" not in schema and name not in BESIDE:
            yield name, schema["x-example"]


AROUND = {
    "configs": {"app": {"content": "a: $$1\n"}, "conf": {"content": "x"}},
    "secrets": {"token": {"env": "TOKEN"}, "key": {"env": "TOKEN"}},
    "networks": {"front": {"subnet": "10.40.0.0/24"}, "edge": {"from": "other/front"}},
    "volumes": {"data": {}, "own": {"per_replica": True}, "conf": {"from": "other"}},
}


@pytest.mark.parametrize(
    ("name", "example"), [*written_examples()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_property_comes_back_from_its_example(name: str, example: Any):
    """Also of fields that come later: an example in the schema is a case here."""
    containers = {"web": {"image": "a/b:1", name: example}, "cache": {"image": "a/b:1", "healthcheck": {"tcp": 80}}}
    data = {"apiVersion": "reconcile/v1", "name": "s", **AROUND, "containers": containers}
    assert_comes_back(read(text_of(data), variables=SECRETS))


@pytest.mark.parametrize(
    "container",
    [
        {"env": {"A": "$$HOME and $$$$", "B": "1", "C": "yes", "D": "a: b #c\n", "E": "", "F": " x "}},
        {"command": ["sh", "-c", "echo $$A"], "entrypoint": []},
        {
            "mounts": [
                "data:/data",
                {"type": "tmpfs", "target": "/t", "size": "64M", "mode": "0755"},
                "/etc:/e:ro",
                "conf:/c",
            ]
        },
        {"networks": ["edge"]},
        {
            "networks": {"front": {"ipv4": "10.40.0.7", "aliases": ["www"]}, "edge": {}},
            "ports": ["80:80", "127.0.0.1:53:53/udp"],
        },
        {"networks": ["host"]},
        {"ports": ["8000-8003:9000-9003"], "restart": "on-failure:3", "cap_add": ["NET_RAW"], "cap_drop": ["ALL"]},
        {"healthcheck": {"http": "https://:8443/a$$b", "retries": 1}},
        {"healthcheck": {"interval": "1ms", "retries": 9}},
        {"healthcheck": {"test": "curl $$URL"}},
        {"secrets": ["key", {"source": "token", "target": "/etc/t", "uid": 5, "mode": "0440", "on_change": "restart"}]},
        {"configs": ["app", {"source": "conf", "target": "/c", "on_change": "nothing", "signal": "HUP"}]},
        {"mounts": [{"type": "bind", "source": "./file", "target": "/file", "read_only": True}]},
        {"replicas": 3, "mounts": ["own:/own"]},
        {"depends_on": {"cache": {"condition": "healthy"}}, "stop_signal": 35, "user": 1000},
        {"sysctls": {"net.core.somaxconn": "1024"}, "extra_hosts": {"a": "10.0.0.1", "b": "::1"}, "ulimits": {"nofile": 9}},
    ],
    ids=lambda value: "+".join(value),
)
def test_forms_that_change_on_the_way_come_back(container: dict[str, Any]):
    other = {"image": "a/b:1", "healthcheck": {"tcp": 80}}
    data = {
        "apiVersion": "reconcile/v1",
        "name": "s",
        **AROUND,
        "containers": {"web": {"image": "x/y:2", **container}, "cache": other},
    }
    assert_comes_back(read(text_of(data), variables=SECRETS))


def test_secrets_become_variables_that_a_comment_names():
    body = {"apiVersion": "reconcile/v1", "name": "s"}
    containers = {
        "web": {"image": "a/b:1", "env": {"TOKEN": "${T1}", "PLAIN": "seen"}},
        "two": {"image": "a/b:1", "env": {"TOKEN": "${T2}", "a.b": "${T1}"}},
    }
    stack = read(text_of({**body, "containers": containers}), variables={"T1": "planted-1", "T2": "planted-2"})
    text = export_stack("s", stack.specs)
    assert "planted" not in text
    assert "seen" in text
    named = {"TOKEN": "planted-2", "WEB_TOKEN": "planted-1", "_a_b": "planted-1"}
    assert all(f"#   {name}: " in text for name in named), text
    assert read(text, variables=named).specs == stack.specs


def test_image_that_is_named_by_its_reference_and_says_more_gets_a_name():
    stack = read(text_of({"apiVersion": "reconcile/v1", "name": "s", "containers": {"web": {"image": "a/b:1"}}}))
    from msgspec import structs

    key = next(key for key in stack.specs if key.startswith("image/"))
    text = export_stack("s", {**stack.specs, key: structs.replace(stack.specs[key], pull="always")})
    again = read(text)
    assert again.specs[Key("image/s/b")] == structs.replace(stack.specs[key], pull="always")
    spec = again.specs[container_key("s", "web")]
    assert isinstance(spec, ContainerSpec)
    assert spec.image == "b"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), TEXT), words=st.lists(TEXT, min_size=1, max_size=3)
)
def test_any_text_comes_back(env: dict[str, str], words: list[str]):
    doubled = {name: value.replace("$", "$$") for name, value in env.items()}
    container = {
        "image": "a/b:1",
        "env": doubled,
        "command": [word.replace("$", "$$") for word in words],
        "labels": doubled,
    }
    stack = read(text_of({"apiVersion": "reconcile/v1", "name": "s", "containers": {"web": container}}))
    assert_comes_back(stack)
