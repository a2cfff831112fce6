"""``repeat`` in a recipe: passes that run several times in turn, so that a budget is reached in steps.

It is no pass of its own but stands among them::

    - repeat: {times: 4, passes: [compress: {params: 0.01}, finetune: {epochs: 20}]}

is ``compress`` and ``finetune`` four times over. An option that says what part of the network stays (the ``shares`` of
a pass) is what is left when all rounds are done: each round keeps its ``times``-th root, 0.316 here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgec.ir.errors import UsageError
from edgec.passes.framework.registry import pass_class, pass_names

NAME = "repeat"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "runs passes several times in turn; shares such as params are what is left in the end",
    "properties": {
        "times": {"type": "integer", "minimum": 2, "description": "how many rounds"},
        "passes": {"type": "array", "minItems": 1, "description": "the passes of a round"},
    },
    "required": ["times", "passes"],
    "additionalProperties": False,
}
_SHAPE = "write repeat: {times: 4, passes: [compress: {params: 0.01}, finetune]}"


@dataclass(frozen=True)
class Turn:
    """One pass of one round.

    Attributes:
        name, options: as a recipe has them, the shares being those of the round.
        place: ``round 2 of 4: passes[1]``.
    """

    name: str
    options: Mapping[str, Any]
    place: str


def turns(options: Mapping[str, Any], where: str) -> Iterator[Turn]:
    """The passes of all rounds in the order in which they run.

    Raises:
        UsageError: ``repeat`` is not written as it should; the line begins with ``where``.
    """
    unknown = [key for key in options if key not in SCHEMA["properties"]]
    if unknown:
        raise UsageError(where, f"has no option '{unknown[0]}'", _SHAPE)
    times, passes = options.get("times"), options.get("passes")
    if not isinstance(times, int) or isinstance(times, bool) or times < 2:
        raise UsageError(f"{where}: times", "is how often the passes run, 2 at least", _SHAPE)
    if not isinstance(passes, Sequence) or isinstance(passes, str) or not passes:
        raise UsageError(f"{where}: passes", "is a list of passes", _SHAPE)
    steps = [_step(entry, f"{where}: passes[{index}]") for index, entry in enumerate(passes)]
    for number in range(times):
        for index, (name, own) in enumerate(steps):
            yield Turn(name, _of_round(name, own, times), f"round {number + 1} of {times}: passes[{index}]")


def _step(entry: object, where: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        [(name, options)] = entry.items()
        if options is None or isinstance(options, Mapping):
            if name == NAME:
                raise UsageError(where, "repeat cannot stand in repeat", "multiply their times")
            return str(name), dict(options or {})
    raise UsageError(where, "is no pass", "a pass is a name, or a name with its options: prune: {macs: 0.7}")


def _of_round(name: str, options: Mapping[str, Any], times: int) -> dict[str, Any]:
    """The options of each round."""
    shares = pass_class(name).shares if name in pass_names() else frozenset()
    return {
        key: value ** (1 / times) if key in shares and isinstance(value, int | float) and 0 < value <= 1 else value
        for key, value in options.items()
    }
