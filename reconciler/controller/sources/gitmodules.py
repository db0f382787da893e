"""Submodules, where a source says `submodules: true`: the files of other repositories' commits, at their paths in the tree.

Who may push says which repositories these are. Each is of the same host as the one that is served, for the rest of the
network, and of this machine's disk, is not his to name; it is fetched as that one is, with its credentials and bounds, into
the same store, and nothing of it is run or configured. Which commit it is stands in the commit that was taken. One level:
a submodule of a submodule is left out and said.
"""

import posixpath
from collections.abc import Mapping

from msgspec import Struct

from reconciler.controller.sources.gitplace import Place, parse_place
from reconciler.controller.sources.gitrun import Repository
from reconciler.model.errors import SourceFailed, Usage

MOST_MODULES = 20


class Modules(Struct, frozen=True, kw_only=True):
    """The submodules of a folder."""

    commits: dict[str, str]
    """By path in the folder: what was fetched."""
    left_out: dict[str, str]
    """By path: why it was not."""


def fetch_modules(repository: Repository, commit: str, folder: str, links: Mapping[str, str]) -> Modules:
    """Fetch the submodules of a commit's folder; `links` are their commits by path in it. Raises SourceFailed where one
    can't be had, or there are too many."""
    found = Modules(commits={}, left_out={})
    if not links:
        return found
    if len(links) > MOST_MODULES:
        raise SourceFailed(
            repository.place.url, f"commit {commit[:12]} has {len(links)} submodules; {MOST_MODULES} are taken"
        )
    urls = repository.read_modules(commit)
    for path, identity in links.items():
        url = urls.get(f"{folder}/{path}" if folder else path, "")
        try:
            repository.fetch_module(choose_place(url, repository.place), identity)
        except Usage as error:
            found.left_out[path] = f"is a submodule that is not taken: {error.brief.removeprefix('--git: ')}"
        else:
            found.commits[path] = identity
    return found


def choose_place(url: str, parent: Place) -> Place:
    """Where a submodule is; `./x` and `../x` count from the URL of its parent, as for git. Raises Usage where it is not
    beside it: of another host or protocol, or, of a path, outside of the folder that its parent lies in. Pure."""
    if not url:
        raise Usage(".gitmodules says nothing of it")
    place = parse_place(_join(parent.url, url) if url.startswith(("./", "../")) else url)
    if place.scheme != parent.scheme or _split(place.url)[0] != _split(parent.url)[0]:
        raise Usage(f"{place.url} is not on the host of {parent.url}, or not by the same protocol")
    if place.scheme == "file":
        beside = posixpath.dirname(posixpath.normpath(_split(parent.url)[1]))
        # Of a repository at the very top everything would lie beside it.
        if beside == "/" or posixpath.commonpath([beside, posixpath.normpath(_split(place.url)[1])]) != beside:
            raise Usage(f"{place.url} does not lie in {beside}")
    return place


def _split(url: str) -> tuple[str, str]:
    """Who is asked, and for which path."""
    if "://" in url:
        authority, _, path = url.partition("://")[2].partition("/")
        return authority, f"/{path}"
    authority, _, path = url.partition(":")
    return authority, path


def _join(base: str, url: str) -> str:
    authority, path = _split(base)
    head = base[: len(base) - len(path)]
    joined = posixpath.normpath(posixpath.join(path, url))
    if joined.startswith("..") or (path.startswith("/") and url.count("../") > path.strip("/").count("/") + 1):
        raise Usage(f"{url} leads out of {authority or '/'}")
    return f"{head}{joined}"
