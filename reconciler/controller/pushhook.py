"""Whether a call that says "something was pushed" is of somebody who knows the secret.

It says nothing else: what was pushed is asked of the repository itself, so that a call which is played again, or forged by
somebody who learned the secret, has a source looked at and no more.
"""

import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from reconciler.model.errors import Failed

PATH = "/hooks/push"
MOST = 1024 * 1024
"""Bytes of a body that are read at most: it is signed as a whole."""
_MOST_SECRET = 4096
LEAST = 16
"""Characters of a secret: whoever may send calls may try."""
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


def read_secret(path: Path) -> str:
    """The secret in a file that nobody else may read: its first line. Raises Failed."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_SECRET).decode().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failed(f"{path} can't be read: {why}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Failed(f"{path}: others may read it (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}")
    if len(text) < LEAST:
        raise Failed(f"{path} holds no secret of {LEAST} characters or more", hint="openssl rand -hex 20")
    return text
