"""Registries that lie: rows A9, A10, B4 and C of the table of hostile input."""

import gzip
import json

import pytest
from hostile_registry import SMALL, TWO, lie_about, make_certificate, redirect, write_credentials
from test_pull import bearer, bring, create, everything_below, gives_token, resolve

from lab import images as lab
from lab.images import Blob, Entry, Image
from lab.registry import free_port
from reconciler.engine.native.drivers.image import ImageDriver
from reconciler.engine.native.layers import stored
from reconciler.engine.native.registry import transport
from reconciler.engine.native.registry.auth import is_own_realm, parse_challenges
from reconciler.engine.native.registry.client import Client
from reconciler.engine.native.registry.transport import kind_of_address, parse_url
from reconciler.model.errors import ContentError, Failed, ReconcileError, RegistryError
from reconciler.model.reference import parse_reference

LAYER = SMALL.layer_blobs()[0]


def nothing_is_kept(layout) -> bool:
    return not [name for name in everything_below(layout.root) if not name.endswith("lock")]


def refused(driver, server, words, error=ContentError):
    """Resolving or creating fails with these words, and nothing is kept."""
    with pytest.raises(error, match=words) as caught:
        bring(driver, server.reference)
    assert nothing_is_kept(driver._layout)
    return caught.value


# --- C1: redirects ---


def test_C1_blob_redirected_to_another_host_arrives_without_credentials(driver, serve):
    store = serve()
    server = serve(user="me:pw")
    server.lies.append(lie_about("/blobs/", lambda h: redirect(f"http://{store.host}{h.path}")(h)))
    write_credentials(server.host, "me:pw")
    bring(driver, server.reference)
    assert len(store.requests) == 2
    assert not any("Authorization" in seen.headers for seen in store.requests)
    assert any("Authorization" in seen.headers for seen in server.requests)


def test_C1_redirect_within_the_registry_keeps_credentials(driver, serve):
    server = serve(user="me:pw")
    moved = lie_about("/blobs/", lambda h: redirect(h.path.replace("/blobs/", "/elsewhere/"))(h))
    server.lies.append(moved)
    write_credentials(server.host, "me:pw")
    bring(driver, server.reference)
    assert all("Authorization" in seen.headers for seen in server.asked("/elsewhere/"))


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "link-local address, which is refused|not encrypted"),
        ("https://169.254.169.254/latest/meta-data", "link-local address, which is refused"),
        ("https://10.0.0.1/x", "private address, which is refused"),
        ("https://[fe80::1]/x", "link-local address, which is refused"),
        ("http://192.0.2.7/x", "plain HTTP is only for loopback"),
        ("file:///etc/shadow", "not https: file"),
        ("gopher://127.0.0.1/x", "not https: gopher"),
        ("https://user:pw@127.0.0.1/x", "a name or password"),
        ("https://[::1/x", "can't be read"),
        ("https://127.0.0.1:99999/x", "can't be read"),
        ("https://.../x", "look up|connect to"),
        ("https://127.0.0.1/a b", "control characters or spaces"),
    ],
)
def test_C1_redirect_to_where_nobody_should_go_is_refused(driver, serve, to, words):
    server = serve(lies=[lie_about("/blobs/", redirect(to))])
    refused(driver, server, words, RegistryError)


def test_C1_redirect_never_leads_from_https_to_http(driver, serve, tmp_path, monkeypatch):
    tls = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    store = serve()
    server = serve(tls=tls, lies=[lie_about("/blobs/", lambda h: redirect(f"http://{store.host}{h.path}")(h))])
    refused(driver, server, "is not encrypted", RegistryError)
    assert store.requests == []


def test_C1_endless_redirects_end(driver, serve):
    server = serve()
    server.lies.append(lie_about("/blobs/", lambda h: redirect(h.path + "x")(h)))
    refused(driver, server, "more than 5 redirects", RegistryError)


def test_C1_redirect_of_the_token_endpoint_is_not_followed(driver, serve):
    stranger = serve(lies=[lie_about("/", gives_token)])
    tokens = serve(lies=[lie_about("/token", redirect(f"http://{stranger.host}/token"))])
    server = serve(lies=[bearer(tokens)])
    write_credentials(server.host, "me:pw")
    refused(driver, server, "said 307", RegistryError)
    assert stranger.requests == []


