"""torch networks whose channels hang together in the ways that published architectures have.

Each is a module and the shape of its input. Small widths, all different where the structure allows it, and seeded
random parameters and statistics, so that no two tensors are equal: torch's exporter shares equal ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Shape = tuple[int, ...]


def conv(before: int, behind: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU."""
    layer = nn.Conv2d(before, behind, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(behind), nn.ReLU())


class Basic(nn.Module):
    """ResNet's block of two convolutions, its shortcut projected where the shape changes."""

    def __init__(self, before: int, behind: int, stride: int) -> None:
        super().__init__()
        self.first = conv(before, behind, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(behind, behind, 3, padding=1, bias=False), nn.BatchNorm2d(behind))
        self.short: nn.Module = nn.Identity()
        if stride > 1 or before != behind:
            self.short = nn.Sequential(nn.Conv2d(before, behind, 1, stride, bias=False), nn.BatchNorm2d(behind))

    def forward(self, x: Any) -> Any:
        return F.relu(self.second(self.first(x)) + self.short(x))


class Bottleneck(nn.Module):
    """ResNet's and, with groups, ResNeXt's block of three convolutions."""

    def __init__(self, before: int, inner: int, behind: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(before, inner, 1),
            conv(inner, inner, groups=groups),
            nn.Conv2d(inner, behind, 1, bias=False),
            nn.BatchNorm2d(behind),
        )
        self.short = nn.Conv2d(before, behind, 1) if before != behind else nn.Identity()

    def forward(self, x: Any) -> Any:
        return F.relu(self.body(x) + self.short(x))


class Gate(nn.Module):
    """Squeeze and excitation, by 1x1 convolutions or by linear layers."""

    def __init__(self, channels: int, inner: int, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.squeeze: nn.Module = nn.Linear(channels, inner) if linear else nn.Conv2d(channels, inner, 1)
        self.excite: nn.Module = nn.Linear(inner, channels) if linear else nn.Conv2d(inner, channels, 1)

    def forward(self, x: Any) -> Any:
        pooled = F.adaptive_avg_pool2d(x, 1)
        if self.linear:
            scale = torch.sigmoid(self.excite(F.relu(self.squeeze(torch.flatten(pooled, 1)))))
            return x * scale.unsqueeze(2).unsqueeze(3)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(pooled))))


class Inverted(nn.Module):
    """MobileNet's block: expand, filter each channel, gate, project."""

    def __init__(self, before: int, inner: int, behind: int, stride: int = 1, gate: int = 0) -> None:
        super().__init__()
        layers = [conv(before, inner, 1), conv(inner, inner, stride=stride, groups=inner)]
        layers += [nn.Sequential(Gate(inner, gate))] if gate else []
        self.body = nn.Sequential(*layers, nn.Conv2d(inner, behind, 1, bias=False), nn.BatchNorm2d(behind))
        self.skip = stride == 1 and before == behind

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.skip else self.body(x)


class Head(nn.Module):
    """Mean over the image, then a linear layer."""

    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Dense(nn.Module):
    """DenseNet: each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 10)
        self.norms = nn.ModuleList(nn.BatchNorm2d(10 + 6 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(10 + 6 * i, 6, 3, padding=1) for i in range(3))
        self.transition = conv(28, 14, 1)
        self.head = Head(14)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.avg_pool2d(self.transition(x), 2))


class UNet(nn.Module):
    """Two levels down and up again, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 8), conv(8, 12), conv(12, 20)
        self.up2, self.up1 = nn.ConvTranspose2d(20, 14, 2, 2), nn.ConvTranspose2d(16, 10, 2, 2)
        self.mix2, self.mix1 = conv(26, 16), conv(18, 9)
        self.last = nn.Conv2d(9, 2, 1)

    def forward(self, x: Any) -> Any:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.bottom(F.max_pool2d(second, 2))
        x = self.mix2(torch.cat([self.up2(x), second], 1))
        return self.last(self.mix1(torch.cat([first, self.up1(x)], 1)))


class Shuffled(nn.Module):
    """ShuffleNet: grouped 1x1 convolutions with a channel shuffle and a depthwise convolution between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.first, self.depth = conv(16, 24, 1, groups=2), conv(24, 24, groups=24)
        self.last = nn.Sequential(nn.Conv2d(24, 16, 1, groups=2, bias=False), nn.BatchNorm2d(16))
        self.head = Head(16)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.first(x)
        n, c, h, w = y.shape
        y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(x + self.last(self.depth(y))))


class Branches(nn.Module):
    """Split, a branch on one half, concatenation: as in ShuffleNet V2 and the CSP blocks of YOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.mix, self.head = conv(3, 20), conv(10, 14), conv(24, 12, 1), Head(12)

    def forward(self, x: Any) -> Any:
        kept, taken = torch.chunk(self.stem(x), 2, dim=1)
        return self.head(self.mix(torch.cat([kept, self.branch(taken)], 1)))


