"""Plain data → YAML text, for `-o yaml`. The counterpart of `text.py`; writes no manifest's comments."""

from typing import Any

import yaml


def dump_yaml(data: Any) -> str:
    """YAML 1.1 in block style, keys in the order given, strings that look like something else quoted."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    return str(text)
