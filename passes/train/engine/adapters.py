"""Affine maps over channels, through which tensors of a student meet those of a teacher that have other channels.

They are solved, not drawn: what is far from the teacher before the first step is then the network and not its adapters
(as the regressors of FitNets, Romero et al., ICLR 2015, are, that start anywhere).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

# Added to the variances of the student's channels, as a part of their mean: channels that say the same have one answer.
_RIDGE = 1e-4


class Adapters(torch.nn.ModuleList):
    """One for each pair of tensors; what has the teacher's channels already passes as it is.

    Args:
        channels: for each pair (the teacher's, the student's) where they differ; ``None`` where not.
    """

    def __init__(self, channels: Sequence[tuple[int, int] | None]) -> None:
        super().__init__(
            torch.nn.Identity() if pair is None else torch.nn.Linear(pair[1], pair[0]) for pair in channels
        )

    @property
    def needed(self) -> bool:
        """Whether any channels differ."""
        return any(isinstance(adapter, torch.nn.Linear) for adapter in self)

    def adapted(self, place: int, values: torch.Tensor) -> torch.Tensor:
        """The student's tensor of that pair with the teacher's channels; channels are axis 1."""
        adapter = self[place]
        if isinstance(adapter, torch.nn.Identity):
            return values
        made: torch.Tensor = adapter(values.float().movedim(1, -1)).movedim(-1, 1)
        return made

    def solve(self, pairs: Iterable[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        """Sets every map to the least squared error.

        Args:
            pairs: batch after batch, for each pair the student's tensor and the teacher's, on the adapters' device.
        """
        sums: dict[int, list[torch.Tensor]] = {}
        for tensors in pairs:
            for place, (own, other) in enumerate(tensors):
                if isinstance(self[place], torch.nn.Linear):
                    found = _moments(_rows(own), _rows(other))
                    known = sums.setdefault(place, [torch.zeros_like(moment) for moment in found])
                    for total, moment in zip(known, found, strict=True):
                        total += moment
        for place, moments in sums.items():
            adapter = self[place]
            assert isinstance(adapter, torch.nn.Linear)
            _solve(adapter, *moments)


def _rows(values: torch.Tensor) -> torch.Tensor:
    """(positions of all samples, channels) in float64: sums over many positions."""
    return values.detach().movedim(1, -1).reshape(-1, values.shape[1]).double()


def _moments(own: torch.Tensor, other: torch.Tensor) -> list[torch.Tensor]:
    return [own.T @ own, own.T @ other, own.sum(0), other.sum(0), torch.tensor(float(len(own)), device=own.device)]


def _solve(
    adapter: torch.nn.Linear, square: torch.Tensor, cross: torch.Tensor, own: torch.Tensor, other: torch.Tensor,
    count: torch.Tensor,
) -> None:  # fmt: skip
    own, other = own / count, other / count
    variance, together = square / count - torch.outer(own, own), cross / count - torch.outer(own, other)
    ridge = _RIDGE * float(variance.diagonal().mean()) or 1.0  # of channels that never move nothing is made
    weight = torch.linalg.solve(variance + ridge * torch.eye(len(own), device=own.device, dtype=own.dtype), together).T
    with torch.no_grad():
        adapter.weight.copy_(weight)
        adapter.bias.copy_(other - weight @ own)
