"""Pulling from a real registry, and from one that counts what it is asked."""

import shutil
import threading
from pathlib import Path

import pytest
from hostile_registry import (
    SMALL,
    TWO,
    HostileRegistry,
    lie_about,
    make_certificate,
    write_config,
    write_credentials,
)

from lab import images as lab
from lab.clock import build_clock
from lab.images import Entry, Image
from reconciler.engine.native.content import blobs
from reconciler.engine.native.content import images as here
from reconciler.engine.native.drivers.image import ImageDriver
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layers import layer as layers
from reconciler.engine.native.layers import stored
from reconciler.model.errors import ContentError, PlatformMissing, RegistryError
from reconciler.model.events import Progress, silent
from reconciler.model.key import Key
from reconciler.model.observation import Phase
from reconciler.model.record import UNKNOWN, Made
from reconciler.model.spec import Healthcheck, ImageSpec

KEY = Key("image/blog/app")


def resolve(driver, reference, *, recorded="", offline=False, pull="missing"):
    return driver.resolve(KEY, ImageSpec(reference=reference, pull=pull), recorded=recorded, offline=offline)


def create(driver, reference, digest, emit=silent):
    return driver.create(Made(key=KEY, spec=ImageSpec(reference=reference), image=digest), uses={}, emit=emit)


def bring(driver, reference):
    digest = resolve(driver, reference).digest
    create(driver, reference, digest)
    return digest


def everything_below(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and not path.name.endswith("lock"))


# --- a real registry ---


def test_image_of_a_real_registry_is_resolved_without_a_trace_and_pulled(driver, layout, registry):
    digest = lab.push(registry.url, "pulled:1", TWO)
    reference = f"{registry.host}/pulled:1"
    fact = resolve(driver, reference)
    assert (fact.digest, fact.local) == (digest, False)
    assert everything_below(layout.root) == []
    events = []
    status = create(driver, reference, digest, events.append)
    assert status.phase is Phase.PRESENT
    assert {part.state for part in status.parts.values()} == {"present"}
    assert all(stored.has_layer(layout, layer.diff_id) for layer in TWO.layers)
    image = here.read_image(layout, digest)
    assert (image.names, image.config["config"]["Cmd"]) == ((reference,), ["sh"])
    assert image.layers == tuple(blob.digest for blob in TWO.layer_blobs())
    done = [event.part for event in events if isinstance(event, Progress) and event.text == "done"]
    assert sorted(done) == sorted(blob.digest[7:19] for blob in TWO.layer_blobs())
    assert resolve(driver, reference).local


@pytest.mark.parametrize("name", ["schema2:1", "plain:1", "multi:1"])
def test_every_form_of_image_is_pulled(driver, layout, registry, name):
    images = {
        "schema2:1": Image(SMALL.layers, docker=True),
        "plain:1": Image((lab.Layer(SMALL.layers[0].tar, "none"),)),
        "multi:1": SMALL,
    }
    if name == "multi:1":
        lab.push_index(registry.url, name, [Image(SMALL.layers, architecture="s390x"), SMALL])
    else:
        lab.push(registry.url, name, images[name])
    digest = bring(driver, f"{registry.host}/{name}")
    assert digest == images[name].manifest().digest
    assert stored.has_layer(layout, SMALL.layers[0].diff_id)


def test_missing_platform_names_those_that_are_there(driver, registry):
    foreign = [Image(SMALL.layers, architecture=name) for name in ("s390x", "riscv64")]
    lab.push_index(registry.url, "foreign:1", foreign)
    with pytest.raises(PlatformMissing) as error:
        resolve(driver, f"{registry.host}/foreign:1")
    assert error.value.detail == "it has linux/riscv64, linux/s390x"
    lab.push(registry.url, "foreign:2", foreign[0])
    with pytest.raises(PlatformMissing):
        resolve(driver, f"{registry.host}/foreign:2")


def test_missing_tag_says_which(driver, registry):
    with pytest.raises(RegistryError, match=r"nothing/here:1: read its manifest: no such image"):
        resolve(driver, f"{registry.host}/nothing/here:1")


