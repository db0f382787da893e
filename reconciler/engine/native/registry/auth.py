"""Credentials of `~/.docker/config.json` and a registry's challenge -> the Authorization header to ask with.

`client.py` calls it after a 401. Credentials go to the registry's own origin (basic) or to its own token realm (bearer)
and nowhere else; a realm that is a stranger's is asked without them. It writes nothing and prints nothing.
Source: the distribution project's token authentication, and Docker's config file and credential helper protocol.
"""

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from reconciler.engine.native.registry.transport import (
    Origin,
    Reach,
    Transport,
    TransportError,
    is_loopback_name,
    parse_url,
)

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_HUB_REALM = "auth.docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_LONGEST_CONFIG = 1 << 20
_LONGEST_TOKEN = 256 << 10
_HELPER_SECONDS = 30.0
_DEFAULT_LIFE = 60.0
"""Seconds that a token lives whose server does not say."""
_REALMS = "RECONCILE_TOKEN_REALMS"
"""Environment: `REGISTRY=REALMHOST` pairs, separated by commas, that the operator allows besides a registry's own."""


_TOKENS = re.compile(r'([A-Za-z]+)(?=\s+[^\s=,]|\s*,|\s*$)|([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
"""A scheme, or one of its parameters."""


class Credentials(Struct, frozen=True):
    """A name and password, or an identity token, for one registry. Never shown."""

    user: str = ""
    password: str = ""
    identity: str = ""
    """An OAuth2 refresh token."""
    bearer: str = ""
    """A token to send as it is."""

    def __repr__(self) -> str:
        return "Credentials(…)"


class Challenge(Struct, frozen=True):
    """What a 401 asks for."""

    scheme: str
    """basic | bearer"""
    realm: str = ""
    service: str = ""
    scope: str = ""


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Docker keeps its client's configuration."""
    folder = environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path(environ.get("HOME") or "/root") / ".docker") / "config.json"


def read_credentials(host: str, path: Path) -> Credentials | None:
    """The credentials for a registry, None where there are none. Raises ValueError for a file that can't be used."""
    config = _read_config(path)
    key = _HUB_KEY if host == HUB else host
    helper = _text(_table(config, "credHelpers").get(key)) or _text(config.get("credsStore"))
    if helper and (found := _ask_helper(helper, key)):
        return found
    for name, entry in _table(config, "auths").items():
        if _same_registry(name, host) and isinstance(entry, dict):
            return _read_entry(entry, host)
    return None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_CONFIG + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if len(data) > _LONGEST_CONFIG:
        raise ValueError(f"{path}: longer than {_LONGEST_CONFIG} bytes")
    try:
        config = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: is no JSON") from None  # without the cause: it quotes the text
    if not isinstance(config, dict):
        raise ValueError(f"{path}: is no JSON object")  # noqa: TRY004 one error for all that is wrong with the file
    return config


def _same_registry(name: str, host: str) -> bool:
    bare = name.partition("://")[2] or name
    bare = bare.partition("/")[0].lower()
    return bare == host or (host == HUB and bare in ("index.docker.io", HUB_HOST))


def _read_entry(entry: dict[str, Any], host: str) -> Credentials | None:
    user, password = _text(entry.get("username")), _text(entry.get("password"))
    if packed := _text(entry.get("auth")):
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"the entry of {host} is no base64 of NAME:PASSWORD") from None
    found = Credentials(user, password.rstrip("\x00"), _text(entry.get("identitytoken")), _text(entry.get("registrytoken")))
    return found if found != Credentials() else None


def _ask_helper(name: str, key: str) -> Credentials | None:
    """Run `docker-credential-NAME get`; None where it has none for us."""
    program = shutil.which(f"docker-credential-{name}") if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) else None
    if program is None:
        raise ValueError(f"the credential helper docker-credential-{name[:64]} is not installed")
    try:
        run = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"the credential helper {program} failed: {type(error).__name__}") from None
    if run.returncode:
        if b"not found" in run.stdout + run.stderr:
            return None
        raise ValueError(f"the credential helper {program} failed with exit code {run.returncode}")
    try:
        answer = json.loads(run.stdout[:_LONGEST_CONFIG])
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"the credential helper {program} gave no proper answer") from None
    return Credentials(identity=_text(secret)) if user == "<token>" else Credentials(_text(user), _text(secret))


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header that we can answer, in its order (RFC 9110, 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    for scheme, name, quoted, bare in _TOKENS.findall(header[:4096]):
        if scheme:
            found.append((scheme.lower(), {}))
        elif found:
            found[-1][1].setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or bare)
    return [
        Challenge(scheme, given.get("realm", ""), given.get("service", ""), given.get("scope", ""))
        for scheme, given in found
        if scheme == "basic" or (scheme == "bearer" and given.get("realm"))
    ]


