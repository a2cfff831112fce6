"""What one pass did to the graph, with what the network cost and computed before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgec.passes.framework.remark import Remark


@dataclass(frozen=True)
class Record:
    """What one pass did to the graph.

    Attributes:
        sqnr_db: the graph behind it against the original model, on the probes.
        before, after: :meth:`Cost.as_dict` of the graph in front of it and behind it.
        target: the board it ran for; ``None`` in the shared part.
        curves: what it wants drawn, by name.
    """

    name: str
    place: str
    seconds: float
    before: Mapping[str, int]
    after: Mapping[str, int]
    sqnr_db: float
    did: Sequence[Remark]
    missed: Sequence[Remark]
    target: str | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