def test_basic_credentials_open_a_real_registry(driver, guarded):
    reference = f"{guarded.host}/app:1"
    lab.push(guarded.url, "app:1", SMALL, auth="Basic bGFiOnNlY3JldA==")
    with pytest.raises(RegistryError, match="not authorized") as error:
        resolve(driver, reference)
    assert "docker login" in error.value.hint
    write_credentials(guarded.host, "lab:secret")
    fresh = ImageDriver(driver._layout)
    assert bring(fresh, reference) == SMALL.manifest().digest
    fresh.close()


def test_wrong_password_is_said_and_never_shown(driver, guarded):
    write_credentials(guarded.host, "lab:wrong-pw")
    with pytest.raises(RegistryError, match="not authorized") as error:
        resolve(driver, f"{guarded.host}/app:1")
    assert "wrong-pw" not in f"{error.value} {error.value.detail} {error.value.hint}"


# --- what is asked, and when ---


def test_content_that_is_here_needs_no_network_under_missing(driver, serve):
    server = serve()
    digest = bring(driver, server.reference)
    server.requests.clear()
    assert resolve(driver, server.reference, recorded=digest).local
    assert resolve(driver, server.reference).local
    assert resolve(driver, server.reference, pull="never").local
    assert server.requests == []


def test_always_costs_one_request_when_nothing_changed(driver, layout, serve):
    server = serve()
    server.serve_manifest(lab.index([SMALL]))
    digest = bring(driver, server.reference)
    fresh = ImageDriver(layout)
    server.requests.clear()
    assert resolve(fresh, server.reference, recorded=digest, pull="always").digest == digest
    assert [(seen.method, seen.path) for seen in server.requests] == [("HEAD", "/v2/app/manifests/1")]
    fresh.close()


def test_always_sees_a_tag_that_moved_and_missing_does_not(driver, serve):
    server = serve()
    first = bring(driver, server.reference)
    server.serve_image(TWO)
    assert resolve(driver, server.reference, recorded=first).digest == first
    moved = resolve(driver, server.reference, recorded=first, pull="always")
    assert (moved.digest, moved.local) == (TWO.manifest().digest, False)
    create(driver, server.reference, moved.digest)
    # What is recorded stays what it is, though another stack has taken the tag further.
    assert resolve(driver, server.reference, recorded=first).digest == first
    assert resolve(driver, server.reference).digest == moved.digest


def test_record_of_another_reference_says_nothing(driver, serve):
    server = serve()
    first = bring(driver, server.reference)
    server.serve_image(TWO)
    assert resolve(driver, f"{server.host}/app:2", recorded=first).digest == TWO.manifest().digest


def test_never_asks_nobody(driver, serve):
    server = serve()
    with pytest.raises(RegistryError, match="`pull: never` asks nobody"):
        resolve(driver, server.reference, pull="never")
    assert server.requests == []


def test_pinned_image_that_is_here_needs_no_network_whatever_the_policy(driver, serve):
    server = serve()
    index = lab.index([Image(SMALL.layers, architecture="s390x"), SMALL])
    server.serve_manifest(index)
    for pin in (SMALL.manifest().digest, index.digest):
        bring(driver, f"{server.host}/app@{pin}")
        server.requests.clear()
        assert resolve(driver, f"{server.host}/app@{pin}", pull="always").digest == SMALL.manifest().digest
        assert server.requests == []


def test_resolve_then_create_reads_each_document_once(driver, serve):
    server = serve(image=TWO)
    bring(driver, server.reference)
    paths = [seen.path for seen in server.requests]
    assert len(paths) == len(set(paths)) == 4


def test_registry_that_is_down_gives_unknown_then_its_words(driver):
    fact = resolve(driver, "127.0.0.1:9/app:1")
    assert fact.digest == UNKNOWN
    assert "Connection refused" in fact.warning
    with pytest.raises(RegistryError, match="Connection refused") as error:
        create(driver, "127.0.0.1:9/app:1", UNKNOWN)
    assert error.value.retry


