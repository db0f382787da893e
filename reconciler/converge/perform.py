"""One job → driver verbs, in order. Runs on worker threads; holds no lock and writes no record.

A job of a container has two halves, with the wait for it to be seen running between them: `begin`, then `finish` (or
`revert`, where a replacement did not run). Everything else is done in `begin`.
"""

from collections.abc import Callable
from contextlib import suppress

from reconciler.converge.grants import Job
from reconciler.converge.ground import Ground
from reconciler.converge.waits import is_job
from reconciler.engine.protocol import Uses
from reconciler.model.content import kept_files
from reconciler.model.errors import ReconcileError
from reconciler.model.events import ActionStep, Emit
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import MISSING, Phase, Status
from reconciler.model.plan import Reason, Verb
from reconciler.model.record import Hold, Made
from reconciler.model.spec import START_FIRST, ContainerSpec
from reconciler.store.sealed import map_sensitive

Act = Callable[[Job, Ground, Emit], Status]
LINGER = 1.0
"""Seconds between the names having moved and the old one being told to end: who asked for them just before connects."""


def begin(job: Job, ground: Ground, emit: Emit) -> Status:
    """Do it, for a replaced container up to the point where the new one was started. Raises what the driver raised."""
    table = _CONTAINER if kind_of(job.action.key) is Kind.CONTAINER else _THING
    status = table[job.action.verb](job, ground, emit)
    remember(job, ground)
    return status


def remember(job: Job, ground: Ground) -> None:
    """Keep beside the thing what it is now, with sensitive values sealed: a database may be lost."""
    if job.new is not None:
        uses = job.uses if isinstance(job.new.spec, ContainerSpec) else {}
        contents = _sealed_contents(job.new.spec, ground) if isinstance(job.new.spec, ContainerSpec) else {}
        ground.engine.remember(map_sensitive(job.new, ground.store.sealer.seal), uses, contents)


def _sealed_contents(spec: ContainerSpec, ground: Ground) -> dict[str, bytes]:
    digests = {file.digest for _, file in kept_files(spec)}
    if not digests:
        return {}
    with ground.store.read() as tx:
        return tx.sealed_contents(sorted(digests))


def finish(job: Job, ground: Ground) -> None:
    """The new incarnation was seen running: remove the old one. A hold that came meanwhile is the new one's."""
    if not replaces_container(job):
        return
    assert job.old is not None
    assert job.new is not None
    if not job.new.held:
        obey_hold(job.new, ground)
    if job.action.order == START_FIRST:
        ground.pause(LINGER)
    ground.engine.containers.delete(job.old)


def revert(job: Job, ground: Ground, *, touched: bool = True) -> None:
    """The new incarnation was not seen running: remove it, and let the old one run again if it was `touched`.

    Raises when that fails. Order: the old one runs again even where something of the new one could not be removed; that is
    the sweep's.
    """
    assert job.old is not None
    assert job.new is not None
    containers = ground.engine.containers
    # Order: while the new one runs it has the address and the ports, so that nothing is started before this.
    containers.stop(job.new, mark="gone", apply=ground.apply)
    left: ReconcileError | None = None
    try:
        containers.delete(job.new)
    except ReconcileError as error:
        left = error
    if touched and job.action.order != START_FIRST:
        bring_back(job.old, ground, uses=job.uses, held=read_hold(job.new.key, ground) is not None, rested=_stays_down(job))
    if left is not None:
        raise left


def bring_back(old: Made, ground: Ground, *, uses: Uses, held: bool, rested: bool) -> None:
    """What a replace had stopped is as it was: it runs, unless a stop holds it or it had ended and was let rest."""
    containers = ground.engine.containers
    if held:
        containers.stop(old, mark="hold", apply=ground.apply)
        return
    containers.unmark(old)
    if not rested:
        containers.start(old, uses=uses)


def _stays_down(job: Job) -> bool:
    """A job of the former version is not run once more because the newer one could not start."""
    return job.rested or (job.old is not None and is_job(job.old))


