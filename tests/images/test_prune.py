"""What goes and what stays, by hand: list, read, remove, prune."""

import multiprocessing

import pytest
from hostile_registry import SMALL, TWO
from test_pull import bring

from reconciler.engine.native.content import blobs
from reconciler.engine.native.layers import layer as layers
from reconciler.model.errors import LockTimeout, NotFound
from reconciler.model.events import silent
from reconciler.model.key import Key


@pytest.fixture
def both(driver, serve):
    """Two images that share a layer: app:1 and app:2."""
    server = serve()
    bring(driver, f"{server.host}/app:1")
    server.serve_image(TWO)
    bring(driver, f"{server.host}/app:2")
    return server.host


def names(driver):
    return sorted(name.partition("/")[2] for image in driver.list_images() for name in image.names)


def test_list_shows_what_is_here(driver, layout, both):
    images = {image.digest: image for image in driver.list_images()}
    assert set(images) == {SMALL.manifest().digest, TWO.manifest().digest}
    two = images[TWO.manifest().digest]
    assert two.names == (f"{both}/app:2",)
    assert two.size == sum(layers.layer_size(layout, layer.diff_id) for layer in TWO.layers) > 0
    assert two.platform.startswith("linux/")


def test_image_is_read_by_name_digest_or_its_beginning(driver, both):
    digest = TWO.manifest().digest
    for name in (f"{both}/app:2", digest, digest[7:], digest[7:19]):
        assert driver.read(name).digest == digest
    for name in (f"{both}/app:3", "sha256:", "f" * 64, "../x", ""):
        with pytest.raises(NotFound):
            driver.read(name)


def test_prune_keeps_what_is_used_and_all_that_it_shares(driver, layout, both):
    gone = driver.prune([SMALL.manifest().digest])
    assert names(driver) == ["app:1"]
    assert [name for name, _ in gone] == [f"{both}/app:2"]
    assert layers.has_layer(layout, SMALL.layers[0].diff_id)
    assert not layers.has_layer(layout, TWO.layers[1].diff_id)
    assert gone[0][1] > 100_000


def test_dry_run_says_the_same_and_removes_nothing(driver, both):
    said = driver.prune([], dry_run=True)
    assert names(driver) == ["app:1", "app:2"]
    assert sorted(name for name, _ in driver.prune([])) == sorted(name for name, _ in said)


def test_prune_of_everything_leaves_nothing(driver, layout, both):
    (layout.blobs / f"new-{'0' * 64}").write_bytes(b"left by a killed pull")
    gone = driver.prune([])
    assert driver.list_images() == []
    assert layers.list_layers(layout) == []
    assert [path for path in layout.blobs.iterdir()] == []
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


def test_removed_name_takes_its_content_only_with_the_last_one(driver, layout, serve, both):
    driver.pull(Key("image/run/x"), f"{both}/app:latest", emit=silent)  # the same as app:2
    assert names(driver) == ["app:1", "app:2", "app:latest"]
    assert driver.remove(f"{both}/app:2", used=[]) == [(f"{both}/app:2", 0)]
    assert layers.has_layer(layout, TWO.layers[1].diff_id)
    gone = driver.remove(f"{both}/app:latest", used=[])
    assert sum(size for _, size in gone) > 100_000
    assert names(driver) == ["app:1"]
    assert layers.has_layer(layout, SMALL.layers[0].diff_id)


def test_remove_leaves_content_that_is_used(driver, layout, both):
    driver.remove(f"{both}/app:2", used=[TWO.manifest().digest])
    assert layers.has_layer(layout, TWO.layers[1].diff_id)
    with pytest.raises(NotFound):
        driver.remove(f"{both}/app:2", used=[])


def test_pull_by_hand_takes_what_the_tag_means_now(driver, both):
    assert driver.pull(Key("image/run/x"), f"{both}/app:1", emit=silent).digest == TWO.manifest().digest
    assert {image.digest: len(image.names) for image in driver.list_images()} == {
        SMALL.manifest().digest: 0,
        TWO.manifest().digest: 2,
    }


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
