"""Keys that names of specs mean: the stack's own, and what is borrowed of others."""

import pytest

from reconciler.model.key import Kind, name_in, named_key


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        (Kind.NETWORK, "front", "network/blog/front"),
        (Kind.NETWORK, "edge/front", "network/edge/front"),
        (Kind.VOLUME, "data", "volume/blog/data"),
        (Kind.VOLUME, "db/data", "volume/db/data"),
        (Kind.VOLUME, "web-1@/var/lib/data", "volume/blog/web-1@/var/lib/data"),
        (Kind.VOLUME, "db/web-1@/var/lib/data", "volume/db/web-1@/var/lib/data"),
        (Kind.VOLUME, "data@2", "volume/blog/data@2"),
        (Kind.VOLUME, "db/data@2", "volume/db/data@2"),
    ],
)
def test_name_in_a_spec_means_one_key_and_the_key_that_name(kind: Kind, name: str, key: str) -> None:
    assert named_key(kind, "blog", name) == key
    assert name_in("blog", named_key(kind, "blog", name)) == name


def test_name_of_an_image_holds_slashes_and_is_never_borrowed() -> None:
    assert named_key(Kind.IMAGE, "blog", "quay.io/some/app:1") == "image/blog/quay.io/some/app:1"
