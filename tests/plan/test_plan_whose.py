"""Whose a stack is, what is left of a renamed one, and what comes again after a delete: each text with its way out."""

import pytest
from msgspec.structs import replace

from plan.builders import DATA, WEB, Known, container, desire, golden, stack, text, volume_at
from reconciler.model.errors import OriginDiffers
from reconciler.model.observation import Phase
from reconciler.model.record import Stack, StackRecord
from reconciler.plan.limits import check_deletable, check_origins

FILE = "file:/srv/blog/stack.yaml"


def owned(origin: str) -> StackRecord:
    return StackRecord(name="blog", origin=origin)


def said(error: OriginDiffers) -> str:
    return "\n".join(filter(None, (f"{error.exit_code} {error.brief}", error.detail, f"hint: {error.hint}")))


def refused(origin: str, *, gone: bool = False) -> str:
    wanted = desire(stack(web=container(), origin="file:/home/me/stack.yaml"))
    with pytest.raises(OriginDiffers) as caught:
        check_origins(wanted, {"blog": owned(origin)}, gone={origin} if gone else ())
    return said(caught.value)


def test_other_manifest_is_named_with_the_flag():
    assert refused(FILE) == golden("""
        3 stack blog belongs to file:/srv/blog/stack.yaml, not to file:/home/me/stack.yaml
        hint: rename one of the two (`name:`), or take it over with --take-over
    """)


def test_owner_whose_file_is_gone_was_perhaps_moved():
    assert refused(FILE, gone=True) == golden("""
        3 stack blog belongs to file:/srv/blog/stack.yaml, not to file:/home/me/stack.yaml
        that file is not there any more
        hint: if the manifest was moved here, that is meant: give --take-over once
    """)


def test_source_is_named_with_what_it_would_do():
    assert refused("source:fleet") == golden("""
        3 stack blog belongs to source:fleet, not to file:/home/me/stack.yaml
        hint: change it in the source fleet, which would undo what is done here, or take it over with --take-over
    """)


def test_delete_by_hand_of_what_a_source_owns():
    with pytest.raises(OriginDiffers) as caught:
        check_deletable("blog", owned("source:fleet"))
    assert said(caught.value) == golden("""
        3 stack blog belongs to source:fleet, not to who deletes it by hand
        hint: change it in the source fleet, which would undo what is done here, or take it over with --take-over
    """)


@pytest.mark.parametrize(("recorded", "asked"), [(FILE, ""), (FILE, FILE), ("source:a", "source:a"), ("", FILE)])
def test_delete_by_name_needs_no_origin_and_an_owner_may_delete_its_own(recorded: str, asked: str):
    check_deletable("blog", owned(recorded), origin=asked)
    check_deletable("blog", None, origin=asked)


# ---------------------------------------------------------------- renamed stacks

web = container(ports={"0.0.0.0:8080/tcp": 80}, mounts=volume_at("/data", "data"))
old = stack(web=web, cache=container(), origin=FILE)


def renamed(origin: str = FILE) -> Stack:
    return stack("news", web=container(), origin=origin)


def lines(known: Known, wanted: Stack) -> str:
    return "\n".join(line for line in text(known.plan(wanted)).splitlines() if " stack " in line)


def test_what_is_left_of_a_renamed_stack_is_named():
    assert lines(Known.of(old), renamed()) == (
        "  container/blog/cache/1  stack blog comes from this manifest too: 2 containers of it run and hold"
        " 0.0.0.0:8080/tcp; was it renamed? `reconcile delete blog` removes what is left of it (volumes stay)"
    )


def test_renamed_stack_of_which_one_runs():
    known = Known.of(stack(web=container(), cache=container(), origin=FILE)).seen(WEB, Phase.EXITED, exit_code=0)
    assert "comes from this manifest too: 1 container of it runs; was it renamed?" in lines(known, renamed())


def test_renamed_stack_of_which_only_data_is_left():
    known = Known.of(old)
    known = known.without(*[key for key in known.records if key != DATA])
    assert lines(known, renamed()) == (
        "  volume/blog/data  stack blog comes from this manifest too: its volume data is kept;"
        " `reconcile delete blog --volumes` removes the data"
    )


@pytest.mark.parametrize("origin", ["name:team", "source:fleet", "stdin", "file:/elsewhere.yaml"])
def test_stacks_that_only_share_a_name_or_a_source_are_no_rename(origin: str):
    recorded = Known.of(replace(old, origin=origin if origin[:4] != "file" else FILE))
    assert lines(recorded, renamed(origin)) == ""


def test_both_stacks_of_one_manifest_in_one_apply_are_no_rename():
    assert "comes from" not in text(Known.of(old).plan(renamed(), old))


# ---------------------------------------------------------------- deletes


def test_delete_of_what_the_manifest_wants_says_that_it_comes_again():
    known = Known.of(old)
    assert text(known.plan_delete(WEB, wanted=[WEB])) == golden("""
          1 delete   container/blog/web/1  because it was asked for
              closes 0.0.0.0:8080/tcp
              discards its writable layer
          container/blog/web/1  the manifest wants it: the next apply of blog makes it again, unless it is taken out there
        1 action: 1 delete
    """)
    assert "makes it again" not in text(known.plan_delete(WEB))