def test_registry_that_is_down_does_not_matter_where_content_is_here(driver, serve):
    server = serve()
    digest = bring(driver, server.reference)
    server.lies.append(lie_about("/", lambda handler: handler.send(503)))
    fact = resolve(driver, server.reference, recorded=digest, pull="always")
    assert (fact.digest, fact.local) == (digest, True)
    assert "503" in fact.warning


def test_offline_asks_nobody(driver, serve):
    server = serve()
    assert resolve(driver, server.reference, offline=True).digest == UNKNOWN
    assert server.requests == []
    digest = bring(driver, server.reference)
    assert resolve(driver, server.reference, offline=True, pull="always", recorded=digest).digest == digest


def test_facts_carry_volumes_and_healthcheck(driver, serve):
    config = {
        "Volumes": {"/b": {}, "/a/": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 5},
    }
    server = serve(image=Image(SMALL.layers, config))
    fact = resolve(driver, server.reference)
    assert fact.volumes == ("/a", "/b")
    assert fact.healthcheck == Healthcheck(test=("CMD", "true"), interval=2.0, retries=5)


# --- layers ---


def test_layers_that_are_here_are_not_fetched_again(driver, serve):
    server = serve()
    bring(driver, server.reference)
    server.serve_image(TWO)
    server.requests.clear()
    events = []
    create(driver, f"{server.host}/app:2", TWO.manifest().digest, events.append)
    assert server.asked(SMALL.layer_blobs()[0].digest) == []
    assert len(server.asked(TWO.layer_blobs()[1].digest)) == 1
    assert {event.text for event in events if event.part == SMALL.layer_blobs()[0].digest[7:19]} == {"exists"}