def say_reverted(job: Job, error: ReconcileError, second: ReconcileError | None, *, touched: bool = True) -> None:
    """Add to an error what became of the old one."""
    if second is not None:
        error.detail = f"{error.detail}\nand going back to the old one failed: {second.brief}".strip()
    elif not touched or job.action.order == START_FIRST:
        back = "" if job.old is None or job.old.held or _stays_down(job) else " and runs"
        error.detail = f"{error.detail}\nthe old one was not touched{back}".strip()
    else:
        back = "is as it was" if _stays_down(job) or (job.old and job.old.held) else "runs again"
        error.detail = f"{error.detail}\nthe old one {back}".strip()


def replaces_container(job: Job) -> bool:
    """Whether it has two incarnations, of which one goes at its end."""
    return job.action.verb is Verb.REPLACE and kind_of(job.action.key) is Kind.CONTAINER


def read_hold(key: Key, ground: Ground) -> Hold | None:
    """What holds a key now, whatever the plan knew."""
    with ground.store.read() as tx:
        record = tx.record(key)
    return record.hold if record is not None else None


def obey_hold(made: Made, ground: Ground) -> Status | None:
    """What was started while somebody stopped or paused it by hand is stopped or paused; None where nobody did."""
    hold, containers = read_hold(made.key, ground), ground.engine.containers
    if hold is None:
        return None
    if hold.kind == "pause" and containers.states([made])[made.incarnation].phase is Phase.RUNNING:
        return containers.pause(made)
    return containers.stop(made, mark="hold", apply=ground.apply) if hold.kind == "stop" else None


def clean_up(job: Job, ground: Ground) -> None:
    """What a failed create left half-made goes; what cannot be removed now is found by the sweep. Of a container that was
    there before (a reboot took it off the machine) nothing goes: its writable layer would, too."""
    if job.new is None or job.action.verb is not Verb.CREATE:
        return
    if job.old is not None and kind_of(job.action.key) is Kind.CONTAINER:
        return
    try:
        if kind_of(job.action.key) is Kind.CONTAINER:
            ground.engine.containers.stop(job.new, mark="gone", apply=ground.apply, grace=0)
            ground.engine.containers.delete(job.new)
        else:
            ground.engine.driver(kind_of(job.action.key)).delete(job.new)
    except ReconcileError:
        return


def _step(job: Job, emit: Emit, text: str) -> None:
    emit(ActionStep(id=job.action.id, key=job.action.key, text=text))


# --- containers ---


