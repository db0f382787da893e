"""What a controller counts and sees → the text that Prometheus scrapes. All of it is read when it is asked for.

prometheus-client is imported with the first scrape. Cardinality is bounded: of very many containers and stacks the largest,
and those that something is wrong with, have lines of their own, the others are counted.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

import reconciler
from reconciler.controller.settings import MOST_CONTAINERS
from reconciler.controller.tally import Spread, Tally
from reconciler.linux.usage import Traffic, Usage, find_own_cgroup, read_memory, read_traffic, read_usage
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Health, Phase, Status
from reconciler.model.spec import ContainerSpec
from reconciler.plan.exits import ends_again_and_again
from reconciler.verbs.look import Look
from reconciler.verbs.serving import Serving

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of what `render` gives."""
MOST_STACKS = 500
COUNTS = {
    "looks": ("Looks at sources, stacks and everything.", ("kind", "result")),
    "changes": ("Changes that this controller made, by how they ended.", ("verb", "result")),
    "drift_found": ("Actions that drift asked for, over all looks at everything.", ()),
    "restarts_for_health": ("Containers that were restarted because their health check failed.", ()),
    "reloads": ("Reads of the configuration on SIGHUP.", ("result",)),
    "notifications": ("Notifications by what became of them.", ("result",)),
}
SPREADS = {
    "look_seconds": ("How long a look took.", ("kind",)),
    "change_seconds": ("How long a change took.", ("verb",)),
    "plan_actions": ("Actions of a plan that was carried out.", ("verb",)),
}
"""Both of what `Tally` counts: what it is, and its labels."""


class Seen(Struct, frozen=True):
    """A container as the last look at everything saw it."""

    stack: str
    name: str
    """With its index: `web/1`."""
    key: Key
    incarnation: str
    status: Status


class State(Struct, frozen=True, kw_only=True):
    """What the controller says of itself at one moment."""

    serving: Serving
    queued: Mapping[str, int]
    """Keys that are to be looked at, by queue."""
    working: Mapping[str, int]
    ready: bool


class Used(Struct, frozen=True):
    """What a container uses."""

    usage: Usage
    traffic: Traffic | None


