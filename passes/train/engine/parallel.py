"""Several processes that train one network, as torchrun starts them: each takes its part of every batch.

All of them compile the same model by the same recipe, and so come to the same network before and behind training;
gradients are averaged by torch's DistributedDataParallel. Only the first one leaves an output.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from edgec.passes.train.engine.feeding import Batch
from edgec.passes.train.engine.learner import Learner, Loss


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: which of them this is.
        size: how many there are.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    def wrapped(self, learner: Learner) -> Loss:
        """The learner, its gradients averaged over all processes."""
        if self.size == 1:
            return learner
        devices = [self.device] if self.device.type == "cuda" else None
        made: Loss = DistributedDataParallel(learner, device_ids=devices)
        return made

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """This process's part of a batch, and what its loss weighs, so that the mean over all is that of the batch."""
        if self.size == 1:
            return batch, 1.0
        numbers = torch.arange(self.rank, len(batch), self.size)
        if not len(numbers):  # all must take part in the averaging
            return batch[torch.arange(1)], 0.0
        return batch[numbers], len(numbers) * self.size / len(batch)

    def shared(self, value: Any) -> Any:
        """The first process's, for all."""
        if self.size == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]

    def mean(self, value: torch.Tensor) -> float:
        """Of all processes' values."""
        if self.size == 1:
            return float(value)
        total = value.detach().double().clone()
        distributed.all_reduce(total)
        return float(total) / self.size


@contextmanager
def joined() -> Iterator[World]:
    """This process among those that torchrun has started; alone where it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if size == 1 or not distributed.is_torchelastic_launched():
        yield World(0, 1, device)
        return
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        distributed.destroy_process_group()
