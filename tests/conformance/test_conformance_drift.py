"""What others change by hand is named with its part, reaches nothing else, and is mended, mostly with the same pid."""

from fnmatch import fnmatchcase

from grounds import Drifted, Harm, Site

from reconciler.model.key import split_key


def names(drifted: Drifted) -> list[str]:
    return [f"{split_key(made.key).name} {part}" for made, part, _ in drifted]


def test_what_was_just_made_has_not_drifted(site: Site) -> None:
    assert names(site.ground.drifted()) == []


def test_x9_harm_is_named_reaches_nobody_else_and_is_mended(standing: Site, harm: Harm) -> None:
    site, ground = standing, standing.ground
    assert names(ground.drifted()) == []
    before = site.pids()
    harm.hand(site)
    drifted = ground.drifted()
    for wanted in harm.named:
        assert any(fnmatchcase(name, wanted) for name in names(drifted)), f"{wanted} is not among {names(drifted)}"
    assert {split_key(made.key).name for made, _, _ in drifted} <= set(harm.reach), names(drifted)
    assert all(part.field and part.old != part.new for _, _, part in drifted if part.state == "altered"), drifted
    assert {part.mend for _, _, part in drifted} >= {harm.mend}
    ground.mend(drifted)
    assert names(ground.drifted()) == []
    same = {name for name, pid in site.pids().items() if pid == before[name]}
    assert same == ({"web", "db"} if harm.mend == "in-place" else {"db"})
