"""reconcile: a declarative container engine. Rooms and their order: docs/ARCHITECTURE.md."""

__version__ = "0.1.0"