# --- C2: token realms ---


def test_C2_realm_of_a_stranger_is_asked_without_credentials(driver, serve):
    tokens = serve(lies=[lie_about("/token", gives_token)])
    port = tokens.host.partition(":")[2]
    server = serve(lies=[bearer(tokens, realm=f"http://localhost:{port}/token")])
    write_credentials(server.host, "me:pw")
    bring(driver, server.reference)
    assert tokens.requests
    assert not any("Authorization" in seen.headers or seen.method == "POST" for seen in tokens.requests)


def test_C2_realm_of_a_stranger_that_wants_credentials_is_named(driver, serve):
    tokens = serve(lies=[lie_about("/token", lambda h: h.send(401))])
    port = tokens.host.partition(":")[2]
    server = serve(lies=[bearer(tokens, realm=f"http://localhost:{port}/token")])
    write_credentials(server.host, "me:pw")
    refused(driver, server, "no credentials were sent there", RegistryError)


def test_C2_operator_may_allow_a_realm(driver, serve, monkeypatch):
    tokens = serve(lies=[lie_about("/token", gives_token)])
    port = tokens.host.partition(":")[2]
    server = serve(lies=[bearer(tokens, realm=f"http://localhost:{port}/token")])
    write_credentials(server.host, "me:pw")
    monkeypatch.setenv("RECONCILE_TOKEN_REALMS", "127.0.0.1=localhost")
    bring(driver, server.reference)
    assert tokens.requests[0].headers["Authorization"] == "Basic bWU6cHc="


@pytest.mark.parametrize(
    ("realm", "registry", "own"),
    [
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("https://ghcr.io/token", "https://ghcr.io", True),
        ("https://gitlab.com/jwt/auth", "https://registry.gitlab.com", True),
        ("https://auth.docker.io/token", "https://evil.example", False),
        ("https://evil.example/token", "https://registry-1.docker.io", False),
        ("https://docker.io.evil.example/token", "https://registry-1.docker.io", False),
        ("https://com/token", "https://registry.com", False),
        ("https://lab.com/token", "https://gitlab.com", False),
        ("http://ghcr.io/token", "https://ghcr.io", False),
    ],
)
def test_C2_own_realms(realm, registry, own):
    assert is_own_realm(parse_url(realm)[0], parse_url(registry)[0], "") is own


def test_C2_realm_on_the_private_net_is_refused(driver, serve):
    server = serve(lies=[bearer(serve(), realm="https://10.1.2.3/token")])
    refused(driver, server, "private address", RegistryError)


def test_addresses_are_told_apart():
    kinds = {
        "127.9.9.9": "loopback",
        "::1": "loopback",
        "::ffff:127.0.0.1": "loopback",
        "169.254.169.254": "link-local",
        "::ffff:169.254.169.254": "link-local",
        "fe80::1%eth0": "link-local",
        "10.0.0.1": "private",
        "100.64.0.1": "private",
        "fd00::1": "private",
        "0.0.0.0": "private",
        "224.0.0.1": "private",
        "1.1.1.1": "public",
        "2606:4700::1111": "public",
    }
    assert {address: kind_of_address(address) for address in kinds} == kinds


def test_challenges_are_read_whatever_stands_between():
    header = 'Negotiate, Basic realm="a, b", Bearer realm="https://h/t?x=1",service="s\\"q",scope=x, Digest realm="d"'
    basic, bearer_ = parse_challenges(header)
    assert (basic.scheme, basic.realm) == ("basic", "a, b")
    assert (bearer_.realm, bearer_.service, bearer_.scope) == ("https://h/t?x=1", 's"q', "x")
    assert parse_challenges("") == parse_challenges("Bearer") == []


# --- C3, C4: documents ---

