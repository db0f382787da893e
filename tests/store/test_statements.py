"""The SQL that commands run is what SQLAlchemy Core makes of the tables."""

from pathlib import Path

from reconciler.store import core, statements


def test_statements_are_what_core_compiles() -> None:
    text = Path(statements.__file__).read_text(encoding="utf-8")
    assert text == core.render_statements(), "run scripts/generate-statements"
