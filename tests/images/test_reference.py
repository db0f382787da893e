import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.reference import canonical_reference, parse_reference

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("docker.io/redis:7", "docker.io/library/redis:7"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis:7"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x"),
        ("Registry.Example/app:V1", "registry.example/app:V1"),
        ("LOCALHOST/app", "localhost/app:latest"),
        ("Example/app", "Example/app:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}"),
        (f"h.io:1/app:7@{DIGEST}", f"h.io:1/app:7@{DIGEST}"),
        ("a__b/c--d/e.f:_1", "docker.io/a__b/c--d/e.f:_1"),
    ],
)
def test_reference_becomes_canonical(text, canonical):
    assert canonical_reference(text) == canonical


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no image"),
        (":7", "names no image"),
        ("localhost:5000/", "names no image"),
        ("Redis", "small letters"),
        ("redis:", "no tag"),
        ("redis:-x", "no tag"),
        ("redis:a b", "no tag"),
        ("redis:" + "x" * 129, "no tag"),
        ("redis@sha256:abc", "no digest"),
        ("redis@sha512:" + HEX * 2, "no digest"),
        ("redis@", "no digest"),
        (f"redis@{DIGEST.upper()}", "no digest"),
        ("host.io:99999/app", "no port"),
        ("host.io:0/app", "no port"),
        ("-bad.io/app", "no host"),
        ("a//b", "can't be part"),
        ("../etc/passwd", "no host"),
        ("a/../b", "can't be part"),
        ("a___b", "can't be part"),
        ("a\x1b[31m", "can't be part"),
        ("app\n", "can't be part"),
        ("app:7\n", "no tag"),
        (f"app@{DIGEST}\n", "no digest"),
        (HEX, "is an id"),
        ("https://host/app", "no host"),
        ("h.io/" + "/".join(["a" * 50] * 6), "255 characters"),
        ("x" * 100_000, "too long"),
    ],
)
def test_bad_reference_says_what_is_wrong(text, words):
    with pytest.raises(ValueError, match=words):
        parse_reference(text)


hosts = st.sampled_from(["", "docker.io/", "localhost/", "localhost:5000/", "h.example/", "[::1]:5000/"])
pieces = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?", fullmatch=True)
tags = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}", fullmatch=True))
digests = st.one_of(st.just(""), st.from_regex(r"@sha256:[0-9a-f]{64}", fullmatch=True))


@given(hosts, st.lists(pieces, min_size=1, max_size=4), tags, digests)
def test_canonical_form_is_a_fixed_point_and_loses_nothing(host, path, tag, digest):
    reference = parse_reference(host + "/".join(path) + tag + digest)
    assert parse_reference(str(reference)) == reference
    assert tag.removeprefix(":") in ("", reference.tag)
    assert reference.digest == digest.removeprefix("@")
    assert reference.target


def test_a_host_of_capitals_is_never_taken_for_a_repository_of_docker_io():
    """Found by the fuzzer: the canonical form of `Example/app` was read back as docker.io/example/app."""
    reference = parse_reference("Example/app")
    assert parse_reference(str(reference)) == reference
    assert reference.host == "Example"


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_value_error(text):
    try:
        reference = parse_reference(text)
    except ValueError:
        return
    assert str(parse_reference(str(reference))) == str(reference)
    assert not any(c in str(reference) for c in " \n\x00\x1b\\%?#")
    assert ".." not in reference.repository.split("/")
