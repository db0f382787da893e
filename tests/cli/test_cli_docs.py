"""What the documents say of the command line is what the command line has, and the other way round."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from reconciler.cli import main

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *(REPOSITORY / "docs" / f"{name}.md" for name in ("semantics", "operations", "gitops", "security", "limits")),
]


def long_flags(command: click.Command, context: click.Context) -> Iterator[str]:
    """All that `--help` of a command and of those below it shows."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            yield from (flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--"))
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        found = command.get_command(context, name)
        assert found is not None
        yield from long_flags(found, click.Context(found, parent=context))


def test_every_flag_of_the_documents_exists_and_every_flag_is_in_them() -> None:
    known = set(long_flags(main.cli, click.Context(main.cli)))
    named = {flag for page in PAGES for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())}
    assert named - known == set()
    assert known - named == set()


def test_every_command_that_the_documents_name_exists() -> None:
    verbs = {verb for page in PAGES for verb in re.findall(r"(?:^|`)reconcile ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert verbs - main.COMMANDS.keys() == set()
    assert verbs, "none was found"


def test_every_command_that_a_message_names_exists() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "reconciler").rglob("*.py")]
    verbs = {verb for text in sources for verb in re.findall(r"(?:`|\bhint=f?\"|\breturn f?\")reconcile ([a-z]+)", text)}
    assert verbs - main.COMMANDS.keys() == set()
    assert {"apply", "start", "delete"} <= verbs


def headings(page: Path) -> set[str]:
    """The anchors of a page, as web pages of repositories make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_between_the_documents_leads_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    dead = []
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text().replace("\n", " ")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in headings(target)):
                dead.append(f"{page.relative_to(REPOSITORY)}: {link}")
    assert dead == []
