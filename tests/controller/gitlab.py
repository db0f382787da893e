"""A repository on disk, made by git itself, and one that is pushed to."""

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
}


class Pushed:
    """A bare repository, and a clone in which commits are made; each is pushed at once."""

    def __init__(self, folder: Path, branch: str = "main") -> None:
        self.bare, self.work, self.branch = folder / "bare.git", folder / "work", branch
        self.git("init", "-q", "--bare", "-b", branch, str(self.bare), cwd=folder)
        self.git("init", "-q", "-b", branch, str(self.work), cwd=folder)
        self.git("remote", "add", "origin", str(self.bare))
        self.git("config", "commit.gpgsign", "false")

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def git(self, *words: str, cwd: Path | None = None, stdin: str = "") -> str:
        """Run git in the clone."""
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.work, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def commit(self, subject: str = "change", files: dict[str, str | None] | None = None, *flags: str) -> str:
        """Write files (None removes one), commit and push; the commit's id."""
        for name, text in (files or {}).items():
            path = self.work / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject, *flags)
        self.push()
        return self.head

    @property
    def head(self) -> str:
        """The clone's commit."""
        return self.git("rev-parse", "HEAD")

    def push(self, *flags: str) -> None:
        """Push the branch, by force where it must be."""
        self.git("push", "-q", "--force", *flags, "origin", f"HEAD:refs/heads/{self.branch}")