def test_one_layer_wanted_by_many_pulls_is_fetched_once(layout, serve):
    layer = lab.layer(Entry("data", bytes(range(256)) * 8000))
    server = serve(image=Image((layer, layer)))
    drivers = [ImageDriver(layout) for _ in range(3)]  # as of three processes: they share nothing but the root
    errors = []

    def pull(driver):
        try:
            bring(driver, server.reference)
        except Exception as error:  # noqa: BLE001 told below
            errors.append(error)

    threads = [threading.Thread(target=pull, args=[driver]) for driver in drivers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for driver in drivers:
        driver.close()
    assert errors == []
    assert len(server.asked(layer.blob().digest)) == 1


def test_missing_layer_and_altered_documents_are_seen_and_mended(driver, layout, serve):
    server = serve(image=TWO)
    digest = bring(driver, server.reference)
    made = Made(key=KEY, spec=ImageSpec(reference=server.reference), image=digest)
    layers.remove_layer(layout, TWO.layers[1].diff_id)
    part = driver.observe([made], Glimpse(layout))[KEY].parts["layers"]
    assert (part.state, part.old, part.new) == ("missing", "2", "1")
    fact = resolve(driver, server.reference, recorded=digest)
    assert (fact.digest, fact.local) == (digest, False)
    server.requests.clear()
    driver.update(made, made, uses={}, emit=silent)
    assert server.requests == []  # its blob was kept
    assert driver.observe([made], Glimpse(layout))[KEY].parts["layers"].state == "present"
    config = TWO.config_blob().digest
    for victim, part_name in [(digest, "manifest"), (config, "config")]:
        blobs.remove_blob(layout, victim)
        assert driver.observe([made], Glimpse(layout))[KEY].parts[part_name].state == "missing"
        driver.update(made, made, uses={}, emit=silent)
        blobs.blob_path(layout, victim).write_bytes(b"{}")
        assert driver.observe([made], Glimpse(layout))[KEY].parts[part_name].state == "altered"
        driver.update(made, made, uses={}, emit=silent)
        assert {part.state for part in driver.observe([made], Glimpse(layout))[KEY].parts.values()} == {"present"}
        assert here.read_image(layout, digest).digest == digest


def test_altered_kept_blob_is_fetched_again(driver, layout, serve):
    server = serve()
    digest = bring(driver, server.reference)
    layers.remove_layer(layout, SMALL.layers[0].diff_id)
    blobs.blob_path(layout, SMALL.layer_blobs()[0].digest).write_bytes(b"\x1f\x8bnonsense")
    create(driver, server.reference, digest)
    assert stored.has_layer(layout, SMALL.layers[0].diff_id)


def test_download_that_breaks_off_goes_on_where_it_stopped(driver, serve):
    layer = lab.layer(Entry("data", bytes(range(256)) * 20_000), packing="none")
    server = serve(image=Image((layer,)))

    def half(handler):
        handler.send(200, layer.tar[:2_000_000], length=len(layer.tar))
        handler.cut()

    server.lies.append(lie_about(layer.blob().digest, half, times=1))
    bring(driver, server.reference)
    ranges = [seen.headers.get("Range") for seen in server.asked(layer.blob().digest)]
    assert ranges == [None, "bytes=2000000-"]


def test_pull_goes_on_from_what_a_killed_one_left(driver, layout, serve):
    layer = lab.layer(Entry("data", bytes(range(256)) * 20_000), packing="none")
    server = serve(image=Image((layer,)))
    left = layout.blobs / f"new-{layer.blob().digest[7:]}"
    left.parent.mkdir(parents=True)
    left.write_bytes(layer.tar[:1_000_000])
    bring(driver, server.reference)
    assert [seen.headers.get("Range") for seen in server.asked(layer.blob().digest)] == ["bytes=1000000-"]
    assert not left.exists()


@pytest.mark.parametrize("left_behind", [b"other bytes" * 1000, b"y" * 10_000_000])
def test_wrong_remains_of_a_killed_pull_start_again(driver, layout, serve, left_behind):
    layer = lab.layer(Entry("data", bytes(range(256)) * 2000), packing="none")
    server = serve(image=Image((layer,)))
    left = layout.blobs / f"new-{layer.blob().digest[7:]}"
    left.parent.mkdir(parents=True)
    left.write_bytes(left_behind)
    bring(driver, server.reference)
    assert stored.has_layer(layout, layer.diff_id)


def test_failed_layer_leaves_nothing_of_the_image(driver, layout, serve):
    server = serve(image=TWO)
    server.lies.append(lie_about(TWO.layer_blobs()[1].digest, lambda handler: handler.send(404)))
    digest = resolve(driver, server.reference).digest
    with pytest.raises(RegistryError, match=f"download layer {TWO.layer_blobs()[1].digest}: the registry lacks it"):
        create(driver, server.reference, digest)
    assert driver.list_images() == []
    assert not [name for name in everything_below(layout.root) if name.startswith("new-")]


# --- encryption and tokens ---


def test_tls_on_loopback_is_found_out_and_checked(driver, layout, serve, tmp_path, monkeypatch):
    tls = make_certificate(tmp_path)
    server = serve(tls=tls)
    with pytest.raises(RegistryError, match="its certificate is not trusted") as error:
        resolve(driver, server.reference)
    assert "certs.d" in error.value.hint
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    fresh = ImageDriver(layout)
    assert bring(fresh, server.reference) == SMALL.manifest().digest
    fresh.close()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="skipped because gcc is not installed")
def test_x4_certificate_of_another_time_points_at_the_clock(driver, layout, serve, tmp_path, monkeypatch):
    (tmp_path / "offset").write_text("-864000")
    with monkeypatch.context() as past:
        past.setenv("LD_PRELOAD", str(build_clock(tmp_path)))
        past.setenv("CLOCK_FILE", str(tmp_path / "offset"))
        tls = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    server = serve(tls=tls)
    with pytest.raises(RegistryError, match="certificate has expired") as error:
        resolve(driver, server.reference)
    assert "this machine's clock says 20" in error.value.hint


