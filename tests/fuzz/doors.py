"""The doors that strangers' bytes come through, each as a function of bytes, with seeds: what a fuzzer knocks at.

A door returns a short word for what it made of the bytes (new words are what the fuzzer looks for); the errors that it
may raise for bad ones are its own. Anything else that it raises, or a promise that it breaks, is a finding.
"""

import gzip
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.engine.native.content.archive import open_archive
from reconciler.engine.native.content.config import parse_config
from reconciler.engine.native.content.documents import parse_document
from reconciler.engine.native.content.unpack import unpack_layer
from reconciler.engine.native.layers.finaltree import FinalTree
from reconciler.engine.native.layers.onepass import Contradiction, OnePass
from reconciler.engine.native.layers.rewrite import render_header
from reconciler.engine.native.registry.auth import parse_challenges
from reconciler.engine.native.runtime.users import BadUser, resolve_user
from reconciler.engine.tarentry import HARD_LINK, SYMLINK, Entry, Limits
from reconciler.engine.tarstream import TarStream
from reconciler.manifest import text as manifest_text
from reconciler.model.errors import ContentError, ReconcileError
from reconciler.model.reference import parse_reference
from tests.layers.tars import folder, hardlink, member, padded, pieces, raw_header, symlink, tar

SMALL = Limits(entries=5000, size=8 << 20, names=1 << 20, header=1 << 16, holes=4 << 20)
"""Limits at which one run takes milliseconds. The code that enforces them is the same."""


@dataclass(frozen=True)
class Door:
    """One door: what to call, what to begin with, and whether its bytes are blocks of a tar."""

    call: Callable[[bytes], str]
    seeds: tuple[bytes, ...]
    blocks: bool = False


def word_of(error: ReconcileError) -> str:
    """What an error says, without what differs from one input to the next."""
    return re.sub(r'\d+|".*?"|0x[0-9a-f]+|sha256:\w+', "#", error.brief)[:120]


def check_entry(entry: Entry, limits: Limits) -> None:
    """What the reader promises of every entry that it gives."""
    for path in (entry.name, entry.link if entry.type == HARD_LINK else b""):
        assert not path.startswith(b"/"), path
        assert path == b"" or not {b"", b".", b".."} & set(path.split(b"/")), path
        assert b"\0" not in path, path
        assert len(path) <= limits.name, len(path)
        assert all(len(part) <= limits.component for part in path.split(b"/")), path
    assert entry.type in b"0123456", entry.type
    assert 0 <= entry.mode <= 0o7777, entry.mode
    assert 0 <= entry.uid < 0xFFFFFFFF, entry.uid
    assert 0 <= entry.gid < 0xFFFFFFFF, entry.gid
    assert 0 <= entry.size <= limits.size, entry.size
    assert -(1 << 63) <= entry.mtime < 1 << 63, entry.mtime
    assert entry.type != SYMLINK or (entry.link and b"\0" not in entry.link), entry.link
    for name, value in entry.xattrs.items():
        assert 0 < len(name) <= 255, name
        assert b"\0" not in name, name
        assert len(value) <= 65536, len(value)


def read_tar(data: bytes) -> str:
    """Through the reader, and through both ways of making a layer of it; what we would write anew reads the same."""
    try:
        first = TarStream(pieces(data, 700), what="it", limits=SMALL)
        kinds = set()
        for entry in first.entries():
            check_entry(entry, SMALL)
            assert sum(map(len, first.data())) == entry.size, entry
            kinds.add(entry.type)
        first.drain()
        try:
            written = _write(data)
        except Contradiction:
            tree = FinalTree()
            tree.learn(TarStream(pieces(data), what="it", limits=SMALL))
            second = TarStream(pieces(data), what="it", limits=SMALL)
            for entry in tree.entries(second):
                sum(map(len, second.data())) if entry.size else None
            return "contradiction"
    except ContentError as error:
        return word_of(error)
    return f"{sorted(kinds)}{written}"


def _write(data: bytes) -> str:
    stream = TarStream(pieces(data), what="it", limits=SMALL)
    seen: set[bytes] = {b""}
    for entry in OnePass(stream).entries():
        assert entry.name not in seen, entry.name
        assert entry.name.rpartition(b"/")[0] in seen, entry.name
        seen.add(entry.name)
        header = render_header(entry, nanoseconds=True)
        again = next(TarStream([header + padded(b"\0" * min(entry.size, 1))], what="anew").entries())
        same = (again.name, again.type, again.mode, again.uid, again.gid, again.size, again.xattrs)
        assert same == (entry.name, entry.type, entry.mode, entry.uid, entry.gid, entry.size, entry.xattrs)
        sum(map(len, stream.data())) if entry.size else None
    return "plain"


def read_packed(data: bytes) -> str:
    """Through the decompressor."""
    try:
        total = 0
        for piece in unpack_layer(pieces(data, 700), packing="gzip", what="it"):
            assert 0 < len(piece) <= 512 << 10
            total += len(piece)
            if total > 8 << 20:
                return "large"
    except ContentError as error:
        return word_of(error)
    return "read"


def read_manifest(data: bytes) -> str:
    """As an image's manifest or index, and as its config."""
    words = ""
    for call in (lambda: parse_document(data, media_type="", what="it"), lambda: parse_config(data, what="it")):
        try:
            words += type(call()).__name__
        except ContentError as error:
            words += word_of(error)
    return words


def read_reference(data: bytes) -> str:
    """As a reference of an image: what is taken is its own canonical form."""
    try:
        reference = parse_reference(data.decode(errors="surrogateescape"))
    except ValueError as error:
        return re.sub(r"'.*'|\".*\"|\d+", "#", str(error))[:80]
    assert parse_reference(str(reference)) == reference, data
    assert str(reference).isprintable(), data
    return "taken"


