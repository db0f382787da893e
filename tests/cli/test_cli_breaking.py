"""What somebody finds who tries to break the command line: the words of refusals and counts."""

import errno

import pytest

from reconciler.api.tables import state
from reconciler.cli.main import _tell, cli
from reconciler.cli.render import show_error
from reconciler.model.errors import Failed, NotFound
from reconciler.model.key import container_key
from reconciler.model.observation import Phase, Status
from reconciler.model.observation import missing as missing_part
from reconciler.model.plan import Change, Effect
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec
from reconciler.plan.losses import Loss
from reconciler.plan.refusal import refusal_error
from reconciler.plan.words import render_change
from reconciler.verbs.names import find_containers
from reconciler.verbs.observe import Seen, seen_json


def test_every_line_of_a_hint_stands_below_the_first(capsys):
    show_error(Failed("x: y", hint="to keep: a\nto go on: b"))
    assert capsys.readouterr().err == "error: x: y\n  hint: to keep: a\n        to go on: b\n"


def test_x3_error_of_the_kernel_that_nobody_expected_is_told_in_words(capsys, monkeypatch):
    monkeypatch.delenv("RECONCILE_DEBUG", raising=False)
    assert _tell(OSError(errno.ENOSPC, "No space left on device", "/var/lib/x")) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: the machine refused: No space left on device: /var/lib/x\n  hint: free some space first; "
    )
    assert "mistake" not in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "the machine refused: Cannot allocate memory"),
        (
            SystemError("error return without exception set"),
            "the machine refused: Python failed for want of memory, as it seems (error return without exception set)",
        ),
        (RuntimeError("can't start new thread"), "the machine refused: no more threads can be started"),
        (RuntimeError("another"), "this is a mistake in reconcile: RuntimeError: another"),
    ],
)
def test_x3_what_python_makes_of_a_refusal_is_told_as_one(capsys, monkeypatch, error, words):
    monkeypatch.delenv("RECONCILE_DEBUG", raising=False)
    assert _tell(error) == 1
    assert capsys.readouterr().err.startswith(f"error: {words}\n  hint: ")


def test_only_names_that_exist_are_suggested():
    keys = (container_key("front", "web"), container_key("back", "db"))
    records = {key: Record(key=key, spec=ContainerSpec(image="app")) for key in keys}
    with pytest.raises(NotFound) as raised:
        find_containers(records, "front/db")
    assert raised.value.hint in ("did you mean front/web?", "did you mean back/db?")


def test_fields_within_a_value_are_shown_as_people_write_them():
    value = {"source": "pw", "mode": 0o440, "interval": 90.0, "memory": 64 << 20, "env": {"mode": 288}}
    change = Change(path="/secrets/~1x", old=None, new=value, effect=Effect.REPLACE)
    shown = '{"source": "pw", "mode": "0440", "interval": "1m30s", "memory": "64M", "env": {"mode": 288}}'
    assert render_change(change) == f"/secrets/~1x  (unset) → {shown}  (replace)"


def test_losses_with_one_way_out_are_told_it_once():
    keys = [container_key("blog", name) for name in ("db", "job")]
    losses = [Loss(key=key, text="t", ways=("write `moved:`",), note="") for key in keys]
    assert refusal_error([], losses=losses, lost=[]).hint.splitlines() == [
        "to keep the data: write `moved:`",
        "to go on without them: --accept-data-loss container/blog/db/1 --accept-data-loss container/blog/job/1",
    ]


def test_what_rests_has_not_drifted_by_what_only_a_restart_mends():
    key = container_key("blog", "job")
    record = Record(key=key, spec=ContainerSpec(image="app", job=True))

    def shown(phase: Phase) -> str:
        status = Status(phase=phase, exit_code=0, parts={"mount": missing_part("restart")})
        return state(seen_json(Seen(record=record, status=status)))

    assert "drifted" not in shown(Phase.EXITED)
    assert "drifted" in shown(Phase.RUNNING)


@pytest.mark.parametrize(
    "arguments", [["rollback", "shop", "abc"], ["rollback", "shop", "0"], ["history", "shop", "--keep", "x"]]
)
def test_numbers_are_asked_for_in_words(arguments: list[str]):
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code in (2, 64)
    assert "is no whole number from 1 on" in done.output


def test_unknown_command_says_where_to_look():
    from click.testing import CliRunner

    assert "`reconcile --help` lists them" in CliRunner().invoke(cli, ["frobnicate"]).output
