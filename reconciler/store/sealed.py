"""Turns values with `Sensitive` in them into bytes that are safe to keep, and back.

Each sensitive value alone is sealed with ROOT/key (ChaCha20-Poly1305, RFC 8439); the rest stays readable JSON. The only
place that knows how specs, which carry no tag, are told apart in JSON: by the kind of their key. `cryptography` is imported
only where something is to be sealed or opened. Never writes a value in clear, never says one in an error.
"""

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from reconciler.model.content import KEYED
from reconciler.model.errors import RootError
from reconciler.model.key import Key, kind_of
from reconciler.model.spec import SPEC_TYPES, Sensitive, Spec

T = TypeVar("T")

_KEY_BYTES = 32
_NONCE_BYTES = 12
_PREFIX = "sealed:1:"
_MARK = _PREFIX.encode()
_NO_KEY = Key("")
_BOUND_TO = b"reconcile sensitive value"


class Sealer:
    """Seals and opens with the key of one root, which is read when first needed."""

    def __init__(self, root: Path) -> None:
        self.path = root / "key"
        self._cipher: Any = None
        self._digest_key = b""

    def seal(self, text: str) -> str:
        """The text as a token; the same text gives another token each time."""
        return _PREFIX + b64encode(self.seal_bytes(text.encode(errors="surrogatepass"))).decode()

    def open(self, token: str) -> str:
        """The text of a token. Raises RootError where it was sealed with another key, or changed."""
        try:
            sealed = b64decode(token.removeprefix(_PREFIX), validate=True)
        except ValueError as error:
            raise self._not_ours() from error
        return self.open_bytes(sealed).decode(errors="surrogatepass")

    def seal_bytes(self, data: bytes) -> bytes:
        """Bytes sealed; the same ones give others each time."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._load().encrypt(nonce, data, _BOUND_TO)
        return nonce + sealed

    def open_bytes(self, sealed: bytes) -> bytes:
        """What was sealed. Raises RootError where it was sealed with another key, or changed."""
        cipher = self._load()
        try:
            data: bytes = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _BOUND_TO)
        except Exception as error:
            raise self._not_ours() from error
        return data

    def digest(self, data: bytes) -> str:
        """A digest that only this root gives, so that nobody else finds the content by trying.

        Before a root has a key, one that holds for this process: nothing is recorded yet that it could be compared with.
        """
        if not self._digest_key:
            key = read_key(self.path) if self.path.exists() else os.urandom(_KEY_BYTES)
            self._digest_key = hmac.digest(key, b"reconcile digests of contents", "sha256")
        return KEYED + hmac.digest(self._digest_key, data, "sha256").hex()

    def fits(self, digest: str, data: bytes) -> bool:
        """Whether a digest, plain or keyed, is that of these bytes."""
        plain = "sha256:" + hashlib.sha256(data).hexdigest()
        return hmac.compare_digest(digest, self.digest(data) if digest.startswith(KEYED) else plain)

    def _not_ours(self) -> RootError:
        return RootError(
            f"{self.path}: a sensitive value was not sealed with this key, or was changed since",
            hint="put the key back that belongs to this root",
        )

    def _load(self) -> Any:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

            self._cipher = ChaCha20Poly1305(read_key(self.path))
        return self._cipher


def read_key(path: Path) -> bytes:
    """The root's key. Raises RootError where it is gone or not whole."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise RootError(
            f"{path}: the key for sensitive values can't be read: {error.strerror}",
            hint="it is made with the root by the first apply; where it is lost, put it back from a copy",
        ) from error
    if len(key) != _KEY_BYTES:
        raise RootError(f"{path}: the key has {len(key)} bytes, not {_KEY_BYTES}", hint="put it back from a copy")
    return key


