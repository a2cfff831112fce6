"""Gradients that are much longer than usual are shortened: one bad batch must not throw away what was learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# How much of what is usual stays from step to step.
_STAYS = 0.98


class Gradients:
    """Remembers how long gradients are.

    Losses have any scale here, so that no fixed length is right for all of them.

    Args:
        most: times the usual length that a gradient may have.

    Attributes:
        usual: the running mean of the lengths of gradients as they were taken; 0 before the first.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self.usual = 0.0

    def shorten(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Shortens the gradient of all parameters together where it is too long."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        limit = self._most * self.usual or math.inf
        length = float(torch.nn.utils.get_total_norm(gradients, foreach=True))
        if not math.isfinite(length):  # the trainer's business
            return
        if length > limit:
            for gradient in gradients:
                gradient.mul_(limit / length)
        taken = min(length, limit)
        self.usual = _STAYS * self.usual + (1 - _STAYS) * taken if self.usual else taken
