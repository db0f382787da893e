"""The fixture that gives real bundles."""

from tests.runtime.bundles import bundles

__all__ = ["bundles"]
