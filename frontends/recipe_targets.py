"""The recipe's ``targets``: names of devices, each with options of its backend where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgec.frontends.recipe_values import fault, read_names, read_text, shown

_FORM = "a target is a name, or a name with its options: jetson-orin-nano: {profiles: ...}"
_NAMED = {"type": "string"}

#: For editors; what options there are, the backends say.
TARGETS_SCHEMA = {
    "type": "array",
    "items": {
        "anyOf": [
            _NAMED,
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": {"type": ["object", "null"]},
            },
        ]
    },
    "minItems": 1,
    "uniqueItems": True,
}


@dataclass(frozen=True)
class TargetEntry:
    """One entry of ``targets``.

    Attributes:
        name: the target.
        options: what its backend is told, as it was written.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def read_targets(value: object) -> tuple[TargetEntry, ...]:
    """The entries, each target once; what is none is a fault."""
    entries = [_read_target(item) for item in value] if isinstance(value, list | tuple) else []
    read_names([entry.name for entry in entries] if entries else value, "target")
    return tuple(entries)


def _read_target(value: object) -> TargetEntry:
    if isinstance(value, TargetEntry):
        return value
    if not isinstance(value, Mapping):
        return TargetEntry(read_text(value))
    if len(value) != 1:
        what = "is empty" if not value else f"holds {len(value)} keys ({', '.join(map(str, value))})"
        raise fault(what, f"{_FORM}; indent the options below the name" if value else _FORM)
    name, options = next(iter(value.items()))
    if options is not None and not isinstance(options, Mapping):
        raise fault(f"the options of '{name}' must be a mapping, not {shown(options)}", _FORM)
    return TargetEntry(read_text(name), dict(options or {}))