MANIFEST = json.loads(SMALL.manifest().data)
CONFIG = MANIFEST["config"]


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({**MANIFEST, "manifests": []}, "both", id="manifests-and-layers"),
        pytest.param({"schemaVersion": 2, "manifests": [], "config": CONFIG}, "both", id="manifests-and-config"),
        pytest.param({**MANIFEST, "mediaType": "text/html"}, "a document of type", id="type"),
        pytest.param({**MANIFEST, "mediaType": lab.OCI + "index.v1+json"}, "as", id="type-of-an-index"),
        pytest.param({**MANIFEST, "schemaVersion": 1}, "schema 1", id="schema-1"),
        pytest.param({**MANIFEST, "layers": MANIFEST["layers"] * 10_000}, "at most 500 layers", id="10000-layers"),
        pytest.param({**MANIFEST, "layers": "many"}, "a list of layers", id="layers-text"),
        pytest.param({**MANIFEST, "layers": None}, "a list of layers", id="no-layers"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "digest": "sha256:../../x"}}, "a sha256 digest", id="digest"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "size": -1}}, "a size", id="size"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "size": True}}, "a size", id="size-bool"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "size": 1 << 30}}, "at most", id="config-1GB"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "mediaType": "x/helm"}}, "a container image", id="chart"),
        pytest.param([1], "a JSON object", id="list"),
        pytest.param(b"<html>Please log in", "JSON", id="html"),
        pytest.param(b"", "JSON", id="empty"),
        pytest.param(b"\xff\xfe{}", "JSON", id="utf-16"),
        pytest.param(b'{"schemaVersion": NaN}', "NaN", id="nan"),
        pytest.param(deep(100_000), "nested too deep", id="deep"),
        pytest.param(b'{"layers": [], "layers": []}', "twice", id="duplicate-keys"),
        pytest.param(SMALL.manifest().data[:-1] + b',"config":' + json.dumps(CONFIG).encode() + b"}", "twice", id="twice"),
    ],
)
def test_C3_documents_that_are_refused(driver, serve, data, words):
    server = serve()
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    server.serve_manifest(Blob(lab.OCI + "manifest.v1+json", raw))
    refused(driver, server, words)


def test_C3_document_of_a_gigabyte_is_not_read(driver, serve):
    server = serve(lies=[lie_about("/manifests/", lambda h: h.send(200, b"{" * 1000, length=1 << 30))])
    refused(driver, server, "at most 4194304", RegistryError)


def test_C3_index_within_an_index_is_refused(driver, serve):
    server = serve()
    inner = lab.index([SMALL])
    platform = {"os": "linux", "architecture": lab.ARCHITECTURE}
    server.serve_manifest(inner)
    nested = {"schemaVersion": 2, "mediaType": inner.media, "manifests": [{**inner.descriptor, "platform": platform}]}
    server.serve_json(nested, inner.media)
    refused(driver, server, "another index within it")


def test_C4_foreign_layers_are_refused(driver, serve):
    server = serve()
    (layer,) = MANIFEST["layers"]
    kinds = [
        {**layer, "urls": ["https://elsewhere.example/x"]},
        {**layer, "mediaType": lab.OCI + "layer.nondistributable.v1.tar+gzip"},
        {**layer, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
    ]
    for kind in kinds:
        server.serve_json({**MANIFEST, "layers": [kind]})
        refused(driver, server, "foreign layer")
    assert server.asked("/blobs/") == []


# --- C5: bodies ---


def test_C5_body_longer_than_promised_is_refused(driver, serve):
    server = serve(lies=[lie_about(LAYER.digest, lambda h: h.send(200, LAYER.data + b"x"))])
    refused(driver, server, f"expected {len(LAYER.data)} bytes, found {len(LAYER.data) + 1}")


def test_C5_endless_body_without_a_length_is_cut(driver, serve):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100_000):
            handler.wfile.write(b"1000\r\n" + b"z" * 4096 + b"\r\n")

    server = serve(lies=[lie_about(LAYER.digest, endless)])
    refused(driver, server, "bytes, found more")


def test_C5_short_body_is_asked_for_again_and_then_given_up(driver, serve):
    def short(handler):
        handler.send(200, LAYER.data[:100], length=len(LAYER.data))
        handler.cut()

    server = serve(lies=[lie_about(LAYER.digest, short)])
    refused(driver, server, "ended", RegistryError)
    assert len(server.asked(LAYER.digest)) == 4


