"""A plan ↔ a file: what `plan --out` writes and `apply FILE` takes. Sensitive values stand in it sealed."""

from pathlib import Path

import msgspec

from reconciler.linux.files import write_atomic
from reconciler.manifest.files import HERE, Files, is_file
from reconciler.model.errors import Failed, Usage
from reconciler.model.plan import Plan
from reconciler.plan.forms import dump_plan, load_plan
from reconciler.store.sealed import map_sensitive
from reconciler.verbs.root import Root

MAGIC = b'{"reconcile-plan":1,"root":"'
LIMIT = 256 << 20
"""Bytes of a plan file that is read."""


def dump_file(root: Root, plan: Plan) -> bytes:
    """What is to stand in its file. Raises Failed where sensitive values can't be sealed yet."""
    # Order: sealed before it is plain data, in which nobody can tell a sensitive value from another.
    body = msgspec.json.encode(dump_plan(map_sensitive(plan, root.store.sealer.seal)))
    return MAGIC + root.root_id.encode() + b'","plan":' + body + b"}"


def write_plan(root: Root, plan: Plan, path: Path) -> None:
    """Write it whole or not at all, 0600. Raises OSError, and what `dump_file` raises."""
    write_atomic(path, dump_file(root, plan), 0o600)


def is_plan(path: Path, files: Files = HERE) -> bool:
    """Whether a file is one of ours, by its first bytes."""
    try:
        # What is read of a pipe would be missing in the manifest that it brings.
        return is_file(files, str(path)) and files.read(str(path), len(MAGIC) - 1) == MAGIC
    except OSError:
        return False


def read_plan(root: Root, path: Path, *, name: str, files: Files = HERE) -> Plan:
    """Read a plan file, which whoever gave it calls `name`. Raises Usage for another root's, Failed for a damaged one."""
    try:
        data = files.read_regular(str(path), LIMIT)[0]
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise Failed(f"{name}: the plan can't be read: {words}", hint="make it anew with plan --out") from error
    head, comma, body = data.removeprefix(MAGIC).partition(b'","plan":')
    if not comma or not body.endswith(b"}"):
        raise Failed(f"{name}: the plan is damaged", hint="make it anew with plan --out")
    if head.decode(errors="replace") != root.root_id:
        raise Usage(f"{name}: the plan was made on another root", hint="make it anew with plan --out")
    try:
        plain = msgspec.json.decode(body[:-1])
    except msgspec.DecodeError as error:
        raise Failed(f"{name}: the plan is damaged", str(error), "make it anew with plan --out") from error
    return map_sensitive(load_plan(plain, path=name), root.store.sealer.open)
