"""What a look at a key does: at a source, at a stack, at everything. Each ends in a verb: apply, heal.

Keys: `source NAME` reads what a source says and renews the stacks that differ; `stack NAME` applies what its source wants,
or mends what is recorded; `all` looks at the whole machine once and names the stacks that drifted. No decision is made here
that a plan does not make.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from reconciler.controller.approvals import APPROVALS, Approvals
from reconciler.controller.converged import find_converged
from reconciler.controller.policy import Policy
from reconciler.controller.sources.sighting import Sighting, Source, Version
from reconciler.controller.standings import Differences, Standing, Standings, render_source
from reconciler.controller.storms import find_storms
from reconciler.controller.teller import Announce, Teller, all_words, brief_words
from reconciler.model.errors import NotAllowed, NotFound, ReconcileError, RolledBack
from reconciler.model.events import AnyEvent
from reconciler.model.key import Key, stack_of
from reconciler.model.plan import Action, Reason
from reconciler.model.record import SOURCE
from reconciler.model.units import render_duration
from reconciler.plan.approval import needs_approval
from reconciler.plan.borrowing import borrowed_keys
from reconciler.plan.exits import LASTING
from reconciler.plan.make import make_drift_plan
from reconciler.plan.mending import keep_mended
from reconciler.verbs.apply import ApplyOptions, apply, apply_saved
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.heal import heal
from reconciler.verbs.look import Look, look
from reconciler.verbs.plan import Wish, plan
from reconciler.verbs.record import acting_as
from reconciler.verbs.root import Root
from reconciler.verbs.serving import SourceState, StackState

ALL = "all"
UNSETTLED = 0.2
"""Seconds until what is being written is looked at again."""
MANY = 10
"""From so many new versions on they are looked at together first."""
RESTING, LONGEST_REST = 4.0, 30.0
"""So many times as long as a look at everything took there is none again, and so many seconds at most: on a machine with
thousands of containers on which always something happens, looks are not all that happens."""
AFTERWARDS = 1.0
"""Seconds after work on a stack until everything is looked at: what it started is watched from then on."""


class Keeper:
    """One root kept as its sources want it, and as it is recorded."""

    def __init__(
        self,
        root: Root,
        sources: Sequence[Source],
        policy: Policy,
        *,
        renew: Callable[[str], None],
        add: Callable[[str, float], None],
        tell: Callable[[AnyEvent], None],
        watch: Callable[[Look], None] = lambda _: None,
        follow: Callable[[str], str] = lambda _: "",
        changed: Callable[[], None] = lambda: None,
        count: Callable[[str, int], None] = lambda _what, _by: None,
        announce: Announce = lambda _kind, _about, _text, _stack: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.policy = policy
        self.sources = {source.name: source for source in sources}
        self.sightings: dict[str, Sighting] = {}
        self._polled: dict[str, str] = {}
        """By source: why it is only read every now and then."""
        self.standings = Standings()
        self._renew = renew
        self._add = add
        self._tell = tell
        self._watch = watch
        self._follow = follow
        self._changed = changed
        self._count = count
        self._storms: dict[Key, str] = {}
        self._clock = clock
        self._rests_until = clock()
        self._looked = False
        self._lock = threading.Lock()
        self._teller = Teller(root, tell, announce)
        self.say, self.note = self._teller.say, self._teller.note
        self._approvals = Approvals(root, self.standings, say=self.say, renew=renew)

    def work(self, key: str) -> float | None:
        """One look. Raises ReconcileError where it failed, told already; the same words are told once."""
        kind, _, name = key.partition(" ")
        with self._teller.telling(key, name if kind == "stack" else ""):
            if kind == "source":
                return self._read_source(name)
            if kind == "stack":
                return self._keep_stack(name)
            if kind == APPROVALS:
                self._approvals.look(lambda source: source in self.sources and self.policy.source_rules(source).approve)
                return None
            return self._look_at_all()

    # --- sources ---

    def reload(self, sources: Sequence[Source], policy: Policy) -> None:
        """Take up other sources and another policy. Of a source that is gone every stack stays as it is; it is told."""
        with self._lock:
            gone = self.sources.keys() - {source.name for source in sources}
            self.policy = policy
            self.sources = {source.name: source for source in sources}
            for name in gone:
                self.sightings.pop(name, None)
                self._teller.forget(f"broken {name}", f"stale {name}", f"polled {name}", f"entry {name} ", f"claim {name} ")
        for name in sorted(gone):
            stacks = self.standings.release(name)
            kept = f"; what runs stays, and is mended as it is recorded: {', '.join(stacks)}" if stacks else ""
            self.say(f"unserved {name}", f"{name} is not served any more{kept}")
        for name in self.sources:
            self.say(f"unserved {name}", "", over=f"{name} is served again")
        self._changed()

    def _read_source(self, name: str) -> float | None:
        source = self.sources.get(name)
        if source is None:  # It was taken out of the configuration a moment ago.
            return None
        # Order: what changes behind this look is told.
        polled = self._follow(name) if source.kind == "directory" else ""
        sighting = source.read()
        with self._lock:
            if self.sources.get(name) is not source:
                return None
            self.sightings[name], self._polled[name] = sighting, polled
        words = (
            f"{name} can't be watched ({polled}): it is read every {render_duration(self.policy.poll)}" if polled else ""
        )
        self.say(f"polled {name}", words, over=f"{name} is watched again")
        broken = sighting.broken
        if broken and not broken.startswith(name):
            broken = f"{name}: {broken}"
        self.say(f"broken {name}", broken, over=f"{name} can be read again")
        stale = f"{name}: {sighting.stale}" if sighting.stale else ""
        self.say(f"stale {name}", stale, over=f"{name}: what it says is taken again")
        if sighting.fresh and sighting.commit is not None:
            commit = sighting.commit
            self.note(f"{name}: commit {commit.id[:12]} is taken: “{commit.subject}”, by {commit.author}")
        self._teller.say_all(
            f"entry {name} ",
            sighting.problems,
            over=lambda entry: f"{entry} of {name} is no problem any more",
            # What stands in the line that is wrong may be a secret.
            short=lambda entry: f"{entry} of {name} is invalid, its last version stays: `reconcile status` says why",
        )
        if not sighting.broken:
            self._take_over(name, sighting)
        self._changed()
        again = self.policy.poll if sighting.again is None else sighting.again
        return UNSETTLED if sighting.unsettled else again

    def _take_over(self, source: str, sighting: Sighting) -> None:
        with self.root.store.read() as tx:
            own = {name: stack for name, stack in tx.stacks().items() if stack.origin == f"{SOURCE}{source}"}
        recorded = {name for name, stack in own.items() if stack.revision}  # Not those of which only volumes are left.
        found = self.standings.take(source, sighting, recorded)
        claimed = {
            stack: f"stack {stack} of {source} is in {owner} already: rename one of them" for stack, owner in found.claimed
        }
        self._teller.say_all(
            f"claim {source} ", claimed, over=lambda stack: f"stack {stack} is in one source only", stack_of=str
        )
        self._add(APPROVALS, 0.0)
        self._let_go(source, found, settled=not sighting.problems and not sighting.unsettled)
        converged = self._reach_converged({stack: sighting.versions[stack] for stack in found.renewed})
        for stack in found.renewed:
            self.say(f"gone {stack}", "", stack, over=f"stack {stack} is in {source} again")
            if stack not in converged:
                self._renew(f"stack {stack}")

    def _reach_converged(self, versions: Mapping[str, Version]) -> Collection[str]:
        """Of many versions at once those of which nothing is to be done, found by one look at all."""
        converged: Collection[str] = ()
        with suppress(ReconcileError):  # Order: none is lost for that; each is asked for itself then.
            converged = find_converged(self.root, versions) if len(versions) >= MANY else ()
        for stack in converged:
            held = self.standings.get(stack)
            if held is not None and held.version is versions[stack]:
                self.standings.reach(held, versions[stack], "")
        return converged

    def _let_go(self, source: str, found: Differences, *, settled: bool) -> None:
        """Tell what is gone, or have it deleted where that is asked for: never while something is invalid or being written,
        for a file that was renamed may be on its way, and never more than the limit says."""
        rules = self.policy.source_rules(source)
        most = rules.max_delete or found.left
        pruned = rules.prune and settled and not rules.approve
        for stack in found.gone:
            held = self.standings.get(stack)
            if held is None:
                continue
            if pruned and len(found.gone) <= most:
                held.doomed = True
                self._add(f"stack {stack}", 0.0)
                continue
            why = ""
            if pruned:
                why = f" ({len(found.gone)} are gone at once, {most} may be deleted: --max-delete)"
            words = f"stack {stack} is no longer in {source}{why}: it stays until `reconcile delete {stack} --take-over`"
            self.say(f"gone {stack}", words, stack)

    # --- stacks ---

    def _keep_stack(self, name: str) -> float | None:
        held = self.standings.get(name)
        version = held.version if held is not None else None
        if held is not None and version is None and held.doomed:
            self._delete(name, held)
            return None
        if held is None or version is None or version.token in (held.reached, held.waiting):
            if self.policy.drift_rule(name).mends_some and self._heal(name) and held is not None and held.waiting:
                self._plan_anew(held)
            return None
        try:
            if version.confined:
                self._check_borrowing(version)
            if not self._apply(held, version):
                self._changed()
                return None
        except RolledBack as error:  # Not again by itself: it waits for what its source says next.
            error.hint = f"mend it in {held.source}: its next version is tried"
            self._reach(held, version, all_words(error))
            self.say(
                f"back {name}",
                f"stack {name} waits for another version: {all_words(error)}",
                name,
                short=f"stack {name} waits for another version: {brief_words(error)}",
            )
            return None
        except ReconcileError as error:
            source = self.sources.get(held.source)
            error.detail = source.name_paths(error.detail) if source is not None else error.detail
            self._reach(held, None, all_words(error))
            raise
        self._reach(held, version, "")
        self._unblock(name)
        self.say(f"back {name}", "", name, over=f"stack {name} is as {held.source} wants it")
        self._add(ALL, AFTERWARDS)
        return None

    def unblock(self, name: str) -> None:
        """Something of a stack has become well: what failed for want of that is tried again now."""
        held = self.standings.get(name)
        if held is not None and held.problem and held.version is not None and held.reached != held.version.token:
            self._renew(f"stack {name}")

    def _unblock(self, owner: str) -> None:
        """The same for stacks that borrow of one that is as it is wanted now."""
        for name, held in self.standings:
            specs = held.version.stack.specs if held.problem and held.version is not None else {}
            if any(stack_of(used) == owner for key, spec in specs.items() for used in borrowed_keys(key, spec)):
                self.unblock(name)

    def _apply(self, held: Standing, version: Version) -> bool:
        """Carry out what a version asks for; False where that waits for approval."""
        name, face = version.stack.name, Face(emit=self._tell)
        wish = Wish(stacks=(version.stack,), take_over=self._is_by_hand(version))
        commit = version.stack.commit.id if version.stack.commit is not None else ""
        with acting_as(f"serve {held.source}", pid=os.getpid(), source=held.source, commit=commit):
            if not self.policy.source_rules(held.source).approve:
                apply(self.root, wish, self._options(), face=face)
                return True
            made, _ = plan(self.root, wish, now=time.time(), narrow=True)
            if needs_approval(made):
                self._approvals.hold_back(held, version, made, take_over=wish.take_over)
                return False
            # Order: this very plan, for another one could have got something in it since that needs approval.
            apply_saved(self.root, made, f"stack {name}", self._options(), take_over=wish.take_over, face=face)
        self._approvals.let_go(name)
        return True

    def _plan_anew(self, held: Standing) -> None:
        """What waits was planned for a machine that has been mended since."""
        self.standings.wait(held, None, "")
        if held.version is not None:
            self._renew(f"stack {held.version.stack.name}")

    def _check_borrowing(self, version: Version) -> None:
        """Raise Borrowed where a stack would borrow what is not its source's: data of others, a way into their networks."""
        with self.root.store.read() as tx:
            recorded = tx.stacks()
        for key, spec in version.stack.specs.items():
            for used in borrowed_keys(key, spec):
                owner = recorded.get(stack_of(used))
                if owner is not None and owner.origin != version.stack.origin:
                    raise NotAllowed(key, f"{used} is of a stack that is not of the same source ({owner.origin})")

    def _is_by_hand(self, version: Version) -> bool:
        """Whether a person applied this very manifest before it was a source's: nobody else is to be asked then."""
        with self.root.store.read() as tx:
            recorded = tx.stacks().get(version.stack.name)
        return recorded is not None and recorded.origin == version.by_hand

    def _options(self) -> ApplyOptions:
        return ApplyOptions(yes=True, timeout=self.policy.timeout, sourced=True, narrow=True)

    def _reach(self, held: Standing, version: Version | None, problem: str) -> None:
        self.standings.reach(held, version, problem)
        self._changed()

    def _delete(self, name: str, held: Standing) -> None:
        gone = suppress(NotFound)  # What a person deleted is gone already.
        seen = self.sightings.get(held.source)
        commit = seen.commit.id if seen is not None and seen.commit is not None else ""
        with gone, acting_as(f"serve {held.source}", pid=os.getpid(), source=held.source, commit=commit):
            doomed = Doomed(stack=name, take_over=True, reason=Reason.NOT_WANTED)
            delete(self.root, doomed, self._options(), face=Face(emit=self._tell))
        self.standings.forget(name)
        self.say(f"gone {name}", f"stack {name} was deleted, for it is no longer in {held.source}; its volumes stay", name)
        self.say(f"gone {name}", "", name)
        self._changed()

    def _heal(self, name: str) -> bool:
        """Whether anything was to be mended."""
        rule, face = self.policy.drift_rule, Face(emit=self._tell)
        with acting_as("serve", pid=os.getpid()):
            done = heal(self.root, [name], timeout=self.policy.timeout, face=face, rule_of=rule, narrow=True)
        if done.result is not None:
            self._add(ALL, AFTERWARDS)
        return done.result is not None

    # --- what others are told ---

    def read_state(self) -> tuple[tuple[SourceState, ...], tuple[StackState, ...]]:
        """How sources and stacks are now."""
        with self._lock:
            sources = tuple(
                render_source(self.sources[name], sighting, self._polled[name])
                for name, sighting in sorted(self.sightings.items())
            )
        return sources, self.standings.read()

    @property
    def ready(self) -> bool:
        """Whether everything and every source was looked at once."""
        with self._lock:
            return self._looked and self.sightings.keys() >= self.sources.keys()

    # --- everything ---

    def _look_at_all(self) -> float:
        """One observation for all stacks: those that differ from the records are looked at by themselves."""
        begun = self._clock()
        if begun < self._rests_until:
            return self._rests_until - begun
        looked = look(self.root)
        drift = make_drift_plan(
            stacks=looked.stacks, records=looked.records, observation=looked.observation, now=time.time()
        )
        busy = {stack for stack in {stack_of(action.key) for action in drift.actions} if self.root.read_holder(stack)}
        # What looks like drift of these is somebody's work; its end makes changes, and is looked at.
        actions = [action for action in drift.actions if stack_of(action.key) not in busy]
        to_mend = {action.id for action in keep_mended(drift, self.policy.drift_rule).actions}
        mended = [action for action in actions if action.id in to_mend]
        self._count("drift_found", len(actions))
        if self.policy.mends_some:
            self._mend({stack_of(action.key) for action in mended}, looked)
        left = [action for action in actions if action.id not in to_mend]
        words = {
            stack: f"stack {stack} drifted, which is told only (apply: {', '.join(does)})"
            for stack, does in _by_stack(left).items()
        }
        self._add(APPROVALS, 0.0)
        self._teller.say_all("drift ", words, over=lambda stack: f"stack {stack} has no drift any more", stack_of=str)
        self._storms = find_storms(looked.observation, now=time.time())
        stormy = {str(key): words for key, words in self._storms.items()}
        self._teller.say_all(
            "storm ", stormy, over=lambda key: f"{key} does not end any more", stack_of=lambda key: stack_of(Key(key))
        )
        self._watch(looked)
        self._looked = True
        ended = self._clock()
        self._rests_until = ended + min(RESTING * (ended - begun), LONGEST_REST)
        return min(self.policy.resync, LASTING) if self._storms else self.policy.resync

    def _mend(self, drifted: Collection[str], looked: Look) -> None:
        for stack in sorted(drifted):
            self._add(f"stack {stack}", 0.0)
        if looked.observation.strays or any(intent.stack not in drifted for intent in looked.folded.intents):
            heal(self.root, [], timeout=self.policy.timeout, face=Face(emit=self._tell))


def _by_stack(actions: Iterable[Action]) -> dict[str, list[str]]:
    """What actions would do, by their stack."""
    found: dict[str, list[str]] = {}
    for action in actions:
        found.setdefault(stack_of(action.key), []).append(f"{action.verb.value} {action.key}")
    return found
