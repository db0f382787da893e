"""Secrets that are encrypted in the repository: age against Debian's `age`, SOPS against files that SOPS wrote."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from reconciler.engine.memory.drivers import MemoryImages
from reconciler.engine.memory.machine import Machine
from reconciler.manifest.load import load_text
from reconciler.model.content import unpack
from reconciler.model.errors import BadManifest, CannotDecrypt, NotFound, RootError
from reconciler.store.sealed import Sealer, write_key
from reconciler.verbs.agekeys import FILE, AgeKeys
from reconciler.verbs.resolve import resolve
from reconciler.verbs.sops import decrypt_sops

WRITTEN_BY_SOPS = Path(__file__).parent / "sops"
DATA_KEYS = {
    "example.yaml": "8c68886c50b5b72965a3cb99c5172e1d74a8aca27b39ee880b535d6907e59f68",
    "example.json": "faf6a891866fac550ef548b4e5f6fbc98fccc6827cd943cc8d7539747f1d87bd",
    "example.txt": "67788979caa78ea7c5ae7adae47eb9161bfd15c94a2f3d88c708bcfa19a85dd7",
    "format.env": "322d9a97997823fb2bf42f55a6c26100cbaf0520cf88bb7ebee1cf47dd6d318d",
}
# Of age/keysource_test.go in getsops/sops: a data key as SOPS encrypts it, and the identity that opens it.
PUBLISHED_IDENTITY = "AGE-SECRET-KEY-1G0Q5K9TV4REQ3ZSQRMTMG8NSWQGYT0T7TZ33RAZEE0GZYVZN0APSU24RK7"
PUBLISHED = """-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBvY2t2NkdLUGRvY3l2OGNy
MVJWcUhCOEZrUG8yeCtnRnhxL0I5NFk4YjJFCmE4SVQ3MEdyZkFqRWpSa2F0NVhF
VDUybzBxdS9nSGpHSVRVMUI0UEVqZkkKLS0tIGJjeGhNQ0Y5L2VZRVVYSm90djFF
bzdnQ3UwTGljMmtrbWNMV1MxYkFzUFUK4xjOZOTGdcbzuwUY/zeBXhcF+Md3e5PQ
EylloI7MNGbadPGb
-----END AGE ENCRYPTED FILE-----"""


@pytest.fixture
def keys(tmp_path: Path) -> AgeKeys:
    made = AgeKeys(tmp_path)
    made.make()
    return made


def recipient(keys: AgeKeys) -> str:
    return keys.read()[0].recipient


def sealed_for(keys: AgeKeys, data: bytes, *, armored: bool = True) -> bytes:
    made: bytes = pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(recipient(keys))], armored=armored)
    return made


def of_sops(name: str, keys: AgeKeys) -> str:
    """A file that SOPS wrote, for our key."""
    key = sealed_for(keys, bytes.fromhex(DATA_KEYS[name])).decode().strip()
    text = (WRITTEN_BY_SOPS / name).read_text().replace("@RECIPIENT@", recipient(keys))
    if name.endswith(".yaml"):
        return text.replace("@KEY@", "\n".join(f"            {line}" for line in key.splitlines()))
    return text.replace("@KEY@", key.replace("\n", "\\n"))


def read(text: str, name: str, select: str, keys: AgeKeys) -> str:
    return decrypt_sops(text.encode(), file=name, select=select, keys=keys).decode()


# --- SOPS: what it wrote


@pytest.mark.parametrize(
    ("name", "select", "value"),
    [
        ("example.yaml", "app2.db.password", "c4r1b0u"),
        ("example.yaml", "somebooleans.0", "true"),
        ("example.yaml", "an_array.1", "secretuser2"),
        ("example.yaml", "somelist_unencrypted.2", "because of the _unencrypted suffix in the key"),
        ("example.json", "address.city", "New York"),
        ("example.json", "age", "25.4"),
        ("example.json", "phoneNumbers.1.type", "office"),
        ("example.json", "anEmptyValue", ""),
        ("format.env", "foo ", " bar"),
    ],
)
def test_a_value_of_a_file_that_sops_wrote(name: str, select: str, value: str, keys: AgeKeys) -> None:
    assert read(of_sops(name, keys), name, select, keys) == value


def test_the_binary_form_needs_no_key(keys: AgeKeys) -> None:
    assert read(of_sops("example.txt", keys), "example.txt", "", keys).startswith("Welcome to SOPS!\n")


def test_a_data_key_as_sops_publishes_it(tmp_path: Path) -> None:
    keys = AgeKeys(tmp_path)
    keys.add(PUBLISHED_IDENTITY, "it")
    assert keys.decrypt(PUBLISHED.encode()) == b"data"


def swap(text: str) -> str:
    """Two values of one list, the one in the place of the other."""
    first, second = re.findall(r"(?<=    - )ENC\[.*type:str\]", text)[:2]
    return text.replace(first, "@").replace(second, first).replace("@", second)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("data:8Ll+TDCgzQ==", "data:8Ll+TDCgzA=="), "app2.db.password can't be decrypted"),
        (lambda text: text.replace("        user: ", "        usér: "), "app2.db.usér can't be decrypted"),
        (lambda text: text.replace("remain in clear", "do not remain in clear"), "its MAC does not fit"),
        (lambda text: re.sub(r"number: .*\n", "", text), "its MAC does not fit"),
        (swap, "its MAC does not fit"),
        (lambda text: text.replace("lastmodified: \"2025", "lastmodified: \"2024"), "sops.mac can't be decrypted"),
        (lambda text: re.sub(r"    mac: .*\n", "", text), "its MAC does not fit"),
        (lambda text: re.sub(r"myapp1: .*\n", "myapp1: planted\n", text), "myapp1 should be encrypted, and is not"),
        (lambda text: re.sub(r"myapp1: .*\n", "myapp1: &a x\nb: *a\n", text), "alias"),
        (lambda text: text.replace("number:", "myapp1:"), "twice"),
        (lambda text: text.replace("sops:", "other:"), "no map `sops`"),
        (lambda _: "[" * 100_000, "no YAML|nested deeper|is a list"),
    ],
)  # fmt: skip
def test_sops_file_that_was_changed_gives_nothing(change: Any, said: str, keys: AgeKeys) -> None:
    text = change(of_sops("example.yaml", keys))
    with pytest.raises(CannotDecrypt, match=said):
        read(text, "example.yaml", "app2.db.password", keys)


# --- SOPS: what it may write, written by the same rules


def encrypt(
    tree: Mapping[str, Any], keys: AgeKeys, meta: Mapping[str, Any], sealed: tuple[str, ...], *, mac_over: tuple[str, ...]
) -> str:
    """One level of strings, as SOPS would: `sealed` are the names that are encrypted, `mac_over` those under the MAC."""
    key = os.urandom(32)

    def enc(value: str, bound_to: str) -> str:
        nonce = os.urandom(32)
        out = AESGCM(key).encrypt(nonce, value.encode(), bound_to.encode())
        parts = [base64.b64encode(part).decode() for part in (out[:-16], nonce, out[-16:])]
        return f"ENC[AES256_GCM,data:{parts[0]},iv:{parts[1]},tag:{parts[2]},type:str]"

    start = hashlib.sha256(b"sops").digest() if meta.get("mac_only_encrypted") else b""
    mac = hashlib.sha512(start + b"".join(tree[name].encode() for name in mac_over)).hexdigest().upper()
    at = "2026-01-02T03:04:05Z"
    age = [{"recipient": recipient(keys), "enc": sealed_for(keys, key).decode()}]
    written = {name: enc(value, f"{name}:") if name in sealed else value for name, value in tree.items()}
    return json.dumps({**written, "sops": {"age": age, "lastmodified": at, "mac": enc(mac, at), **meta}})


TREE = {"password": "swordfish", "user": "eve"}


@pytest.mark.parametrize(
    "rule",
    [
        {"encrypted_suffix": "word"},
        {"encrypted_regex": "^(password|token)$"},
        {"encrypted_regex": "^pass.*$"},
        {"unencrypted_regex": "^user$"},
        {"encrypted_comment_regex": "secret"},
    ],
)
def test_sops_rules_of_what_is_encrypted(rule: dict[str, str], keys: AgeKeys) -> None:
    text = encrypt(TREE, keys, rule, ("password",), mac_over=("password", "user"))
    assert read(text, "a.json", "password", keys) == "swordfish"
    assert read(text, "a.json", "user", keys) == "eve"
    with pytest.raises(CannotDecrypt, match="MAC"):
        read(text.replace("eve", "mallory"), "a.json", "user", keys)


def test_sops_mac_over_encrypted_values_only(keys: AgeKeys) -> None:
    meta = {"encrypted_regex": "^password$", "mac_only_encrypted": True}
    text = encrypt(TREE, keys, meta, ("password",), mac_over=("password",))
    assert read(text.replace("eve", "mallory"), "a.json", "user", keys) == "mallory"
    # What is bound to `a:b:` moved aside, and a stranger's value put in its place.
    nested = encrypt(
        {"password:x": "swordfish"},
        keys,
        meta | {"encrypted_regex": "^password"},
        ("password:x",),
        mac_over=("password:x",),
    )
    planted = json.loads(nested) | {"password": {"x": "mallory"}}
    with pytest.raises(CannotDecrypt, match=r"password\.x should be encrypted"):
        read(json.dumps(planted), "a.json", "password.x", keys)


def test_sops_rule_that_could_hang_is_not_tried(keys: AgeKeys) -> None:
    meta = {"encrypted_regex": "(a+)+$", "mac_only_encrypted": True}
    with pytest.raises(CannotDecrypt, match="encrypted_regex can't be judged here"):
        read(encrypt({"a" * 64 + "b": "x"}, keys, meta, (), mac_over=()), "a.json", "x", keys)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "a: b\n", "no map `sops`"),
        ("a.yaml", "a: 'ENC[\n", "no YAML"),
        ("a.json", "[]", "no JSON object"),
        ("a.json", '{"a": 1, "a": 2}', "twice"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.env", "A=1\n", "no `sops_…` lines"),
        ("a.ini", "[a]\nb=1\n", "INI"),
        ("a.yaml", "a: b\nsops: {pgp: [{enc: x}], mac: x}\n", "not for age: it names pgp"),
        ("a.yaml", "a: b\nsops: {key_groups: [{age: []}]}\n", "split among groups"),
        ("a.yaml", "a: b\nsops: {age: [{recipient: age1xyz, enc: junk}]}\n", "it is for age1xyz"),
    ],
)  # fmt: skip
def test_sops_file_that_is_none(name: str, text: str, said: str, keys: AgeKeys) -> None:
    with pytest.raises(CannotDecrypt, match=said):
        read(text, name, "a", keys)


def test_sops_value_that_is_not_there_is_told_with_what_is(keys: AgeKeys) -> None:
    text = of_sops("example.yaml", keys)
    with pytest.raises(CannotDecrypt, match="which value of it is meant") as which:
        read(text, "example.yaml", "", keys)
    assert "myapp1, app2" in which.value.hint
    with pytest.raises(CannotDecrypt, match=r"has no value app2\.dc"):
        read(text, "example.yaml", "app2.dc", keys)
    with pytest.raises(CannotDecrypt, match=r"app2\.db is no single value") as below:
        read(text, "example.yaml", "app2.db", keys)
    assert "user, password" in below.value.hint


# --- age, and the keys of a root


@pytest.mark.skipif(shutil.which("age") is None, reason="skipped because age is not installed")
@pytest.mark.parametrize("armor", [[], ["--armor"]])
def test_what_the_program_age_encrypts_is_opened(armor: list[str], keys: AgeKeys) -> None:
    done = subprocess.run(["age", *armor, "-r", recipient(keys)], input=b"swordfish\0\n", capture_output=True, check=True)
    assert keys.decrypt(done.stdout) == b"swordfish\0\n"


@pytest.mark.skipif(shutil.which("age-keygen") is None, reason="skipped because age is not installed")
def test_keys_that_age_keygen_made_are_taken_over_once(keys: AgeKeys) -> None:
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    [added] = keys.add(made, "it")
    assert f"public key: {added.recipient}" in made
    assert f"created: {added.created}" in made
    assert keys.add(made, "it") == ()
    assert [key.recipient for key in AgeKeys(keys.path.parents[1]).read()][1:] == [added.recipient]
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert keys.path.parent.stat().st_mode & 0o777 == 0o700


def test_age_file_that_does_not_open_is_told_by_why(keys: AgeKeys, tmp_path: Path) -> None:
    sealed = sealed_for(keys, b"swordfish", armored=False)
    with pytest.raises(CannotDecrypt, match="damaged"):
        keys.decrypt(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(CannotDecrypt, match="damaged"):
        keys.decrypt(sealed[:-30])
    with pytest.raises(CannotDecrypt, match="no age file"):
        keys.decrypt(b"swordfish")
    none = AgeKeys(tmp_path / "other")
    with pytest.raises(CannotDecrypt, match="no key to open it with") as told:
        none.decrypt(sealed)
    assert "reconcile keys new" in told.value.hint
    none.make()
    with pytest.raises(CannotDecrypt, match="none of this root's keys opens it") as stranger:
        none.decrypt(sealed)
    assert recipient(none) in stranger.value.hint


def test_keys_that_others_may_read_or_that_are_none_are_refused(keys: AgeKeys) -> None:
    with pytest.raises(NotFound, match="no age key"):
        keys.add("# nothing\n", "it")
    with pytest.raises(RootError, match="line 2 is no key of age") as told:
        keys.add("\nAGE-SECRET-KEY-1JUNK\n", "it")
    assert "JUNK" not in f"{told.value.brief}{told.value.hint}{told.value.detail}"
    keys.path.chmod(0o644)
    with pytest.raises(RootError, match=r"others than root may read the keys \(mode 0644\)"):
        keys.read()


def test_key_that_is_added_while_a_controller_runs_is_seen(keys: AgeKeys) -> None:
    beside = AgeKeys(keys.path.parents[1])
    other = AgeKeys(keys.path.parents[1] / "x")
    other.make()
    with pytest.raises(CannotDecrypt):
        keys.decrypt(sealed_for(other, b"a"))
    beside.add(other.path.read_text(), "it")
    assert keys.decrypt(sealed_for(other, b"a")) == b"a"


# --- in a manifest

TEXT = """
apiVersion: reconcile/v1
name: s
secrets:
  token: {age: ./token.age}
  password: {sops: ./db.yaml, key: app2.db.password}
