"""The keys of a root for files that are encrypted with age: `ROOT/keys/age.txt`, 0600, in the form of `age-keygen`.

A recipient (`age1…`) is public: whoever has it can encrypt, and only the key opens. A key is never shown. `pyrage` (the age
format, age-encryption.org/v1) is imported only where there is something to open.
"""

import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from reconciler.linux import files
from reconciler.model.errors import CannotDecrypt, NotFound, RootError

FILE = Path("keys", "age.txt")
"""Below the root."""
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_MAGIC = b"age-encryption.org/"


class AgeKey(Struct, frozen=True, kw_only=True):
    """One key, by what may be known of it."""

    recipient: str
    created: str = ""
    """When it was made, where its file says so."""


class _Read(Struct, frozen=True, kw_only=True):
    """The file at one moment."""

    seen: tuple[int, int, int] | None = None
    keys: tuple[AgeKey, ...] = ()
    identities: tuple[Any, ...] = ()


class AgeKeys:
    """Those of one root; read anew whenever their file changed, for a controller lives long."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._read_last = _Read()

    def read(self) -> tuple[AgeKey, ...]:
        """What there is. Raises RootError for a file that can't be read, that others can read, or that has something else
        in it."""
        return self._read().keys

    def _read(self) -> "_Read":
        try:
            found = self.path.stat()
            text = self.path.read_text()
        except FileNotFoundError:
            return _Read()
        except (OSError, UnicodeDecodeError) as error:
            raise RootError(
                f"{self.path}: the keys can't be read: {error}", hint="look at the file and its mode"
            ) from error
        if found.st_mode & 0o077:
            hint = f"`chmod 600 {self.path}`; if somebody may have read it: `reconcile keys new`, and encrypt anew for that"
            raise RootError(
                f"{self.path}: others than root may read the keys (mode {found.st_mode & 0o777:04o})", hint=hint
            )
        now = (found.st_ino, found.st_mtime_ns, found.st_size)
        last = self._read_last  # Race: several threads read; each has its own of one moment.
        if now != last.seen:
            keys, identities = parse_keys(text, str(self.path))
            last = self._read_last = _Read(seen=now, keys=tuple(keys), identities=tuple(identities))
        return last

    def make(self) -> AgeKey:
        """A new key beside those that are there. The caller holds the root's lock. Raises RootError."""
        from pyrage import x25519

        made = x25519.Identity.generate()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._append(f"# created: {created}\n# public key: {made.to_public()}\n{made}\n")
        return AgeKey(recipient=str(made.to_public()), created=created)

    def add(self, text: str, what: str) -> tuple[AgeKey, ...]:
        """Keys that were made elsewhere (`age-keygen`); those that were not here yet. The caller holds the root's lock.
        Raises RootError, NotFound where there is none in it."""
        keys, identities = parse_keys(text, what)
        if not keys:
            raise NotFound("age key (AGE-SECRET-KEY-1…)", f"in {what}", meant="a file of age-keygen")
        known = {key.recipient for key in self.read()}
        fresh = {key.recipient: (key, one) for key, one in zip(keys, identities, strict=True) if key.recipient not in known}
        for key, identity in fresh.values():
            created = f"# created: {key.created}\n" if key.created else ""
            self._append(f"{created}# public key: {key.recipient}\n{identity}\n")
        return tuple(key for key, _ in fresh.values())

    def _append(self, text: str) -> None:
        before = self.path.read_text() if self.read() else ""
        try:
            files.make_folders(self.path.parent)
            files.write_atomic(self.path, (before + text).encode(), durable=True)
        except OSError as error:
            raise RootError(f"{self.path}: the keys can't be written: {error.strerror}", hint="free some space") from error

    def decrypt(self, data: bytes) -> bytes:
        """What is in an age file, armored or not. Raises CannotDecrypt, RootError."""
        from pyrage import DecryptError, decrypt

        if not data.lstrip().startswith((_ARMOR, _MAGIC)):
            raise CannotDecrypt("this is no age file", hint="encrypt it: `age -r RECIPIENT -o FILE.age FILE`")
        found = self._read()
        if not found.keys:
            raise CannotDecrypt("this root has no key to open it with", hint=_NO_KEY)
        try:
            opened: bytes = decrypt(data, found.identities)
        except DecryptError as error:
            raise self._explain(str(error)) from None
        return opened

    def _explain(self, words: str) -> CannotDecrypt:
        if "matching keys" not in words:
            return CannotDecrypt(f"it is damaged, or was changed since it was encrypted ({words})", hint="encrypt it anew")
        return self.explain_stranger()

    def explain_stranger(self, recipients: tuple[str, ...] = ()) -> CannotDecrypt:
        """That none of our keys opens it; `recipients` are those that it names, if it names them."""
        ours = ", ".join(key.recipient for key in self.read())
        named = f": it is for {', '.join(recipients)}" if recipients else ""
        hint = (
            f"this root's keys are those of {ours}: encrypt it for one of them, or `reconcile keys add FILE` the right one"
        )
        return CannotDecrypt(f"none of this root's keys opens it{named}", hint=hint if ours else _NO_KEY)


_NO_KEY = "`reconcile keys new` makes one and says for which recipient to encrypt; `reconcile keys add FILE` takes one over"


def parse_keys(text: str, what: str) -> tuple[list[AgeKey], list[Any]]:
    """The keys of a file, and what opens with them. Raises RootError naming the line that is none, not what it says."""
    from pyrage import IdentityError, x25519

    keys, identities, created = [], [], ""
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if word.startswith("#"):
            created = word.partition("created:")[2].strip() or created
        elif word:
            try:
                identity = x25519.Identity.from_str(word)
            except IdentityError:
                hint = "a key is a line AGE-SECRET-KEY-1…, a remark begins with #"
                raise RootError(f"{what}: line {number} is no key of age", hint=hint) from None
            keys.append(AgeKey(recipient=str(identity.to_public()), created=created))
            identities.append(identity)
            created = ""
    return keys, identities
