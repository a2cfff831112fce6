"""Networks of well-known shapes with as many channels as devices like, untrained, for benches of what is emitted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks.coupled_torch import Basic, Head, Inverted, conv
from torch import nn
from torch.nn import functional as F

SHAPE = (1, 3, 64, 64)


class Dense(nn.Module):
    """Layers that read all before them, as in DenseNet."""

    def __init__(self, growth: int = 16) -> None:
        super().__init__()
        self.stem = conv(3, 32)
        self.layers = nn.ModuleList(conv(32 + growth * i, growth) for i in range(4))
        self.squeeze, self.head = conv(32 + 4 * growth, 48, 1), Head(48)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.avg_pool2d(self.squeeze(x), 2))


class UNet(nn.Module):
    """Down twice, and up again beside what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = conv(3, 16), conv(16, 32), conv(32, 64)
        self.up, self.right = nn.ConvTranspose2d(64, 32, 2, 2), conv(64, 32)
        self.last, self.out = conv(48, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: Any) -> Any:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        right = self.right(torch.cat([second, self.up(self.bottom(F.max_pool2d(second, 2)))], 1))
        return self.out(self.last(torch.cat([first, F.interpolate(right, scale_factor=2.0)], 1)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: nn.Sequential(
        conv(3, 32, stride=2), Basic(32, 32, 1), Basic(32, 64, 2), Basic(64, 64, 1), Head(64)
    ),
    "mobilenet": lambda: nn.Sequential(
        conv(3, 32, stride=2), Inverted(32, 96, 32), Inverted(32, 96, 48, 2), Inverted(48, 144, 48), Head(48)
    ),
    "densenet": Dense,
    "unet": UNet,
}


def export(name: str, path: Path) -> None:
    """Writes the network of that name with seeded weights as ONNX."""
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the older of torch's two
        torch.onnx.export(module, (torch.zeros(SHAPE),), str(path), opset_version=17, dynamo=False)
