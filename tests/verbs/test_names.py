"""What people write for one resource, for `delete`."""

import pytest

from reconciler.model.errors import Failed, NotFound
from reconciler.model.key import Key
from reconciler.verbs.delete import Doomed, find_doomed

RECORDS = [
    Key(key)
    for key in (
        "container/blog/web/1",
        "container/blog/web/2",
        "container/blog/cache/1",
        "container/shop/cache/1",
        "container/shop/data/1",
        "network/blog/front",
        "volume/shop/data",
        "image/blog/docker.io/library/redis:7",
        "volume/blog/files@1",
    )
]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("web", ["container/blog/web/1", "container/blog/web/2"]),
        ("web/2", ["container/blog/web/2"]),
        ("web-2", ["container/blog/web/2"]),
        ("blog/web", ["container/blog/web/1", "container/blog/web/2"]),
        ("blog/web/1", ["container/blog/web/1"]),
        ("blog/web-1", ["container/blog/web/1"]),
        ("container/web", ["container/blog/web/1", "container/blog/web/2"]),
        ("containers/blog/web", ["container/blog/web/1", "container/blog/web/2"]),
        ("container/blog/web/2", ["container/blog/web/2"]),
        ("shop/cache", ["container/shop/cache/1"]),
        ("container/shop/data", ["container/shop/data/1"]),
        ("front", ["network/blog/front"]),
        ("network/front", ["network/blog/front"]),
        ("image/blog/docker.io/library/redis:7", ["image/blog/docker.io/library/redis:7"]),
        ("volume/shop/data", ["volume/shop/data"]),
    ],
)
def test_forms_of_a_key(text: str, keys: list[str]) -> None:
    assert list(find_doomed(RECORDS, text).keys) == keys


def test_stack_is_meant_before_anything_else() -> None:
    assert find_doomed(RECORDS, "blog") == Doomed(stack="blog")


def test_volume_that_is_named_goes_with_its_data() -> None:
    assert find_doomed(RECORDS, "volume/data").volumes == ("data",)
    assert find_doomed(RECORDS, "web").volumes == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cache", "container/blog/cache, container/shop/cache"),
        ("data", "container/shop/data, volume/shop/data"),
        ("shop/data", "container/shop/data, volume/shop/data"),
    ],
)
def test_what_means_several_is_refused_naming_them(text: str, names: str) -> None:
    with pytest.raises(Failed) as caught:
        find_doomed(RECORDS, text)
    assert caught.value.brief == f"{text}: there is more than one: {names}"
    assert caught.value.hint == "write one of them in full"


def test_what_means_nothing_is_refused_with_what_is_near() -> None:
    with pytest.raises(NotFound) as caught:
        find_doomed(RECORDS, "blog/wep")
    assert caught.value.hint == "did you mean blog/web?"
