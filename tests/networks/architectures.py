"""Twenty families of vision networks, small: their blocks and their way of writing torch, with few channels.

What matters is what an exporter makes of each: grouped and depthwise convolutions, channel shuffles, squeeze and
excitation, attention with views and permutes, shifted windows, LayerNorm on channels last, pixel shuffles, heads that
join boxes and scores, non-maximum suppression inside, recurrent tails, two inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def conv(before: int, behind: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU) -> Any:
    """Convolution, BatchNorm and an activation."""
    layers = [nn.Conv2d(before, behind, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(behind)]
    return nn.Sequential(*layers, act()) if act is not None else nn.Sequential(*layers)


class Head(nn.Module):
    """Mean over places, then classes, flattened with view as torchvision's older networks do."""

    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        x = self.pool(x)
        return self.fc(x.view(x.size(0), -1))


class Basic(nn.Module):
    """ResNet's basic block."""

    def __init__(self, before: int, behind: int, stride: int, width: int = 0, groups: int = 1) -> None:
        super().__init__()
        width = width or behind
        self.body = nn.Sequential(conv(before, width, 3, stride, groups), conv(width, behind, act=None))
        self.short = conv(before, behind, 1, stride, act=None) if stride > 1 or before != behind else nn.Identity()

    def forward(self, x: Any) -> Any:
        return F.relu(self.body(x) + self.short(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Any) -> Any:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """MobileNet's inverted residual, with squeeze and excitation on demand."""

    def __init__(self, before: int, behind: int, stride: int, act: Any = nn.ReLU6, excite: bool = False) -> None:
        super().__init__()
        wide = 4 * before
        middle = [SqueezeExcite(wide)] if excite else []
        self.body = nn.Sequential(
            conv(before, wide, 1, act=act), conv(wide, wide, 3, stride, wide, act=act), *middle,
            conv(wide, behind, 1, act=None),
        )  # fmt: skip
        self.keeps = stride == 1 and before == behind

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.keeps else self.body(x)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: split, transform a half, join, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(conv(half, half, 1), conv(half, half, 3, 1, half, act=None), conv(half, half, 1))

    def forward(self, x: Any) -> Any:
        kept, moved = x.chunk(2, dim=1)
        x = torch.cat([kept, self.branch(moved)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Dense(nn.Module):
    """DenseNet: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(16 + 8 * i), nn.ReLU(), nn.Conv2d(16 + 8 * i, 8, 3, 1, 1, bias=False))
            for i in range(4)
        )
        self.head = nn.Sequential(nn.BatchNorm2d(48), nn.ReLU(), nn.AvgPool2d(2), Head(48))

    def forward(self, x: Any) -> Any:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.head(torch.cat(features, 1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.5 * torch.ones(channels))

    def forward(self, x: Any) -> Any:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class EncoderBlock(nn.Module):
    """A transformer's block with torch's own MultiheadAttention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.second(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32))
        self.blocks, self.norm, self.fc = (
            nn.Sequential(EncoderBlock(32), EncoderBlock(32)),
            nn.LayerNorm(32),
            nn.Linear(32, 10),
        )

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.fc(self.norm(self.blocks(x))[:, 0])


class WindowAttention(nn.Module):
    """Swin: attention inside windows of 4x4 that are shifted by a roll, with a bias for each pair of places."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.shift, self.norm = shift, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(1, 2, 16, 16) * 0.1)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Any) -> Any:
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2)) if self.shift else self.norm(x)
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // 2) ** -0.5 + self.bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
        y = self.out(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)
        return x + self.mlp(x)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(WindowAttention(16, 0), WindowAttention(16, 2))
        self.reduce, self.fc = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.fc(self.reduce(x).mean((1, 2)))


class MobileViT(nn.Module):
    """Convolutions, a transformer over unfolded patches, convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2, act=nn.SiLU), Inverted(16, 24, 2, nn.SiLU))
        self.inside, self.block, self.outside = nn.Conv2d(24, 32, 1), EncoderBlock(32), nn.Conv2d(32, 24, 1)
        self.join, self.head = conv(48, 24, act=nn.SiLU), Head(24)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.inside(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c, h // 2, 2, w // 2, 2).transpose(2, 3).reshape(n, c, h * w // 4, 4)
        y = self.block(y.permute(0, 3, 2, 1).reshape(n * 4, h * w // 4, c))
        y = y.reshape(n, 4, h * w // 4, c).permute(0, 3, 2, 1).reshape(n * c * h // 2, w // 2, 2, 2).transpose(1, 2)
        return self.head(self.join(torch.cat([x, self.outside(y.reshape(n, c, h, w))], 1)))


class Ghost(nn.Module):
    """GhostNet: half of the channels by a cheap depthwise convolution, sliced to size."""

    def __init__(self, before: int, behind: int) -> None:
        super().__init__()
        self.behind, half = behind, (behind + 1) // 2
        self.primary, self.cheap = conv(before, half, 1), conv(half, half, 3, 1, half)

    def forward(self, x: Any) -> Any:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.behind]


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 8), conv(8, 16), conv(16, 24)
        self.up, self.last = nn.ConvTranspose2d(24, 16, 2, 2), conv(32, 16)
        self.fine, self.out = conv(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Any) -> Any:
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        three = self.three(F.max_pool2d(two, 2))
        y = self.last(torch.cat([self.up(three), two], 1))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        return self.out(self.fine(torch.cat([y, one], 1)))


class DeepLab(nn.Module):
    """Dilated convolutions side by side, the image's mean beside them, bilinear back to the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2))
        self.branches = nn.ModuleList(nn.Conv2d(24, 8, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.image, self.out = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.ReLU()),
            nn.Conv2d(32, 3, 1),
        )

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        mean = F.interpolate(self.image(y), size=y.shape[2:], mode="bilinear", align_corners=False)
        y = self.out(torch.cat([*(F.relu(branch(y)) for branch in self.branches), mean], 1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class SSD(nn.Module):
    """Heads on two grids, permuted, reshaped and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2)), conv(24, 32, 3, 2)
        self.boxes = nn.ModuleList([nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(32, 8, 3, padding=1)])
        self.scores = nn.ModuleList([nn.Conv2d(24, 6, 3, padding=1), nn.Conv2d(32, 6, 3, padding=1)])

    def forward(self, x: Any) -> Any:
        one = self.one(x)
        grids = [one, self.two(one)]
        boxes = [
            head(y).permute(0, 2, 3, 1).reshape(y.size(0), -1, 4) for head, y in zip(self.boxes, grids, strict=True)
        ]
        scores = [
            head(y).permute(0, 2, 3, 1).reshape(y.size(0), -1, 3) for head, y in zip(self.scores, grids, strict=True)
        ]
        return torch.cat(boxes, 1), torch.cat(scores, 1).softmax(-1)


