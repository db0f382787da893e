"""What git says when it fails → what people are told: the lines that say why, and what to do next. Pure."""

from pathlib import Path

_NOISE = (
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "fatal: Could not read from remote repository.",
    "fatal: the remote end hung up unexpectedly",
    "fatal: early EOF",
    "remote: Enumerating",
    "remote: Counting",
    "remote: Compressing",
    "remote: Total",
    "warning: ",
    "hint: ",
    "@@@",
)
_MOST = 3
_LONGEST = 300


def last_words(err: bytes) -> str:
    """The last lines that say something, joined."""
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(_NOISE)] or [line for line in lines if line]
    short = [line.removeprefix("fatal: ").removeprefix("error: ")[:_LONGEST] for line in said[-_MOST:]]
    return "; ".join(dict.fromkeys(short))


def hint_for(words: str, *, credentials: Path | None, known_hosts: Path | None) -> str:
    """What to do about it; empty where nobody knows."""
    hosts = str(known_hosts or "/etc/ssh/ssh_known_hosts")
    found = {
        "Host key verification failed": f"ask who runs it for its key, compare, and put it into {hosts} (ssh-keyscan)",
        "Permission denied (": "give --ssh-key FILE, and put its public half where the repository lets it read",
        "terminal prompts disabled": f"{credentials} is not accepted" if credentials else "give --credentials FILE",
        "Authentication failed": f"{credentials} is not accepted" if credentials else "give --credentials FILE",
        "requested URL returned error: 403": "these credentials may not read it",
        "certificate": "have its CA among this machine's: /usr/local/share/ca-certificates, update-ca-certificates",
        "returned error: 30": "redirects are not followed: give the URL that it leads to",
        "dumb http": "it is served as plain files: serve it by git-http-backend, or over ssh",
        "unadvertised object": "the host gives branches and tags only: `AcceptEnv GIT_PROTOCOL` for its sshd, or"
        " uploadpack.allowAnySHA1InWant of that repository",
        "dubious ownership": "the repository belongs to somebody else: chown it to root, or fetch it over ssh",
    }
    return next((hint for sign, hint in found.items() if sign in words), "")
