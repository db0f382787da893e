"""Observe and sweep: all that is asked for is answered, looking changes nothing, strays go and nothing else."""

from grounds import Ground, Site

from reconciler.model.observation import Phase
from reconciler.model.record import View


def test_every_made_of_the_view_has_a_status(site: Site) -> None:
    seen = site.ground.observe()
    assert set(seen.statuses) == {made.key for made in site.ground.mades}
    assert seen.strays == ()
    assert seen.boot_id


def test_looking_changes_nothing(site: Site) -> None:
    first = site.ground.observe()
    assert site.ground.observe().statuses == first.statuses


def test_look_at_some_of_it_sees_the_same_of_that_and_no_strays(site: Site) -> None:
    seen = site.ground.observe()
    view = View(made=tuple(made for made in site.ground.view.made if made.key != site.data.key))
    some = site.ground.engine.observe(site.ground.view, of={site.web.key, site.front.key})
    assert some.statuses == {made.key: seen.statuses[made.key] for made in (site.web, site.front)}
    assert site.ground.engine.observe(view, of=()).strays == ()


def test_empty_view_of_an_empty_machine_is_empty(ground: Ground) -> None:
    seen = ground.engine.observe(View())
    assert (dict(seen.statuses), seen.strays, dict(seen.others)) == ({}, (), {})
    assert list(ground.engine.sweep(View())) == []
    assert ground.read_remains() == []


def test_nothing_is_made_by_looking_at_what_does_not_exist(ground: Ground) -> None:
    ground.container("web", ground.image(), ground.network(), volumes=[ground.volume()])
    before = ground.read_remains()
    assert {status.phase for status in ground.observe().statuses.values()} == {Phase.MISSING}
    assert ground.read_remains() == before


def test_sweep_removes_what_nobody_names_and_nothing_else(site: Site) -> None:
    ground = site.ground
    pids = site.pids()
    stray = ground.container("stray", site.image, site.front, host=77)
    ground.prepare(stray)
    ground.start(stray)
    lost = ground.network("lost", 9)
    ground.create(lost)
    ground.forget(stray, lost)
    assert len(ground.observe().strays) >= 2
    lines = ground.engine.sweep(ground.view)
    assert len(lines) >= 2
    assert site.pids() == pids
    assert ground.observe().strays == ()
    assert ground.drifted() == []
    assert ground.engine.observe(View(made=(stray,))).statuses[stray.key].phase is Phase.MISSING
    assert list(ground.engine.sweep(ground.view)) == []


def test_sweep_never_takes_a_volume(site: Site) -> None:
    site.ground.write_data(site.data, "precious")
    site.ground.delete(site.web)
    site.ground.forget(site.web, site.data)
    site.ground.engine.sweep(site.ground.view)
    assert site.ground.read_data(site.data) == "precious"
    site.ground.add(site.data)


def test_sweep_with_an_empty_view_leaves_only_data(site: Site) -> None:
    ground = site.ground
    ground.write_data(site.data, "precious")
    kept = [site.data, site.image]
    ground.mades = []
    ground.engine.settle(ground.view)
    ground.engine.sweep(ground.view)
    assert ground.observe().strays == ()
    assert ground.read_data(site.data) == "precious"
    ground.mades = kept
    assert {ground.status(made).phase for made in kept} == {Phase.PRESENT}


def test_container_that_was_killed_by_hand_is_told(ground: Ground) -> None:
    image, network = ground.image(), ground.network()
    web = ground.container("web", image, network, restart="no")
    ground.up()
    ground.kill(web)
    ground.wait_exited(web)
    status = ground.status(web)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 137)


def test_what_is_remembered_is_recalled_until_the_thing_goes(ground: Ground) -> None:
    image, network, data = ground.image(), ground.network(), ground.volume()
    web = ground.container("web", image, network, volumes=[data])
    ground.up()
    for made in (network, web):
        ground.engine.remember(made, ground.uses if made is web else {}, {"sha256:" + "a" * 64: b"sealed"})
    recalled = {made.key: made for made in ground.engine.recall().made}
    assert recalled.keys() >= {image.key, network.key, data.key, web.key}
    assert recalled[web.key] == web
    assert recalled[network.key] == network
    assert recalled[data.key].grants == data.grants
    assert ground.engine.recall().sealed == {"sha256:" + "a" * 64: b"sealed"}
    ground.stop(web)
    assert {made.key: made.held for made in ground.engine.recall().made}[web.key]
    ground.delete(web)
    ground.engine.networks.delete(network)
    left = {made.key for made in ground.engine.recall().made}
    assert not left & {web.key, network.key}
    assert data.key in left
