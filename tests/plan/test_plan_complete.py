"""Facts about images folded into specs."""

from plan.builders import AA, APP, WEB, Known, container, desire, stack, volume_at
from reconciler.model.key import Key, Kind, make_key, split_key
from reconciler.model.record import UNKNOWN, ImageFact
from reconciler.model.spec import ContainerSpec, Healthcheck, ImageSpec, Mount, VolumeSpec
from reconciler.plan.complete import complete_specs, implicit_volumes

CHECK = Healthcheck(test=("CMD", "true"))


def completed(spec: ContainerSpec, fact: ImageFact, known: Known | None = None) -> ContainerSpec:
    found = complete_specs(desire(stack(web=spec), facts={"app": fact}), (known or Known()).records).specs[WEB]
    assert isinstance(found, ContainerSpec)
    return found


def volumes(spec: ContainerSpec, *paths: str) -> list[str]:
    return list(implicit_volumes(WEB, completed(spec, ImageFact(digest=AA, volumes=paths))).values())


def test_declared_volume_becomes_a_managed_one_with_a_key_that_can_be_taken_apart():
    specs = complete_specs(
        desire(stack(web=container()), facts={"app": ImageFact(digest=AA, volumes=("/data",))}), {}
    ).specs
    key = Key("volume/blog/web-1@/data")
    assert specs[key] == VolumeSpec()
    assert split_key(key).name == "web-1@/data"
    assert make_key(Kind.VOLUME, "blog", split_key(key).name) == key
    web = specs[WEB]
    assert isinstance(web, ContainerSpec)
    assert web.mounts == {"/data": Mount(type="volume", source="web-1@/data")}


def test_mount_on_the_path_or_above_covers_a_declared_volume():
    assert volumes(container(mounts=volume_at("/data", "d")), "/data") == []
    assert volumes(container(mounts=volume_at("/var", "d")), "/var/lib/data") == []
    assert volumes(container(mounts={"/data/": Mount(type="tmpfs")}), "/data") == []


def test_mount_below_or_beside_does_not_cover():
    assert volumes(container(mounts=volume_at("/data/sub", "d")), "/data") == ["/data"]
    assert volumes(container(mounts=volume_at("/data2", "d")), "/data") == ["/data"]


def test_paths_of_the_image_are_made_clean():
    assert volumes(container(), "/a/../b/", "//b", "c", "/", "") == ["/b", "/c"]


def test_volume_mounted_by_the_user_is_not_implicit():
    assert implicit_volumes(WEB, container(mounts=volume_at("/data", "web-1"))) == {}


def test_check_of_the_image_holds_where_the_manifest_has_none():
    fact = ImageFact(digest=AA, healthcheck=CHECK)
    own, off = Healthcheck(test=("CMD", "own")), Healthcheck(test=("NONE",))
    assert completed(container(), fact).healthcheck == CHECK
    assert completed(container(healthcheck=own), fact).healthcheck == own
    assert completed(container(healthcheck=off), fact).healthcheck == off


def test_check_without_a_test_changes_what_it_says_of_the_images():
    image = Healthcheck(test=("CMD", "true"), interval=2.0, retries=7)
    own = Healthcheck(interval=0.0, timeout=1.0, retries=0, start_period=0.0, start_interval=0.0, on_unhealthy="nothing")
    wanted = Healthcheck(test=("CMD", "true"), interval=2.0, retries=7, timeout=1.0, on_unhealthy="nothing")
    assert completed(container(healthcheck=own), ImageFact(digest=AA, healthcheck=image)).healthcheck == wanted
    assert completed(container(healthcheck=own), ImageFact(digest=AA)).healthcheck == own
    known = Known.of(stack(web=container(healthcheck=wanted)))
    assert completed(container(healthcheck=own), ImageFact(digest=UNKNOWN), known).healthcheck == wanted


def test_outage_changes_nothing_of_what_the_image_said_before():
    fact = ImageFact(digest=AA, volumes=("/data",), healthcheck=CHECK)
    known = Known.of(stack(web=container()), facts={"app": fact})
    plan = known.plan(stack(web=container()), facts={"app": ImageFact(digest=UNKNOWN)})
    assert plan.actions == ()
    assert plan.images[APP].digest == AA


def test_unknown_digest_of_another_reference_stays_unknown():
    known = Known.of(stack(web=container()))
    moved = stack(web=container(), images={"app": ImageSpec(reference="registry.test/app:2")})
    assert known.plan(moved, facts={"app": ImageFact(digest=UNKNOWN)}).images[APP].digest == UNKNOWN


def test_volume_of_a_container_that_left_is_kept_as_a_line():
    fact = ImageFact(digest=AA, volumes=("/data",))
    known = Known.of(stack(web=container(), api=container()), facts={"app": fact})
    plan = known.plan(stack(api=container()), facts={"app": fact})
    assert [(action.verb, action.key) for action in plan.actions] == [("delete", WEB)]
    assert [line.key for line in plan.lines] == ["volume/blog/web-1@/data"]
