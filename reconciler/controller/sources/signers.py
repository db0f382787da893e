"""Who must have signed a commit → the lines of configuration by which git checks it: for ssh or for gpg, never for both.

The kind is told by the file: a list of signers (ssh-keygen(1), ALLOWED SIGNERS), or public keys as `gpg --export` writes
them. Keys of gpg go into a keyring of ours; nothing is asked of the machine's own, of an agent or of a key server.
"""

import hashlib
import shutil
from pathlib import Path

from reconciler.linux import files
from reconciler.linux.bounded import run_bounded
from reconciler.linux.process import CLEAN_ENV
from reconciler.model.errors import Failed, ProgramMissing

_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_GPG_CONF = "no-autostart\nno-auto-key-retrieve\nno-auto-key-import\ntrust-model always\nbatch\n"
_LARGEST = 4 * 1024**2


class Signers:
    """The file, as it is now."""

    def __init__(self, file: Path | None, folder: Path) -> None:
        self.file = file
        self.digest = ""
        """Of the file; empty where nobody asks for signatures."""
        self._folder = folder
        self._prepared = ("", "")

    def prepare(self) -> tuple[str, str]:
        """Lines of git's configuration, and the home of gpg; the same until the file changes. Raises Failed."""
        if self.file is None:
            return "", ""
        data = self._read()
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.digest:
            self._prepared = self._make(data)
            self.digest = digest
        return self._prepared

    def _read(self) -> bytes:
        assert self.file is not None
        try:
            data = self.file.read_bytes()[:_LARGEST]
        except OSError as error:
            raise Failed(f"the signers {self.file} can't be read: {error.strerror}") from None
        if not data.strip():
            raise Failed(
                f"the signers {self.file} are none", hint="list who may sign; an empty list would refuse everything"
            )
        return data

    def _make(self, data: bytes) -> tuple[str, str]:
        files.remove_tree(self._folder)
        files.make_folders(self._folder)
        # Compat: a binary export begins with the tag of a public key packet, RFC 4880, 4.2: 0x98, 0x99 or 0xc6.
        if data.lstrip().startswith(_ARMOR) or data[0] in (0x98, 0x99, 0xC6):
            return self._prepare_gpg(data)
        # Race: a copy, so that what is checked is what its digest says.
        copy = self._folder / "allowed"
        files.write_atomic(copy, data)
        program = _find("ssh-keygen", "openssh-client")
        lines = f'[gpg]\nprogram = /bin/false\nminTrustLevel = fully\n[gpg "ssh"]\nprogram = {program}\n'
        return f'{lines}allowedSignersFile = "{copy}"\n', ""

    def _prepare_gpg(self, data: bytes) -> tuple[str, str]:
        files.write_atomic(self._folder / "gpg.conf", _GPG_CONF.encode())
        files.write_atomic(self._folder / "keys", data)
        if data.lstrip().startswith(_ARMOR):
            data = self._run_gpg("--dearmor", "--output", "-", "--", str(self._folder / "keys"))
        # What is exported is what a keyring holds (gpg(1), FILES): an import would ask for an agent.
        files.write_atomic(self._folder / "pubring.gpg", data)
        if b"\npub:" not in b"\n" + self._run_gpg("--list-keys", "--with-colons"):
            raise Failed(f"the signers {self.file} hold no key", hint="export them with gpg, armored or not")
        return f'[gpg]\nprogram = {_find("gpg", "gnupg")}\n[gpg "ssh"]\nprogram = /bin/false\n', str(self._folder)

    def _run_gpg(self, *words: str) -> bytes:
        env = {**CLEAN_ENV, "GNUPGHOME": str(self._folder), "HOME": "/nonexistent"}
        argv = [_find("gpg", "gnupg"), "--quiet", *words]
        try:
            ended = run_bounded(
                argv, env=env, cwd="/", seconds=60, file_size=_LARGEST, memory=1024**3, out_size=10 * _LARGEST
            )
        except OSError as error:
            raise Failed(f"the keys {self.file} can't be read: {error.strerror or error}") from None
        if ended.code != 0:
            words_said = ended.err.decode(errors="replace").strip().splitlines()
            why = words_said[-1] if words_said else f"gpg ended with {ended.code}"
            raise Failed(f"the keys {self.file} can't be read: {why}")
        return ended.out


def _find(program: str, package: str) -> str:
    found = shutil.which(program, path=CLEAN_ENV["PATH"])
    if found is None:
        raise ProgramMissing(program, package, "check signatures of commits")
    return found
