"""Runs git on one bare repository of ours: with fixed arguments, a configuration of its own, and bounds. Decides nothing.

git gets its whole configuration through a descriptor (`GIT_CONFIG_GLOBAL=/proc/self/fd/9`), so that credentials stand in
no argument, no environment and no file. One protocol is allowed, that of the URL; there are no hooks and no filters, for
nothing is ever checked out, and no submodules but those that `gitmodules.py` asks for; redirects are not followed. What a
fetch brings is one pack, whose size the kernel bounds; that it is never more (objects one by one, over plain HTTP) is what
`--depth` is for.
"""

import os
import shlex
import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from reconciler.controller.sources.gitplace import Place
from reconciler.controller.sources.gitwords import hint_for, last_words
from reconciler.linux import files
from reconciler.linux.bounded import Ended, run_bounded
from reconciler.linux.process import CLEAN_ENV
from reconciler.model.errors import ProgramMissing, SourceFailed
from reconciler.model.record import Commit
from reconciler.model.units import render_size_rounded

WHOLE = 2_147_483_647
"""The depth that means all of a history (git-fetch(1), --unshallow)."""
WANTED, FORMER, MODULE = "refs/reconcile/wanted", "refs/reconcile/former", "refs/reconcile/module"
_CONFIG_FD = 9
_MEMORY = 4 * 1024**3
_LISTING = 16 * 1024**2
_LOCAL_SECONDS = 60.0
_MOST_PACKS = 100
_FETCH = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force")
_FIELDS = "%H%x00%ct%x00%an <%ae>%x00%s"
_SUBJECT = 200

_CONFIG = """\
[core]
hooksPath = /dev/null
fsmonitor = false
attributesFile = /dev/null
bigFileThreshold = 16m
packedGitWindowSize = 32m
packedGitLimit = 256m
[gc]
auto = 0
[maintenance]
auto = false
[fetch]
unpackLimit = 1
recurseSubmodules = false
[transfer]
unpackLimit = 1
credentialsInUrl = die
[submodule]
recurse = false
[pack]
threads = 1
[protocol]
version = 2
allow = never
[http]
followRedirects = false
lowSpeedLimit = 1000
lowSpeedTime = 30
[gpg "x509"]
program = /bin/false
"""


class Bounds(Struct, frozen=True, kw_only=True):
    """What a repository may take of the machine."""

    size: int = 1024**3
    """Bytes of one fetch. What is kept of them is thrown away where it comes to more."""
    seconds: float = 600.0
    """How long a fetch may take."""
    ask_seconds: float = 60.0
    """How long a look at what a branch is may take."""


class Access(Struct, frozen=True, kw_only=True):
    """By what it is reached."""

    credentials: Path | None = None
    """A file with `USER:PASSWORD` or a token."""
    ssh_key: Path | None = None
    known_hosts: Path | None = None


