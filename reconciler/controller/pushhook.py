"""Whether a call that says "something was pushed" is of somebody who knows the secret. Pure.

It says nothing else: what was pushed is asked of the repository itself, so that a call which is played again, or forged by
somebody who learned the secret, has a source looked at and no more.
"""

import hashlib
import hmac
from collections.abc import Mapping

MOST = 1024 * 1024
"""Bytes of a body that are read at most: it is signed as a whole."""
_SIGNED = ("x-hub-signature-256", "x-gitea-signature", "x-forgejo-signature")
"""GitHub (and who does as it does), Gitea, Forgejo: HMAC-SHA256 of the body in hex, the first with `sha256=` before it."""
_TOKEN = "x-gitlab-token"


def is_genuine(headers: Mapping[str, str], body: bytes, *, secret: str) -> bool:
    """Whether a call bears the secret, by signature or as GitLab sends it; `headers` by lower-case names.

    The first header of the known ones decides: one that is wrong is not made good by another. An empty secret is nobody's.
    """
    if not secret or len(body) > MOST:
        return False
    for name in _SIGNED:
        if name in headers:
            found = headers[name].strip().removeprefix("sha256=").lower()
            expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            return hmac.compare_digest(found.encode(errors="replace"), expected.encode())
    if _TOKEN in headers:
        return hmac.compare_digest(headers[_TOKEN].encode(errors="replace"), secret.encode())
    return False