class YOLO(nn.Module):
    """Splits and SiLU, a pyramid of two grids, distribution focal loss, boxes from distances, one output for all."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(conv(3, 16, 3, 2, act=nn.SiLU), conv(16, 32, 3, 2, act=nn.SiLU))
        self.two, self.side = conv(32, 32, 3, 2, act=nn.SiLU), conv(16, 16, 3, 1, act=nn.SiLU)
        self.join = conv(48, 32, 1, act=nn.SiLU)
        self.fuse = conv(64, 32, 1, act=nn.SiLU)
        self.boxes = nn.ModuleList(nn.Conv2d(32, 16, 1) for _ in range(2))
        self.scores = nn.ModuleList(nn.Conv2d(32, 3, 1) for _ in range(2))
        self.register_buffer("steps", torch.arange(4.0).view(1, 4, 1, 1))
        places = [torch.stack(torch.meshgrid(torch.arange(s), torch.arange(s), indexing="xy")) for s in (8, 4)]
        self.register_buffer("centres", torch.cat([p.reshape(2, -1) + 0.5 for p in places], 1)[None])
        self.register_buffer("strides", torch.cat([torch.full((1, 64), 4.0), torch.full((1, 16), 8.0)], 1)[None])

    def forward(self, x: Any) -> Any:
        one = self.one(x)
        left, right = one.split(16, 1)
        one = self.join(torch.cat([left, right, self.side(right)], 1))
        two = self.two(one)
        one = self.fuse(torch.cat([one, F.interpolate(two, scale_factor=2.0, mode="nearest")], 1))
        boxes = torch.cat([head(y).flatten(2) for head, y in zip(self.boxes, (one, two), strict=True)], 2)
        scores = torch.cat([head(y).flatten(2) for head, y in zip(self.scores, (one, two), strict=True)], 2)
        spread = boxes.view(boxes.size(0), 4, 4, -1).transpose(1, 2).softmax(1)
        near, far = (spread * self.steps).sum(1).chunk(2, 1)
        low, high = self.centres - near, self.centres + far
        return torch.cat([torch.cat([(low + high) / 2, high - low], 1) * self.strides, scores.sigmoid()], 1)


class Selected(nn.Module):
    """A detector that ends in the five best boxes, as ``end2end`` exports do without an NMS operator."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = YOLO()

    def forward(self, x: Any) -> Any:
        y = self.detector(x).transpose(1, 2)
        scores, classes = y[..., 4:].max(-1)
        best, places = scores.topk(5, 1)
        boxes = y[..., :4].gather(1, places.unsqueeze(-1).expand(-1, -1, 4))
        return boxes, best, classes.gather(1, places)