def read_challenge(data: bytes) -> str:
    """As the header WWW-Authenticate."""
    return ",".join(challenge.scheme for challenge in parse_challenges(data.decode("latin-1")))


def read_yaml(data: bytes) -> str:
    """As a manifest's text."""
    try:
        manifest_text.read_document(manifest_text.decode(data, file="it"), file="it", variables={})
    except ReconcileError as error:
        return word_of(error)
    return "taken"


def read_users(data: bytes) -> str:
    """As /etc/passwd and /etc/group of an image."""
    with tempfile.TemporaryDirectory() as top:
        etc = Path(top, "etc")
        etc.mkdir()
        (etc / "passwd").write_bytes(data)
        (etc / "group").write_bytes(data)
        words = ""
        for user in ("", "app", "1000", "app:staff", "0"):
            try:
                found = resolve_user(user, root=top)
                assert 0 <= found.uid < 1 << 31, found
                assert 0 <= found.gid < 1 << 31, found
                words += "r" if found.uid == 0 else "u"
            except BadUser:
                words += "-"
        return words


def read_saved(data: bytes) -> str:
    """As an archive of `docker save`."""
    descriptor, name = tempfile.mkstemp()
    try:
        os.write(descriptor, data)
        os.close(descriptor)
        with open_archive(Path(name)) as archive:
            return type(archive).__name__
    except ReconcileError as error:
        return word_of(error).replace(name, "it")
    finally:
        Path(name).unlink()


# ---------------------------------------------------------------- seeds


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    return str(len(body) + len(str(len(body) + 2))).encode() + body


def _pax(records: list[tuple[bytes, bytes]], data: bytes = b"") -> bytes:
    text = b"".join(_record(*record) for record in records)
    return raw_header(b"p", type=b"x", size=len(text)) + padded(text) + raw_header(b"f", size=len(data)) + padded(data)


_MEMBERS = (
    folder("./"), folder("a/", mode=0o1777), member("a/f", b"x" * 700, mode=0o4755, uid=1000, xattrs={"user.a": "b"}),
    symlink("l", "a/../../x"), hardlink("h", "a/f"), member("a/.wh.gone"), member("b/.wh..wh..opq"),
    member("n" * 150, b"y"), member("c", type=tarfile.CHRTYPE, device=(1, 3)),
    member("p", type=tarfile.FIFOTYPE), member("l/x", b"z"),
)  # fmt: skip
_SPARSE = bytes(41) + b"%011o\0%011o\0" % (10, 3) + bytes(72) + b"\0" + b"%011o\0" % 100
_TARS = (
    tar(*_MEMBERS), tar(*_MEMBERS, format=tarfile.GNU_FORMAT), tar(*_MEMBERS[:6]), tar(*_MEMBERS[1:5], *_MEMBERS[2:4]),
    raw_header(b"s", type=b"S", size=3, magic=b"ustar  \0", rest=_SPARSE) + padded(b"abc"),
    _pax([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"10,3,20,2")], b"abcde"),
    _pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100"),
          (b"GNU.sparse.name", b"s")], b"1\n10\n3\n".ljust(512, b"\0") + b"abc"),
    _pax([(b"mtime", b"-1.5"), (b"uid", b"4000000000"), (b"path", b"../x"), (b"SCHILY.xattr.security.capability", b"\1")]),
    raw_header(b"g", type=b"g", size=9) + padded(b"9 path=x\n") + raw_header(b"d/", type=b"5"),
)  # fmt: skip

_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "1" * 64, "size": 9},
    "layers": [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + "2" * 64, "size": 99},
    ],
}
_CONFIG = {
    "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "3" * 64]},
    "config": {
        "User": "app", "Env": ["A=1"], "Cmd": ["sh"], "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**9}, "Labels": {"a": "b"}, "StopSignal": "SIGTERM",
    },
}  # fmt: skip
_INDEX = {"schemaVersion": 2, "manifests": [{**_MANIFEST["config"], "platform": {"os": "linux", "architecture": "arm64"}}]}  # type: ignore[dict-item] # of objects
_DOCUMENTS = tuple(json.dumps(value).encode() for value in (_MANIFEST, _CONFIG, _INDEX))
_YAML = b"""apiVersion: reconcile/v1
stack: &s shop
containers: {a: {image: "x:1", env: {A: on, B: 0o17, C: 1e400}}, b: {<<: *s}}
# \xc3\xa9
text: |
  lines
"""

DOORS = {
    "tar": Door(read_tar, _TARS, blocks=True),
    "gzip": Door(read_packed, (gzip.compress(_TARS[0]), gzip.compress(b"a") + gzip.compress(b"b" * 9000))),
    "documents": Door(read_manifest, _DOCUMENTS),
    "reference": Door(read_reference, (b"docker.io/library/nginx:1@sha256:" + b"a" * 64, b"[::1]:5000/x/y:z", b"x")),
    "challenge": Door(read_challenge, (b'Bearer realm="https://h/t?x=1",service="s\\"q",scope=x, Basic realm="d"',)),
    "yaml": Door(read_yaml, (_YAML, b"a: [1, {b: c}]\n", b'"\\x41": ? ! x\n')),
    "users": Door(read_users, (b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/x\n", b"staff:x:50:app,root\n")),
    "saved": Door(
        read_saved,
        (tar(member("manifest.json", b'[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]'),
             member("c", _DOCUMENTS[1]), member("l", _TARS[0]), symlink("k", "l")),),
        blocks=True,
    ),
}  # fmt: skip
"""By name."""
