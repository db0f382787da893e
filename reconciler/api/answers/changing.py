"""Plans, and what carries them out: plan, apply, rollback, delete, approve, boot. And `lock`, which reads manifests too."""

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec

from reconciler.api import asks
from reconciler.api.answers import Answerer, Opener
from reconciler.api.answers.manifests import load, open_files, resolve_path
from reconciler.api.frames import Listener
from reconciler.api.problem import Question
from reconciler.manifest.files import Files, is_file, is_folder
from reconciler.model.errors import Failed, NeedsYes, NotFound, Usage
from reconciler.model.key import forms_of, sort_key, split_key
from reconciler.model.plan import Plan
from reconciler.model.units import render_size_rounded
from reconciler.plan.explain import explain_key, render_plan
from reconciler.plan.forms import plan_json
from reconciler.verbs import apply as applying
from reconciler.verbs import approval
from reconciler.verbs import boot as booting
from reconciler.verbs import delete as deleting
from reconciler.verbs import plan as planning
from reconciler.verbs import rollback as going_back
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.names import find_keys
from reconciler.verbs.origin import as_recorded
from reconciler.verbs.root import Root
from reconciler.verbs.saved import dump_file, is_plan, read_plan


def plan(opened: Opener, ask: asks.Plan, listener: Listener) -> Any:
    """The plan in the form of `plan -o json`, as lines, and what else was asked for."""
    wish = _wish(ask, ask_tags=not ask.offline)
    with opened() as root:
        made, looked = planning.plan(root, wish, now=time.time())
        return {
            "plan": plan_json(made),
            "lines": render_plan(made),
            "why": _explain(made, looked, ask.why) if ask.why else [],
            "file": msgspec.to_builtins(dump_file(root, made)) if ask.save else None,
        }


def _wish(ask: asks.Plan | asks.Apply, *, ask_tags: bool = False) -> planning.Wish:
    files = open_files(ask.manifests)
    return planning.Wish(
        stacks=load(ask.manifests, files),
        files=files,
        offline=ask.offline,
        resume=ask.resume,
        prune=ask.prune,
        take_over=ask.take_over,
        ask_tags=ask_tags,
        accept_loss=frozenset(ask.accept_data_loss),
    )


def _explain(made: Plan, looked: Look, text: str) -> list[str]:
    """The lines of `--why`, for what a person writes: a key, a name, STACK/NAME, KIND/NAME."""
    keys = sorted({*made.specs, *looked.records}, key=sort_key, reverse=True)
    for key in keys:
        if text in forms_of(key):
            return explain_key(made, key, records=looked.records, observation=looked.observation)
    raise NotFound("resource", text, {split_key(key).name for key in keys})


def apply(opened: Opener, ask: asks.Apply, listener: Listener) -> Any:
    """How many actions were done; null where there was nothing to do."""
    options = _options(ask)
    face = make_face(listener)
    files = open_files(ask.manifests)
    if saved := find_saved(ask.manifests, files):
        with opened(lock_timeout=ask.lock_timeout) as root:
            [name] = ask.manifests.paths
            made = read_plan(root, saved, name=name, files=files)
            return _done(applying.apply_saved(root, made, name, options, take_over=ask.take_over, face=face))
    wish = _wish(ask)  # Order: before a root is made, for a bad manifest makes none.
    with opened(create=True, lock_timeout=ask.lock_timeout) as root:
        return _done(applying.apply(root, wish, options, face=face))


def _options(ask: asks.Converging) -> applying.ApplyOptions:
    return applying.ApplyOptions(
        yes=ask.yes, allow_delete=ask.allow_delete, wait=ask.wait, timeout=ask.timeout, keep=ask.keep
    )


def find_saved(manifests: asks.Manifests, files: Files) -> Path | None:
    """The file of a saved plan, where that is what is named."""
    if len(manifests.paths) != 1 or manifests.paths[0] == "-":
        return None
    path = resolve_path(manifests, manifests.paths[0])
    return path if is_plan(path, files) else None


def _done(applied: applying.Applied) -> Any:
    return {"done": None if applied.result is None else len(applied.result.done)}


def rollback(opened: Opener, ask: asks.Rollback, listener: Listener) -> Any:
    """What `apply` gives; of a dry run what `plan` gives."""
    wish = going_back.Return(
        stack=ask.stack,
        number=ask.revision,
        note=ask.note,
        offline=ask.offline,
        accept_loss=frozenset(ask.accept_data_loss),
    )
    if ask.dry_run:
        with opened() as root:
            made, _ = going_back.plan_rollback(root, wish, now=time.time())
        return {"plan": plan_json(made), "lines": render_plan(made)}
    options = _options(ask)
    with opened(lock_timeout=ask.lock_timeout) as root:
        return _done(going_back.rollback(root, wish, options, face=make_face(listener)))


