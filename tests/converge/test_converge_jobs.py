"""Jobs on the memory engine: run once to success, waited for, run again only when they changed or failed."""

import msgspec
import pytest
from converge_bench import Bench

from plan.builders import container, stack, volume_at
from reconciler.converge.resume import fold_intents
from reconciler.model.key import container_key
from reconciler.model.observation import Phase, missing
from reconciler.model.record import Hold, Stack
from reconciler.model.spec import Dependency

WEB = container_key("blog", "web")
JOB = container_key("blog", "migrate")
AFTER = {"migrate": Dependency(condition="completed")}


@pytest.fixture
def site(bench: Bench) -> Bench:
    bench.publish("tool", "sha256:" + "7" * 64, exits=0)
    return bench


def blog(web: dict[str, object] | None = None, **job: object) -> Stack:
    fields = {"image": "tool", "job": True, "restart": "no", "mounts": volume_at("/data", "data"), **job}
    return stack(web=container(depends_on=AFTER, **(web or {})), migrate=container(**fields))


def starts(bench: Bench) -> list[str]:
    return [call.split()[1] for call in bench.machine.calls if call.startswith("start ")]


def reasons(bench: Bench, wanted: Stack, **options: object) -> list[tuple[str, str, str]]:
    return [(a.verb.value, a.key, a.reason.value) for a in bench.plan(wanted, **options).actions]


def end_with(bench: Bench, code: int | None) -> None:
    """What the tool does from now on; None: it runs on."""
    bench.machine.registry["registry.test/tool:1"].exits = code


def test_job_is_run_before_who_waits_for_it_and_never_again(site: Bench) -> None:
    assert site.apply(blog()).failed == ()
    assert starts(site) == [JOB, WEB]
    assert site.records()[JOB].status["exit_code"] == 0
    assert site.lines(blog()) == ["nothing to do"]
    assert site.apply(blog()).done == ()
    assert starts(site) == [JOB, WEB]


def test_failed_job_fails_the_apply_and_skips_who_waits_for_it(site: Bench) -> None:
    end_with(site, 3)
    result = site.apply(blog())
    assert (result.failed, result.skipped) == ((JOB,), (WEB,))
    assert site.failures()[0].brief == f"{JOB}: ended with 3"
    assert site.failures()[0].detail == f"made {JOB}", "its last lines"
    assert site.records()[JOB].status["exit_code"] == 3
    assert reasons(site, blog()) == [("restart", JOB, "job-failed"), ("create", WEB, "new")]
    end_with(site, 0)
    assert site.apply(blog()).failed == ()
    assert starts(site) == [JOB, JOB, WEB]


def test_changed_spec_or_image_runs_it_again_and_what_changes_in_place_does_not(site: Bench) -> None:
    site.apply(blog())
    labelled = blog(labels={"a": "b"})
    assert reasons(site, labelled) == [("update", JOB, "field-changed")]
    site.apply(labelled)
    assert starts(site) == [JOB, WEB]
    assert reasons(site, blog(command=("again",))) == [("replace", JOB, "field-changed")]
    site.publish("tool", "sha256:" + "8" * 64, exits=0)
    site.machine.content.pop("sha256:" + "7" * 64)
    assert ("replace", JOB, "field-changed") in reasons(site, labelled)
    assert site.apply(labelled).failed == ()
    assert starts(site) == [JOB, WEB, JOB]


def test_newer_version_of_a_job_that_fails_leaves_the_older_one_alone(site: Bench) -> None:
    site.apply(blog())
    before = site.records()[JOB].incarnation
    end_with(site, 1)
    assert site.apply(blog(command=("b",))).failed == (JOB,)
    record = site.records()[JOB]
    assert record.incarnation != before
    assert (record.status["phase"], record.status["exit_code"]) == ("exited", 1)
    assert starts(site) == [JOB, WEB, JOB], "the older one is not run once more"
    assert reasons(site, blog(command=("b",))) == [("restart", JOB, "job-failed")]


def test_newer_version_of_a_job_that_can_not_start_does_not_run_the_older_one(site: Bench) -> None:
    site.apply(blog())
    site.machine.fail_next("start", JOB, "no such program")
    assert site.apply(blog(command=("b",))).failed == (JOB,)
    assert starts(site) == [JOB, WEB, JOB]
    assert site.machine.find(JOB)[0].exit_code == 0
    assert reasons(site, blog(command=("b",))) == [("replace", JOB, "field-changed")]


def test_without_wait_who_waits_for_a_job_waits_still(site: Bench) -> None:
    assert site.apply(blog(), wait=False).failed == ()
    assert starts(site) == [JOB, WEB]
    assert site.records()[JOB].status["phase"] == "exited"
    end_with(site, None)
    alone = stack(migrate=container("tool", job=True, restart="no"))
    site.delete("blog")
    assert site.apply(alone, wait=False).done[-1] == JOB, "nobody waits for it"
    assert site.machine.find(JOB)[0].phase is Phase.RUNNING


def running(site: Bench) -> Stack:
    """A job alone, started by an apply that did not wait."""
    end_with(site, None)
    alone = stack(migrate=container("tool", job=True, restart="no"))
    site.apply(alone, wait=False)
    return alone


def end_soon(site: Bench, code: int) -> None:
    """The job ends at the third look."""
    looks, states = iter(range(3)), site.engine.containers.states

    def looking(mades):
        if next(looks, None) is None and site.machine.find(JOB)[0].phase is Phase.RUNNING:
            site.machine.exit(JOB, code)
        return states(mades)

    site.engine.containers.states = looking  # type: ignore[method-assign]


