"""Opens files of SOPS whose data key is encrypted with age, exactly as SOPS does, and gives one value of them.

Each value is AES-256-GCM with a nonce of its own, bound to its path (`a:b:`, entries of lists count for nothing); a MAC,
SHA-512 over all values in their order, is encrypted with the same key, bound to `lastmodified`. Nothing is given of a file
whose MAC does not fit. Source: getsops/sops 3, `sops.go`, `aes/cipher.go`.
"""

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from reconciler.manifest.scalars import Written
from reconciler.manifest.sopsfile import NotSops, SopsFile, Tree, read_sops_file
from reconciler.model.errors import CannotDecrypt
from reconciler.verbs.agekeys import AgeKeys

_SEALED = re.compile(r"ENC\[AES256_GCM,data:(.+),iv:(.+),tag:(.+),type:(.+)\]", re.DOTALL)
_MAC_ONLY_ENCRYPTED = bytes.fromhex("8a3fd2ad54ce66527b1034f3d147be0b0b975b3bf44f72c6fdadec8176f27d69")
"""What the MAC begins with where it is over encrypted values alone: SHA-256 of `sops`."""
_LITERAL = re.compile(r"[\w\s\-.()|^$]*")
"""Regular expressions without repetition: these mean the same to Go and to Python, and take no time."""
_RULES = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex",
          "unencrypted_comment_regex", "encrypted_comment_regex")  # fmt: skip
_DAMAGED = "damaged, or changed by something that is not SOPS: mend it with `sops`, or take it from version control again"

IsSealed = Callable[[tuple[str, ...], Any], bool]


def decrypt_sops(data: bytes, *, file: str, select: str, keys: AgeKeys) -> bytes:
    """The value that `select` names, or the content of the binary form. Raises CannotDecrypt, RootError."""
    try:
        found = read_sops_file(data, file)
    except NotSops as error:
        hint = "encrypt it: `sops encrypt --age RECIPIENT --in-place FILE`; a file of age itself is `age: FILE`"
        raise CannotDecrypt(str(error), hint=hint) from None
    if not select and not found.binary:
        names = ", ".join(list(found.trees[0])[:8])
        raise CannotDecrypt("which value of it is meant?", hint=f"add `key: NAME`; there are {names}")
    key = _open_data_key(found.meta, keys)
    trees = _open_tree(found, key)
    return _choose(trees[0], select or "data")


def _open_data_key(meta: Tree, keys: AgeKeys) -> bytes:
    """What the values are encrypted with, by the first entry that a key of ours opens."""
    entries = meta.get("age")
    if meta.get("key_groups"):
        raise CannotDecrypt("its key is split among groups (Shamir)", hint="encrypt it with age recipients in one group")
    sealed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if not sealed:
        others = ", ".join(sorted(name for name in meta if meta[name] and isinstance(meta[name], list))) or "nothing"
        raise CannotDecrypt(f"it is not for age: it names {others}", hint="add an age recipient: `sops rotate --add-age`")
    for entry in sealed:
        try:
            key = keys.decrypt(str(entry.get("enc", "")).encode())
        except CannotDecrypt:
            continue
        if len(key) != 32:
            raise CannotDecrypt("its data key is not one of 256 bits", hint=_DAMAGED)
        return key
    raise keys.explain_stranger(tuple(str(entry.get("recipient", "?"))[:100] for entry in sealed[:8]))


def _open_tree(found: SopsFile, key: bytes) -> tuple[Any, ...]:
    """All documents in clear, after the MAC was found right."""
    meta = found.meta
    narrow = str(meta.get("mac_only_encrypted", "")).lower() == "true"
    is_sealed = _choose_rule(meta, narrow=narrow)
    mac = hashlib.sha512(_MAC_ONLY_ENCRYPTED if narrow else b"")

    def open_value(path: tuple[str, ...], value: Any) -> Any:
        sealed = is_sealed(path, value)
        if value is None:
            return None
        clear = _open_value(value, key, "".join(f"{part}:" for part in path), path) if sealed else value
        if sealed or not narrow:
            mac.update(_mac_bytes(clear))
        return clear

    trees = tuple(_walk(tree, (), open_value) for tree in found.trees)
    said = _open_value(meta.get("mac") or "", key, str(meta.get("lastmodified", "")), ("sops", "mac"))
    if not hmac.compare_digest(str(said).upper().encode(), mac.hexdigest().upper().encode()):
        raise CannotDecrypt("its MAC does not fit what is in it", hint=f"it is {_DAMAGED}")
    return trees