class Repository:
    """A bare repository in a folder of ours, and the one that it is fetched from."""

    def __init__(self, folder: Path, place: Place, access: Access, bounds: Bounds) -> None:
        self.folder = folder
        self.place = place
        self.access = access
        self.bounds = bounds
        self.signing = ("", "")
        """Lines of configuration by which signatures are checked, and the home of gpg."""

    # --- over the network ---

    def ask(self, ref: str) -> str:
        """What a reference names there now; empty where it is not there. Raises SourceFailed."""
        self._ensure()
        ended = self._run(
            ["ls-remote", "--quiet", "--", self.place.url, ref], seconds=self.bounds.ask_seconds, away=self.place.url
        )
        self._check(ended, "ask the host")
        for line in ended.out.decode(errors="replace").splitlines():
            identity, _, name = line.partition("\t")
            if name == ref:
                return identity
        return ""

    def fetch(self, what: str, *, depth: int, to: str = WANTED) -> str:
        """Bring a reference or a commit with so much of its history; the commit that it names. Raises SourceFailed.

        With a depth of 1 it may be begun anew: what was here before is here no more then.
        """
        if depth == 1 and self._is_overgrown():
            files.remove_tree(self.folder)
        self._ensure()
        self._fetch(self.place, f"{what}:{to}", depth=depth)
        found = self._run(["rev-parse", "--verify", "--quiet", f"{to}^{{commit}}"])
        if found.code != 0:
            raise SourceFailed(self.place.url, f"{what} names no commit")
        return found.out.decode().strip()

    def fetch_module(self, place: Place, commit: str) -> None:
        """Bring a commit of another repository, without its history, unless it is here. Raises SourceFailed."""
        if self._run(["cat-file", "-e", f"{commit}^{{tree}}"]).code != 0:
            self._fetch(place, f"{commit}:{MODULE}", depth=1)

    def _fetch(self, place: Place, what: str, *, depth: int) -> None:
        words = ["fetch", *_FETCH, f"--depth={depth}", "--", place.url, what]
        ended = self._run(words, seconds=self.bounds.seconds, away=place.url)
        self._check(ended, "fetch" if place is self.place else f"fetch the submodule {place.url}")

    # --- of what is here ---

    def describe(self, commit: str, ref: str) -> Commit:
        """What people know a commit by. Raises SourceFailed."""
        ended = self._run(["log", "-1", "--no-show-signature", f"--format={_FIELDS}", commit, "--"])
        self._check(ended, f"read commit {commit}")
        identity, at, author, subject = ended.out.decode(errors="replace").rstrip("\n").split("\0")
        return Commit(
            id=identity,
            subject=subject[:_SUBJECT],
            author=author[:_SUBJECT],
            at=float(at or 0),
            url=self.place.url,
            ref=ref,
        )

    def parents(self, commit: str) -> list[str]:
        """The parents that a commit says it has, whether they are here or not."""
        text = self._run(["cat-file", "commit", commit], out_size=_LISTING).out.decode(errors="replace")
        head, _, _ = text.partition("\n\n")
        return [line.removeprefix("parent ") for line in head.splitlines() if line.startswith("parent ")]

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit is in another's history, as far as that is here."""
        return self._run(["merge-base", "--is-ancestor", old, new]).code == 0

    def have_common_base(self, one: str, other: str) -> bool:
        """Whether any commit is in both histories, as far as they are here."""
        return self._run(["merge-base", one, other]).code == 0

    def verify(self, commit: str) -> str:
        """Why a commit's signature does not count; empty where it is good and of somebody who is allowed."""
        ended = self._run(["verify-commit", commit])
        return "" if ended.code == 0 else last_words(ended.err) or "it bears no signature"

    def read_modules(self, commit: str) -> dict[str, str]:
        """The URLs of submodules by their paths, as .gitmodules of a commit says; none where it can't be read."""
        words = ["config", "--blob", f"{commit}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.(path|url)$"]
        ended = self._run(words, out_size=_LISTING)
        said: dict[str, dict[str, str]] = {}
        for line in ended.out.decode(errors="surrogateescape").split("\0") if ended.code == 0 else ():
            name, _, value = line.partition("\n")
            section, _, key = name.rpartition(".")
            said.setdefault(section, {})[key] = value
        return {one["path"]: one["url"] for one in said.values() if "path" in one and "url" in one}

    def list_tree(self, commit: str, folder: str) -> bytes:
        """What `ls-tree -r -z -l` says of a folder in a commit. Raises SourceFailed, also for one that is not there."""
        what = f"{commit}:{folder}" if folder else f"{commit}^{{tree}}"
        ended = self._run(["ls-tree", "-r", "-z", "-l", what], out_size=_LISTING)
        if ended.code != 0 and folder:
            raise SourceFailed(self.place.url, f"{folder} is no folder of commit {commit[:12]}")
        self._check(ended, f"read commit {commit[:12]}")
        return ended.out

    def write_blobs(self, identities: Sequence[str], out: int, *, size: int) -> None:
        """Write what `cat-file --batch` says of blobs into a file, `size` bytes of it at most. Raises SourceFailed."""
        asked = os.memfd_create("blobs", os.MFD_CLOEXEC)
        try:
            files.write_all(asked, "".join(f"{identity}\n" for identity in identities).encode())
            os.lseek(asked, 0, os.SEEK_SET)
            ended = self._run(["cat-file", "--batch"], fds={0: asked, 1: out}, file_size=size)
        finally:
            os.close(asked)
        self._check(ended, "read files")

    # --- running it ---

    def prepare(self) -> None:
        """What a git that was killed left: its locks. Nobody else is at work here, for a root has one controller."""
        for lock in (*self.folder.glob("*.lock"), *self.folder.glob("refs/reconcile/*.lock")):
            lock.unlink(missing_ok=True)

    def _ensure(self) -> None:
        if (self.folder / "HEAD").exists():
            return
        files.remove_tree(self.folder)
        files.make_folders(self.folder)
        self._check(self._run(["init", "--quiet", "--bare", "--template="]), "make a repository")

    def _is_overgrown(self) -> bool:
        """Whether so much has come together that it is cheaper to begin anew: what was taken of it lies beside it."""
        packs = self.folder / "objects" / "pack"
        return len(list(packs.glob("*.pack"))) > _MOST_PACKS or files.measure_tree(packs) > self.bounds.size

    def _run(
        self,
        words: Sequence[str],
        *,
        seconds: float = _LOCAL_SECONDS,
        away: str = "",
        out_size: int = 65_536,
        file_size: int = 0,
        fds: Mapping[int, int] = {},
    ) -> Ended:
        program = shutil.which("git", path=CLEAN_ENV["PATH"])
        if program is None:
            raise ProgramMissing("git", "git", f"read {self.place.url}")
        config = os.memfd_create("gitconfig", os.MFD_CLOEXEC)
        try:
            files.write_all(config, self._render_config(away=away).encode())
            return run_bounded(
                [program, *words], env=self._environment(), cwd="/", seconds=seconds, memory=_MEMORY,
                file_size=file_size or self.bounds.size, out_size=out_size, fds={_CONFIG_FD: config, **fds},
            )  # fmt: skip
        except TimeoutError:
            self._forget_halves()
            raise SourceFailed(self.place.url, f"{words[0]}: it was not done after {seconds:g} s", retry=True) from None
        except OSError as error:
            raise SourceFailed(self.place.url, f"{words[0]}: {error.strerror or error}") from error
        finally:
            os.close(config)

    def _render_config(self, *, away: str) -> str:
        """`away` is the URL that is asked, if one is."""
        lines = [_CONFIG, self.signing[0], f'[protocol "{self.place.scheme}"]\nallow = always\n']
        if away and self.access.credentials is not None:
            # Order: for this host alone; git adds it to what it asks of URLs that begin so, and to nothing else.
            header = f"Authorization: Basic {self._read_credentials()}"
            lines.append(f'[http "{away}"]\nextraHeader = "{header}"\n')
        return "".join(lines)

    def _read_credentials(self) -> str:
        """`USER:PASSWORD` of the file in base64; a token alone has any user. Raises SourceFailed."""
        file = self.access.credentials
        assert file is not None
        try:
            found = file.stat()
            text = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SourceFailed(self.place.url, f"the credentials {file} can't be read: {why}") from None
        if found.st_mode & 0o077:
            raise SourceFailed(self.place.url, f"others may read the credentials {file}", hint=f"chmod 600 {file}")
        if not text or any(character < " " for character in text):
            raise SourceFailed(self.place.url, f"{file} holds no credentials", hint="one line: USER:PASSWORD, or a token")
        return b64encode((text if ":" in text else f"token:{text}").encode()).decode()

    def _environment(self) -> dict[str, str]:
        env = {
            **CLEAN_ENV,
            "LC_ALL": "C.UTF-8",
            "HOME": "/nonexistent",
            "GNUPGHOME": self.signing[1] or "/nonexistent",
            "GIT_DIR": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": f"/proc/self/fd/{_CONFIG_FD}",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": self.place.scheme,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
        }
        if self.place.scheme == "ssh":
            env["GIT_SSH_COMMAND"] = render_ssh_command(self.access)
            env["GIT_SSH_VARIANT"] = "ssh"
        return env

    def _check(self, ended: Ended, tried: str) -> None:
        if ended.code == 0:
            return
        words = last_words(ended.err)
        if self._forget_halves() >= self.bounds.size:
            most = render_size_rounded(self.bounds.size)
            raise SourceFailed(
                self.place.url,
                f"{tried}: it is larger than {most}",
                hint="give a larger --max-size, or a smaller repository",
            )
        hint = hint_for(words, credentials=self.access.credentials, known_hosts=self.access.known_hosts)
        raise SourceFailed(self.place.url, f"{tried}: {words or f'git ended with {ended.code}'}", hint=hint, retry=True)

    def _forget_halves(self) -> int:
        """Remove what a fetch that was cut off left of its pack; how large that was. At the bound the kernel ended it, and
        git says no more of that than that something was wrong."""
        largest = 0
        with suppress(OSError):
            for half in (self.folder / "objects" / "pack").glob("tmp_*"):
                largest = max(largest, half.stat().st_size)
                half.unlink()
        with suppress(OSError):
            self.prepare()
        return largest


def render_ssh_command(access: Access) -> str:
    """The words by which git starts ssh. git has a shell split them, so that paths stand in quotes."""
    options = [
        "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=20", "ServerAliveInterval=10", "ForwardAgent=no",
        "PermitLocalCommand=no", "ProxyCommand=none", "UpdateHostKeys=no",
    ]  # fmt: skip
    if access.known_hosts is not None:
        options += [f'UserKnownHostsFile="{_escape(access.known_hosts)}"', "GlobalKnownHostsFile=none"]
    if access.ssh_key is not None:
        options += [f'IdentityFile="{_escape(access.ssh_key)}"', "IdentitiesOnly=yes"]
    return shlex.join(["ssh", "-F", "none", "-a", "-x", *(word for option in options for word in ("-o", option))])


def _escape(path: Path) -> str:
    """A path in ssh_config(5): % begins a token there. A quote or a control character in it was refused."""
    return str(path).replace("%", "%%")