def write_key(path: Path, key: bytes = b"") -> None:
    """Make a key, 0600, in a file that must not exist; or write this one. Raises RootError for one that is none."""
    if key and len(key) != _KEY_BYTES:
        raise RootError(f"{path}: the key has {len(key)} bytes, not {_KEY_BYTES}", hint="it is not a root's key")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key or os.urandom(_KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed_json(value: Any, sealer: Sealer) -> bytes:
    """Any value of the model as JSON, each `Sensitive` in it sealed."""
    return msgspec.json.encode(map_sensitive(value, sealer.seal))


def unsealed(data: bytes, kind: type[T], sealer: Sealer) -> T:
    """What `sealed_json` made, as the type it was. Raises msgspec.MsgspecError for bytes that are not of that type."""
    plain = msgspec.json.decode(data)
    try:
        value = cast(T, _built(plain, kind))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise msgspec.ValidationError(f"not a {kind.__name__}: {error}") from error
    return _opened(value, data, sealer)


def unsealed_spec(key: Key, data: bytes, sealer: Sealer) -> Spec:
    """The spec of a key from its sealed JSON. Raises msgspec.MsgspecError."""
    if is_plain(data):
        return plain_spec(key, data)
    return _opened(_spec_decoder(SPEC_TYPES[kind_of(key)]).decode(data), data, sealer)


def is_plain(data: object) -> bool:
    """Whether nothing is sealed in JSON. (A damaged database gives what is no bytes.)"""
    return isinstance(data, bytes) and _MARK not in data


def plain_spec(key: Key, data: bytes) -> Spec:
    """The spec of a key in which nothing is sealed: decoded once, for whoever keeps many stacks reads the same ones again
    and again. What is sealed is opened each time, and is not kept in clear. Raises msgspec.MsgspecError."""
    return _plain_spec(SPEC_TYPES[kind_of(key)], data)


@lru_cache(maxsize=16384)
def _plain_spec(kind: type[Spec], data: bytes) -> Spec:
    return _spec_decoder(kind).decode(data)


def _opened(value: T, data: bytes, sealer: Sealer) -> T:
    """The value opened; one in whose JSON nothing is sealed is not walked through."""
    return map_sensitive(value, sealer.open) if _MARK in data else value


@lru_cache(maxsize=len(SPEC_TYPES))
def _spec_decoder(kind: type[Spec]) -> "msgspec.json.Decoder[Spec]":
    return msgspec.json.Decoder(kind)


def map_sensitive(value: T, change: Callable[[str], str]) -> T:
    """The value with every `Sensitive` in it changed; parts without one are the same objects."""
    return cast(T, _mapped(value, change))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Sensitive):
        return Sensitive(change(value.value))
    if isinstance(value, Struct):
        changed = {}
        for name in _sensitive_fields(type(value)):
            old = getattr(value, name)
            new = _mapped(old, change)
            if new is not old:
                changed[name] = new
        return msgspec.structs.replace(value, **changed) if changed else value
    if isinstance(value, dict):
        mapped = {name: _mapped(item, change) for name, item in value.items()}
        return mapped if any(mapped[name] is not item for name, item in value.items()) else value
    if isinstance(value, list | tuple):
        items = [_mapped(item, change) for item in value]
        return type(value)(items) if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


@lru_cache(maxsize=256)
def _read_hints(kind: type) -> dict[str, Any]:
    """The types of a struct's fields; typing makes them anew each time, which took a tenth of a simulated apply."""
    return get_type_hints(kind)


@lru_cache(maxsize=256)
def _sensitive_fields(kind: type[Struct]) -> tuple[str, ...]:
    """The fields of a struct in which a `Sensitive` can be, by their types: walking all of them took most of a reading."""
    hints = _read_hints(kind)
    return tuple(name for name in kind.__struct_fields__ if _may_hold(hints[name], (kind,)))


def _may_hold(hint: Any, within: tuple[Any, ...]) -> bool:
    """Whether a value of this type may hold a `Sensitive`; `within` are the structs being looked at already."""
    if hint in (Sensitive, Any, object):
        return True
    if isinstance(hint, type) and issubclass(hint, Struct) and hint not in within:
        return any(_may_hold(field, (*within, hint)) for field in _read_hints(hint).values())
    return any(_may_hold(argument, within) for argument in get_args(hint))


# Specs have no tag, so msgspec can't tell them apart inside another struct. What holds some is taken apart by its types
# here; everything below that is msgspec's.


def _built(plain: Any, hint: Any, key: Key = _NO_KEY) -> Any:
    """Plain JSON as a value of the type; `key` is that of the struct in which it stands."""
    if hint == Spec:
        return msgspec.convert(plain, SPEC_TYPES[kind_of(key)])
    if not _mentions_specs(hint):
        return msgspec.convert(plain, hint)
    if isinstance(hint, type):
        hints = _read_hints(hint)
        return hint(**{name: _built(value, hints[name], plain.get("key")) for name, value in plain.items()})
    if isinstance(plain, dict) and get_origin(hint) is dict:
        return {name: _built(value, get_args(hint)[1], name) for name, value in plain.items()}
    if isinstance(plain, list):
        return tuple(_built(item, get_args(hint)[0]) for item in plain)
    return None if plain is None else _built(plain, get_args(hint)[0])


@lru_cache(maxsize=256)
def _mentions_specs(hint: Any) -> bool:
    """Whether values of this type have specs somewhere in them."""
    if hint == Spec:
        return True
    if isinstance(hint, type) and issubclass(hint, Struct):
        return any(_mentions_specs(field) for field in _read_hints(hint).values())
    return any(_mentions_specs(argument) for argument in get_args(hint))