def is_own_realm(realm: Origin, registry: Origin, allowed: str) -> bool:
    """Whether a token realm is a registry's own, so that the registry's credentials may go there.

    Its own are its host, Docker Hub's known one, and a parent domain (registry.gitlab.com has gitlab.com); never one that
    is less encrypted than the registry. `allowed` is what the operator says besides (RECONCILE_TOKEN_REALMS).
    """
    if realm.scheme != "https" and registry.scheme == "https":
        return False
    if realm.host == registry.host:
        return True
    pairs = {tuple(pair.strip().lower().split("=", 1)) for pair in allowed.split(",")}
    return (
        (registry.host == HUB_HOST and realm.host == _HUB_REALM)
        or ("." in realm.host and registry.host.endswith(f".{realm.host}"))
        or (registry.host, realm.host) in pairs
    )


class Authorizer:
    """Answers the challenges of one registry, and remembers the tokens until they run out. Safe for threads."""

    def __init__(self, transport: Transport, host: str, *, clock: Callable[[], float], config: Path | None = None) -> None:
        self._transport = transport
        self._host = host
        self._clock = clock
        self._config = config or config_path()
        self._lock = threading.Lock()
        self._headers: dict[str, tuple[str, float]] = {}
        self._credentials: list[Credentials | None] = []

    def header(self, scope: str) -> str:
        """The Authorization header for a scope, as far as one is known already; else empty."""
        value, until = self._headers.get(scope) or self._headers.get("") or ("", 0.0)
        return value if self._clock() < until else ""

    def answer(self, challenges: list[Challenge], scope: str, *, registry: Origin, reach: Reach) -> str:
        """The Authorization header that answers a 401, empty where there is none. Raises TransportError, ValueError."""
        with self._lock:
            for challenge in challenges:
                credentials = self._read()
                if credentials and credentials.bearer:
                    return f"Bearer {credentials.bearer}"
                if challenge.scheme == "bearer":
                    token, life = self._ask_token(challenge, scope, registry=registry, reach=reach, credentials=credentials)
                    self._headers[scope] = (f"Bearer {token}", self._clock() + life)
                    return f"Bearer {token}"
                if credentials and credentials.user:
                    value = "Basic " + _basic(credentials)
                    self._headers[""] = (value, float("inf"))
                    return value
        return ""

    def _read(self) -> Credentials | None:
        if not self._credentials:
            self._credentials.append(read_credentials(self._host, self._config))
        return self._credentials[0]

    def _ask_token(
        self, challenge: Challenge, scope: str, *, registry: Origin, reach: Reach, credentials: Credentials | None
    ) -> tuple[str, float]:
        realm, target = parse_url(challenge.realm)
        if realm.scheme == "http" and not is_loopback_name(realm.host):
            raise TransportError(f"the token realm {realm} is not encrypted", retry=False)
        if realm.scheme == "http" and registry.scheme == "https":
            raise TransportError(f"the token realm {realm} is less encrypted than the registry", retry=False)
        own = is_own_realm(realm, registry, os.environ.get(_REALMS, ""))
        request = _token_request(target, challenge, scope, credentials if own else None)
        answer = self._transport.ask(
            request.method, realm, request.target, headers=request.headers, body=request.body, reach=reach
        )
        data = answer.read_all(_LONGEST_TOKEN)
        if answer.status != 200:
            words = f"the token realm {realm} said {answer.status}"
            if credentials and not own:
                words += f"; it is not {self._host}'s own, so no credentials were sent there ({_REALMS} allows it)"
            raise TransportError(words, retry=answer.status == 429 or answer.status >= 500)
        return _parse_token(data, realm)


class _TokenRequest(Struct, frozen=True):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None = None


def _token_request(target: str, challenge: Challenge, scope: str, credentials: Credentials | None) -> _TokenRequest:
    asked = {"service": challenge.service, "scope": challenge.scope or scope}
    asked = {name: value for name, value in asked.items() if value}
    if credentials and credentials.identity:
        form = {"grant_type": "refresh_token", "refresh_token": credentials.identity, "client_id": "reconcile", **asked}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return _TokenRequest("POST", target, headers, urllib.parse.urlencode(form).encode())
    joint = "&" if "?" in target else "?"
    headers = {"Authorization": "Basic " + _basic(credentials)} if credentials and credentials.user else {}
    return _TokenRequest("GET", f"{target}{joint}{urllib.parse.urlencode(asked)}", headers)


def _parse_token(data: bytes, realm: Origin) -> tuple[str, float]:
    try:
        answer = json.loads(data)
        token = answer.get("token") or answer.get("access_token")
        life = answer.get("expires_in") or _DEFAULT_LIFE
        if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token) and isinstance(life, int | float):
            # Order: end it before its server does, so that no request goes out with a token that dies on the way.
            return token, max(life - 10.0, 10.0)
    except (ValueError, AttributeError, RecursionError):
        pass
    raise TransportError(f"the token realm {realm} gave no token", retry=False)


def _basic(credentials: Credentials) -> str:
    return base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()


def _table(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
