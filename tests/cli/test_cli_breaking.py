"""What somebody finds who tries to break the command line: the words of refusals and counts."""

from reconciler.cli.render import show_error
from reconciler.model.errors import Failed


def test_every_line_of_a_hint_stands_below_the_first(capsys):
    show_error(Failed("x: y", hint="to keep: a\nto go on: b"))
    assert capsys.readouterr().err == "error: x: y\n  hint: to keep: a\n        to go on: b\n"