containers: {web: {image: "a/b:1", secrets: [token, password]}}
"""


def resolved(folder: Path, text: str = TEXT) -> list[bytes]:
    stack = load_text(text, file="s.yaml", folder=folder, variables={}, environment={}, origin_of=lambda *_: "name:s")
    keyed, keys = Sealer(folder).digest, AgeKeys(folder)
    made = resolve([stack], images=MemoryImages(Machine()), records={}, keyed=keyed, keys=keys, offline=True)
    assert all(digest.startswith("hmac-sha256:") for digest in made.contents)
    return sorted(map(unpack, made.contents.values()))


def test_encrypted_secrets_of_a_manifest(keys: AgeKeys, tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    (tmp_path / "token.age").write_bytes(sealed_for(keys, b"swordfish"))
    (tmp_path / "db.yaml").write_text(of_sops("example.yaml", keys))
    assert resolved(tmp_path) == [b"c4r1b0u", b"swordfish"]
    (tmp_path / FILE).unlink()
    with pytest.raises(BadManifest) as told:
        resolved(tmp_path)
    assert {problem.path for problem in told.value.problems} == {"secrets.token.age", "secrets.password.sops"}
    assert "no key to open it with" in told.value.problems[0].text


def test_encrypted_secret_larger_than_a_secret_may_be(keys: AgeKeys, tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    (tmp_path / "token.age").write_bytes(sealed_for(keys, bytes((1 << 20) + 1)))
    with pytest.raises(BadManifest, match=r"s\.yaml: 1 problem") as told:
        resolved(tmp_path, "apiVersion: reconcile/v1\nname: s\nsecrets: {token: {age: ./token.age}}\n")
    assert "what is in it is larger than 1 MiB" in told.value.problems[0].text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{age: ./a, sops: ./b}", "a secret comes from one place"),
        ("{age: ./a, key: b}", "only a file of SOPS has values"),
        ("{key: b}", "a secret needs a source"),
        ("{age: ./none}", "no such file"),
    ],
)
def test_encrypted_secret_that_is_declared_wrongly(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    with pytest.raises(BadManifest) as told:
        resolved(tmp_path, f"apiVersion: reconcile/v1\nname: s\nsecrets: {{t: {written}}}\n")
    assert said in told.value.detail
