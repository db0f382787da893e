"""A repository: each look asks what its branch is, and takes a commit that follows the one that was taken before.

What is taken becomes a folder of the root (`gittree.py`), which is read as a watched folder is (`directory.py`); what its
manifests may ask for is bounded (`plan/allow.py`). What can't be reached or is not taken (a branch that is gone, a history
that was rewritten, a commit that nobody signed) leaves everything as it is, and is said.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from reconciler.controller.sources.directory import DirectorySource
from reconciler.controller.sources.gitplace import Place, name_source
from reconciler.controller.sources.gitrun import FORMER, WHOLE, Access, Bounds, Repository
from reconciler.controller.sources.gittree import Tree, read_tree, write_tree
from reconciler.controller.sources.sighting import Sighting, Version
from reconciler.controller.sources.signers import Signers
from reconciler.controller.sources.terms import Terms
from reconciler.linux import files
from reconciler.model.errors import ReconcileError, SourceFailed
from reconciler.model.record import SOURCE, Commit, Stack
from reconciler.plan.allow import Allow

JITTER = 0.2
"""By so much of itself an interval is longer or shorter: machines of one kind do not all ask at once."""
DEPTHS = (64, WHOLE)
"""How much of a history is fetched to find out whether a commit follows another, until that is known."""
EARLIER = 100
"""How many commits that were taken are remembered."""
LEFT_OUT = 200
"""Of how many files that were left out it is remembered why."""


class GitOptions(Struct, frozen=True, kw_only=True):
    """A repository to serve."""

    place: Place
    ref: str = "HEAD"
    """`refs/heads/…`, `refs/tags/…`, or HEAD: the branch that the repository names as its own."""
    folder: str = ""
    """The folder in it that is served; empty for all of it."""
    interval: float = 30.0
    """Seconds."""
    access: Access = Access()
    bounds: Bounds = Bounds()
    allowed_signers: Path | None = None
    """Who must have signed a commit: a list as of ssh-keygen(1), ALLOWED SIGNERS, or exported gpg keys."""
    allow_backwards: bool = False
    """Whether a commit is taken that does not follow the one before."""
    submodules: bool = False
    """Whether the files of submodules are taken too."""
    variables: Mapping[str, str] = {}
    allow: Allow = Allow()

    @property
    def name(self) -> str:
        """What it is called everywhere."""
        return name_source(self.place, self.folder)


class _Taken(Struct, frozen=True, kw_only=True):
    """What is remembered on disk: `state.json`."""

    tip: str = ""
    """What the reference named: a tag may be an object of its own."""
    ref: str = ""
    commit: Commit | None = None
    signers: str = ""
    """By what its signature was checked: a digest; empty where nobody asked for one."""
    submodules: bool = False
    writing: bool = False
    """Whether the folder was being brought to it."""
    earlier: tuple[str, ...] = ()
    """Commits that were taken before, the newest first."""
    left_out: dict[str, str] = {}
    """Files of the commit that are not in the folder, and why."""


class GitSource:
    """One repository, looked at again and again."""

    kind = "git"

    def __init__(
        self,
        options: GitOptions,
        root: Path,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.name = options.name
        self.folder = root / "sources" / hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.tree = self.folder / "tree"
        self._chance, self._clock = chance, clock
        self._signers = Signers(options.allowed_signers, self.folder / "signers")
        self._repository = Repository(self.folder / "repository", options.place, options.access, options.bounds)
        self._taken: _Taken | None = None
        self._refused: dict[tuple[str, str], ReconcileError] = {}
        """By what the reference named, and the signers: why it is not taken. It need not be fetched again to say so."""
        self._commits: dict[str, Commit] = {}
        """By stack: of which commit its version is."""
        self._answered_at = 0.0
        terms = None if options.allow.everything else Terms(allow=options.allow, folder=str(self.tree))
        self._directory = DirectorySource(self.tree, variables=options.variables, terms=lambda _: terms)

    def read(self) -> Sighting:
        """Look at it now: one question over the network, and a fetch where the answer is a new one."""
        stale, fresh = "", False
        try:
            self._begin()
            fresh = self._take_up()
        except ReconcileError as error:
            words = error.brief.removeprefix(f"{self.name}: ").removeprefix(f"{self.options.place.url}: ")
            stale = f"{words}\nhint: {error.hint}" if error.hint else words
        except OSError as error:
            stale = f"{self.folder}: {error.strerror or error}"
        again = self.options.interval * (1 - JITTER + 2 * JITTER * self._chance())
        taken = self._taken or _Taken()
        if taken.commit is None or not self._is_whole(taken):
            return Sighting(versions={}, broken=_say_broken(stale), answered_at=self._answered_at, again=again)
        seen = self._as_of(self._directory.read(), taken.commit, taken.left_out)
        return structs.replace(
            seen, stale=stale, commit=taken.commit, fresh=fresh, answered_at=self._answered_at, again=again
        )

    def name_paths(self, text: str) -> str:
        """By the names of the repository, for where we keep them says nothing to who wrote them."""
        return self._shorten(text, self._taken.left_out if self._taken is not None else {})

    # --- taking a commit ---

    def _begin(self) -> None:
        """Who may sign, as it is said now; and the first time what was remembered."""
        files.make_folders(self.folder)
        self._repository.signing = self._signers.prepare()
        if self._taken is None:
            self._repository.prepare()
            self._taken = _read_taken(self.folder / "state.json")

    def _is_whole(self, taken: _Taken) -> bool:
        """Whether the folder is what was taken, and by the signers of now."""
        same = taken.submodules == self.options.submodules
        return same and not taken.writing and taken.signers == self._signers.digest and self.tree.is_dir()

    def _take_up(self) -> bool:
        """Bring the folder to what the reference names now; whether that was something new. Raises SourceFailed where it
        can't be, or is not taken."""
        ref, taken = self.options.ref, self._taken or _Taken()
        tip = self._repository.ask(ref)
        self._answered_at = self._clock()
        if not tip:
            gone = " any more" if taken.ref == ref and taken.commit else ""
            raise SourceFailed(self.name, f"it has no {self._render_ref()}{gone}", "push it again, or name another one")
        if (tip, ref) == (taken.tip, taken.ref) and self._is_whole(taken):
            self._refused = {}
            return False
        asked = (tip, self._signers.digest)
        if asked in self._refused:
            raise self._refused[asked]
        try:
            commit = self._fetch(taken)
            tree = self._read_tree(commit)
        except SourceFailed as error:
            if not error.retry:
                self._refused = {asked: error}
            raise
        self._write(taken, tip, commit, tree)
        return True

    def _fetch(self, taken: _Taken) -> Commit:
        """The commit that the reference names, if it is one that may be taken."""
        ref, repository = self.options.ref, self._repository
        new = repository.fetch(ref, depth=1)
        if self._signers.file is not None and (why := repository.verify(new)):
            hint = f"sign it with a key that {self._signers.file} lists, and push it"
            raise SourceFailed(self.name, f"commit {new[:12]} is not taken, for its signature does not count: {why}", hint)
        before = taken.commit
        if before is not None and taken.ref == ref and before.id != new and not self.options.allow_backwards:
            why = _find_break(repository, before.id, new, taken.earlier)
            if why:
                hint = "push what follows it; or, if that is meant, start serve with --allow-backwards until it is taken"
                raise SourceFailed(self.name, f"commit {new[:12]} is not taken: {why}", hint)
        return repository.describe(new, ref)

    def _read_tree(self, commit: Commit) -> Tree:
        tree = read_tree(self._repository, commit.id, self.options.folder, submodules=self.options.submodules)
        if not tree.has_manifests:
            where = f"{self.options.folder or 'its top'} has no manifest in it (*.yaml, or a folder with some)"
            raise SourceFailed(self.name, f"commit {commit.id[:12]} is not taken: {where}")
        return tree

    def _write(self, before: _Taken, tip: str, commit: Commit, tree: Tree) -> None:
        """Bring the folder to a commit; a kill in the middle is seen by the next look."""
        self._remember(structs.replace(before, writing=True))
        left_out = {**tree.left_out, **write_tree(self._repository, tree, self.tree, self.folder / "new-blobs")}
        ids = [before.commit.id] if before.commit is not None and before.commit.id != commit.id else []
        earlier = (*ids, *before.earlier)[:EARLIER]
        self._remember(
            _Taken(
                tip=tip,
                ref=self.options.ref,
                commit=commit,
                signers=self._signers.digest,
                submodules=self.options.submodules,
                earlier=earlier,
                left_out=dict(sorted(left_out.items())[:LEFT_OUT]),
            )
        )
        self._refused = {}

    def _remember(self, taken: _Taken) -> None:
        files.write_atomic(self.folder / "state.json", msgspec.json.encode(taken), durable=True)
        self._taken = taken

    def _render_ref(self) -> str:
        kind, _, name = self.options.ref.removeprefix("refs/").partition("/")
        return {"heads": f"branch {name}", "tags": f"tag {name}"}.get(kind, "default branch")

    # --- what the folder says, as a repository's ---

    def _as_of(self, seen: Sighting, commit: Commit, left_out: Mapping[str, str]) -> Sighting:
        """What was read of the folder: with the names that files have in the repository, and their commit."""
        versions = {name: self._own(version, seen.problems, commit) for name, version in seen.versions.items()}
        problems = {entry: self._shorten(text, left_out) for entry, text in seen.problems.items()}
        for path, why in left_out.items():
            if path.count("/") <= 1 and path.endswith((".yaml", ".yml")):
                problems.setdefault(path, f"{path} {why}")
        return structs.replace(seen, versions=versions, problems=problems, broken=self._shorten(seen.broken, {}))

    def _own(self, version: Version, problems: Mapping[str, str], commit: Commit) -> Version:
        file = str(Path(version.stack.source).relative_to(self.tree))
        name = version.stack.name
        if file.partition("/")[0] not in problems or name not in self._commits:
            self._commits[name] = commit
        inside = f"{self.options.folder}/{file}" if self.options.folder else file
        stack: Stack = structs.replace(
            version.stack, origin=f"{SOURCE}{self.name}", source=inside, commit=self._commits[name]
        )
        # Not what the manifest says of its origin: whoever pushes here would take over what others applied by that name.
        return structs.replace(version, stack=stack, by_hand=f"git:{self.options.place.bare}:{inside}")

    def _shorten(self, text: str, left_out: Mapping[str, str]) -> str:
        """A problem by the names of the repository; where a file is missing that was left out, why it was."""
        whys = [f"\n  {path} {why}" for path, why in left_out.items() if f"{self.tree}/{path}" in text]
        return text.replace(f"{self.tree}/", "").replace(str(self.tree), self.name) + "".join(whys)