@pytest.mark.parametrize("pull", ["missing", "always"])
def test_real_registry_over_tls_on_loopback_is_pulled_from(driver, layout, registry, encrypted, monkeypatch, pull):
    secure, tls = encrypted
    digest = lab.push(registry.url, "tls:1", TWO)
    reference = f"{secure.host}/tls:1"
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    write_credentials(secure.host, "lab:secret")
    assert resolve(driver, reference, pull=pull).digest == digest
    create(driver, reference, digest)
    fresh = ImageDriver(layout)  # its first question is a HEAD, whose answer has no words
    assert resolve(fresh, reference, pull=pull, recorded=digest).local
    fresh.close()


def test_certificate_of_a_host_in_dockers_folder_is_trusted(driver, serve, tmp_path, monkeypatch):
    tls = make_certificate(tmp_path)
    server = serve(tls=tls)
    folder = tmp_path / "certs.d" / server.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(tls.certificate.read_bytes())
    monkeypatch.setattr("reconciler.engine.native.registry.transport.CERTS", tmp_path / "certs.d")
    assert bring(driver, server.reference) == SMALL.manifest().digest


def test_plain_http_is_for_loopback_only(driver):
    from reconciler.engine.native.registry.transport import Origin, Transport, TransportError

    with pytest.raises(TransportError, match="plain HTTP is only for loopback"):
        Transport().ask("GET", Origin("http", "192.0.2.1", 80), "/", headers={}, reach=bool)


def bearer(token_server: HostileRegistry, *, token: str = "t0k3n", realm: str = ""):
    """A registry's lie: it wants a token of another server."""

    def lie(handler) -> bool:
        if handler.headers.get("Authorization") == f"Bearer {token}":
            return False
        where = realm or f"http://{token_server.host}/token"
        challenge = f'Bearer realm="{where}",service="lab, inc",scope="repository:app:pull"'
        handler.send(401, headers={"WWW-Authenticate": challenge})
        return True

    return lie


def gives_token(handler) -> None:
    handler.send(200, b'{"token": "t0k3n", "expires_in": 300}')


def test_token_is_fetched_once_with_the_credentials_of_the_registry(driver, serve):
    tokens = serve(lies=[lie_about("/token", gives_token)])
    server = serve(image=TWO, lies=[bearer(tokens)])
    write_credentials(server.host, "me:pw")
    bring(driver, server.reference)
    assert [(seen.method, seen.path) for seen in tokens.requests] == [
        ("GET", "/token?service=lab%2C+inc&scope=repository%3Aapp%3Apull")
    ]
    assert tokens.requests[0].headers["Authorization"] == "Basic bWU6cHc="
    assert len([seen for seen in server.requests if "Authorization" not in seen.headers]) == 1


def test_anonymous_token_is_enough_for_a_public_image(driver, serve):
    tokens = serve(lies=[lie_about("/token", gives_token)])
    server = serve(lies=[bearer(tokens)])
    bring(driver, server.reference)
    assert "Authorization" not in tokens.requests[0].headers


def test_identity_token_is_exchanged(driver, serve):
    tokens = serve(lies=[lie_about("/token", lambda h: h.send(200, b'{"access_token": "t0k3n"}'))])
    server = serve(lies=[bearer(tokens)])
    write_config({"auths": {server.host: {"identitytoken": "refresh me"}}})
    bring(driver, server.reference)
    assert tokens.requests[0].method == "POST"
    assert b"grant_type=refresh_token&refresh_token=refresh+me" in tokens.requests[0].body


def test_refused_token_names_the_realm(driver, serve):
    tokens = serve(lies=[lie_about("/token", lambda h: h.send(403))])
    server = serve(lies=[bearer(tokens)])
    with pytest.raises(RegistryError, match=rf"the token realm http://{tokens.host} said 403"):
        resolve(driver, server.reference)


def test_zstd_layers_are_refused_by_name(driver, registry):
    zstd = lab.layer(Entry("x", "1"), packing="zstd")
    lab.push(registry.url, "zstd:1", Image((*SMALL.layers, zstd)))
    with pytest.raises(ContentError, match="zstd layers are not built yet") as error:
        resolve(driver, f"{registry.host}/zstd:1")
    assert zstd.blob().digest in error.value.brief