class SplitSum(nn.Module):
    """Unequal parts of one convolution, one added to another layer, the other read alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side, self.last, self.alone = conv(3, 18), conv(3, 8), conv(8, 6), conv(10, 6)
        self.head = Head(6)

    def forward(self, x: Any) -> Any:
        first, second = torch.split(self.stem(x), [8, 10], dim=1)
        return self.head(self.last(first + self.side(x)) * self.alone(second))


class Inception(nn.Module):
    """Four branches of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 12)
        self.one, self.three = conv(12, 6, 1), nn.Sequential(conv(12, 5, 1), conv(5, 8))
        self.five, self.pooled = nn.Sequential(conv(12, 4, 1), conv(4, 7, 5)), conv(12, 9, 1)
        self.head = Head(30)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        pooled = F.max_pool2d(x, 3, 1, 1)
        return self.head(torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(pooled)], 1))


class Classic(nn.Module):
    """VGG: the image is flattened into the first linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 12), nn.MaxPool2d(2))
        self.first, self.second = nn.Linear(12 * 16, 30), nn.Linear(30, 10)

    def forward(self, x: Any) -> Any:
        return self.second(F.relu(self.first(torch.flatten(self.body(x), 1))))


class Normalized(nn.Module):
    """PReLU, InstanceNorm, GroupNorm and a transposed convolution in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.PReLU(8),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.InstanceNorm2d(12, affine=True),
            nn.ConvTranspose2d(12, 16, 2, 2),
            nn.GroupNorm(4, 16),
            nn.Conv2d(16, 4, 1),
        )

    def forward(self, x: Any) -> Any:
        return self.body(x)


class Last(nn.Module):
    """ConvNeXt: depthwise, then LayerNorm and linear layers over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.norm, self.wide, self.narrow = nn.LayerNorm(12), nn.Linear(12, 30), nn.Linear(30, 12)
        self.head = Head(12)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.head(x + y)


class Signal(nn.Module):
    """Convolutions of one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 8, 5, padding=2), nn.Conv1d(8, 12, 5, padding=2)
        self.norm, self.fc = nn.BatchNorm1d(8), nn.Linear(12 * 16, 6)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.flatten(F.relu(self.second(F.relu(self.norm(self.first(x))))), 1))


_IMAGE = (1, 3, 16, 16)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "VGG, flatten": (Classic, _IMAGE),
    "ResNet, basic blocks": (
        lambda: nn.Sequential(conv(3, 8), Basic(8, 8, 1), Basic(8, 12, 2), Basic(12, 12, 1), Head(12)),
        _IMAGE,
    ),
    "ResNet, bottlenecks": (
        lambda: nn.Sequential(conv(3, 8), Bottleneck(8, 6, 20), Bottleneck(20, 7, 20), Head(20)),
        _IMAGE,
    ),
    "ResNeXt, groups": (
        lambda: nn.Sequential(conv(3, 8), Bottleneck(8, 12, 20, 4), Bottleneck(20, 18, 20, 3), Head(20)),
        _IMAGE,
    ),
    "MobileNetV1, depthwise": (
        lambda: nn.Sequential(conv(3, 8), conv(8, 8, groups=8), conv(8, 14, 1), conv(14, 14, groups=14), Head(14)),
        _IMAGE,
    ),
    "MobileNetV2, residual depthwise": (
        lambda: nn.Sequential(conv(3, 8), Inverted(8, 24, 8), Inverted(8, 20, 12, 2), Inverted(12, 30, 12), Head(12)),
        _IMAGE,
    ),
    "MobileNetV3, gates by convolutions": (
        lambda: nn.Sequential(conv(3, 8), Inverted(8, 24, 8, gate=6), Inverted(8, 20, 12, gate=5), Head(12)),
        _IMAGE,
    ),
    "SENet, gates by linear layers": (
        lambda: nn.Sequential(conv(3, 8), Gate(8, 3, linear=True), Basic(8, 12, 2), Gate(12, 4, linear=True), Head(12)),
        _IMAGE,
    ),
    "DenseNet": (Dense, _IMAGE),
    "Inception": (Inception, _IMAGE),
    "U-Net": (UNet, _IMAGE),
    "ShuffleNet": (Shuffled, _IMAGE),
    "ShuffleNetV2, CSP: halves": (Branches, _IMAGE),
    "unequal parts": (SplitSum, _IMAGE),
    "PReLU, norms, transposed": (Normalized, _IMAGE),
    "ConvNeXt": (Last, _IMAGE),
    "one dimension": (Signal, (1, 2, 16)),
}


def export(name: str, path: Path) -> None:
    """Writes the network of that name as ONNX; the parameters keep their names where a layer reads them as they are."""
    model, example = network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the older of torch's two
        torch.onnx.export(
            model,
            (example,),
            str(path),
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network of that name, in evaluation mode, and an input."""
    build, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    made = build().eval()
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
    return made, torch.zeros(shape)
