"""Budgets: the part of a network's cost that is to be kept, as passes' options; the refusal of what cannot be met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from edgec.ir.errors import UsageError

Unit = Literal["params", "macs", "weight_bytes"]
UNITS: tuple[Unit, ...] = ("params", "macs", "weight_bytes")
WORDS: dict[Unit, str] = {"params": "parameters", "macs": "multiply-accumulates", "weight_bytes": "bytes of weights"}

ENOUGH = "the budget is met without it, at less error"
"""Why a layer is left that could have been changed."""

Share = Annotated[float | None, Field(gt=0, le=1)]
"""An option: the part that is kept."""
Params = Annotated[Share, Field(description="part of the network's parameters to keep: one budget for all layers")]
Macs = Annotated[Share, Field(description="part of the network's multiply-accumulates to keep: one budget for all")]
Count = Annotated[int | None, Field(ge=1)]
"""An option: a number of channels or ranks."""
MinRank = Annotated[
    Count,
    Field(description="no layer gets a lower rank; without it 2, or what the recipe's targets want at least"),
]


def give_one_of(given: Sequence[str], options: Sequence[str], nothing: str | None = None) -> None:
    """Holds options that exclude each other to one of them.

    Args:
        given: those that have a value.
        options: all of them.
        nothing: what is said where none has; ``None`` where that is right.

    Raises:
        ValueError: several have, or none has and one must.
    """
    if len(given) > 1:
        said: str | None = f"{' and '.join(given)} exclude each other"
    else:
        said = None if given else nothing
    if said is not None:
        raise ValueError(f"{said}: give one of {', '.join(options)}")


class UnreachableBudget(UsageError):
    """No ranks, or no number of channels, meet a budget; what else a user may have done wrong is no such error."""


def unreachable(place: str, unit: Unit, share: float, least: float, total: int, fix: str) -> UnreachableBudget:
    """The refusal of a budget that nothing meets. The share that it names can be met when it is asked for.

    Args:
        place: the pass.
        unit: what is counted.
        share: what was asked for.
        least: the least that the network can come to cost.
        total: what it costs.
        fix: what to do about it.
    """
    return UnreachableBudget(
        f"{place}: {unit}",
        f"the network cannot be brought to {share:.4g} of its {WORDS[unit]}; "
        f"the least that can be reached is {_up(least, total)}",
        fix,
    )


def _up(least: float, total: int) -> str:
    """A share with four digits behind the point, rounded up: so much of ``total``, as floats multiply, is enough."""
    digits = math.ceil(least / max(total, 1) * 1e4)
    while digits / 1e4 * total < least:
        digits += 1
    return f"{digits / 1e4:.4g}"