def _create_container(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.new is not None
    ground.engine.containers.prepare(job.new, uses=job.uses, emit=emit)
    return _start_unless_held(job, job.new, ground, emit)


def _start_unless_held(
    job: Job, made: Made, ground: Ground, emit: Emit, *, ready: Callable[[], None] | None = None
) -> Status:
    if made.held:
        return Status(phase=Phase.CREATED, incarnation=made.incarnation)
    _step(job, emit, "starting")
    if job.old is not None and job.old.incarnation == made.incarnation:  # a mark that nothing on record stands for
        ground.engine.containers.unmark(made)
    status = ground.engine.containers.start(
        made,
        uses=job.uses,
        created=lambda: ground.created(made),
        ready=ready or ground.named,
        old=job.old if ready else None,
    )
    # Race: a stop by hand puts its hold on record and then stops what it finds; what was started since is ours to stop.
    return obey_hold(made, ground) or status


def _update_container(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.old is not None
    assert job.new is not None
    if job.action.reason is Reason.RESUMED:
        ground.engine.containers.unmark(job.new)
    return ground.engine.containers.update(job.old, job.new, uses=job.uses, emit=emit)


def _restart_container(job: Job, ground: Ground, emit: Emit) -> Status:
    """Stop, bring the bundle to the new spec, start. The mark names this apply, so that the exit command leaves the
    container alone while we live, and starts it again should we die."""
    assert job.new is not None
    containers = ground.engine.containers
    _step(job, emit, "stopping")
    containers.stop(job.new, mark="replaced", apply=ground.apply)
    containers.prepare(job.new, uses=job.uses, emit=emit)
    containers.unmark(job.new)
    return _start_unless_held(job, job.new, ground, emit)


def _replace_container(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.old is not None
    assert job.new is not None
    containers = ground.engine.containers
    _step(job, emit, "preparing")
    try:
        containers.prepare(job.new, uses=job.uses, emit=emit)
    except ReconcileError:
        with suppress(ReconcileError):  # What is left of it is the sweep's.
            containers.delete(job.new)
        raise
    letting_go = _LettingGo(job, ground, emit)
    try:
        if job.new.held and job.action.order != START_FIRST:
            letting_go()
        return _start_unless_held(job, job.new, ground, emit, ready=letting_go if job.action.order != START_FIRST else None)
    except ReconcileError as error:
        _step(job, emit, "going back to the old one")
        second: ReconcileError | None = None
        try:
            revert(job, ground, touched=letting_go.begun)
        except ReconcileError as failure:
            second = failure
        say_reverted(job, error, second, touched=letting_go.begun)
        raise


class _LettingGo:
    """Stops the old one. Called when the new one is made in full and waits to begin: what can't be made takes nothing away,
    and the time in which nobody answers is short."""

    def __init__(self, job: Job, ground: Ground, emit: Emit) -> None:
        self._job = job
        self._ground = ground
        self._emit = emit
        self.begun = False

    def __call__(self) -> None:
        assert self._job.old is not None
        self.begun = True
        _step(self._job, self._emit, "stopping the old one")
        self._ground.engine.containers.stop(self._job.old, mark="replaced", apply=self._ground.apply)


def _delete_container(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.old is not None
    _step(job, emit, "stopping")
    ground.engine.containers.stop(job.old, mark="gone", apply=ground.apply)
    ground.engine.containers.delete(job.old)
    return MISSING


# --- images, networks, volumes ---


def _create_thing(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.new is not None
    return ground.engine.driver(kind_of(job.action.key)).create(job.new, uses=job.uses, emit=emit)


def _update_thing(job: Job, ground: Ground, emit: Emit) -> Status:
    assert job.old is not None
    assert job.new is not None
    return ground.engine.driver(kind_of(job.action.key)).update(job.old, job.new, uses=job.uses, emit=emit)


def _replace_thing(job: Job, ground: Ground, emit: Emit) -> Status:
    """Stop-first as a whole: its containers end, it is removed and made anew; if that fails, all of it comes back."""
    assert job.old is not None
    assert job.new is not None
    driver = ground.engine.driver(kind_of(job.action.key))
    _step(job, emit, f"stopping its {len(job.members)} containers")
    for member in job.members:
        ground.engine.containers.stop(member, mark="replaced", apply=ground.apply)
    driver.delete(job.old)
    try:
        return driver.create(job.new, uses=job.uses, emit=emit)
    except ReconcileError:
        driver.delete(job.new)
        driver.create(job.old, uses=job.uses, emit=emit)
        for member in job.members:
            ground.engine.containers.unmark(member)
            if not member.held:
                ground.engine.containers.start(member, uses={**job.uses, job.old.key: job.old})
        raise


def _delete_thing(job: Job, ground: Ground, emit: Emit) -> Status:  # noqa: ARG001 the table's signature
    """A volume is in a plan as a delete only where its data was asked to go."""
    assert job.old is not None
    ground.engine.driver(kind_of(job.action.key)).delete(job.old, data=True)
    return MISSING


_CONTAINER: dict[Verb, Act] = {
    Verb.CREATE: _create_container,
    Verb.UPDATE: _update_container,
    Verb.RESTART: _restart_container,
    Verb.REPLACE: _replace_container,
    Verb.DELETE: _delete_container,
}
_THING: dict[Verb, Act] = {
    Verb.CREATE: _create_thing,
    Verb.UPDATE: _update_thing,
    Verb.RESTART: _update_thing,
    Verb.REPLACE: _replace_thing,
    Verb.DELETE: _delete_thing,
}
