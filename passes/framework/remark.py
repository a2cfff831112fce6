"""What a pass says of one node: what it did there, or could have done and did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Remark:
    """What a pass did, or could have done and did not, at one node."""

    node: str
    what: str
    figures: Mapping[str, float] = field(default_factory=dict)
