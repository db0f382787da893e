"""Turns the bytes of one manifest into plain data (dicts, lists, text, numbers), with variables put in.

The first step of reading a manifest; `validate.py` follows. libyaml gives events, the data are built here: no tag makes an
object, every bound is checked before anything grows, aliases share what they name. What is wrong comes out as problems
with positions; nothing else is ever raised. One document is one stack; a second one is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from msgspec import Struct

from reconciler.manifest.faults import Fault, Path, make_problem, shorten
from reconciler.manifest.interpolate import CannotInterpolate, interpolate
from reconciler.manifest.scalars import make_interpolated, read_scalar
from reconciler.manifest.syntax import explain_syntax
from reconciler.model.errors import BadManifest

MAX_BYTES = 8 * 1024 * 1024
"""Of one file; 10,000 containers are 2 MiB."""
MAX_SCALAR = 1024 * 1024
"""Characters of one value."""
MAX_DEPTH = 64
MAX_ALIASED = 500_000
"""Values that aliases may stand for in all: what bounds a bomb of them."""

# Compat: the C loader is absent where PyYAML was built without libyaml; the pure one gives the same events, slower.
EVENT_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = "tag:yaml.org,2002:"
_TEXT_TAGS = ("!", _TAGS + "str")
_PLAIN_TAGS = (None, *(_TAGS + name for name in ("int", "float", "bool", "null")))


class Document(Struct, frozen=True):
    """A manifest's data. `faults` are those that do not keep the rest from being read, `text` is what was read."""

    file: str
    text: str
    data: Any
    faults: tuple[Fault, ...]


def decode(raw: bytes, *, file: str) -> str:
    """UTF-8 to text. Raises BadManifest for what is too large, not UTF-8, or no text at all."""
    if len(raw) > MAX_BYTES:
        raise _bad(file, f"larger than {MAX_BYTES >> 20} MiB, the most that a manifest may be")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _bad(file, "this is UTF-16", "save it as UTF-8")
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        if b"\0" in raw[:8192]:
            raise _bad(file, f"this is binary data, not a manifest: {byte}") from None
        place = _place_after(raw[: error.start].decode("utf-8"))
        raise _bad(file, byte, "save it as UTF-8; is it latin-1?", place=place) from None
    found = _UNPRINTABLE.search(text)
    if found:
        name = "a NUL" if found[0] == "\0" else f"the character U+{ord(found[0]):04X}"
        place = _place_after(text[: found.start()])
        raise _bad(file, f"{name} does not belong in a manifest", "is this binary data?", place=place)
    return text


def read_document(text: str, *, file: str, variables: Mapping[str, str]) -> Document:
    """Text to data. Raises BadManifest, with one problem, where it can't be read on."""
    builder = _Builder(file, text, variables)
    try:
        builder.run(yaml.parse(text, Loader=EVENT_LOADER))
    except yaml.MarkedYAMLError as error:
        raise _bad_syntax(error, file=file, text=text) from None
    except yaml.YAMLError as error:
        raise _bad(file, f"not YAML: {shorten(str(error))}") from None
    if not builder.found:
        raise _bad(file, "the manifest is empty", "it begins with `apiVersion: reconcile/v1` and `name: …`")
    return Document(file, text, builder.root, tuple(builder.faults))


class _Open:
    """A map or list that is being built. `key` is the key whose value comes next, `deepest` how deep its values go."""

    __slots__ = ("begun_at", "deepest", "items", "key", "merges", "pairs", "repeated", "start")

    def __init__(self, *, is_map: bool, start: Any, begun_at: int) -> None:
        self.pairs: dict[str, Any] | None = {} if is_map else None
        self.items: list[Any] = []
        self.key: str | None = None
        self.repeated = False
        self.merges: list[dict[str, Any]] = []
        self.start = start
        self.begun_at = begun_at
        self.deepest = 0


