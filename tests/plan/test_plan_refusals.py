"""Each refusal whole, as people read it: what was tried, why not, and the way out.

Those of data out of sight and of what is borrowed are in files of their own.
"""

from collections.abc import Callable
from typing import Any

import pytest

from plan.builders import DATA, FRONT, NOW, WEB, Known, container, desire, golden, stack, text, volume_at
from reconciler.model.errors import ReconcileError
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Reason
from reconciler.model.record import StackRecord
from reconciler.model.spec import Attachment, NetworkSpec, VolumeSpec
from reconciler.plan.boot import find_lost_data, make_boot_plan
from reconciler.plan.limits import check_deletable, check_limits, check_origins
from reconciler.plan.words import REASONS

STORE = make_key(Kind.VOLUME, "blog", "store")
of_three = stack(a=container(), b=container(), c=container())
with_data = stack(db=container(mounts=volume_at("/data", "data")))
owner = stack("edge", networks={"front": NetworkSpec(subnet="10.40.0.0/24", internal=True)})


def borrower(**fields: Any):
    attachment = Attachment(ipv4=fields.pop("ipv4", ""))
    return stack("shop", images={}, web=container(networks={"edge/front": attachment}, **fields))


def with_driver(driver: str, *more: str):
    volumes = {"data": VolumeSpec(driver=driver)}
    mounts = volume_at("/data", "data") | {
        path: each for name in more for path, each in volume_at(f"/{name}", name).items()
    }
    return stack(db=container(mounts=mounts), volumes=volumes)


def limits():
    known = Known.of(of_three)
    check_limits(known.plan(stack(a=container())), records=known.records, observation=known.observation)


def lost_at_boot():
    known = Known.of(with_data).gone(DATA)
    plan = make_boot_plan(stacks=known.stacks, records=known.records, observation=known.observation, now=NOW)
    raise find_lost_data(plan, known.records)[DATA]


def owned(origin: str, **more: Any):
    check_origins(desire(with_data), {"blog": StackRecord(name="blog", origin=origin)}, **more)


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "a volume's driver changes": (
        lambda: Known.of(with_data).plan(with_driver("x")),
        """
        3 volume/blog/data: this change would need a new one, and what is in the old one would be lost
          volume/blog/data: /driver  local → x  (refuse)
        hint: to keep the data of data:
              1. declare a volume under a new name
              2. `reconcile stop` who writes, and copy the data over
              3. let the mounts name the new one, and apply
              4. `reconcile delete volume/blog/data`
              to lose it: step 4, then apply
        """,
    ),
    "a volume's driver changes, and the folder of another is gone": (
        lambda: Known.of(with_driver("local", "store")).gone(STORE).plan(with_driver("x", "store")),
        """
        3 volume/blog/data, volume/blog/store: data would be lost or out of sight; nothing was changed
          volume/blog/data: /driver  local → x  (refuse)
          volume/blog/store: its folder is gone; an empty one would take its place
        hint: to keep the data of data:
              1. declare a volume under a new name
              2. `reconcile stop` who writes, and copy the data over
              3. let the mounts name the new one, and apply
              4. `reconcile delete volume/blog/data`
              to lose it: step 4, then apply
              mount the disk that holds it, and apply again
              to have it made anew and empty: --accept-data-loss volume/blog/store
        """,
    ),
    "more than half would go": (
        limits,
        """
        3 stack blog: the plan deletes 2 of 3 running containers
        hint: if that is meant, give --allow-delete
        """,
    ),
    "what something uses is deleted": (
        lambda: Known.of(stack(web=container(networks=("front",)))).plan_delete(FRONT),
        """
        3 delete network/blog/front: container/blog/web/1 uses it
        hint: delete container/blog/web/1 too, or take it out of the manifest and apply
        """,
    ),
    "another manifest owns it": (
        lambda: owned("file:/srv/blog.yaml"),
        """
        3 stack blog belongs to file:/srv/blog.yaml, not to name:blog
        hint: rename one of the two (`name:`), or take it over with --take-over
        """,
    ),
    "a manifest that is not there any more owns it": (
        lambda: owned("file:/srv/blog.yaml", gone={"file:/srv/blog.yaml"}),
        """
        3 stack blog belongs to file:/srv/blog.yaml, not to name:blog
          that file is not there any more
        hint: if the manifest was moved here, that is meant: give --take-over once
        """,
    ),
    "a source owns what is deleted by hand": (
        lambda: check_deletable("blog", StackRecord(name="blog", origin="source:prod")),
        """
        3 stack blog belongs to source:prod, not to who deletes it by hand
        hint: change it in the source prod, which would undo what is done here, or take it over with --take-over
        """,
    ),
    "a borrowed network has no such address": (
        lambda: Known.of(owner).plan(borrower(ipv4="10.41.0.9")),
        """
        1 container/shop/web/1: address 10.41.0.9 on edge/front: it is outside 10.40.0.0/24
        hint: choose an address of edge/front, or leave it out
        """,
    ),
    "ports on a borrowed network without a way out": (
        lambda: Known.of(owner).plan(borrower(ports={"0.0.0.0:80/tcp": 80})),
        """
        1 container/shop/web/1: ports can't be published from internal networks alone
        hint: join a network that is not
        """,
    ),
    "the folder of a volume is gone at boot": (
        lost_at_boot,
        """
        1 volume/blog/data: its data is gone (volumes/ of the root)
        hint: mount or put back what holds it; `reconcile boot --accept-data-loss volume/blog/data` makes it anew, empty
        """,
    ),
}


@pytest.mark.parametrize(("tried", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusal_says_what_was_tried_and_what_to_do(tried: Callable[[], object], says: str):
    with pytest.raises(ReconcileError) as caught:
        tried()
    error = caught.value
    lines = [f"{error.exit_code} {error.brief}", *(f"  {line}" for line in error.detail.splitlines())]
    first, *more = error.hint.splitlines()
    assert "\n".join([*lines, f"hint: {first}", *(f"      {line}" for line in more)]) == golden(says)


def test_job_that_has_not_succeeded_runs_again():
    job = stack(web=container(job=True, restart="no"))
    failed = Known.of(job).seen(WEB, Phase.EXITED, exit_code=2)
    assert text(failed.plan(job)) == golden("""
          1 restart  container/blog/web/1  because it is a job that has not succeeded
              /parts/process  exited (2) → running  (restart)
        1 action: 1 restart
    """)


def test_every_reason_has_words_of_its_own():
    assert REASONS.keys() == set(Reason)
    assert len(set(REASONS.values())) == len(Reason)
