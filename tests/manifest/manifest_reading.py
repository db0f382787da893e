"""Reads manifests for tests: from text, with nothing beside them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from reconciler.manifest.load import load_text
from reconciler.model.errors import BadManifest, Problem, render_problem
from reconciler.model.key import Key, container_key
from reconciler.model.record import Stack
from reconciler.model.spec import ContainerSpec, Spec

HEAD = "apiVersion: reconcile/v1\nname: s\n"
NOWHERE = Path("/nonexistent/folder")


def read(text: str | bytes, *, variables: Mapping[str, str] | None = None, folder: Path = NOWHERE) -> Stack:
    """The stack of a manifest's text."""
    return load_text(
        text,
        file="stack.yaml",
        folder=folder,
        variables=variables or {},
        environment={},
        origin_of=lambda path, _: f"file:{path}",
    )


def body(text: str) -> str:
    """The head, and what an indented text says below it."""
    return HEAD + textwrap.dedent(text)


def specs(text: str, *, variables: Mapping[str, str] | None = None) -> dict[Key, Spec]:
    """The specs of a manifest without its head."""
    return read(body(text), variables=variables).specs


def container(text: str, *, name: str = "web", variables: Mapping[str, str] | None = None) -> ContainerSpec:
    """The spec of one container of a manifest without its head."""
    spec = specs(text, variables=variables)[container_key("s", name)]
    assert isinstance(spec, ContainerSpec)
    return spec


def web(properties: str, *, variables: Mapping[str, str] | None = None, around: str = "") -> ContainerSpec:
    """The spec of a container of which only the given properties are written, one a line."""
    lines = textwrap.indent(textwrap.dedent(properties).strip(), "    ")
    return container(f"{around}containers:\n  web:\n    image: a/b:1\n{lines}\n", variables=variables)


def problems(text: str | bytes, *, variables: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """What is wrong with a manifest's text; it must be wrong."""
    try:
        stack = read(text, variables=variables)
    except BadManifest as error:
        return error.problems
    raise AssertionError(f"nothing was wrong: {stack}")


def told(text: str | bytes, *, variables: Mapping[str, str] | None = None) -> str:
    """All problems of a manifest's text as people read them."""
    return "\n".join(map(render_problem, problems(text, variables=variables)))


def brief(text: str, *, variables: Mapping[str, str] | None = None) -> list[str]:
    """`LINE:COLUMN PATH: TEXT` of each problem of a manifest without its head; lines count from its first."""
    return [
        f"{problem.line - 2}:{problem.column} {problem.path}: {problem.text}"
        for problem in problems(body(text).replace("\n\n", "\n", 1), variables=variables)
    ]
