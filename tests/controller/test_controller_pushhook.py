"""Calls that say that something was pushed: only who knows the secret has a source looked at."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.pushhook import MOST, is_genuine

SECRET, BODY = "It's a Secret to Everybody", b"Hello, World!"
# The example of GitHub's own documentation, "Validating webhook deliveries".
SIGNATURE = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-hub-signature-256": f"sha256={SIGNATURE}"},
        {"x-gitea-signature": SIGNATURE},
        {"x-forgejo-signature": SIGNATURE.upper()},
        {"x-gitlab-token": SECRET},
    ],
)
def test_calls_of_the_usual_hosts_are_known(headers: dict[str, str]) -> None:
    assert is_genuine(headers, BODY, secret=SECRET)
    assert not is_genuine(headers, BODY, secret="another")
    assert not is_genuine(headers, BODY, secret="")
    assert "x-gitlab-token" in headers or not is_genuine(headers, BODY + b"x", secret=SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature": f"sha1={SIGNATURE}"},
        {"x-hub-signature-256": ""},
        {"x-hub-signature-256": "sha256=ü"},
        {"x-hub-signature-256": "sha256=00", "x-gitlab-token": SECRET},
        {"x-gitlab-token": "\udcff"},
    ],
)
def test_calls_without_the_secret_are_not(headers: dict[str, str]) -> None:
    assert not is_genuine(headers, BODY, secret=SECRET)


def test_body_that_is_too_large_is_not_even_looked_at() -> None:
    body = bytes(MOST + 1)
    signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert not is_genuine({"x-gitea-signature": signed}, body, secret=SECRET)


@given(st.dictionaries(st.sampled_from(["x-hub-signature-256", "x-gitlab-token", "x-other"]), st.text()), st.binary())
def test_no_call_is_a_mistake_of_ours(headers: dict[str, str], body: bytes) -> None:
    assert is_genuine(headers, body, secret=SECRET) in (False, headers.get("x-gitlab-token") == SECRET)
