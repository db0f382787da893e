"""Small files beside containers and networks that say what they are, so that a lost database can be rebuilt.

    ROOT/containers/INCARNATION/record.json    a container, with the images and the linkless networks that it uses
    ROOT/networks/LINK.json                    a network with a bridge

Volumes have their own (`volumes/ID/volume.json`). Written after each change of the thing itself; sensitive values come
sealed. Read only by `recall`, which believes nothing that does not fit the name of its file.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime import contents, policy
from reconciler.engine.native.runtime.ended import ended_path, read_ended
from reconciler.engine.native.volumes import managed
from reconciler.engine.protocol import Recollection, Uses
from reconciler.linux import files
from reconciler.model.errors import Failed
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.record import Grants, Made
from reconciler.model.spec import SPEC_TYPES, ContainerSpec, Sensitive, VolumeSpec

_RECORD = "record.json"


def write_keepsake(layout: Layout, made: Made, uses: Uses, sealed: Mapping[str, bytes]) -> None:
    """Note what was made. Nothing is written for images and volumes. Raises Failed."""
    if isinstance(made.spec, VolumeSpec) and made.grants.volume_id:
        managed.note_sealed(layout, made.grants.volume_id, made.spec)
    path = _path_of(layout, made)
    if path is None:
        return
    beside = [used for used in uses.values() if kind_of(used.key) is Kind.IMAGE or _is_linkless(used)]
    content = {
        "root": layout.root_id,
        "made": made,
        "uses": sorted(beside, key=lambda used: used.key),
        "contents": sealed,
    }
    try:
        files.make_folders(path.parent)
        files.write_atomic(path, msgspec.json.encode(content))
    except OSError as error:
        raise Failed(
            f"{made.key}: note what it is in {path}: {error.strerror or error}", hint="free space, if the disk is full"
        ) from error


def remove_network_keepsake(layout: Layout, link: str) -> None:
    """A network is gone. What is gone already is no error."""
    folder = layout.root / "networks"
    if re.fullmatch(r"[a-z0-9]{1,15}", link):
        # Whoever died while he wrote it left it under another name; nobody writes for a network that goes.
        for path in (folder / f"{link}.json", *folder.glob(f"{files.STAGING}{link}.json-*")):
            path.unlink(missing_ok=True)


def network_keepsakes(layout: Layout) -> list[str]:
    """The links of networks that something is kept of, be it half-written."""
    names = (path.name.removeprefix(files.STAGING) for path in (layout.root / "networks").glob("*.json*"))
    return sorted({name.partition(".json")[0] for name in names})


def _is_linkless(made: Made) -> bool:
    return kind_of(made.key) is Kind.NETWORK and not made.grants.link


def _path_of(layout: Layout, made: Made) -> Path | None:
    kind = kind_of(made.key)
    if kind is Kind.CONTAINER and made.incarnation:
        return layout.containers / made.incarnation / _RECORD
    if kind is Kind.NETWORK and made.grants.link:
        return layout.root / "networks" / f"{made.grants.link}.json"
    return None


# ---------------------------------------------------------------- reading


def recall(layout: Layout) -> Recollection:
    """Everything that says of itself what it is. Changes nothing."""
    found: dict[tuple[Key, str], Made] = {}
    sealed: dict[str, bytes] = {}
    unreadable = []
    for path in _keepsakes(layout):
        try:
            made, uses, inside = _read(layout, path)
        except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
            unreadable.append(f"{path}: {_words(error)}")
            continue
        for each in (made, *uses):
            found.setdefault((each.key, each.incarnation), each)
        sealed |= inside
    for volume_id in _names(layout.volumes):
        volume = _read_volume(layout, volume_id)
        if volume is None:
            unreadable.append(f"{layout.volumes / volume_id}: whose volume it is can't be read")
        else:
            found[volume.key, ""] = volume
    copies: dict[str, Sensitive] = {}
    for made in found.values():
        if isinstance(made.spec, ContainerSpec):
            copies |= contents.read_copies(str(layout.bundles / made.incarnation), made.spec)
    made_of_all = tuple(found[name] for name in sorted(found))
    return Recollection(made=made_of_all, unreadable=tuple(unreadable), contents=copies, sealed=sealed)


def _keepsakes(layout: Layout) -> Iterator[Path]:
    for name in _names(layout.root / "networks"):
        yield layout.root / "networks" / name
    for name in _names(layout.containers):
        yield layout.containers / name / _RECORD


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(files.STAGING))
    except FileNotFoundError:
        return []


def _read(layout: Layout, path: Path) -> tuple[Made, list[Made], dict[str, bytes]]:
    content = msgspec.json.decode(path.read_bytes())
    made = _made(content["made"])
    if content["root"] != layout.root_id:
        raise ValueError(f"it is of the root {content['root']}")
    if _path_of(layout, made) != path:
        raise ValueError("it says that it is another")
    if kind_of(made.key) is Kind.CONTAINER:
        made = structs.replace(made, held=_is_held(layout, made.incarnation))
    inside = msgspec.convert(content.get("contents", {}), dict[str, bytes])
    return made, [_made(each) for each in content["uses"]], inside


def _made(plain: dict[str, Any]) -> Made:
    """Specs bear no tag: their kind is that of the key."""
    key = Key(str(plain["key"]))
    spec = msgspec.convert(plain["spec"], SPEC_TYPES[kind_of(key)])
    rest = {name: value for name, value in plain.items() if name not in ("spec", "grants")}
    return Made(spec=spec, grants=msgspec.convert(plain.get("grants", {}), Grants), **rest)


def _is_held(layout: Layout, incarnation: str) -> bool:
    """By the mark in its bundle, or by its end where a reboot took that away."""
    rules = policy.read_policy(str(layout.bundles / incarnation))
    if rules is not None:
        return rules.mark == policy.HOLD
    return bool(read_ended(ended_path(str(layout.containers / incarnation))).get("held"))


def _read_volume(layout: Layout, volume_id: str) -> Made | None:
    try:
        file = managed.read_volume(layout, volume_id)
    except (OSError, Failed):
        return None
    if file is None or file.root_id != layout.root_id:
        return None
    return Made(key=Key(file.key), spec=file.spec, grants=Grants(volume_id=volume_id), created_at=file.created)


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "nothing says what it is"
    return getattr(error, "strerror", None) or str(error)