def test_job_that_runs_when_an_apply_comes_is_waited_for(site: Bench) -> None:
    alone = running(site)
    assert site.lines(alone) == [
        f"  {JOB}  waits: the job runs, and an apply waits until it has completed",
        "nothing to do",
    ]
    end_soon(site, 0)
    assert site.apply(alone).failed == ()
    assert site.records()[JOB].status["exit_code"] == 0


def test_job_that_runs_when_an_apply_comes_and_fails_is_its_failure(site: Bench) -> None:
    alone = running(site)
    end_soon(site, 9)
    result = site.apply(alone)
    assert result.failed == (JOB,)
    assert f"{JOB}: ended with 9" in result.errors[JOB].brief


@pytest.mark.parametrize(("code", "failed", "begun"), [(0, (), [WEB]), (2, (WEB,), [])])
def test_who_is_new_waits_for_a_job_that_runs_already(
    site: Bench, code: int, failed: tuple[str, ...], begun: list[str]
) -> None:
    running(site)
    web = stack(web=container(depends_on=AFTER), migrate=container("tool", job=True, restart="no"))
    end_soon(site, code)
    assert site.apply(web, wait=False).failed == failed
    assert starts(site) == [JOB, *begun]


def test_job_that_takes_too_long_fails_the_apply_and_runs_on(site: Bench) -> None:
    end_with(site, None)
    result = site.apply(blog())
    assert (result.failed, result.skipped) == ((JOB,), (WEB,))
    assert site.failures()[0].brief == f"{JOB}: not completed after 60 s; it runs on"
    assert site.machine.find(JOB)[0].phase is Phase.RUNNING


def test_job_that_runs_and_has_changed_is_replaced(site: Bench) -> None:
    running(site)
    newer = stack(migrate=container("tool", job=True, restart="no", command=("b",)))
    assert reasons(site, newer) == [("replace", JOB, "field-changed")]
    assert site.plan(newer).awaits == ()
    end_soon(site, 0)
    assert site.apply(newer).failed == ()
    assert len(site.machine.containers) == 1


def test_completed_job_stays_so_over_a_reboot_and_one_that_was_cut_runs_again(site: Bench) -> None:
    site.apply(blog())
    site.machine.reboot()
    assert JOB not in [key for _, key, _ in reasons(site, blog())]
    assert site.apply(blog()).failed == ()
    assert starts(site) == [JOB, WEB, WEB]
    site.delete("blog")
    alone = running(site)
    site.machine.reboot()
    assert reasons(site, alone) == [("create", JOB, "gone-from-machine")]


def test_mending_drift_never_runs_a_job(site: Bench) -> None:
    from reconciler.plan.make import make_drift_plan

    end_with(site, 3)
    site.apply(blog())
    site.machine.drift(JOB, "mount", missing("restart"))
    site.machine.drift(JOB, "cgroup", missing())
    with site.store.read() as tx:
        stacks, records = tx.stacks(), tx.records()
    seen = site.engine.observe(view(site))
    plan = make_drift_plan(stacks=stacks, records=records, observation=seen, now=1.0)
    assert [(a.verb.value, a.key) for a in plan.actions] == [("update", JOB)]


def view(site: Bench):
    from reconciler.converge.view import compose_view

    return compose_view(site.records(), [])


def test_stopped_job_has_not_completed_and_resume_runs_it(site: Bench) -> None:
    alone = running(site)
    stop(site)
    site.machine.find(JOB)[0].exit_code = 0  # it takes SIGTERM for a reason to end well
    assert reasons(site, alone) == []
    assert reasons(site, alone, resume_holds=True) == [("restart", JOB, "resumed")]


def test_hold_on_a_job_that_had_completed_ends_without_a_run(site: Bench) -> None:
    site.apply(blog())
    stop(site)
    assert reasons(site, blog(web={"command": ("b",)})) == [("replace", WEB, "field-changed")]
    assert site.apply(blog(web={"command": ("b",)})).failed == (), "it has completed, whatever holds it"
    assert reasons(site, blog(web={"command": ("b",)}), resume_holds=True) == [("update", JOB, "resumed")]


def stop(site: Bench) -> None:
    made = site.records()[JOB]
    with site.store.write() as tx:
        tx.set_hold(JOB, Hold(kind="stop", who="me", when=site.machine.now))
    from reconciler.converge.view import made_of

    site.engine.containers.stop(made_of(made), mark="hold", apply=site.ground.apply)


@pytest.mark.parametrize(("phase", "stays"), [(Phase.EXITED, "new"), (Phase.CREATED, "old"), (Phase.RUNNING, "new")])
def test_replaced_job_whose_apply_died_is_the_one_that_ran(site: Bench, phase: Phase, stays: str) -> None:
    from reconciler.model.observation import Observation, Status
    from reconciler.model.record import Intent, Made

    site.apply(blog())
    record = site.records()[JOB]
    old = Made(key=JOB, spec=record.spec, incarnation=record.incarnation)
    new = msgspec.structs.replace(old, incarnation="f" * 12)
    intent = Intent(key=JOB, stack="blog", verb="replace", apply=site.ground.apply, begun_at=1.0, old=old, new=new)
    seen = Observation(
        statuses={JOB: Status(phase=phase, incarnation=new.incarnation, exit_code=0)},
        others={old.incarnation: Status(phase=Phase.EXITED, incarnation=old.incarnation, exit_code=0)},
    )
    folded = fold_intents(site.records(), [intent], seen)
    assert folded.records[JOB].incarnation == (new if stays == "new" else old).incarnation
