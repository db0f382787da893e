"""Whatever stands in a configuration file: it is right, or all that is wrong with it is said."""

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.controller.settings import Settings, read_settings
from reconciler.model.errors import BadManifest
from reconciler.schema.load import load_schema

WORDS = (
    "watch git branch tag path interval credentials ssh_key verify max_size vars prune max_delete approve allow ports"
    " host_paths default stacks parts heal warn listen containers keep age name form url_file on failed secret_file"
)
KNOWN = st.sampled_from(WORDS.split())
ODD = ["/a", "/a/../b", "5m", "1G", "https://h/x", "h:p", "-x", "127.0.0.1:9", "[::1]:0", "unix:///s", "\0", "9-1", ""]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), KNOWN, st.sampled_from(ODD))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN, inner, max_size=4), max_leaves=12
)
SOURCES = st.lists(
    st.dictionaries(KNOWN, VALUES, max_size=3).flatmap(
        lambda more: st.sampled_from([{"watch": "/a"}, {"git": "https://h/x"}, {}]).map(lambda place: {**more, **place})
    ),
    min_size=1,
    max_size=3,
)
OTHERS = sorted(load_schema("serve")["properties"].keys() - {"apiVersion", "sources"})


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(SOURCES | VALUES, st.dictionaries(st.sampled_from(OTHERS), VALUES, max_size=3))
def test_it_is_right_or_wrong_and_nothing_else(tmp_path_factory: Any, sources: Any, others: dict[str, Any]) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "serve.yaml"
    path.write_text(json.dumps({"apiVersion": "reconcile/v1", "sources": sources, **others}))
    path.chmod(0o644)
    with contextlib.suppress(BadManifest):
        assert isinstance(read_settings(path), Settings)
