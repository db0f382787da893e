"""Images: what a spec means under each pull policy, and content that comes, stays and is pruned."""

from collections.abc import Iterator

import pytest
from grounds import STACK, Ground

from reconciler.model.errors import ContentError, ReconcileError, RegistryError
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import Phase
from reconciler.model.record import UNKNOWN, ImageFact, Made
from reconciler.model.spec import ImageSpec

KEY = make_key(Kind.IMAGE, STACK, "box")
TAG = "127.0.0.1:5000/box:1"


@pytest.fixture
def served(ground: Ground) -> Iterator[Ground]:
    """A registry at 127.0.0.1:5000 that has TAG."""
    ground.serve(TAG)
    yield ground
    ground.stop_serving()


def ask(ground: Ground, pull: str, *, recorded: str = "", offline: bool = False, tag: str = TAG) -> ImageFact:
    return ground.engine.images.resolve(KEY, ImageSpec(reference=tag, pull=pull), recorded=recorded, offline=offline)


def pulled(ground: Ground) -> Made:
    made = Made(key=KEY, spec=ImageSpec(reference=TAG), image=ask(ground, "missing").digest)
    ground.create(made)
    return made


def test_what_is_not_here_is_asked_for(served: Ground) -> None:
    for pull in ("missing", "always"):
        fact = ask(served, pull)
        assert fact.digest.startswith("sha256:")
        assert (fact.local, fact.warning) == (False, "")


def test_resolve_stores_nothing(served: Ground) -> None:
    before = served.read_remains()
    ask(served, "missing")
    assert served.engine.images.list_images() == []
    assert served.read_remains() == before


def test_never_takes_what_is_here_and_refuses_what_is_not(served: Ground) -> None:
    with pytest.raises(RegistryError, match="never"):
        ask(served, "never")
    made = pulled(served)
    assert ask(served, "never", recorded=made.image) == ask(served, "missing", recorded=made.image)
    assert ask(served, "never").digest == made.image


def test_missing_and_never_need_no_registry_for_what_is_here(served: Ground) -> None:
    made = pulled(served)
    served.stop_serving()
    for pull in ("missing", "never"):
        fact = ask(served, pull, recorded=made.image)
        assert (fact.digest, fact.local, fact.warning) == (made.image, True, "")


def test_offline_asks_nobody(served: Ground) -> None:
    for pull in ("missing", "always"):
        fact = ask(served, pull, offline=True)
        assert fact.digest == UNKNOWN
        assert fact.warning
    made = pulled(served)
    for pull in ("missing", "always", "never"):
        assert ask(served, pull, recorded=made.image, offline=True).digest == made.image


def test_registry_that_does_not_answer_is_unknown_with_a_warning_where_nothing_is_here(ground: Ground) -> None:
    fact = ask(ground, "missing")
    assert fact.digest == UNKNOWN
    assert fact.warning
    with pytest.raises(ReconcileError):
        ground.create(Made(key=KEY, spec=ImageSpec(reference=TAG), image=fact.digest))


def test_always_with_what_is_here_and_no_registry_goes_on_with_a_warning(served: Ground) -> None:
    made = pulled(served)
    served.stop_serving()
    fact = ask(served, "always", recorded=made.image)
    assert fact.digest == made.image
    assert fact.warning


def test_definite_answers_are_errors(served: Ground) -> None:
    with pytest.raises((RegistryError, ContentError)):
        ask(served, "missing", tag="127.0.0.1:5000/box:no-such-tag")


def test_create_brings_it_and_may_come_twice(served: Ground) -> None:
    made = served.add(pulled(served))
    assert served.status(made).phase is Phase.PRESENT
    assert served.create(made).phase is Phase.PRESENT
    assert [image.digest for image in served.engine.images.list_images()] == [made.image]
    assert served.drifted() == []


def test_digest_that_nobody_has_is_an_error_and_leaves_nothing(served: Ground) -> None:
    with pytest.raises(ReconcileError):
        served.create(Made(key=KEY, spec=ImageSpec(reference=TAG), image="sha256:" + "ab" * 32))
    assert served.engine.images.list_images() == []


def test_delete_keeps_content_for_others_and_what_is_gone_is_no_error(served: Ground) -> None:
    made = pulled(served)
    served.engine.images.delete(made)
    served.engine.images.delete(made)
    assert served.status(served.add(made)).phase is Phase.PRESENT


def test_prune_keeps_what_is_used_and_with_dry_run_everything(ground: Ground) -> None:
    box, other = ground.image("box"), ground.image("short", ends=0)
    ground.up(box, other)
    would = ground.engine.images.prune([box.image], dry_run=True)
    assert would
    assert {image.digest for image in ground.engine.images.list_images()} == {box.image, other.image}
    assert [name for name, _ in ground.engine.images.prune([box.image])] == [name for name, _ in would]
    assert [image.digest for image in ground.engine.images.list_images()] == [box.image]
    assert ground.status(box).phase is Phase.PRESENT
    assert ground.status(other).phase is Phase.MISSING
    assert list(ground.engine.images.prune([box.image])) == []


def test_archive_that_is_not_there_is_an_error_that_names_it(ground: Ground) -> None:
    spec = ImageSpec(archive=str(ground.folder / "lost.tar"))
    with pytest.raises(ReconcileError, match=r"lost\.tar"):
        ground.engine.images.resolve(KEY, spec, recorded="", offline=False)