class Metrics:
    """Those of one controller."""

    def __init__(
        self,
        tally: Tally,
        read_state: Callable[[], State],
        *,
        read_health: Callable[[], Mapping[Key, Health]] = dict,
        most_containers: int = MOST_CONTAINERS,
        most_stacks: int = MOST_STACKS,
    ) -> None:
        self.tally = tally
        self._read_state = read_state
        self._read_health = read_health
        self.most_containers = most_containers
        self._most_stacks = most_stacks
        self._seen: Sequence[Seen] = ()
        self._lock = threading.Lock()
        self._registry: Any = None

    def follow(self, looked: Look) -> None:
        """Take up what a look at everything saw."""
        self._seen = tuple(_find_seen(looked))

    def render(self) -> bytes:
        """All of it, in Prometheus' text format. Costs a few reads for each container that has lines of its own."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        with self._lock:  # One scrape at a time: they are for one server.
            if self._registry is None:
                self._registry = CollectorRegistry(auto_describe=False)
                ProcessCollector(registry=self._registry)
                self._registry.register(self)
            return bytes(generate_latest(self._registry))

    def collect(self) -> "Iterator[Metric]":
        """What prometheus-client asks its collectors for."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        state = self._read_state()
        build = {"version": reconciler.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("reconcile_build", "What runs.", value=build)
        yield GaugeMetricFamily("reconcile_ready", "Whether everything was looked at once.", value=int(state.ready))
        yield from self._collect_counts()
        yield from _collect_queues(state)
        yield from _collect_sources(state.serving)
        yield from _collect_stacks(state.serving, self._most_stacks)
        yield from self._collect_containers()

    def _collect_counts(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        counts, spreads = self.tally.copy()
        for what, (text, labels) in COUNTS.items():
            counter = CounterMetricFamily(f"reconcile_{what}", text, labels=labels)
            found = {named: number for (name, named), number in counts.items() if name == what}
            for named, number in sorted(found.items()) if labels else [((), found.get((), 0))]:
                counter.add_metric(named, number)
            yield counter
        for what, (text, labels) in SPREADS.items():
            histogram = HistogramMetricFamily(f"reconcile_{what}", text, labels=labels)
            for (name, named), spread in sorted(spreads.items()):
                if name == what:
                    histogram.add_metric(named, buckets=_add_up(spread), sum_value=spread.total)
            yield histogram

    def _collect_containers(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        health = self._read_health()
        shown, left_out = self._choose(health)
        text = "Containers without lines of their own: there are more than `metrics: containers`."
        yield GaugeMetricFamily("reconcile_containers_left_out", text, value=left_out)
        by_phase: dict[str, int] = {}
        for seen in self._seen:
            by_phase[seen.status.phase.value] = by_phase.get(seen.status.phase.value, 0) + 1
        family = GaugeMetricFamily("reconcile_containers", "Containers on record, by phase.", labels=("phase",))
        for phase, number in sorted(by_phase.items()):
            family.add_metric((phase,), number)
        yield family
        yield from _render_containers([(seen, _measure(seen)) for seen in shown], health)

    def _choose(self, health: Mapping[Key, Health]) -> tuple[list[Seen], int]:
        """Those that have lines of their own: what is not well first, then what uses most memory; how many have none."""
        if len(self._seen) <= self.most_containers:
            return list(self._seen), 0
        weighed = sorted(self._seen, key=lambda seen: (_is_well(seen, health), -_weigh(seen), seen.stack, seen.name))
        shown = sorted(weighed[: self.most_containers], key=lambda seen: (seen.stack, seen.name))
        return shown, len(self._seen) - len(shown)


def _add_up(spread: Spread) -> list[tuple[str, float]]:
    """The buckets as Prometheus wants them: each with all that are below it."""
    buckets, below = [], 0
    for bound, count in zip((*spread.bounds, float("inf")), spread.counts, strict=True):
        below += count
        buckets.append((f"{bound:g}" if bound != float("inf") else "+Inf", float(below)))
    return buckets


def _find_seen(looked: Look) -> Iterator[Seen]:
    for key, record in looked.records.items():
        if isinstance(record.spec, ContainerSpec):
            parts = split_key(Key(key))
            status = looked.observation.statuses.get(key)
            if status is not None:
                yield Seen(parts.stack, f"{parts.name}/{parts.index}", key, record.incarnation, status)


def _is_well(seen: Seen, health: Mapping[Key, Health]) -> bool:
    steady = seen.status.phase is Phase.RUNNING and not ends_again_and_again(seen.status, now=time.time())
    return steady and health.get(seen.key) is not Health.UNHEALTHY


def _weigh(seen: Seen) -> int:
    place = find_own_cgroup(seen.status.pid, seen.incarnation) if seen.status.pid else ""
    return (read_memory(place) or 0) if place else 0


def _measure(seen: Seen) -> Used | None:
    """What a container uses; None where it does not run any more."""
    place = find_own_cgroup(seen.status.pid, seen.incarnation) if seen.status.pid else ""
    return Used(read_usage(place), read_traffic(seen.status.pid)) if place else None


def _collect_queues(state: State) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    for name, text, values in (
        ("queue_depth", "Keys that are to be looked at, now or later.", state.queued),
        ("queue_working", "Keys that are being looked at.", state.working),
    ):
        family = GaugeMetricFamily(f"reconcile_{name}", text, labels=("queue",))
        for queue, number in sorted(values.items()):
            family.add_metric((queue,), number)
        yield family


def _collect_sources(serving: Serving) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    broken = GaugeMetricFamily("reconcile_source_broken", "Whether a source can't be read.", labels=("source",))
    invalid = GaugeMetricFamily("reconcile_source_invalid", "Entries of a source that are invalid.", labels=("source",))
    answered = GaugeMetricFamily(
        "reconcile_source_answered_timestamp_seconds", "When a source could be read last.", labels=("source",)
    )
    for source in serving.sources:
        broken.add_metric((source.name,), int(bool(source.broken)))
        invalid.add_metric((source.name,), len(source.problems))
        if source.answered_at:
            answered.add_metric((source.name,), source.answered_at)
    problem = GaugeMetricFamily(
        "reconcile_configuration_invalid", "Whether the configuration file has a mistake.", value=int(bool(serving.problem))
    )
    yield from (broken, invalid, answered, problem)


def _collect_stacks(serving: Serving, most: int) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    synced = GaugeMetricFamily(
        "reconcile_stack_synced", "Whether a stack is as its source wants it.", labels=("stack", "source")
    )
    waits = GaugeMetricFamily("reconcile_stack_waits", "Whether a stack waits for approval.", labels=("stack", "source"))
    ordered = sorted(serving.stacks, key=lambda one: (one.synced, one.stack))
    for stack in sorted(ordered[:most], key=lambda one: one.stack):
        synced.add_metric((stack.stack, stack.source), int(stack.synced))
        waits.add_metric((stack.stack, stack.source), int(bool(stack.waits)))
    yield from (synced, waits)
    text = "Stacks of sources without lines of their own."
    yield GaugeMetricFamily("reconcile_stacks_left_out", text, value=max(len(serving.stacks) - most, 0))


_CONTAINER = ("stack", "container")
_HEALTH = {Health.HEALTHY: 1, Health.UNHEALTHY: 0}
_Pick = Callable[[Seen, Used | None], float | None]


def _render_containers(found: Sequence[tuple[Seen, Used | None]], health: Mapping[Key, Health]) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    def value(name: str, text: str, pick: _Pick, kind: Any = GaugeMetricFamily) -> Any:
        family = kind(f"reconcile_container_{name}", text, labels=_CONTAINER)
        for seen, used in found:
            number = pick(seen, used)
            if number is not None:
                family.add_metric((seen.stack, seen.name), number)
        return family

    def of_usage(name: str) -> _Pick:
        return lambda _, used: getattr(used.usage, name) if used is not None else None

    def of_traffic(name: str) -> _Pick:
        return lambda _, used: getattr(used.traffic, name) if used is not None and used.traffic is not None else None

    yield value("running", "Whether it runs.", lambda seen, _: int(seen.status.phase is Phase.RUNNING))
    yield value(
        "healthy",
        "Whether its health check passes; only of those that have one, and once it is known.",
        lambda seen, _: _HEALTH.get(health.get(seen.key, Health.NONE)),
    )
    yield value("restarts", "Restarts by its restart policy.", lambda seen, _: seen.status.restarts, CounterMetricFamily)
    yield value("start_time_seconds", "When it was started.", lambda seen, _: seen.status.started_at or None)
    yield value("cpu_seconds", "CPU time used.", of_usage("cpu_seconds"), CounterMetricFamily)
    yield value("memory_bytes", "Memory used, without file pages that nobody uses.", of_usage("memory"))
    yield value("memory_limit_bytes", "Memory that it may use.", of_usage("memory_limit"))
    yield value("pids", "Processes and threads.", of_usage("pids"))
    yield value("oom_kills", "Processes killed for want of memory.", of_usage("oom_kills"), CounterMetricFamily)
    yield value("network_receive_bytes", "Bytes received, but for lo.", of_traffic("received"), CounterMetricFamily)
    yield value("network_transmit_bytes", "Bytes sent, but for lo.", of_traffic("sent"), CounterMetricFamily)
