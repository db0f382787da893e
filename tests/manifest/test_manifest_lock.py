"""Lock files beside manifests: read, pinned by, and what is wrong with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.manifest.load import load_stacks
from reconciler.manifest.lockfile import read_lock, render_lock
from reconciler.model.errors import BadManifest
from reconciler.model.key import Kind, make_key
from reconciler.model.record import Stack
from reconciler.model.spec import ImageSpec

REDIS, APP = "docker.io/library/redis:7", "host:5000/app:1"
AA, BB = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MANIFEST = f"""\
apiVersion: reconcile/v1
name: s
images:
  redis: {{from: redis:7}}
  pinned: {{from: redis@{AA}}}
containers:
  web: {{image: "{APP}"}}
  db: {{image: redis}}
"""


def load(folder: Path, lock: str | None = None, *, pinned: bool = True) -> Stack:
    (folder / "stack.yaml").write_text(MANIFEST)
    if lock is not None:
        (folder / "stack.yaml.lock").write_text(lock)
    return load_stacks(
        [folder], variables={}, environment={}, origin_of=lambda path, _: f"file:{path}", pinned=pinned
    )[0]  # fmt: skip


def reference(stack: Stack, name: str) -> str:
    spec = stack.specs[make_key(Kind.IMAGE, "s", name)]
    assert isinstance(spec, ImageSpec)
    return spec.reference


def test_locked_tags_are_pinned_and_keep_their_names(tmp_path: Path) -> None:
    stack = load(tmp_path, render_lock({REDIS: AA}))
    assert reference(stack, "redis") == f"{REDIS}@{AA}"
    assert reference(stack, APP) == APP
    assert reference(stack, "pinned") == f"docker.io/library/redis@{AA}"
    assert stack.lock is not None
    assert (stack.lock.file, stack.lock.digests) == (f"{tmp_path}/stack.yaml.lock", {REDIS: AA})


def test_manifest_without_a_lock_file_has_none(tmp_path: Path) -> None:
    stack = load(tmp_path)
    assert stack.lock is None
    assert reference(stack, "redis") == REDIS


def test_who_writes_the_lock_file_reads_the_manifest_as_it_is(tmp_path: Path) -> None:
    stack = load(tmp_path, render_lock({REDIS: AA}), pinned=False)
    assert reference(stack, "redis") == REDIS
    assert stack.lock is not None


def test_text_is_one_whatever_the_order() -> None:
    assert render_lock({REDIS: AA, APP: BB}) == render_lock({APP: BB, REDIS: AA})
    assert render_lock({APP: BB, REDIS: AA}) == (
        "# Written by `reconcile lock`: what each tag named when it was locked. Keep it beside the manifest, in version"
        " control.\n"
        "apiVersion: reconcile/v1\n"
        "locked:\n"
        f'  "docker.io/library/redis:7": {AA}\n'
        f'  "host:5000/app:1": {BB}\n'
    )


digests = st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")
tags = st.from_regex(r"\A(host:5000|\[::1\]:5000|docker\.io/library)/[a-z]{1,8}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}\Z")


@given(st.dictionaries(tags, digests, max_size=5))
def test_what_was_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, found: dict[str, str]) -> None:
    manifest = tmp_path_factory.mktemp("lock") / "stack.yaml"
    Path(f"{manifest}.lock").write_text(render_lock(found))
    lock = read_lock(manifest, file="stack.yaml")
    assert lock is not None
    assert lock.digests == found


HEAD = "apiVersion: reconcile/v1\n"
DAMAGES = {
    "text": ("hello", "1:1 this is no lock file: expected `apiVersion: reconcile/v1` and `locked:`"),
    "another form": ("apiVersion: reconcile/v2\nlocked: {}", "1:1 this is no lock file"),
    "a list": (f"{HEAD}locked: [a]", "2:9 locked: expected a map of tags to digests"),
    "a key more": (f"{HEAD}locked: {{}}\nmore: 1", "3:1 more: unknown key"),
    "no digest": (f'{HEAD}locked:\n  "{REDIS}": 7', "expected sha256: and 64 hex digits"),
    "half a digest": (
        f'{HEAD}locked:\n  "{REDIS}": sha256:aaa',
        '3:32 locked."docker.io/library/redis:7": found',
    ),
    "no tag": (f'{HEAD}locked:\n  "redis": {AA}', '3:3 locked.redis: found "redis"; expected HOST/NAME:TAG in full'),
    "no YAML": (f'{HEAD}locked:\n  "{REDIS}: {AA}', "stack.yaml.lock:"),
    "one twice": (f'{HEAD}locked:\n  "{REDIS}": {AA}\n  "{REDIS}": {BB}', "stack.yaml.lock:4:"),
    "nothing": ("", "stack.yaml.lock"),
    "a conflict": (f"<<<<<<< HEAD\n{HEAD}", "stack.yaml.lock:"),
}


@pytest.mark.parametrize(("text", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_lock_file_is_a_bad_manifest_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadManifest) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == 65
    assert f"{tmp_path}/stack.yaml.lock" in caught.value.detail
    assert says in caught.value.detail
