"""Reads configs, secrets and small files that are bound read-only: bytes by digest, and specs that name them so.

Encrypted files are decrypted here, in memory.

A step of `resolve.py`. What is too large to keep, or a folder, stays a bind mount of the host's own; a line says so.
"""

import hashlib
from collections.abc import Callable, Mapping

from msgspec import structs

from reconciler.manifest.files import HERE, Files
from reconciler.model.content import ENCRYPTED_LIMIT, LIMIT, pack
from reconciler.model.errors import CannotDecrypt, Problem
from reconciler.model.key import Key, Kind, kind_of, make_key, split_key
from reconciler.model.record import Source, Stack
from reconciler.model.spec import UNREAD, ConfigSpec, ContainerSpec, FileMount, Mount, SecretSpec, Sensitive, Spec
from reconciler.verbs.agekeys import AgeKeys


class Reader:
    """What was read for one command."""

    def __init__(self, keyed: Callable[[bytes], str], keys: AgeKeys, files: Files = HERE) -> None:
        self.contents: dict[str, Sensitive] = {}
        self.live: dict[Key, tuple[str, ...]] = {}
        self.problems: list[Problem] = []
        self._keyed = keyed
        self._keys = keys
        self.files = files

    def read(self, stack: Stack, specs: Mapping[Key, Spec]) -> dict[Key, Spec]:
        """The specs with every digest in them, those of containers too."""
        digests = {key: self._read_source(key, source, stack) for key, source in (stack.sources or {}).items()}
        return {key: self._complete(key, spec, stack, digests) for key, spec in specs.items()}

    def _read_source(self, key: Key, source: Source, stack: Stack) -> str:
        data = source.value.value.encode(errors="surrogateescape") if source.value is not None else b""
        if source.file:
            try:
                data = self._decrypt(source)
            except (OSError, ValueError) as error:
                self._blame(stack, source.path, source.file, error)
            except CannotDecrypt as error:
                problem = Problem(
                    file=stack.source, path=source.path, text=f"{source.file}: {error.brief}", hint=error.hint
                )
                self.problems.append(problem)
        return self._keep(data, keyed=source.guessable or kind_of(key) is Kind.SECRET)

    def _decrypt(self, source: Source) -> bytes:
        """What is in a source's file, which only then exists in clear: in memory."""
        if not source.form:
            return self.files.read_regular(source.file, LIMIT)[0]
        sealed, _ = self.files.read_regular(source.file, ENCRYPTED_LIMIT)
        if source.form == "sops":
            from reconciler.verbs.sops import decrypt_sops  # with YAML and a cipher, which few need

            data = decrypt_sops(sealed, file=source.file, select=source.select, keys=self._keys)
        else:
            data = self._keys.decrypt(sealed)
        if len(data) > LIMIT:
            raise ValueError("what is in it is larger than 1 MiB")
        return data

    def _keep(self, data: bytes, *, keyed: bool) -> str:
        digest = self._keyed(data) if keyed else f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.contents[digest] = pack(data)
        return digest

    def _complete(self, key: Key, spec: Spec, stack: Stack, digests: Mapping[Key, str]) -> Spec:
        if isinstance(spec, ConfigSpec | SecretSpec):
            return structs.replace(spec, digest=digests.get(key, spec.digest))
        if not isinstance(spec, ContainerSpec):
            return spec

        def named(kind: Kind, files: Mapping[str, FileMount]) -> dict[str, FileMount]:
            found = {target: digests.get(make_key(kind, stack.name, file.source), "") for target, file in files.items()}
            return {target: structs.replace(file, digest=found[target]) for target, file in files.items()}

        mounts = {target: self._complete_mount(key, target, mount, stack) for target, mount in spec.mounts.items()}
        return structs.replace(
            spec, mounts=mounts, configs=named(Kind.CONFIG, spec.configs), secrets=named(Kind.SECRET, spec.secrets)
        )

    def _complete_mount(self, key: Key, target: str, mount: Mount, stack: Stack) -> Mount:
        """A bind mount that may be a file of ours: with its digest and owner where it is one, else as it is on the host."""
        if mount.digest != UNREAD:
            return mount
        live = structs.replace(mount, digest="")
        try:
            if (found := self.files.look(mount.source)).regular and found.size > LIMIT:
                size = f"{found.size:,} bytes"
                self._say(key, f"{target} is not kept with the revision: {mount.source} has {size}, more than 1 MiB")
                return live
            if not found.regular:
                return live
            data, found = self.files.read_regular(mount.source, LIMIT)
        except (OSError, ValueError) as error:
            self._blame(stack, f"containers.{split_key(key).name}.mounts", mount.source, error)
            return live
        digest = self._keep(data, keyed=False)
        return structs.replace(mount, digest=digest, uid=found.uid, gid=found.gid, mode=found.mode)

    def _say(self, key: Key, text: str) -> None:
        self.live[key] = (*self.live.get(key, ()), text)

    def _blame(self, stack: Stack, path: str, file: str, error: OSError | ValueError) -> None:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        text = f"{file} can't be read: {why}"
        hint = "relative paths begin at the manifest's folder"
        self.problems.append(Problem(file=stack.source, path=path, text=text, hint=hint))
