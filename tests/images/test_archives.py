"""Archives as `docker save` and OCI tools write them, and ones that are broken."""

import gzip
import io
import json
import tarfile

import pytest
from hostile_registry import SMALL, TWO

from lab import images as lab
from lab.images import Image
from reconciler.engine.native.content import archive
from reconciler.engine.native.content import images as here
from reconciler.engine.native.layers import stored
from reconciler.model.errors import ContentError, Failed, PlatformMissing
from reconciler.model.events import silent
from reconciler.model.key import Key
from reconciler.model.observation import Phase
from reconciler.model.record import Made
from reconciler.model.spec import ImageSpec

KEY = Key("image/blog/app")


def resolve(driver, path, *, recorded="", pull="missing"):
    return driver.resolve(KEY, ImageSpec(archive=str(path), pull=pull), recorded=recorded, offline=False)


def load(driver, path):
    digest = resolve(driver, path).digest
    made = Made(key=KEY, spec=ImageSpec(archive=str(path)), image=digest)
    assert driver.create(made, uses={}, emit=silent).phase is Phase.PRESENT
    return digest


def write_tar(path, members, **links):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)


def saved(image, *, config=b"", names=()):
    """The members of a `docker save`."""
    blob = config or image.config_blob().data
    files = {f"l{n}.tar": layer.tar for n, layer in enumerate(image.layers)}
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": list(names or files)}]
    return {**files, "c.json": blob, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize("form", ["docker", "oci", "docker-gzip"])
def test_archive_is_loaded_and_stays_the_same_image(driver, layout, tmp_path, form):
    path = tmp_path / "image.tar"
    (lab.save_oci if form == "oci" else lab.save_docker)(path, "app:1", TWO)
    if form == "docker-gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    fact = resolve(driver, path)
    assert not fact.local
    assert not layout.layers.exists()
    digest = load(driver, path)
    assert digest == fact.digest
    assert form != "oci" or digest == TWO.manifest().digest
    image = here.read_image(layout, digest)
    assert image.config["rootfs"]["diff_ids"] == [layer.diff_id for layer in TWO.layers]
    assert image.names == ()
    assert all(stored.has_layer(layout, layer.diff_id) for layer in TWO.layers)
    assert resolve(driver, path).local


def test_digest_of_a_saved_image_does_not_depend_on_the_file(driver, tmp_path):
    lab.save_docker(tmp_path / "a.tar", "app:1", TWO)
    write_tar(tmp_path / "b.tar", dict(reversed(saved(TWO).items())))
    assert resolve(driver, tmp_path / "a.tar").digest == resolve(driver, tmp_path / "b.tar").digest


def test_layers_that_link_to_each_other_are_found(driver, layout, tmp_path):
    """As older `docker save` writes a layer that two images share."""
    twice = Image((SMALL.layers[0], SMALL.layers[0]))
    members = saved(twice, names=("l0.tar", "x/layer.tar"))
    del members["l1.tar"]
    write_tar(tmp_path / "image.tar", members, **{"x/layer.tar": "../l0.tar"})
    load(driver, tmp_path / "image.tar")
    assert stored.has_layer(layout, SMALL.layers[0].diff_id)


def test_packed_layer_in_a_saved_image_is_loaded(driver, layout, tmp_path):
    members = saved(SMALL)
    members["l0.tar"] = gzip.compress(members["l0.tar"])
    write_tar(tmp_path / "image.tar", members)
    load(driver, tmp_path / "image.tar")
    assert stored.has_layer(layout, SMALL.layers[0].diff_id)


def test_index_in_an_oci_archive_is_followed(driver, tmp_path):
    foreign = Image(SMALL.layers, architecture="s390x")
    top = lab.index([foreign, SMALL])
    blobs = [top]
    for image in (foreign, SMALL):
        blobs += [image.manifest(), image.config_blob(), *image.layer_blobs()]
    members = {f"blobs/sha256/{blob.digest[7:]}": blob.data for blob in blobs}
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top.descriptor]}).encode()
    write_tar(tmp_path / "image.tar", members)
    assert load(driver, tmp_path / "image.tar") == SMALL.manifest().digest


def test_archive_that_changed_after_the_plan_is_refused(driver, tmp_path):
    path = tmp_path / "image.tar"
    lab.save_docker(path, "app:1", SMALL)
    digest = resolve(driver, path).digest
    lab.save_docker(path, "app:1", TWO)
    with pytest.raises(ContentError, match=f"the image {digest} that was planned"):
        driver.create(Made(key=KEY, spec=ImageSpec(archive=str(path)), image=digest), uses={}, emit=silent)
    assert driver.list_images() == []