def _say_broken(words: str) -> str:
    first, newline, rest = words.partition("\n")
    return f"{first}; what runs stays as it is{newline}{rest}"


def _read_taken(path: Path) -> _Taken:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Taken)
    except (OSError, msgspec.MsgspecError):
        return _Taken()


def _find_break(repository: Repository, old: str, new: str, earlier: tuple[str, ...]) -> str:
    """Why a commit does not follow another; empty where it does."""
    if old in repository.parents(new):
        return ""
    for depth in DEPTHS:
        repository.fetch(new, depth=depth)
        if repository.is_ancestor(old, new):
            return ""
    was = f"commit {old[:12]}, which was taken before,"
    if new in earlier:
        return f"it was taken before {old[:12]} already: the branch was pushed back"
    try:
        repository.fetch(old, depth=WHOLE, to=FORMER)
    except SourceFailed as error:
        # Compat: by git's first protocol, as over an sshd that does not accept GIT_PROTOCOL, only what has a name is given.
        if "unadvertised object" in error.brief:
            return f"{was} is not in its history, which was rewritten or pushed back, or it is another repository"
        if "not our ref" not in error.brief:
            raise
        return (
            f"{was} is not in its history, and nowhere in the repository: its history was rewritten, or it is another one"
        )
    if repository.is_ancestor(new, old):
        return f"it is older than {old[:12]}: the branch was pushed back"
    if repository.have_common_base(old, new):
        return f"{was} is not in its history, which was rewritten"
    return f"it has no commit in common with {old[:12]}: it is another repository, or another history"
