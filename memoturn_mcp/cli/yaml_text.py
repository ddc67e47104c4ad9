"""A JSON value as YAML. Called by `output`, where it is asked for."""

from __future__ import annotations

from typing import Any

import yaml

_BREAKING = frozenset("\x85\u2028\u2029\ufeff")
"""What YAML takes for the end of a line, or drops, unless it is escaped."""


class _Dumper(yaml.SafeDumper):
    """Keeps these characters as they are said, which PyYAML alone does not do for keys."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if _BREAKING.intersection(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def as_yaml(value: Any) -> str:
    """A document of readable text, without the line that separates it from others."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
