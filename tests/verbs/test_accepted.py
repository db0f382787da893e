"""What is given to --accept-data-loss must mean something: a slip would look like the refusal it was to lift."""

import pytest

from reconciler.model.errors import NotFound
from reconciler.model.key import Key
from reconciler.verbs.plan import check_accepted

KEYS = [Key("container/blog/web/1"), Key("volume/blog/data")]


@pytest.mark.parametrize("name", ["container/blog/web/1", "web", "blog/web", "web/1", "volume/blog/data", "data"])
def test_what_means_a_resource_is_taken(name: str) -> None:
    check_accepted([name], KEYS)


@pytest.mark.parametrize(("name", "hint"), [("volume/blog/dat", "did you mean volume/blog/data?"), ("x", "reconcile get")])
def test_what_means_nothing_is_told(name: str, hint: str) -> None:
    with pytest.raises(NotFound, match=f"no resource named {name}") as raised:
        check_accepted(["data", name], KEYS)
    assert hint in raised.value.hint
