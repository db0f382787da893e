"""A watched folder: each `*.yaml` in it is a stack, and each folder in it that has manifests.

Only whole versions count: what is open for writing waits, what is invalid leaves the last valid version in force, and a
folder that is gone, empty or can't be read says nothing. Reads files, decides nothing about stacks.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import Struct, structs

from reconciler.controller.sources.sighting import Sighting, Version
from reconciler.controller.sources.terms import Terms
from reconciler.linux.settled import is_being_written
from reconciler.manifest.sopsfile import is_sops_file
from reconciler.model.errors import BadManifest, Problem, ReconcileError
from reconciler.model.record import SOURCE, Stack
from reconciler.model.spec import UNREAD, ContainerSpec
from reconciler.plan.allow import find_refused
from reconciler.verbs.plan import load

_SUFFIXES = (".yaml", ".yml")

ChooseTerms = Callable[[tuple[Path, ...]], Terms | None]
"""What the manifests of an entry, its files, may ask for; None: everything."""


class _Entry(Struct):
    """A manifest, or a folder of them, as it was last seen."""

    signature: str = ""
    stacks: tuple[Stack, ...] = ()
    """Of the last valid version."""
    token: str = ""
    inputs: tuple[Path, ...] = ()
    """The files that it names, beside its own."""
    confined: bool = False
    """Whether it may not ask for everything."""
    problem: str = ""


class DirectorySource:
    """One folder, read again and again."""

    kind = "directory"

    def __init__(self, folder: Path, *, variables: Mapping[str, str], terms: ChooseTerms = lambda _: None) -> None:
        self.folder = folder
        self.name = str(folder)
        self._variables = variables
        self._terms = terms
        self._entries: dict[str, _Entry] = {}

    def use(self, variables: Mapping[str, str], terms: ChooseTerms) -> None:
        """Read with other variables, and on other terms, from now on. What is valid no more with them keeps its last
        version."""
        self._variables, self._terms = variables, terms

    def read(self) -> Sighting:
        """Look at the folder now. Cheap where nothing changed: a stat(2) of each file that any version is made of."""
        try:
            found = _find_entries(self.folder)
        except OSError as error:
            return self._sighting(broken=f"{self.folder} can't be read: {error.strerror}; what runs stays as it is")
        if not found:
            why = f"{self.folder} has no manifest in it (*.yaml, or a folder with some); what runs stays as it is"
            return self._sighting(broken=why)
        unsettled = tuple(name for name, files in found.items() if not self._read_entry(name, files))
        for gone in self._entries.keys() - found.keys():
            del self._entries[gone]
        return self._sighting(unsettled=unsettled)

    def name_paths(self, text: str) -> str:
        """Its files have the names that people know."""
        return text

    def _read_entry(self, name: str, files: tuple[Path, ...]) -> bool:
        """Bring one entry to what its files say now; False where one of them is being written."""
        entry = self._entries.setdefault(name, _Entry())
        # Race: signed before they are read, with the variables: what changes behind that is seen with the next look. What
        # is in the files that they name is read later, by who applies.
        variables, terms = self._variables, self._terms(files)
        given = [f"{key}={value}" for key, value in sorted(variables.items())]
        own = _sign((*files, *_beside(files))) + _digest([*given, repr(terms)])
        if own + _sign(entry.inputs) == entry.signature:
            return True
        if any(map(is_being_written, (*files, *entry.inputs))):
            return False
        try:
            beside = [path for path in _beside(files) if path.exists()] if terms is not None else []
            _check_files(self.folder, (*files, *beside))
            manifests = tuple(file for file in files if not is_sops_file(file))
            entry.stacks = _load(manifests, variables, terms) if manifests else ()
            entry.confined = terms is not None
            entry.inputs = tuple(sorted({path for stack in entry.stacks for path in _find_inputs(stack)}))
            entry.problem = ""
            entry.token = own + _sign(entry.inputs)
        except BadManifest as error:
            entry.problem = error.detail
        except ReconcileError as error:
            entry.problem = error.brief
        entry.signature = own + _sign(entry.inputs)
        return True

    def _sighting(self, *, broken: str = "", unsettled: tuple[str, ...] = ()) -> Sighting:
        problems = {name: entry.problem for name, entry in self._entries.items() if entry.problem}
        named: dict[str, list[str]] = {}
        for name, entry in self._entries.items():
            for stack in entry.stacks:
                named.setdefault(stack.name, []).append(name)
        versions = {}
        for stack_name, entries in named.items():
            # Whoever came first keeps it; two that say they are it change nothing until one says otherwise.
            first = self._entries[entries[0]]
            [stack] = [stack for stack in first.stacks if stack.name == stack_name][:1]
            own = structs.replace(stack, origin=f"{SOURCE}{self.name}")
            # Who may not ask for everything does not say either what was applied by hand and is his.
            by_hand = "" if first.confined else stack.origin
            versions[stack_name] = Version(
                stack=own,
                by_hand=by_hand,
                token=first.token,
                invalid=entries[0] if first.problem else "",
                confined=first.confined,
            )
            for other in entries[1:]:
                problems[other] = f"{other}: the stack {stack_name} is in {entries[0]} already; rename one of them"
        return Sighting(versions=versions, problems=problems, broken=broken, unsettled=unsettled)


def _load(files: tuple[Path, ...], variables: Mapping[str, str], terms: Terms | None) -> tuple[Stack, ...]:
    stacks = load(files, variables=variables, environment={})
    if terms is None:
        return stacks
    refused = [one for stack in stacks for one in find_refused(stack, terms.allow, folder=terms.folder)]
    if refused and terms.others:
        text = f"it may not ask for everything, for {terms.others}"
        hint = "let only root write it, or say in the configuration what it may: allow: {everything: true}"
        refused.append(Problem(file=str(files[0]), text=text, hint=hint))
    if refused:
        raise BadManifest(refused)
    return stacks


def _find_entries(folder: Path) -> dict[str, tuple[Path, ...]]:
    """By name: the manifests of each entry. What is hidden, or of an editor, is none. Raises OSError."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        files = _find_manifests(path) if path.is_dir() else (path,) if path.suffix in _SUFFIXES else ()
        if files:
            found[path.name] = files
    return found


