"""What goes and what stays, by hand: list, read, remove, prune."""

import fcntl
import multiprocessing
import os
from contextlib import contextmanager

import pytest
from hostile_registry import SMALL, TWO
from test_pull import bring, create, resolve

from reconciler.engine.native.content import blobs
from reconciler.engine.native.layers import stored
from reconciler.engine.native.snapshots.mounts import hold_layers, release_layers
from reconciler.model.errors import LockTimeout
from tests.linux.spaces import in_mount_namespace


@pytest.fixture
def both(driver, serve):
    """Two images that share a layer: app:1 and app:2."""
    server = serve()
    bring(driver, f"{server.host}/app:1")
    server.serve_image(TWO)
    bring(driver, f"{server.host}/app:2")
    return server.host


@contextmanager
def held_folder(folder):
    """As a writer holds the folder that it fills."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(number, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(number)


def names(driver):
    return sorted(name.partition("/")[2] for image in driver.list_images() for name in image.names)


def test_list_shows_what_is_here(driver, layout, both):
    images = {image.digest: image for image in driver.list_images()}
    assert set(images) == {SMALL.manifest().digest, TWO.manifest().digest}
    two = images[TWO.manifest().digest]
    assert two.names == (f"{both}/app:2",)
    assert two.size == sum(stored.layer_size(layout, layer.diff_id) for layer in TWO.layers) > 0
    assert two.platform.startswith("linux/")


def test_altered_image_is_listed_and_its_parts_stay_while_it_is_used(driver, layout, both):
    digest = TWO.manifest().digest
    blobs.blob_path(layout, digest).write_bytes(b"{}")
    (image,) = [image for image in driver.list_images() if image.digest == digest]
    assert (image.config, image.names) == ({}, (f"{both}/app:2",))
    driver.prune([digest])
    assert all(stored.has_layer(layout, layer.diff_id) for layer in TWO.layers)
    assert all(blobs.has_blob(layout, blob.digest) for blob in TWO.layer_blobs())
    assert names(driver) == ["app:2"]


def test_x2_image_of_which_a_power_cut_left_neither_record_nor_manifest_hinders_no_prune(driver, layout, both):
    digest = TWO.manifest().digest
    for path in (blobs.blob_path(layout, digest), layout.images / f"{digest[7:]}.json"):
        path.write_bytes(b"")
    driver.prune([digest, SMALL.manifest().digest])
    assert stored.list_layers(layout) == [SMALL.layers[0].diff_id]
    assert blobs.has_blob(layout, digest), "what says that it was here stays, for the next pull to mend"


def test_prune_keeps_what_is_used_and_all_that_it_shares(driver, layout, both):
    gone = driver.prune([SMALL.manifest().digest])
    assert names(driver) == ["app:1"]
    assert [name for name, _ in gone] == [f"{both}/app:2"]
    assert stored.has_layer(layout, SMALL.layers[0].diff_id)
    assert not stored.has_layer(layout, TWO.layers[1].diff_id)
    assert gone[0][1] > 100_000


def test_dry_run_says_the_same_and_removes_nothing(driver, both):
    said = driver.prune([], dry_run=True)
    assert names(driver) == ["app:1", "app:2"]
    assert sorted(name for name, _ in driver.prune([])) == sorted(name for name, _ in said)


def test_prune_of_everything_leaves_nothing(driver, layout, both):
    (layout.blobs / f"new-{'0' * 64}").write_bytes(b"left by a killed pull")
    gone = driver.prune([])
    assert driver.list_images() == []
    assert stored.list_layers(layout) == []
    assert list(layout.blobs.iterdir()) == []
    assert [path.name for path in layout.layers.iterdir()] == ["lock"]
    assert (f"new-{'0' * 64}", 21) in gone
    assert driver.prune([]) == []


def test_prune_on_a_root_without_images_makes_nothing(driver, layout):
    assert driver.prune([]) == []
    assert list(layout.root.iterdir()) == []


def test_index_that_a_name_leads_through_stays_with_its_image(driver, layout, serve):
    from lab import images as lab

    server = serve()
    index = lab.index([SMALL])
    server.serve_manifest(index)
    digest = bring(driver, server.reference)
    driver.prune([digest])
    assert blobs.has_blob(layout, index.digest)


def test_name_that_moved_leaves_its_former_image_here(driver, serve):
    server = serve()
    bring(driver, server.reference)
    server.serve_image(TWO)
    digest = resolve(driver, server.reference, pull="always").digest
    create(driver, server.reference, digest)
    assert {image.digest: image.names for image in driver.list_images()} == {
        SMALL.manifest().digest: (),
        TWO.manifest().digest: (server.reference,),
    }


@pytest.mark.root
def test_layer_of_a_container_stays_whatever_is_said_to_be_used(driver, layout, both):
    used, unused = (layer.diff_id for layer in TWO.layers)

    def hold_and_prune():
        hold_layers(layout, "0123456789ab", [used, unused])
        driver.prune([])
        assert sorted(stored.list_layers(layout)) == sorted([used, unused])
        release_layers(layout, ["0123456789ab"])
        driver.prune([])
        assert stored.list_layers(layout) == []

    in_mount_namespace(hold_and_prune)


def _hold(layout, ready, done):
    with blobs.keeping_prune_away(layout):
        ready.set()
        done.wait(30)


def test_prune_waits_for_pulls_of_other_processes(driver, layout, both, monkeypatch):
    monkeypatch.setattr(blobs, "_PRUNE_SECONDS", 0.2)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(layout, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(LockTimeout, match="a pull that is under way"):
            driver.prune([])
    finally:
        done.set()
        other.join(30)
    assert driver.prune([])


def test_x1_what_a_killed_pull_left_half_made_goes_with_a_prune(driver, layout, both):
    """A layer that was being unpacked, a layer's facts and an image's record: seen before its bytes go, and gone then."""
    half = layout.layers / "new-half"
    half.mkdir()
    (half / "image").write_bytes(bytes(8192))
    for path in (layout.layers / "new-facts.json", layout.images / "new-record.json"):
        path.write_bytes(b"{}")
    used = [SMALL.manifest().digest, TWO.manifest().digest]
    said = dict(driver.prune(used, dry_run=True))
    assert half.exists()
    assert said.keys() == {"new-half", "new-facts.json", "new-record.json"}
    assert said["new-half"] >= 8192
    driver.prune(used)
    assert not [*layout.layers.glob("new-*"), *layout.images.glob("new-*")]


def test_x1_a_layer_that_is_being_made_is_not_taken_for_one_that_a_kill_left(driver, layout, both):
    held = layout.layers / "new-held"
    held.mkdir()
    with held_folder(held):
        driver.prune([SMALL.manifest().digest, TWO.manifest().digest])
        assert held.exists()
    driver.prune([SMALL.manifest().digest, TWO.manifest().digest])
    assert not held.exists()
