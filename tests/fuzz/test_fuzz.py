"""The fuzzer for a little while at every door; and that it finds what is there to find."""

import dataclasses

import pytest

from reconciler.engine import tarstream
from tests.fuzz.doors import DOORS
from tests.fuzz.fuzzer import knock, run

SECONDS = {"tar": 20.0}


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a7_changed_bytes_at_a_door_get_an_answer_or_its_own_error(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run([door], seed=7, seconds=SECONDS.get(door, 2.0))
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("broken", ["clean_name", "_check_attributes"])
def test_the_fuzzer_finds_a_reader_without_its_checks(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = {"clean_name": lambda _, name: name, "_check_attributes": lambda _, __: None}[broken]
    monkeypatch.setattr(tarstream.TarStream, broken, stub)
    for _ in range(10):
        if (found := knock(DOORS["tar"], seed=7, seconds=2)).crashes:
            return
    pytest.fail(f"{found.runs} inputs, nothing found")


def test_the_same_seed_gives_the_same_inputs() -> None:
    seen: list[list[bytes]] = []
    for _ in range(2):
        inputs: list[bytes] = []

        def note(data: bytes, into: list[bytes] = inputs) -> str:
            into.append(data)
            return str(len(data) % 7)

        knock(dataclasses.replace(DOORS["documents"], call=note), seed=3, seconds=0.2)
        seen.append(inputs)
    shorter = min(map(len, seen))
    assert shorter > 20
    assert seen[0][:shorter] == seen[1][:shorter]