def test_C5_server_that_is_busy_is_asked_again_and_heard_out(driver, serve):
    server = serve()
    server.lies.append(lie_about("/manifests/", lambda h: h.send(503, headers={"Retry-After": "0"}), times=2))
    server.lies.append(lie_about(LAYER.digest, lambda h: h.send(429, headers={"Retry-After": "\u00b2"}), times=3))
    bring(driver, server.reference)
    assert len(server.asked(LAYER.digest)) == 4


def test_registry_that_is_down_for_a_moment_is_waited_for_in_a_pull_and_not_in_a_plan(serve):
    port = free_port(0)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            serve(port=port)

    client = Client(f"127.0.0.1:{port}", wait=wait)
    reference = parse_reference(f"127.0.0.1:{port}/app:1")
    with pytest.raises(RegistryError, match="Connection refused"):
        client.read_manifest(reference, "1")
    assert waited == []
    assert b"".join(client.read_blob(reference, LAYER.digest, size=len(LAYER.data))) == LAYER.data
    assert len(waited) == 2
    client.close()


def test_C5_server_that_limits_is_named(driver, serve):
    server = serve()
    digest = resolve(driver, server.reference).digest
    server.lies.append(lie_about(LAYER.digest, lambda h: h.send(429)))
    with pytest.raises(RegistryError, match="said 429") as error:
        create(driver, server.reference, digest)
    assert "limits how often" in error.value.hint
    assert error.value.retry


def test_C5_silent_server_meets_a_deadline(driver, serve, monkeypatch):
    monkeypatch.setattr(transport, "SILENT_SECONDS", 0.2)
    gone = []
    server = serve(lies=[lie_about("/manifests/", lambda h: (gone.append(h), h.connection.recv(1)))])
    fact = resolve(driver, server.reference)
    assert "no answer in time" in fact.warning


def test_C5_server_that_drips_headers_meets_a_deadline(driver, serve, monkeypatch):
    monkeypatch.setattr(transport, "HEADER_SECONDS", 0.3)

    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-Drip: 1\r\n"[:1] * 3 + b": 1\r\n")
            handler.connection.settimeout(0.05)
            try:
                if not handler.connection.recv(1):
                    return
            except TimeoutError:
                pass

    server = serve(lies=[lie_about("/manifests/", drip)])
    assert resolve(driver, server.reference).digest == "unknown"


def test_C5_slow_blob_is_given_up(driver, serve, monkeypatch):
    monkeypatch.setattr(transport, "SLOW_SECONDS", 0.2)

    def drip(handler):
        handler.send(200, LAYER.data[:10], length=len(LAYER.data))
        handler.connection.settimeout(0.05)
        for byte in LAYER.data[10:]:
            try:
                if not handler.connection.recv(1):
                    break
            except TimeoutError:
                handler.wfile.write(bytes([byte]))
        handler.cut()

    server = serve(lies=[lie_about(LAYER.digest, drip)])
    refused(driver, server, "fewer than .* bytes came", RegistryError)


def plain_image() -> tuple[Image, lab.Layer]:
    layer = lab.layer(Entry("data", bytes(range(256)) * 4000), packing="none")
    return Image((layer,)), layer


def test_C5_server_that_ignores_ranges_is_read_from_the_beginning(driver, layout, serve):
    image, layer = plain_image()
    server = serve(image=image)

    def half(handler):
        handler.send(200, layer.tar[:500_000], length=len(layer.tar))
        handler.cut()

    digest = layer.blob().digest
    server.lies.append(lie_about(digest, half, times=1))
    server.lies.append(lie_about(digest, lambda h: h.send(200, layer.tar)))
    bring(driver, server.reference)
    assert stored.has_layer(layout, layer.diff_id)


@pytest.mark.parametrize("claimed", ["bytes 500000-", "bytes 7-", "nonsense"])
def test_C5_partial_content_with_other_bytes_is_refused(driver, serve, claimed):
    image, layer = plain_image()
    server = serve(image=image)

    def half(handler):
        handler.send(200, layer.tar[:500_000], length=len(layer.tar))
        handler.cut()

    def other(handler):
        handler.send(206, b"\x00" * (len(layer.tar) - 500_000), {"Content-Range": claimed})

    server.lies.append(lie_about(layer.blob().digest, half, times=1))
    server.lies.append(lie_about(layer.blob().digest, other))
    with pytest.raises((ContentError, RegistryError)):
        bring(driver, server.reference)
    assert nothing_is_kept(driver._layout)