def delete(opened: Opener, ask: asks.Delete, listener: Listener) -> Any:
    """How many resources went."""
    with opened(frees=True, lock_timeout=ask.lock_timeout) as root:
        try:
            doomed = msgspec.structs.replace(_find_doomed(root, ask), take_over=ask.take_over)
        except NotFound:
            deleting.remove_strays(root, listener.emit)
            raise
        doomed = msgspec.structs.replace(doomed, volumes=(*doomed.volumes, *ask.volumes), all_volumes=ask.all_volumes)
        yes = ask.yes or _agree_to_loss(root, doomed, listener)
        return _done(deleting.delete(root, doomed, applying.ApplyOptions(yes=yes), face=make_face(listener)))


def _find_doomed(root: Root, ask: asks.Delete) -> deleting.Doomed:
    """What was named: a stack, a manifest that exists, or a resource. A folder that is called as one must be told apart."""
    what, files = ask.what, open_files(ask.manifests)
    path = str(resolve_path(ask.manifests, what))
    with root.store.read() as tx:
        # What an apply that died or failed only meant to make is there to be deleted too.
        keys, stacks = list(tx.records().keys() | {intent.key for intent in tx.intents()}), tx.stacks()
    if what in stacks or what == "-" or not (is_file(files, path) or is_folder(files, path)):
        if what != "-":
            return deleting.find_doomed(keys, what)
    elif found := find_keys(keys, what):
        raise Failed(f"{what}: it is a path and {', '.join(found)}", hint=f"write ./{what} for the path, or the whole key")
    read = load(ask.manifests, files)
    if len(read) != 1:
        raise Usage(f"{what} describes {len(read)} stacks; delete them one by one")
    stack = read[0]
    if stack.name not in stacks:
        former = next((name for name, record in stacks.items() if record.origin == stack.origin), "")
        raise NotFound("stack", stack.name, stacks, meant=former)
    return deleting.Doomed(stack=stack.name, origin=as_recorded(stack, stacks[stack.name]).origin)


def _agree_to_loss(root: Root, doomed: deleting.Doomed, listener: Listener) -> bool:
    """Volumes that would go are listed with their sizes, and the stack's name must be typed. True where it was."""
    sizes = {key: render_size_rounded(size) for key, size in deleting.doomed_volumes(root, doomed).items()}
    lost = tuple(f"{key}: {size} of data will be lost" for key, size in sizes.items())
    if not lost:
        return False
    token = _token([doomed.stack, sorted(sizes)])  # What is lost, not how much of it there is just now.
    answer = listener.confirm(Question(text="Type the stack's name to go on", token=token, lines=lost, typed=doomed.stack))
    if answer is None:
        why = "volumes and their data would be lost, and nobody can be asked"
        raise NeedsYes(f"delete {doomed.stack}", why, "\n".join(lost))
    if not answer:
        raise NeedsYes(f"delete {doomed.stack}", "not confirmed; nothing was changed")
    return True


def lock(opened: Opener, ask: asks.Lock, listener: Listener) -> Any:
    """A list, in the form of `lock -o json`."""
    from reconciler.verbs.lock import compare

    stacks = load(ask.manifests, open_files(ask.manifests), pinned=False)
    with opened() as root:
        return [entry.json() for entry in compare(stacks, root.engine.images, update=ask.update)]


def list_waiting(opened: Opener, ask: asks.Waiting, listener: Listener) -> Any:
    """A list: stack, source, since when, and how many actions of each verb."""
    with opened() as root:
        found = approval.choose_waiting(root, ask.source, ask.stack)
    return [{"stack": one.stack, "source": one.source, "since": one.since, "summary": one.summary} for one in found]


def approve(opened: Opener, ask: asks.Approve, listener: Listener) -> Any:
    """What `apply` gives."""
    options = applying.ApplyOptions(yes=ask.yes, wait=ask.wait, timeout=ask.timeout)
    if not ask.stack:
        raise Usage("stack: one of those that wait is to be named")
    with opened(lock_timeout=ask.lock_timeout) as root:
        [waiting] = approval.choose_waiting(root, ask.source, ask.stack)
        return _done(approval.approve(root, waiting, options, face=make_face(listener)))


def boot(opened: Opener, ask: asks.Boot, listener: Listener) -> Any:
    """What `apply` gives."""
    options = booting.BootOptions(wait=ask.wait, timeout=ask.timeout, accepted=ask.accept_data_loss)
    with opened(lock_timeout=ask.lock_timeout) as root:
        return _done(booting.boot(root, options, face=make_face(listener)))


def make_face(listener: Listener) -> Face:
    """A verb's face that speaks to a listener. What it agrees to is the plan that was shown last."""
    shown: list[Plan] = []

    def show(plan: Plan) -> None:
        shown[:] = [plan]
        if listener.show is not None:
            listener.show(render_plan(plan))

    def confirm(why: str) -> bool | None:
        token = _token(plan_json(shown[0])) if shown else ""
        return listener.confirm(Question(text=f"The plan {why}. Go on?", token=token))

    return Face(emit=listener.emit, show=show, confirm=confirm, gone=listener.gone)


def _token(of: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(of)).hexdigest()[:32]


ANSWERS: dict[type[asks.Ask], Answerer] = {
    asks.Plan: plan,
    asks.Apply: apply,
    asks.Rollback: rollback,
    asks.Delete: delete,
    asks.Lock: lock,
    asks.Waiting: list_waiting,
    asks.Approve: approve,
    asks.Boot: boot,
}