class _Anchored(Struct, frozen=True):
    """What an alias stands for: the value, how many values it is, how deep it goes."""

    value: Any
    count: int
    depth: int


_MERGE = "<<"


class _Builder:
    """Builds the data of one document from events, without recursion: the depth is ours to bound, not the stack's."""

    def __init__(self, file: str, text: str, variables: Mapping[str, str]) -> None:
        self.file = file
        self.text = text
        self.variables = variables
        self.faults: list[Fault] = []
        self.root: Any = None
        self.begun = False
        self.found = False
        self.open: list[_Open] = []
        self.anchors: dict[str, _Anchored] = {}
        self.count = 0
        self.aliased = 0

    def run(self, events: Iterable[Any]) -> None:
        """Take all events. Raises BadManifest where what follows has no meaning."""
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                top = self.open[-1] if self.open else None
                if top is not None and top.pairs is not None and top.key is None:
                    self._take_key(top, event)
                else:
                    value = self._scalar(event)
                    self.count += 1
                    if event.anchor:
                        self._name(event, _Anchored(value, 1, 0))
                    self._place(value, depth=0)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._begin(event, is_map=kind is yaml.MappingStartEvent)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._end()
            elif kind is yaml.AliasEvent:
                self._take_alias(event)
            elif kind is yaml.DocumentStartEvent:
                if self.begun:
                    hint = "one manifest is one stack: write each into a file of its own"
                    raise self._stop(event, "a second document begins here", hint)
                self.begun = True

    def _take_key(self, top: _Open, event: Any) -> None:
        key = event.value
        if not key and not event.style:
            raise self._stop(event, "a key is missing before the colon")
        if len(key) > 1024:
            raise self._stop(event, "a key of more than 1,024 characters")
        if key == _MERGE and not event.style:
            top.key = _MERGE
            top.repeated = False
            return
        assert top.pairs is not None
        top.key = key
        top.repeated = key in top.pairs
        if top.repeated:
            self._report(event, "the key is here twice", "keep one of the two")

    def _scalar(self, event: Any) -> Any:
        value = event.value
        tag = event.tag
        if len(value) > MAX_SCALAR:
            raise self._stop(event, f"a value of more than {MAX_SCALAR:,} characters")
        if tag is not None and tag not in _PLAIN_TAGS and tag not in _TEXT_TAGS:
            self._refuse_tag(event)
        if "\0" in value:
            self._report(event, "a NUL character does not belong in a value")
        plain = (not event.style and tag is None) or (tag is not None and tag in _PLAIN_TAGS)
        if "$" in value:
            return self._expand(event, value)
        return read_scalar(value) if plain else value

    def _expand(self, event: Any, value: str) -> Any:
        try:
            text, named = interpolate(value, self.variables)
        except CannotInterpolate as fault:
            self._report(event, fault.text, fault.hint)
            return value
        if "\0" in text:
            self._report(event, "a variable's value has a NUL character in it")
        return make_interpolated(text, value) if named else text

    def _begin(self, event: Any, *, is_map: bool) -> None:
        top = self.open[-1] if self.open else None
        if top is not None and top.pairs is not None and top.key is None:
            raise self._stop(event, "a key must be text", "quote it: what begins with { or [ is read as a map or a list")
        if len(self.open) >= MAX_DEPTH:
            raise self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        if event.tag is not None and event.tag not in ("!", _TAGS + "map", _TAGS + "seq"):
            self._refuse_tag(event)
        self.count += 1
        self.open.append(_Open(is_map=is_map, start=event, begun_at=self.count))

    def _end(self) -> None:
        top = self.open.pop()
        value: Any = top.items
        if top.pairs is not None:
            value = top.pairs
            # Order: explicit keys win over merged ones, and of several merged maps the first.
            for merged in top.merges:
                for key, below in merged.items():
                    value.setdefault(key, below)
        if top.start.anchor:
            self._name(top.start, _Anchored(value, self.count - top.begun_at + 1, top.deepest + 1))
        self._place(value, depth=top.deepest + 1)

    def _name(self, event: Any, anchored: _Anchored) -> None:
        if event.anchor in self.anchors:
            raise self._stop(
                event, f"the anchor &{shorten(event.anchor)} is here twice", "give one of the two another name"
            )
        self.anchors[event.anchor] = anchored

    def _take_alias(self, event: Any) -> None:
        top = self.open[-1] if self.open else None
        if top is not None and top.pairs is not None and top.key is None:
            raise self._stop(event, "a key must be text")
        named = self.anchors.get(event.anchor)
        if named is None:
            text = f"*{shorten(event.anchor)} names no anchor that is complete here"
            raise self._stop(event, text, f"write &{shorten(event.anchor)} before a value above")
        self.aliased += named.count
        self.count += named.count
        if self.aliased > MAX_ALIASED:
            raise self._stop(event, f"aliases stand for more than {MAX_ALIASED:,} values")
        if len(self.open) + named.depth > MAX_DEPTH:
            raise self._stop(event, f"nested deeper than {MAX_DEPTH} levels, through an alias")
        self._place(named.value, depth=named.depth)

    def _place(self, value: Any, *, depth: int) -> None:
        """Put a value where it belongs: into the map or list that is open, or at the root."""
        if not self.open:
            self.root = value
            self.found = value is not None
            return
        top = self.open[-1]
        if depth > top.deepest:
            top.deepest = depth
        if top.pairs is None:
            top.items.append(value)
            return
        key, top.key = top.key, None
        assert key is not None
        if key == _MERGE:
            self._take_merge(top, value)
        elif not top.repeated:
            top.pairs[key] = value

    def _take_merge(self, top: _Open, value: Any) -> None:
        maps = value if isinstance(value, list) else [value]
        if all(isinstance(merged, dict) for merged in maps):
            top.merges.extend(maps)
            return
        text = "<< merges maps; found something else"
        self.faults.append(
            Fault((*self._path(), _MERGE), text, "write `<<: *ANCHOR` of a map, or a list of them", at_key=True)
        )

    def _path(self) -> Path:
        """The path of the value that comes next."""
        path: list[str | int] = []
        for above in self.open:
            if above.pairs is None:
                path.append(len(above.items))
            elif above.key is not None:
                path.append(above.key)
        return tuple(path)

    def _report(self, event: Any, text: str, hint: str = "") -> None:
        mark = event.start_mark
        self.faults.append(Fault(self._path(), text, hint, place=(mark.line + 1, mark.column + 1)))

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace(_TAGS, "!!")
        self._report(event, f"the tag {shorten(tag)} is not allowed", "leave it out: only plain values are read")

    def _stop(self, event: Any, text: str, hint: str = "") -> BadManifest:
        mark = event.start_mark
        return _bad(self.file, text, hint, lines=self.text.splitlines(), place=(mark.line + 1, mark.column + 1))


def _place_after(text: str) -> tuple[int, int]:
    lines = f"{text}.".splitlines()
    return len(lines), len(lines[-1])


def _bad(
    file: str, text: str, hint: str = "", *, lines: Sequence[str] = (), place: tuple[int, int] = (0, 0)
) -> BadManifest:
    return BadManifest([make_problem(Fault((), text, hint), file=file, lines=lines, place=place)])


def _bad_syntax(error: yaml.MarkedYAMLError, *, file: str, text: str) -> BadManifest:
    """What the parser said, in words that help: its own are about tokens."""
    lines = text.splitlines()
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _bad(file, f"not YAML: {shorten(str(error))}")
    # At the end of the text the parser stands on a line that is not there.
    row, column = (mark.line, mark.column) if mark.line < len(lines) else (len(lines) - 1, len(lines[-1]))
    words = ", ".join(part for part in (error.problem, error.context) if part)
    text, hint = explain_syntax(words, line=lines[row], column=column)
    return _bad(file, text, hint, lines=lines, place=(row + 1, column + 1))
