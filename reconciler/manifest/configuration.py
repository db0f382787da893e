"""Reads a configuration file as a manifest is read: YAML, a schema, faults with their places. Its meaning is the caller's.

`text.py` and `validate.py` do the work; variables are none, so that a file says the same wherever it is read.
"""

from pathlib import Path as FilePath
from typing import Any

from reconciler.manifest.faults import Fault, Path
from reconciler.manifest.places import locate_faults
from reconciler.manifest.text import Document, decode, read_document
from reconciler.manifest.validate import validate
from reconciler.model.errors import BadManifest, Problem
from reconciler.model.units import parse_duration, parse_size

MAX_FAULTS = 100


class Configuration:
    """A configuration that was read: what of it fits its schema, and the faults that its reader adds. Paths name what is
    read, by keys and indexes from the top."""

    def __init__(self, document: Document, *, schema: str) -> None:
        self._document = document
        self.data, faults = validate(document.data, schema)
        self._faults = [*document.faults, *faults]

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong so far: what does not fit is not in `data`."""
        return not self._faults

    def blame(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        """Say what is wrong at a path."""
        self._faults.append(Fault(path, text, hint, at_key=at_key))

    def get(self, path: Path, default: Any = None) -> Any:
        """The value at a path."""
        value = self.data
        for segment in path:
            inside = value.get(segment) if isinstance(value, dict) else value[segment]  # a list
            if inside is None:
                return default
            value = inside
        return value

    def duration(self, path: Path, default: float, *, least: float = 0.0) -> float:
        """The duration at a path, in seconds."""
        written = self.get(path)
        if written is None:
            return default
        try:
            seconds = parse_duration(written)
        except ValueError as error:
            self.blame(path, str(error))
            return default
        if seconds < least:
            self.blame(path, f"found {written}; expected at least {least:g} s")
        return seconds

    def size(self, path: Path, default: int) -> int:
        """The size at a path, in bytes."""
        written = self.get(path)
        if written is None:
            return default
        try:
            return parse_size(written)
        except ValueError as error:
            self.blame(path, str(error))
            return default

    def finish(self) -> None:
        """Raise BadManifest with all that is wrong, if anything is."""
        if self._faults:
            raise BadManifest(locate_faults(self._faults[:MAX_FAULTS], file=self._document.file, text=self._document.text))


def read_configuration(path: FilePath, raw: bytes, *, schema: str) -> Configuration:
    """The configuration in the bytes of a file. Raises BadManifest where nothing of it fits, or it is no YAML."""
    text = decode(raw, file=str(path))
    if not text.strip():
        raise BadManifest(
            [Problem(file=str(path), text="the file is empty", hint="it begins with apiVersion: reconcile/v1")]
        )
    document = read_document(text, file=str(path), variables={})
    read = Configuration(document, schema=schema)
    if not isinstance(read.data, dict):
        read.finish()
    return read
