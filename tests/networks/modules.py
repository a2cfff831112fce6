"""Small torch modules of several architectures, and functions that return them with example inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block with BatchNorm, its ReLU called as a function."""

    def __init__(self, before: int, behind: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, behind, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(behind)
        self.conv2 = nn.Conv2d(behind, behind, 3, padding=1)
        self.short = nn.Conv2d(before, behind, 1, bias=False)

    def forward(self, x: Any) -> Any:
        return F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))) + self.short(x))


class Residual(nn.Module):
    """Two blocks, pooling to one place, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(Block(3, 6), nn.MaxPool2d(2), Block(6, 8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(torch.flatten(self.pool(self.encoder(x)), 1)))


class Autoencoder(nn.Module):
    """Convolutions down, transposed convolutions up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.GELU())
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, 2), nn.PReLU(4), nn.ConvTranspose2d(4, 1, 2, 2))

    def forward(self, x: Any) -> Any:
        return torch.sigmoid(self.up(self.down(x)))


class Shared(nn.Module):
    """A layer that is called twice, two that share a weight, linear layers on three axes, halves."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.act = nn.Hardswish()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Any) -> Any:
        x = self.twice(self.act(self.twice(self.norm(x))))
        left, right = self.act(self.first(x)).chunk(2, -1)
        return self.second(torch.cat([right, left], -1))


class Named(nn.Module):
    """Two inputs by name, a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(2, 4, 3)
        self.extra = nn.Linear(3, 4)

    def forward(self, image: Any, extra: Any) -> Any:
        x = self.image(image).mean((2, 3)) + self.extra(extra)
        return {"scores": x.softmax(-1), "parts": {"raw": x}}


class Pools(nn.Module):
    """Adaptive pooling of both kinds, interpolation, a view by sizes, GroupNorm, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.group = nn.GroupNorm(2, 8)
        self.fine = nn.AdaptiveAvgPool2d((4, 4))
        self.one = nn.AdaptiveMaxPool2d(1)
        self.register_buffer("scale", torch.arange(1.0, 9.0))
        self.wide = nn.Linear(128, 5)
        self.flat = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = F.relu6(self.bn(self.conv(x)))
        y = self.group(F.interpolate(x, scale_factor=2.0)) * self.scale[None, :, None, None]
        return self.wide(self.fine(x).flatten(1)), self.flat(self.one(y).view(y.size(0), -1))


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "plain": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)),
        lambda: torch.randn(1, 3, 8, 8),
    ),
    "residual": (Residual, lambda: torch.randn(2, 3, 8, 8)),
    "autoencoder": (Autoencoder, lambda: (torch.randn(1, 1, 8, 8),)),
    "shared": (Shared, lambda: torch.randn(1, 4, 6)),
    "named": (Named, lambda: {"image": torch.randn(1, 2, 6, 6), "extra": torch.randn(1, 3)}),
    "pools": (Pools, lambda: torch.randn(1, 3, 8, 8)),
}


def module(name: str) -> tuple[nn.Module, Any]:
    """The module of that name, in training mode, its weights and statistics drawn by chance, and example inputs."""
    build, inputs = MODULES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build()
        with torch.no_grad():
            for tensor in made.buffers():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape) + 0.5)
        return made.train(), inputs()


def residual() -> tuple[nn.Module, Any]:
    """For the command: ``networks.modules:residual``."""
    return module("residual")
