"""A few rounds of torture, so that it does not rot; scripts/torture runs it for hours."""

import random
from pathlib import Path

import pytest
from census import held_twice, inside, not_recorded, read_book
from harms import FAULTS
from ordeal import Leaked, Lost, Ordeal
from torture import CONTROLLER, PARTS, Cells, Run

from lab.world import World

pytestmark = pytest.mark.root


def test_some_rounds_of_torture_lose_and_leak_nothing(tmp_path: Path, lab_storage: Path) -> None:
    said: list[str] = []
    run = Run(tmp_path, lab_storage, 7, PARTS["random"], lambda score: score.rounds >= 3, said.append, ["first"])
    score = run.go()
    assert (score.lost, score.leaked) == (0, 0), "\n".join(said)
    assert score.rounds == 3


def test_x1_the_matrix_goes_through_cells_in_the_order_of_its_seed(tmp_path: Path, lab_storage: Path) -> None:
    said: list[str] = []
    cells = Cells(tmp_path, lab_storage, 7, lambda score: score.rounds >= 1, said.append, ["first"])
    score = cells.go()
    assert (str(score), score.wrong) == ("rounds 1, faults 1, lost 0, leaked 0", []), "\n".join(said)
    assert cells.total > 800


def test_x1_a_controller_that_is_killed_at_work_loses_and_leaks_nothing(tmp_path: Path, lab_storage: Path) -> None:
    said: list[str] = []
    run = Run(tmp_path, lab_storage, 5, PARTS["serve"], lambda score: score.rounds >= 1, said.append, [])
    score = run.go()
    assert (str(score), score.wrong) == ("rounds 1, faults 1, lost 0, leaked 0", []), "\n".join(said)


@pytest.fixture
def ordeal(world: World) -> Ordeal:
    made = Ordeal(world, random.Random(1), small=False)
    made.begin()
    return made


def test_torture_sees_what_is_lost_and_what_is_leaked(ordeal: Ordeal) -> None:
    """The judge is judged: a lost file, a stranger's folder, a link, a restart that nobody asked for."""
    world = ordeal.world
    ordeal.judge()
    canary = next(inside(world, world.root).glob("volumes/*/data/canary"))
    kept = canary.read_text()
    canary.unlink()
    with pytest.raises(Lost, match="the volumes hold"):
        ordeal.judge_volumes()
    canary.write_text(kept)
    world.kill(world.pid("calm/still"))
    world.run("apply", "calm.yaml", "--yes", check=0)
    with pytest.raises(Lost, match="calm/still/1 was not touched"):
        ordeal.judge_containers()
    ordeal.note_state()
    [name] = world.root_ids()
    world.nsenter("ip", "link", "add", f"v{name}12345678", "type", "bridge")
    stray = inside(world, Path(f"/run/reconcile/{name}/bundles/123456789abc"))
    stray.mkdir()
    with pytest.raises(Leaked, match=rf"folder bundles/123456789abc\nlink v{name}12345678"):
        ordeal.judge_records()
    world.nsenter("ip", "link", "delete", f"v{name}12345678")
    stray.rmdir()
    ordeal.judge()


def test_census_sees_what_is_granted_twice_or_to_nobody(ordeal: Ordeal) -> None:
    import sqlite3

    database = ordeal.world.root / "reconcile.db"
    assert held_twice(read_book(database)) == not_recorded(ordeal.world, read_book(database)) == []
    sql = sqlite3.connect(database)
    with sql:
        sql.execute("INSERT INTO grants VALUES ('mac', '', '02:00:00:00:00:01', 'container/gone/web/1')")
    assert held_twice(read_book(database)) == [
        "granted to nobody: ('mac', '', '02:00:00:00:00:01', 'container/gone/web/1')",
        "granted, not held: mac 02:00:00:00:00:01 of container/gone/web/1",
    ]
    with sql:
        sql.execute("DELETE FROM grants WHERE owner = 'container/gone/web/1'")
    sql.close()


def test_every_part_names_faults_that_there_are() -> None:
    assert {name for names in PARTS.values() for name in names} == set(FAULTS) | set(CONTROLLER)