class Reader(nn.Module):
    """OCR: a convolutional stem, its rows flattened into a sequence, a recurrent tail, classes for each step."""

    def __init__(self, recurrent: Callable[..., Any]) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(1, 8), nn.MaxPool2d(2), conv(8, 16), nn.MaxPool2d((2, 1)))
        self.tail, self.fc = recurrent(16 * 4, 12, bidirectional=True, batch_first=True), nn.Linear(24, 11)

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        y = y.permute(0, 3, 1, 2).flatten(2)
        return self.fc(self.tail(y)[0]).log_softmax(-1)


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 1), nn.ReLU())
        self.fc = nn.Linear(32, 6)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.max(self.body(x), 2)[0])


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.PReLU(), nn.Conv2d(16, 4, 3, padding=1))
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Any) -> Any:
        return torch.clamp(self.shuffle(self.body(x)) + F.interpolate(x, scale_factor=2, mode="bicubic"), 0, 1)


class Siamese(nn.Module):
    """One network on two images, then their distance and their cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2), Head(16, 8))

    def forward(self, a: Any, b: Any) -> Any:
        a, b = F.normalize(self.body(a), dim=1), F.normalize(self.body(b), dim=1)
        return (a * b).sum(1, keepdim=True), (a - b).norm(dim=1, keepdim=True)


def _image(channels: int = 3, height: int = 32, width: int = 32) -> tuple[torch.Tensor, ...]:
    return (torch.rand(1, channels, height, width),)


#: By name: what makes the module, and example inputs.
# ruff: noqa: E501
ARCHITECTURES: dict[str, tuple[Callable[[], Any], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "ResNet": (lambda: nn.Sequential(conv(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1), Basic(16, 16, 1), Basic(16, 32, 2), Head(32)), _image),
    "MobileNetV2": (lambda: nn.Sequential(conv(3, 8, 3, 2, act=nn.ReLU6), Inverted(8, 16, 2), Inverted(16, 16, 1), Head(16)), _image),
    "MobileNetV3": (lambda: nn.Sequential(conv(3, 8, 3, 2, act=nn.Hardswish), Inverted(8, 16, 2, nn.Hardswish, True), Inverted(16, 16, 1, nn.Hardswish, True), Head(16)), _image),
    "EfficientNet": (lambda: nn.Sequential(conv(3, 8, 3, 2, act=nn.SiLU), Inverted(8, 16, 2, nn.SiLU, True), Inverted(16, 16, 1, nn.SiLU, True), Head(16)), _image),
    "ShuffleNetV2": (lambda: nn.Sequential(conv(3, 16, 3, 2), Shuffle(16), conv(16, 32, 3, 2), Shuffle(32), Head(32)), _image),
    "DenseNet": (Dense, _image),
    "RegNet": (lambda: nn.Sequential(conv(3, 16, 3, 2), Basic(16, 24, 2, 24, 8), Basic(24, 24, 1, 24, 8), Head(24)), _image),
    "ConvNeXt": (lambda: nn.Sequential(nn.Conv2d(3, 16, 4, 4), ConvNeXtBlock(16), nn.Conv2d(16, 24, 2, 2), ConvNeXtBlock(24), Head(24)), _image),
    "ViT": (ViT, _image),
    "Swin": (Swin, _image),
    "MobileViT": (MobileViT, _image),
    "GhostNet": (lambda: nn.Sequential(conv(3, 16, 3, 2), Ghost(16, 24), conv(24, 24, 3, 2, 24), Ghost(24, 31), Head(31)), _image),
    "U-Net": (UNet, _image),
    "DeepLab": (DeepLab, _image),
    "SSD": (SSD, _image),
    "YOLO": (YOLO, _image),
    "YOLO, best boxes": (Selected, _image),
    "LSTM reader": (lambda: Reader(nn.LSTM), lambda: _image(1, 16, 32)),
    "GRU reader": (lambda: Reader(nn.GRU), lambda: _image(1, 16, 32)),
    "PointNet": (PointNet, lambda: (torch.rand(1, 3, 64),)),
    "super-resolution": (SuperResolution, lambda: _image(1, 16, 16)),
    "Siamese": (Siamese, lambda: _image() + _image()),
}  # fmt: skip


def settled(name: str, seed: int = 0) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A network of a family with its example inputs: seeded weights, statistics of BatchNorm from noise, inference."""
    torch.manual_seed(seed)
    make, examples = ARCHITECTURES[name]
    module, inputs = make(), examples()
    module.train()
    with torch.no_grad():
        for _ in range(8):
            module(*(torch.rand(8, *x.shape[1:]) for x in inputs))
    return module.eval(), inputs
