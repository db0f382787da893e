"""Pure readers of what strangers write: properties, and a few tables."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from contextlib import suppress

import pytest
from hostile_registry import SMALL
from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.native.content import documents
from reconciler.engine.native.content.config import parse_config
from reconciler.engine.native.content.documents import Platform, host_platform, parse_document, platform_fits
from reconciler.engine.native.content.unpack import unpack_layer
from reconciler.engine.native.registry.auth import Credentials, config_path, parse_challenges, read_credentials
from reconciler.model.errors import ContentError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


def mangled(value):
    """The real thing with one value somewhere replaced by any other."""

    def places(node, path=()):
        yield path
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield from places(inner, (*path, key))

    @st.composite
    def strategy(draw):
        copy = json.loads(json.dumps(value))
        path = draw(st.sampled_from([path for path in places(value) if path]))
        node = copy
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = draw(json_values)
        return copy

    return strategy()


@given(json_values | mangled(json.loads(SMALL.manifest().data)), st.sampled_from(["", documents.OCI_MANIFEST]))
def test_any_manifest_is_read_or_refused(value, media_type):
    with suppress(ContentError):
        parse_document(json.dumps(value).encode(), media_type=media_type, what="it")


@given(
    json_values
    | mangled(
        {
            **json.loads(SMALL.config_blob().data),
            "config": {
                "Env": ["A=1"],
                "Volumes": {"/a": {}},
                "ExposedPorts": {"80/tcp": {}},
                "Healthcheck": {"Test": ["CMD", "x"]},
                "Labels": {"a": "b"},
                "Cmd": ["sh"],
            },
        }
    )
)
def test_any_config_is_read_or_refused(value):
    from reconciler.engine.native.content.config import config_platform, diff_ids, healthcheck_of, volumes_of

    try:
        config = parse_config(json.dumps(value).encode(), what="it")
    except ContentError:
        return
    for read in (volumes_of, healthcheck_of, config_platform, diff_ids):
        read(config)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_document(data):
    with pytest.raises(ContentError):
        parse_document(data, media_type="", what="it")


@given(
    st.lists(st.binary(max_size=5000), min_size=1, max_size=5),
    st.lists(st.integers(min_value=1, max_value=3000), min_size=1, max_size=5),
)
def test_gzip_of_any_members_in_any_pieces_unpacks_to_the_same(members, cuts):
    packed = b"".join(gzip.compress(member) for member in members)
    pieces, at = [], 0
    while at < len(packed):
        step = cuts[len(pieces) % len(cuts)]
        pieces.append(packed[at : at + step])
        at += step
    assert b"".join(unpack_layer(pieces, packing="gzip", what="it")) == b"".join(members)


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_truncated_gzip_is_refused_wherever_it_ends(data, draw):
    packed = gzip.compress(data)
    end = draw.draw(st.integers(min_value=0, max_value=len(packed) - 1))
    with pytest.raises(ContentError):
        b"".join(unpack_layer([packed[:end]], packing="gzip", what="it"))


def test_output_that_waits_in_the_decompressor_is_not_lost():
    data = os.urandom(100) + bytes(3 << 20)  # ends in the middle of what one call may give
    for size in (512 << 10, (512 << 10) + 1, (1 << 20) - 1, 3 << 20):
        packed = zlib.compress(data[:size], wbits=31)
        assert b"".join(unpack_layer([packed], packing="gzip", what="it")) == data[:size]


def test_thousands_of_members_do_not_take_forever():
    member = gzip.compress(b"")
    assert b"".join(unpack_layer([member * 50_000], packing="gzip", what="it")) == b""


@pytest.mark.parametrize(
    ("wanted", "given_", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v3", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm64", False),
        ("linux/arm/v7", "linux/arm/odd", False),
    ],
)
def test_platforms_that_run_on_each_other(wanted, given_, fits):
    assert platform_fits(Platform(*wanted.split("/")), Platform(*given_.split("/"))) is fits


def test_nearest_variant_of_an_index_is_chosen():
    digests = {variant: "sha256:" + variant[1] * 64 for variant in ("v5", "v6", "v8")}
    manifests = [
        {
            "mediaType": documents.OCI_MANIFEST,
            "digest": digest,
            "size": 1,
            "platform": {"os": "linux", "architecture": "arm", "variant": variant},
        }
        for variant, digest in digests.items()
    ]
    data = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    index = parse_document(data, media_type="", what="it")
    chosen = documents.choose_entry(index, host_platform("armv7l"), reference="it")
    assert chosen.digest == digests["v6"]


# --- credentials ---


def config(tmp_path, value):
    path = tmp_path / "config.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


AUTH = "bWU6cHc="


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("h.io", {"auths": {"h.io": {"auth": AUTH}}}),
        ("h.io", {"auths": {"https://h.io/v2/": {"auth": AUTH}}}),
        ("h.io:5000", {"auths": {"h.io": {}, "h.io:5000": {"username": "me", "password": "pw"}}}),
        ("docker.io", {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}),
    ],
)
def test_credentials_are_found_as_docker_writes_them(tmp_path, host, entry):
    assert read_credentials(host, config(tmp_path, entry)) == Credentials("me", "pw")


def test_C2_credentials_of_one_host_are_none_of_another(tmp_path):
    path = config(tmp_path, {"auths": {"h.io": {"auth": AUTH}, "https://index.docker.io/v1/": {"auth": AUTH}}})
    for host in ("h.io:5000", "a.h.io", "io", "h.io.evil.example", "index.docker.io.evil.example"):
        assert read_credentials(host, path) is None
    assert read_credentials("h.io", tmp_path / "missing.json") is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": {"h.io": {"auth": "%%%s3cret"}}}', "{" * 100_000, "x" * (2 << 20)],
    ids=["cut", "list", "base64", "deep", "huge"],
)
def test_broken_config_is_an_error_that_does_not_quote_it(tmp_path, text):
    with pytest.raises(ValueError, match=r"config\.json|h\.io") as error:
        read_credentials("h.io", config(tmp_path, text))
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None


def helper(tmp_path, monkeypatch, body):
    program = tmp_path / "bin" / "docker-credential-lab"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_credential_helper_is_asked_on_its_standard_input(tmp_path, monkeypatch):
    helper(tmp_path, monkeypatch, 'read host; [ "$1" = get ] && echo "{\\"Username\\":\\"me\\",\\"Secret\\":\\"$host\\"}"')
    for value in ({"credsStore": "lab"}, {"credHelpers": {"h.io": "lab"}}):
        assert read_credentials("h.io", config(tmp_path, value)) == Credentials("me", "h.io")
    path = config(tmp_path, {"credHelpers": {"other.io": "lab"}})
    assert read_credentials("h.io", path) is None


def test_identity_token_of_a_helper(tmp_path, monkeypatch):
    helper(tmp_path, monkeypatch, 'echo \'{"Username":"<token>","Secret":"id"}\'')
    assert read_credentials("h.io", config(tmp_path, {"credsStore": "lab"})) == Credentials(identity="id")


def test_helper_without_an_entry_is_no_error(tmp_path, monkeypatch):
    helper(tmp_path, monkeypatch, 'echo "credentials not found in native keychain"; exit 1')
    path = config(tmp_path, {"credsStore": "lab", "auths": {"h.io": {"auth": AUTH}}})
    assert read_credentials("h.io", path) == Credentials("me", "pw")


@pytest.mark.parametrize("body", ["echo s3cret; exit 3", "echo s3cret", 'echo "{}"'])
def test_broken_helper_is_named_and_not_quoted(tmp_path, monkeypatch, body):
    helper(tmp_path, monkeypatch, body)
    with pytest.raises(ValueError, match="docker-credential-lab") as error:
        read_credentials("h.io", config(tmp_path, {"credsStore": "lab"}))
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "-x", "missing-one", ""])
def test_helper_is_never_a_path(tmp_path, name):
    path = config(tmp_path, {"credHelpers": {"h.io": name}})
    if not name:
        assert read_credentials("h.io", path) is None
        return
    with pytest.raises(ValueError, match="is not installed"):
        read_credentials("h.io", path)


def test_credentials_are_never_shown():
    assert "pw" not in f"{Credentials('me', 'pw')!r} {Credentials('me', 'pw')}"


def test_config_is_where_docker_keeps_it():
    assert str(config_path({"HOME": "/home/me"})) == "/home/me/.docker/config.json"
    assert str(config_path({"HOME": "/home/me", "DOCKER_CONFIG": "/x"})) == "/x/config.json"


@given(st.text(max_size=200))
def test_any_challenge_is_read(header):
    for challenge in parse_challenges(header):
        assert challenge.scheme in ("basic", "bearer")


def test_looking_at_what_is_here_imports_no_client():
    code = (
        "import sys, pathlib\n"
        "from reconciler.engine.native.drivers.image import ImageDriver\n"
        "from reconciler.engine.native.layout import Layout\n"
        "driver = ImageDriver(Layout(pathlib.Path('/nonexistent'), pathlib.Path('/nonexistent'), 'aaaaa'))\n"
        "driver.list_images(), driver.observe([], None), driver.close()\n"
        "heavy = {'http.client', 'httpx', 'ssl', 'tarfile', 'concurrent.futures', 'urllib.request'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