def _walk(value: Any, path: tuple[str, ...], each: Callable[[tuple[str, ...], Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: _walk(below, (*path, name), each) for name, below in value.items()}
    if isinstance(value, list):
        return [_walk(below, path, each) for below in value]
    return each(path, value)


def _choose_rule(meta: Tree, *, narrow: bool) -> IsSealed:
    """Which values are encrypted. Where the file's own rule is an expression that could be slow, or speaks of comments:
    those that look so, unless the MAC covers only them, for what looks otherwise could be anybody's then."""
    rules = [(name, str(meta[name])) for name in _RULES if meta.get(name)] or [("unencrypted_suffix", "_unencrypted")]
    if len(rules) > 1:
        raise CannotDecrypt("it has two rules of what is encrypted", hint=_DAMAGED)
    [(name, word)] = rules
    if name.endswith("_suffix"):
        return lambda path, _: any(part.endswith(word) for part in path) == (name == "encrypted_suffix")
    if name in ("encrypted_regex", "unencrypted_regex") and _LITERAL.fullmatch(word):
        pattern = re.compile(word)
        return lambda path, _: any(pattern.search(part) for part in path) == (name == "encrypted_regex")
    if narrow:
        hint = "set `mac_only_encrypted: false`, or an expression without repetition: `^(data|password)$`"
        raise CannotDecrypt(f"its {name} can't be judged here while its MAC is over encrypted values only", hint=hint)
    return lambda _, value: isinstance(value, str) and _SEALED.fullmatch(value) is not None


def _open_value(value: Any, key: bytes, bound_to: str, path: tuple[str, ...]) -> Any:
    """One value in clear. Its path is told, and nothing of what it holds."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    where = ".".join(path)
    if value == "":
        return ""
    parts = _SEALED.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise CannotDecrypt(f"{where} should be encrypted, and is not", hint=f"it is {_DAMAGED}")
    try:
        data, nonce, tag = (b64decode(part, validate=True) for part in parts.groups()[:3])
        opened = AESGCM(key).decrypt(nonce, data + tag, bound_to.encode())
        return _typed(opened, parts[4])
    except (InvalidTag, ValueError, ArithmeticError):
        raise CannotDecrypt(f"{where} can't be decrypted with the file's key", hint=f"it is {_DAMAGED}") from None


def _typed(data: bytes, kind: str) -> Any:
    if kind == "bytes":
        return data
    text = data.decode()
    if kind == "int":
        return int(text)
    if kind == "float":
        return Decimal(text)
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in ("str", "time", "comment"):
        return text
    raise ValueError(kind)


def _mac_bytes(value: Any) -> bytes:
    """A value as SOPS hashes it: Go's shortest decimal without an exponent, booleans with a capital."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Written):
        value = Decimal(repr(float(value)))
    if isinstance(value, bool):
        return b"True" if value else b"False"
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).encode()
    return str(value).encode(errors="surrogatepass")


# ---------------------------------------------------------------- one value of it


def _choose(tree: Any, select: str) -> bytes:
    """The value at a path. Names with dots in them are found too: the longest that fits comes first."""
    for found in _find(tree, select):
        if isinstance(found, dict | list):
            names = ", ".join(map(str, found if isinstance(found, dict) else range(len(found))))
            raise CannotDecrypt(f"{select} is no single value", hint=f"name one below it: {names[:200]}")
        if isinstance(found, bool):
            return b"true" if found else b"false"
        return b"" if found is None else found if isinstance(found, bytes) else _mac_bytes(found)
    names = ", ".join(list(tree)[:8])
    raise CannotDecrypt(f"it has no value {select}", hint=f"at its top there are {names}")


def _find(tree: Any, rest: str) -> Iterator[Any]:
    below: dict[str, Any] = dict(tree) if isinstance(tree, dict) else {}
    if isinstance(tree, list):
        below = {str(number): value for number, value in enumerate(tree)}
    for name in sorted(below, key=len, reverse=True):
        if rest == name:
            yield below[name]
        elif rest.startswith(f"{name}."):
            yield from _find(below[name], rest[len(name) + 1 :])
