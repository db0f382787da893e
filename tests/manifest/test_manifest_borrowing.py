"""`from: STACK` of networks and volumes."""

from pathlib import Path

import pytest
from manifest_reading import body, problems, specs

from reconciler.manifest.load import load_stacks
from reconciler.model.errors import BadManifest
from reconciler.model.key import container_key
from reconciler.model.spec import Attachment, ContainerSpec

WEB = container_key("s", "web")


def web(text: str) -> ContainerSpec:
    found = specs(text)[WEB]
    assert isinstance(found, ContainerSpec)
    return found


def test_borrowed_things_have_no_spec_and_containers_name_their_owner():
    text = """
        networks: {proxy: {from: edge}, other: {from: edge/front}, own: {}}
        volumes: {data: {from: db}, files: {from: db/data2}}
        containers:
          web:
            image: a/b:1
            networks: {proxy: {aliases: [www]}, other: {ipv4: 10.1.2.3}, own: {}}
            mounts: ["data:/data", {type: volume, source: files, target: /files, read_only: true}]
            ports: ["80:80"]
    """
    found = specs(text)
    assert set(found) == {WEB, "image/s/docker.io/a/b:1", "network/s/own"}
    spec = web(text)
    assert spec.networks == {
        "edge/proxy": Attachment(aliases=("www",)),
        "edge/front": Attachment(ipv4="10.1.2.3"),
        "own": Attachment(),
    }
    assert list(spec.networks) == sorted(spec.networks)
    assert {target: mount.source for target, mount in spec.mounts.items()} == {"/data": "db/data", "/files": "db/data2"}


def test_default_network_may_be_borrowed():
    spec = web("networks: {default: {from: edge/front}}\ncontainers: {web: {image: 'a/b:1'}}")
    assert list(spec.networks) == ["edge/front"]


CASES = {
    "something beside it": (
        "networks: {proxy: {from: edge, internal: true}}\ncontainers: {web: {image: 'a/b:1', networks: [proxy]}}",
        "networks.proxy.internal: a borrowed network has no internal of its own: it is as the stack edge says",
        "leave it out",
    ),
    "labels beside it": (
        "volumes: {data: {from: db, labels: {a: b}}}\ncontainers: {web: {image: 'a/b:1'}}",
        "volumes.data.labels: a borrowed volume has no labels of its own: it is as the stack db says",
        "leave it out",
    ),
    "its own": (
        "networks: {proxy: {from: s}}\ncontainers: {web: {image: 'a/b:1', networks: [proxy]}}",
        "networks.proxy.from: the stack s can't borrow of itself",
        "leave `from` out: it is this stack's own network",
    ),
    "no stack's name": (
        "networks: {proxy: {from: Edge/}}\ncontainers: {web: {image: 'a/b:1'}}",
        'networks.proxy.from: found "Edge/"; expected a stack\'s name, or STACK/NAME',
        "",
    ),
    "one twice": (
        "networks: {a: {from: edge/front}, b: {from: edge/front}}\ncontainers: {web: {image: 'a/b:1', networks: [a, b]}}",
        "containers.web.networks[1]: b is edge/front, which is here twice",
        "keep one of the two",
    ),
    "only borrowed things": (
        "networks: {proxy: {from: edge}}",
        "the manifest names no image, network, volume or container of its own",
        "to remove a stack, use `reconcile delete`",
    ),
}


@pytest.mark.parametrize(("text", "says", "hint"), CASES.values(), ids=CASES)
def test_wrong_borrowing_is_said_with_what_to_do(text: str, says: str, hint: str):
    found = [(f"{one.path}: {one.text}" if one.path else one.text, one.hint) for one in problems(body(text))]
    assert (says, hint) in found


def load(folder: Path, **texts: str) -> str:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(f"apiVersion: reconcile/v1\nname: {name}\n{text}")
    try:
        load_stacks([folder], variables={}, environment={}, origin_of=lambda path, _: f"file:{path}")
    except BadManifest as error:
        return error.detail.replace(f"{folder}/", "")
    return ""


def test_owner_of_the_same_command_must_have_what_is_borrowed(tmp_path: Path):
    shop = "networks: {front: {from: edge}}\ncontainers: {web: {image: 'a/b:1', networks: [front]}}\n"
    assert load(tmp_path, shop=shop, edge="networks: {front: {}}\n") == ""
    said = load(tmp_path, shop=shop, edge="networks: {frond: {}}\n")
    assert "shop.yaml:3:26 networks.front.from: the stack edge has no network named front" in said
    assert "hint: did you mean frond?" in said
    said = load(tmp_path, shop=shop, edge="networks: {front: {from: core}, own: {}}\n", core="networks: {front: {}}\n")
    assert "edge borrows the network front itself" in said
    assert "hint: from: core/front" in said
