"""One notification → one POST, and nothing that nobody asked for: no redirect is followed, no proxy of the environment
used, TLS is verified, the answer is bounded, and the URL, which is a secret, stands in no error.
"""

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

TIMEOUT = 10.0
"""Seconds for each step: to connect, to be answered."""
MOST_TEXT = 3000
"""Characters of what is told: Slack shows no more."""


class Notice(Struct, frozen=True, kw_only=True):
    """What is told: the generic form of it is its JSON."""

    kind: str
    """failed | rolled-back | drifted | recovered | waiting"""
    text: str
    stack: str = ""
    """Empty where it is about a source or the whole machine."""
    at: float
    host: str
    root: str
    left_out: int = 0
    """How many were dropped before this one, for there were too many."""


class Refusal(Exception):
    """It was not taken."""

    def __init__(self, words: str, *, retry: bool, after: float = 0.0) -> None:
        super().__init__(words)
        self.words = words
        self.retry = retry
        self.after = after
        """Seconds that the other side asks for; 0 where it does not say."""


def render(notice: Notice, form: str) -> bytes:
    """The body of the request: `json`, or `slack` as incoming webhooks of Slack, Mattermost and others take it."""
    short = msgspec.structs.replace(notice, text=notice.text[:MOST_TEXT])
    if form == "json":
        return msgspec.json.encode(short)
    about = f"*{_escape(notice.stack)}* " if notice.stack else ""
    more = f"\n({notice.left_out} more were left out)" if notice.left_out else ""
    return msgspec.json.encode({"text": f"{about}{notice.kind} on {_escape(notice.host)}: {_escape(short.text)}{more}"})


def _escape(text: str) -> str:
    """Slack's control characters: whoever writes a manifest is to mention nobody and to link nowhere."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(url: str, body: bytes, *, timeout: float = TIMEOUT) -> None:
    """Send it. Raises Refusal where it was not taken, or nobody answered."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        opened: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout, context=context
        )
    else:
        opened = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json", "User-Agent": "reconcile"}
        opened.request("POST", target, body, headers)
        answer = opened.getresponse()
        status, after = answer.status, answer.getheader("Retry-After", "")
    except ssl.SSLCertVerificationError as error:
        raise Refusal(f"its certificate is not accepted: {error.verify_message}", retry=True) from None
    except socket.gaierror:
        raise Refusal("its host has no address", retry=True) from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a host that no name can be
        words = getattr(error, "strerror", None) or ("no answer in time" if isinstance(error, TimeoutError) else "no HTTP")
        raise Refusal(str(words), retry=True) from None
    finally:
        opened.close()
    if status // 100 == 2:
        return
    if status // 100 == 3:
        raise Refusal(f"it answers {status}: redirects are not followed", retry=False)
    seconds = float(after) if after.isdigit() else 0.0
    raise Refusal(f"it answers {status}", retry=status >= 500 or status in (408, 429), after=seconds)
