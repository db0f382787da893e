"""Plain data -> YAML text that this room reads back as the same data. For `-o yaml` and exports.

PyYAML knows YAML 1.1: what only 1.2 takes for a number (`1e3`) is quoted here, so that it stays text for both.
"""

from typing import Any

import msgspec
import yaml

from reconciler.manifest.scalars import read_scalar


class _Dumper(yaml.SafeDumper):
    """Quotes all text that would not be text again."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Values that are here twice are written twice: an alias would only puzzle the reader."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.strip("\n") else None if isinstance(read_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(data: Any) -> str:
    """One YAML document in block style, keys in their order. Takes what msgspec can make plain."""
    plain = msgspec.to_builtins(data)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