def test_archive_that_is_gone_is_not_needed_for_what_was_loaded(driver, tmp_path):
    path = tmp_path / "image.tar"
    lab.save_docker(path, "app:1", SMALL)
    digest = load(driver, path)
    path.unlink()
    fact = resolve(driver, path, recorded=digest)
    assert (fact.digest, fact.local) == (digest, True)
    assert "is gone" in fact.warning
    with pytest.raises(Failed, match="No such file"):
        resolve(driver, path)
    with pytest.raises(Failed, match="No such file"):
        resolve(driver, tmp_path / "other.tar", recorded=digest)


def test_foreign_archive_names_its_platform(driver, tmp_path):
    lab.save_docker(tmp_path / "image.tar", "app:1", Image(SMALL.layers, architecture="s390x"))
    with pytest.raises(PlatformMissing, match=r"image\.tar: no image for linux/") as error:
        resolve(driver, tmp_path / "image.tar")
    assert error.value.detail == "it has linux/s390x"


def several():
    members = saved(SMALL)
    one = json.loads(members["manifest.json"])
    return {**members, "manifest.json": json.dumps(one * 2).encode()}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param({"hello": b"x"}, "neither index.json nor manifest.json", id="no-image"),
        pytest.param(several(), "expected one image, found 2", id="several"),
        pytest.param({**saved(SMALL), "manifest.json": b"{"}, "JSON", id="broken-json"),
        pytest.param({**saved(SMALL), "manifest.json": b"[]"}, "a list of images", id="empty"),
        pytest.param({**saved(SMALL), "manifest.json": b'[], "images": [1]'}, "twice", id="smuggled"),
        pytest.param(saved(SMALL, names=("l0.tar", "l0.tar")), "1 layers as in its config", id="more-layers"),
        pytest.param(saved(SMALL, names=("../../etc/passwd",)), "no such member", id="outside"),
        pytest.param(saved(SMALL, config=b"{}"), "rootfs.diff_ids", id="no-config"),
        pytest.param({**saved(SMALL), "c.json": b"x" * (5 << 20)}, "at most 4194304 bytes", id="huge-config"),
        pytest.param({"index.json": SMALL.manifest().data}, "the type|an index", id="no-index"),
    ],
)
def test_broken_archive_is_refused(driver, tmp_path, members, words):
    write_tar(tmp_path / "image.tar", members)
    with pytest.raises(ContentError, match=words):
        resolve(driver, tmp_path / "image.tar")


def test_wrong_layer_in_an_archive_is_refused(driver, layout, tmp_path):
    write_tar(tmp_path / "image.tar", {**saved(SMALL), "l0.tar": TWO.layers[1].tar})
    digest = resolve(driver, tmp_path / "image.tar").digest
    made = Made(key=KEY, spec=ImageSpec(archive=str(tmp_path / "image.tar")), image=digest)
    with pytest.raises(ContentError, match=f"expected {SMALL.layers[0].diff_id}"):
        driver.create(made, uses={}, emit=silent)
    assert not stored.list_layers(layout)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"PK\x03\x04 a zip" * 100, "an image archive", id="zip"),
        pytest.param(b"", "neither", id="empty"),
        pytest.param(b"\x1f\x8bno gzip at all", "broken gzip", id="no-gzip"),
        pytest.param(gzip.compress(b"x" * 5000)[:-30], "gzip|an image archive", id="cut"),
    ],
)
def test_file_that_is_no_archive_is_refused(driver, tmp_path, data, words):
    (tmp_path / "image.tar").write_bytes(data)
    with pytest.raises(ContentError, match=words):
        resolve(driver, tmp_path / "image.tar")


def test_truncated_archive_is_refused(driver, layout, tmp_path):
    path = tmp_path / "image.tar"
    write_tar(path, dict(reversed(saved(TWO).items())))  # its layers last
    data = path.read_bytes()
    path.write_bytes(data[: data.index(TWO.layers[0].tar) + 5000])
    with pytest.raises((ContentError, Failed)):
        load(driver, path)
    assert driver.list_images() == []
    assert not stored.has_layer(layout, TWO.layers[0].diff_id)


def test_A7_header_of_a_gigabyte_is_not_read(driver, tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "image.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT))
    with pytest.raises(ContentError, match="header of at most 65536 bytes"):
        resolve(driver, tmp_path / "image.tar")


def test_A7_archive_of_too_many_members_is_refused(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 10)
    write_tar(tmp_path / "image.tar", {f"{n}": b"" for n in range(20)})
    with pytest.raises(ContentError, match="at most 10 members"):
        resolve(driver, tmp_path / "image.tar")