# --- C6: what moves ---


def test_C6_tag_that_moves_after_resolve_changes_nothing(driver, layout, serve):
    server = serve()
    digest = resolve(driver, server.reference).digest
    server.serve_image(TWO)
    fresh = ImageDriver(layout)  # as of a later command, with a saved plan
    create(fresh, server.reference, digest)
    fresh.close()
    assert [image.digest for image in driver.list_images()] == [SMALL.manifest().digest]


def test_C6_digest_answered_by_other_content_is_refused(driver, serve):
    server = serve()
    other = TWO.manifest()
    server.lies.append(lie_about("/manifests/", lambda h: h.send(200, other.data, {"Content-Type": other.media})))
    with pytest.raises(ContentError, match=f"expected {SMALL.manifest().digest}, found {other.digest}"):
        create(driver, server.reference, SMALL.manifest().digest)
    assert nothing_is_kept(driver._layout)


def test_C6_digest_header_that_contradicts_the_body_is_refused(driver, serve):
    lying = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    server = serve(lies=[lie_about("/manifests/", lambda h: h.send(200, SMALL.manifest().data, lying))])
    refused(driver, server, "expected sha256:0000")


def test_C7_what_a_registry_says_can_not_write_on_the_terminal(driver, serve):
    words = json.dumps({"errors": [{"code": "X", "message": "\x1b[2J\x1b]0;owned\x07 gone\nhint: rm -rf"}]}).encode()
    server = serve(lies=[lie_about("/manifests/", lambda h: h.send(404, words))])
    error = refused(driver, server, "gone", RegistryError)
    assert error.brief.isprintable()
    server.serve_manifest(Blob("x", b"\x1b[2J"))
    server.lies.clear()
    assert refused(driver, server, "JSON").brief.isprintable()


# --- A9, A10: layers ---


def with_config(image: Image, **changes) -> tuple[Blob, Blob]:
    """Manifest and config of an image whose config was changed."""
    config = json.loads(image.config_blob().data)
    config["rootfs"]["diff_ids"] = changes.pop("diff_ids", config["rootfs"]["diff_ids"])
    changed = lab.json_blob(image.config_blob().media, {**config, **changes})
    manifest = json.loads(image.manifest().data)
    manifest["config"] = changed.descriptor
    return lab.json_blob(image.manifest().media, manifest), changed


@pytest.mark.parametrize("count", [0, 1, 3])
def test_A9_config_with_more_or_fewer_layers_is_refused(driver, serve, count):
    server = serve(image=TWO)
    manifest, config = with_config(TWO, diff_ids=([layer.diff_id for layer in TWO.layers] * 2)[:count])
    server.blobs[config.digest] = config
    server.serve_manifest(manifest)
    refused(driver, server, "layers")
    assert server.asked(TWO.layer_blobs()[0].digest) == []


def test_A9_right_digest_with_wrong_diff_id_is_refused(driver, serve):
    server = serve()
    manifest, config = with_config(SMALL, diff_ids=["sha256:" + "1" * 64])
    server.blobs[config.digest] = config
    server.serve_manifest(manifest)
    refused(driver, server, "expected sha256:1111")


def test_A9_wrong_size_is_refused(driver, serve):
    server = serve()
    (layer,) = MANIFEST["layers"]
    for wrong in (layer["size"] - 1, layer["size"] + 1, 0):
        server.serve_json({**MANIFEST, "layers": [{**layer, "size": wrong}]})
        refused(driver, server, "bytes|nothing")
    server.serve_json({**MANIFEST, "config": {**CONFIG, "size": CONFIG["size"] + 1}})
    refused(driver, server, "bytes, found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"<!doctype html><title>Please log in</title>", "gzip", id="captive-portal"),
        pytest.param(b"", "nothing|bytes", id="empty"),
        pytest.param(LAYER.data[:-20], "truncated", id="truncated"),
        pytest.param(LAYER.data + b"garbage", "trailing garbage", id="garbage"),
        pytest.param(LAYER.data + b"\x1f\x8bgarbage", "gzip to its end", id="gzip-like-garbage"),
        pytest.param(b"\x28\xb5\x2f\xfd" + b"x" * 50, "zstd layers are not built yet", id="zstd"),
        pytest.param(b"\x1f\x8b", "truncated", id="magic-alone"),
        pytest.param(b"\x1f", "gzip", id="one-byte"),
        pytest.param(gzip.compress(b"no tar at all" * 100), "expected", id="no-tar"),
    ],
)
def test_A10_layer_that_is_none_is_refused(driver, serve, body, words):
    """Its size and digest are what the manifest says: only its form is wrong."""
    server = serve()
    blob = Blob(LAYER.media, body)
    server.blobs[blob.digest] = blob
    server.serve_json({**MANIFEST, "layers": [blob.descriptor]})
    refused(driver, server, words)


