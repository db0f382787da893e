"""What the controller does of itself: plain values, from flags or from a configuration (`settings.py`)."""

from collections.abc import Mapping

from msgspec import Struct

from reconciler.plan.mending import DriftRule


class SourceRules(Struct, frozen=True, kw_only=True):
    """What is done of itself with stacks of a source."""

    prune: bool = False
    """Whether one is deleted; its volumes never are."""
    max_delete: int = 0
    """How many may go at once; 0: as many as stay."""
    approve: bool = False
    """Whether what it changes waits for a person. Nothing is deleted by itself then."""


class Policy(Struct, frozen=True, kw_only=True):
    """All of it."""

    heal: bool = True
    """Whether drift is mended, or only told, where `drift` says nothing of a stack."""
    drift: Mapping[str, DriftRule] = {}
    """By stack."""
    resync: float = 300.0
    """Seconds between looks at everything for which there was no reason."""
    prune: bool = False
    max_delete: int = 0
    approve: bool = False
    """All as of `SourceRules`, for sources that `sources` says nothing of."""
    sources: Mapping[str, SourceRules] = {}
    """By the source's name."""
    poll: float = 60.0
    """Seconds between looks at a source that told nothing: for file systems without inotify."""
    timeout: float = 300.0
    """Seconds that one container may take to be seen."""

    def drift_rule(self, stack: str) -> DriftRule:
        """What is done about the drift of a stack."""
        return self.drift.get(stack) or DriftRule(heal=self.heal)

    def source_rules(self, source: str) -> SourceRules:
        """What is done of itself with stacks of a source."""
        flags = SourceRules(prune=self.prune, max_delete=self.max_delete, approve=self.approve)
        return self.sources.get(source) or flags

    @property
    def mends_some(self) -> bool:
        """Whether any drift is mended, of whatever stack."""
        return self.heal or any(rule.mends_some for rule in self.drift.values())
