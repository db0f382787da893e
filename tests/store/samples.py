"""Records with one visible difference, and a root to put them in."""

from pathlib import Path
from typing import Any

from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.record import ApplyId, Intent, Made, Record, StackRecord
from reconciler.model.spec import Attachment, ContainerSpec, Sensitive
from reconciler.store.store import Store, open_store

NETWORK = make_key(Kind.NETWORK, "blog", "front")
APPLY = ApplyId(pid=4121, start_time=77, boot_id="boot")
DIGEST = "sha256:" + "ab" * 32
SECRET = "plant-7f3a9c-swordfish"


def made_root(path: Path, *stacks: str) -> Store:
    """The store of a new root with some stacks, `blog` where none is named."""
    store = open_store(path / "root", create=True)
    with store.write() as tx:
        for name in stacks or ("blog",):
            tx.put_stack(StackRecord(name=name, origin=f"file:/srv/{name}.yaml", source=f"{name}.yaml"))
    return store


def web(index: int = 1, *, stack: str = "blog") -> Key:
    return container_key(stack, "web", index)


def container(key: Key | None = None, **fields: Any) -> Record:
    spec = {"image": "app", "networks": {"front": Attachment()}, **fields.pop("spec", {})}
    return Record(key=key or web(), spec=ContainerSpec(**spec), image=DIGEST, **fields)


def secret_container(key: Key | None = None) -> Record:
    return container(key, spec={"env": {"PLAIN": "seen", "TOKEN": Sensitive(SECRET)}})


def intent(record: Record, *, verb: str = "create") -> Intent:
    made = Made(key=record.key, spec=record.spec, image=record.image, grants=record.grants)
    return Intent(key=record.key, stack="blog", verb=verb, apply=APPLY, begun_at=5.0, new=made)