def test_A10_captive_portal_in_place_of_a_blob_is_refused(driver, serve):
    server = serve(lies=[lie_about(LAYER.digest, lambda h: h.send(200, b"<html>log in</html>"))])
    refused(driver, server, "bytes, found 19")


def test_A10_same_size_other_bytes_are_refused(driver, serve):
    server = serve(lies=[lie_about(LAYER.digest, lambda h: h.send(200, b"x" * len(LAYER.data)))])
    refused(driver, server, "expected")


def test_A7_bomb_is_refused_with_its_limit(driver, serve, monkeypatch):
    monkeypatch.setattr("reconciler.engine.native.content.unpack.LEAST_LIMIT", 1 << 20)
    tar = lab.layer(Entry("zeros", bytes(20 << 20))).tar
    server = serve(image=Image((lab.Layer(tar),)))
    refused(driver, server, "200 times the size that it travels in")


# --- B3, B4: configs ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("Volumes", {path: {}}) for path in ("/", "//", "/proc", "/proc/x", "//proc", "/sys/a", "/dev", "..", "a")],
        *[("Volumes", {path: {}}) for path in ("/a/../../b", "/a\nb", "/" + "x" * 5000)],
        ("Volumes", {f"/{n}": {} for n in range(10_000)}),
        ("Volumes", ["/a"]),
        *[("ExposedPorts", {port: {}}) for port in ("0", "99999/tcp", "80/x", "-1", "80/tcp/udp", "a")],
        *[("Env", [item]) for item in ("=x", "A", "A\nB=1", "A B=1", "A=\x00", "\x1b=1")],
        ("Env", ["A=" + "x" * 1_000_000]),
        ("Env", "A=1"),
        ("Cmd", "sh -c x"),
        ("Entrypoint", [1]),
        ("User", "a\nb"),
        ("User", 0),
        ("WorkingDir", ["/"]),
        ("Labels", {"a": 1}),
        ("Healthcheck", {"Test": ["EXEC", "x"]}),
        ("Healthcheck", {"Test": ["CMD", "x"], "Interval": -1}),
        ("Healthcheck", {"Test": ["CMD", "x"], "Retries": "many"}),
        ("Healthcheck", []),
    ],
)
def test_B4_config_that_asks_for_what_no_image_may_is_refused_with_the_field(driver, serve, field, value):
    server = serve(image=Image(SMALL.layers, {field: value}))
    refused(driver, server, rf"config: {field}")


def test_B3_odd_but_legal_config_is_taken(driver, serve):
    config = {
        "Env": ["A=", "B==", "C=a\nb", "_x.y=1"],
        "Labels": {"org.reconcile.privileged": "true", "": ""},
        "Volumes": {"/data/": {}, "/process": {}},
        "ExposedPorts": {"80": {}, "8000-8010/udp": {}},
        "Cmd": None,
        "Healthcheck": {},
    }
    server = serve(image=Image(SMALL.layers, config))
    assert resolve(driver, server.reference).volumes == ("/data", "/process")


# --- the machine ---


def test_full_disk_is_one_clear_error(driver, layout, serve, monkeypatch):
    from reconciler.engine.native.content.blobs import Staging

    def full(self, data):
        raise OSError(28, "No space left on device")

    server = serve()
    monkeypatch.setattr(Staging, "write", full)
    with pytest.raises(Failed, match="No space left on device") as error:
        bring(driver, server.reference)
    assert isinstance(error.value, ReconcileError)
    assert nothing_is_kept(layout)
