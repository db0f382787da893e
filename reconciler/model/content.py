"""Contents: what is in configs, secrets and bound files, named by digest.

Specs hold digests only. The bytes go from `resolve` in the plan to the store, and from there to whoever mounts them. Inside
a plan they are `Sensitive`, so that no way of showing one can show them and a saved one has them sealed.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator

from reconciler.model.spec import UNREAD, ContainerSpec, FileMount, Sensitive

LIMIT = 1 << 20
"""Bytes of one content. Compat: Docker's bound is 500 KB for secrets, 1 MB for configs; Kubernetes' is 1 MiB."""

ENCRYPTED_LIMIT = 4 * LIMIT
"""Bytes of an encrypted file: text of SOPS is some times larger than what is in it."""

KEYED = "hmac-sha256:"
"""What a digest begins with that says nothing of its content to who lacks the root's key."""


def pack(data: bytes) -> Sensitive:
    """Bytes as a value that is never shown."""
    return Sensitive(b64encode(data).decode())


def unpack(value: Sensitive) -> bytes:
    """The bytes that were packed."""
    return b64decode(value.value)


def kept_files(spec: ContainerSpec) -> Iterator[tuple[str, FileMount]]:
    """Every file of which a container sees our copy, by target: configs, secrets, small files bound read-only."""
    yield from spec.configs.items()
    yield from spec.secrets.items()
    for target, mount in spec.mounts.items():
        if mount.digest not in ("", UNREAD):
            yield target, FileMount(source=mount.source, digest=mount.digest, uid=mount.uid, gid=mount.gid, mode=mount.mode)


def is_keyed(value: object) -> bool:
    """Whether a value is the digest of something that is not to be shown."""
    return isinstance(value, str) and value.startswith(KEYED)
