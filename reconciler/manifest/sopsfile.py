"""The text of a SOPS file → its values in their order, and what it says of its encryption. Opens nothing.

Forms by name, as SOPS chooses them: `.json`, `.env`, `.yaml` and `.yml`; all others are its binary form, JSON with one
value. Source: getsops/sops 3, `stores/*`. Aliases and merges are refused: SOPS writes none. The text may be anybody's.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import yaml
from msgspec import Struct

from reconciler.manifest.files import HERE, Files
from reconciler.manifest.scalars import Scalar, read_scalar
from reconciler.manifest.text import EVENT_LOADER, MAX_BYTES, MAX_DEPTH

_META = "sops"
_FLAT_AGE = re.compile(r"sops_age__list_([0-9]{1,4})__map_(recipient|enc)")
_HAS_META = re.compile(rb"^sops:|^\s*\"sops\":", re.MULTILINE)
_IS_MANIFEST = re.compile(rb"^\s*\"?apiVersion\"?:\s*\"?reconcile/", re.MULTILINE)
Tree = dict[str, Any]


class SopsFile(Struct, frozen=True, kw_only=True):
    """One file, as it is written."""

    trees: tuple[Tree, ...]
    """Its documents, without `sops`: maps, lists, scalars, in the order of the text."""
    meta: Tree
    """What stands below `sops`."""
    binary: bool = False
    """Its content is one value, `data`."""


class NotSops(ValueError):
    """The text is none of SOPS; its words say why, without any of what is in it."""


def is_sops_file(path: Path, files: Files = HERE) -> bool:
    """Whether what is named like a manifest is a file of SOPS, which may lie beside manifests: by its words, unparsed."""
    try:
        data = files.read_regular(str(path), MAX_BYTES)[0]  # A pipe would hang who opens it.
    except (OSError, ValueError):
        return False
    return b"ENC[AES256_GCM,data:" in data and bool(_HAS_META.search(data)) and not _IS_MANIFEST.search(data)


def read_sops_file(data: bytes, file: str) -> SopsFile:
    """Read the text. Raises NotSops."""
    suffix = PurePath(file).suffix
    if suffix == ".ini":
        raise NotSops("INI files of SOPS can't be read: use YAML, JSON or dotenv")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NotSops("it is not UTF-8") from None
    if suffix == ".env":
        return _read_dotenv(text)
    trees = tuple(_read_yaml(text)) if suffix in (".yaml", ".yml") else (_read_json(text),)
    meta = trees[0].pop(_META, None) if trees and isinstance(trees[0], dict) else None
    if not isinstance(meta, dict):
        raise NotSops("it has no map `sops`: it is not encrypted, or no file of SOPS")
    for tree in trees[1:]:
        tree.pop(_META, None)
    return SopsFile(trees=trees, meta=meta, binary=suffix not in (".yaml", ".yml", ".json"))


def _read_json(text: str) -> Tree:
    def unique(pairs: list[tuple[str, Any]]) -> Tree:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise NotSops("a key is in it twice")
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except NotSops:
        raise
    except (ValueError, RecursionError):
        raise NotSops("it is no JSON") from None
    if not isinstance(found, dict):
        raise NotSops("it is no JSON object")
    return found


def _read_dotenv(text: str) -> SopsFile:
    tree: Tree = {}
    meta: Tree = {}
    ages: dict[int, Tree] = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise NotSops("a line of it has no `=`")
        value = value.replace("\\n", "\n")
        flat = _FLAT_AGE.fullmatch(name)
        if flat:
            ages.setdefault(int(flat[1]), {})[flat[2]] = value
        elif name.startswith(f"{_META}_"):
            meta[name.removeprefix(f"{_META}_")] = value
        elif name in tree:
            raise NotSops("a key is in it twice")
        else:
            tree[name] = value
    if not meta:
        raise NotSops("it has no `sops_…` lines: it is not encrypted, or no file of SOPS")
    meta["age"] = [ages[number] for number in sorted(ages)]
    return SopsFile(trees=(tree,), meta=meta)


# ---------------------------------------------------------------- YAML


def _read_yaml(text: str) -> Iterator[Tree]:
    """Its documents. libyaml gives events; nothing recurses, no tag makes an object."""
    open_: list[tuple[Any, list[str]]] = []
    try:
        for event in yaml.parse(text, Loader=EVENT_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise NotSops("it has an alias (*…), which SOPS never writes")
            if isinstance(event, yaml.ScalarEvent):
                value: Any = _scalar(event)
                _place(open_, value, event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                if open_:
                    _place(open_, made, None)
                elif not isinstance(made, dict):
                    raise NotSops("it is a list, and not a map")
                if len(open_) >= MAX_DEPTH:
                    raise NotSops(f"it is nested deeper than {MAX_DEPTH} levels")
                open_.append((made, []))
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done, _ = open_.pop()
                if not open_:
                    yield done
    except yaml.YAMLError:
        raise NotSops("it is no YAML") from None


def _place(open_: list[tuple[Any, list[str]]], value: Any, event: Any) -> None:
    if not open_:
        raise NotSops("it is one value, and not a map")
    into, key = open_[-1]
    if isinstance(into, list):
        into.append(value)
    elif key:
        into[key.pop()] = value
    elif event is None:
        raise NotSops("a key of it is no text")
    elif event.value in into:
        raise NotSops("a key is in it twice")
    else:
        key.append(event.value)


def _scalar(event: Any) -> Scalar:
    plain = not event.style and event.tag is None
    return read_scalar(event.value) if plain else str(event.value)
