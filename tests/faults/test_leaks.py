"""A few of the rounds that scripts/torture makes by the hundred, and that what grows in them is seen."""

import pytest
from growth import ROUNDS_OF_MEMORY, Series, fit_slope
from leaks import SHORT, Watch, run_parts

from lab.world import World


@pytest.mark.root
def test_nothing_grows_over_rounds_of_stacks_crowds_and_restarts(world: World) -> None:
    said: list[str] = []
    watch = Watch(world, said.append)
    run_parts(watch, SHORT)
    assert watch.leaks() == [], "\n".join(said)


@pytest.mark.root
def test_what_grows_is_named(world: World) -> None:
    """A link and a file more with each round."""
    watch = Watch(world)
    watch.begin()
    watch.count("planted", 0)
    for number in range(1, 4):
        world.nsenter("ip", "link", "add", f"planted{number}", "type", "bridge")
        (world.root / "locks" / f"planted{number}").touch()
        watch.count("planted", number)
    for number in range(1, 4):
        world.nsenter("ip", "link", "delete", f"planted{number}")
    assert [line.partition(",")[0] for line in watch.leaks()] == [
        "planted: files ROOT/locks: 3 -> 6",
        "planted: links: 2 -> 5",
    ]


def test_slope_tells_growth_from_noise() -> None:
    series = Series()
    for number in range(0, 10 * ROUNDS_OF_MEMORY, 10):
        counts = {"mounts": 7, "links": 3 + (number == 90), "loops": 1 + number // 100, "KiB Anonymous of x": 900 + number}
        series.add(number, {**counts, "KiB Anonymous of y": 900 + number % 30, "(told) z": number})
    assert [one.name for one in series.growths() if one.is_leak] == ["KiB Anonymous of x", "loops"]
    assert fit_slope([1, 2, 3], [2, 4, 6]) == 2
    assert fit_slope([5], [2]) == 0