def _find_manifests(folder: Path) -> tuple[Path, ...]:
    """Those of a folder; none where it can't be read, which load() tells of the folder itself."""
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
    except OSError:
        return (folder,)
    return tuple(names)


def _beside(files: Iterable[Path]) -> list[Path]:
    """What load() reads beside manifests: their lock files, and the variables of their folder."""
    return [*(Path(f"{path}.lock") for path in files), *sorted({path.parent / ".env" for path in files})]


def _find_inputs(stack: Stack) -> Iterable[Path]:
    """The files that a stack names: configs, secrets, env files, files that are bound read-only."""
    yield from (Path(source.file) for source in (stack.sources or {}).values() if source.file)
    for spec in stack.specs.values():
        if isinstance(spec, ContainerSpec):
            yield from map(Path, spec.env_file)
            yield from (Path(mount.source) for mount in spec.mounts.values() if mount.digest == UNREAD)


def _sign(paths: Iterable[Path]) -> str:
    """What changes when one of the files does: no content is read."""
    words = []
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116 links are followed
            words.append(f"{path}\0{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}")
        except OSError as error:
            words.append(f"{path}\0{error.errno}")
    return _digest(words)


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode(errors="surrogateescape")).hexdigest()[:16]


def _check_files(folder: Path, files: Iterable[Path]) -> None:
    """Raise BadManifest for a manifest that is a link to somewhere else, for whoever may write here is not to name any file
    of the host; and for a pipe or a device, which would hang who opens it."""
    top = folder.resolve()
    for path in files:
        if not path.is_file() and path.exists():
            raise BadManifest([Problem(file=str(path), text="is no regular file")])
        if not path.resolve().is_relative_to(top):
            text = f"is a link out of {folder}, to {path.resolve()}"
            raise BadManifest([Problem(file=str(path), text=text, hint="put the file itself here")])
