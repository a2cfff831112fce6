"""Vela's estimates for the Ethos-U65 beside latencies that were measured on one.

    python tests/bench/bench_ethos_latency.py [--only NAME ...] [--markdown FILE]

The measured latencies are of an NXP i.MX93 (Ethos-U65, 256 multipliers), int8, one picture at a time, engine only, as
Nota published them (NetsPresso/netspresso-trainer, docs/benchmarks/device_matrix/tflite.md). Here the same
architectures are written down with random weights, quantized with ranges from noise, and compiled by Vela for the
target ``ethos-u65``: an estimate depends on shapes alone. Networks of that table that are not written down here are
left out: EfficientFormer, MixNet, PIDNet and YOLOX.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks.architectures import Basic, SqueezeExcite, conv

SIDE = 224
# Milliseconds on the i.MX93.
MEASURED = {"ResNet18": 22.863, "ResNet50": 38.546, "MobileNetV3-small": 3.218, "ViT-tiny": 412.846}


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3, 1x1, and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        behind = 4 * width
        self.body = nn.Sequential(
            conv(before, width, 1), conv(width, width, 3, stride), conv(width, behind, 1, act=None)
        )
        plain = stride == 1 and before == behind
        self.short = nn.Identity() if plain else conv(before, behind, 1, stride, act=None)

    def forward(self, x: Any) -> Any:
        return F.relu(self.body(x) + self.short(x))


class Inverted(nn.Module):
    """MobileNetV3's block."""

    def __init__(self, before: int, kernel: int, wide: int, behind: int, excite: bool, act: Any, stride: int) -> None:
        super().__init__()
        layers = [conv(before, wide, 1, act=act)] if wide != before else []
        layers.append(conv(wide, wide, kernel, stride, wide, act=act))
        layers += [SqueezeExcite(wide)] if excite else []
        self.body = nn.Sequential(*layers, conv(wide, behind, 1, act=None))
        self.keeps = stride == 1 and before == behind

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.keeps else self.body(x)


class Tail(nn.Module):
    """The mean over places, then layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return self.layers(x.mean((2, 3)))


class Block(nn.Module):
    """A transformer's block, attention spelled out."""

    def __init__(self, wide: int, heads: int) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.entering, self.leaving = nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.up, self.down, self.heads = nn.Linear(wide, 4 * wide), nn.Linear(4 * wide, wide), heads

    def forward(self, x: Any) -> Any:
        n, places, wide = x.shape
        parts = self.entering(self.one(x)).reshape(n, places, 3, self.heads, wide // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        weights = ((q * (wide // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        x = x + self.leaving((weights @ v).transpose(1, 2).reshape(n, places, wide))
        return x + self.down(F.gelu(self.up(self.two(x))))


class ViT(nn.Module):
    """ViT-tiny: patches of 16, 12 blocks of width 192 with 3 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 16, 16)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 192)), nn.Parameter(torch.randn(1, 197, 192))
        self.blocks = nn.Sequential(*[Block(192, 3) for _ in range(12)])
        self.last, self.head = nn.LayerNorm(192), nn.Linear(192, 1000)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.last(self.blocks(x))[:, 0])


def resnet18() -> nn.Module:
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
    blocks = [Basic(*row) for row in (*widths, (512, 512, 1))]
    return nn.Sequential(conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, Tail(nn.Linear(512, 1000)))


def resnet50() -> nn.Module:
    blocks, before = [], 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            blocks.append(Bottleneck(before, width, stride if number == 0 else 1))
            before = 4 * width
    return nn.Sequential(conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, Tail(nn.Linear(2048, 1000)))


def mobilenet_v3_small() -> nn.Module:
    """The table of arXiv 1905.02244, Large/Small, table 2."""
    relu, swish = nn.ReLU, nn.Hardswish
    rows = (
        (3, 16, 16, True, relu, 2), (3, 72, 24, False, relu, 2), (3, 88, 24, False, relu, 1),
        (5, 96, 40, True, swish, 2), (5, 240, 40, True, swish, 1), (5, 240, 40, True, swish, 1),
        (5, 120, 48, True, swish, 1), (5, 144, 48, True, swish, 1), (5, 288, 96, True, swish, 2),
        (5, 576, 96, True, swish, 1), (5, 576, 96, True, swish, 1),
    )  # fmt: skip
    blocks, before = [], 16
    for kernel, wide, behind, excite, act, stride in rows:
        blocks.append(Inverted(before, kernel, wide, behind, excite, act, stride))
        before = behind
    tail = Tail(nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))
    return nn.Sequential(conv(3, 16, 3, 2, act=swish), *blocks, conv(96, 576, 1, act=swish), tail)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet18": resnet18, "ResNet50": resnet50, "MobileNetV3-small": mobilenet_v3_small, "ViT-tiny": ViT,
}  # fmt: skip


def estimated(name: str, folder: Path) -> dict[str, Any]:
    """What Vela says of a network."""
    torch.manual_seed(0)
    module, model = NETWORKS[name]().eval(), folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.rand(1, 3, SIDE, SIDE),), model, dynamo=False, opset_version=17)
    (folder / "compress.yaml").write_text(
        "passes: [fold, {quantize: {effort: fast, random: true}}]\ntargets: [ethos-u65]\n"
    )
    command = [sys.executable, "-m", "edgec.tools.cli", str(model), "-O", str(folder / "compress.yaml")]
    subprocess.run([*command, "-o", str(folder / "out"), "-q", "--no-timing"], check=True, capture_output=True)
    check: dict[str, Any] = json.loads((folder / "out" / "ethos-u65" / "check.json").read_text())
    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    table = ["| network | measured, ms | Vela's estimate, ms | ratio | operators on the CPU |", "|---|---|---|---|---|"]
    print(*table, sep="\n", flush=True)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            check = estimated(name, Path(folder))
        figures, total = check["vela"], sum(check["operators"].values())
        told, real = figures["inference_ms"], MEASURED[name]
        table.append(
            f"| {name} | {real:.1f} | {told:.1f} | {told / real:.2f} | {figures['cpu_operators']} of {total} |"
        )
        print(table[-1], flush=True)
    if options.markdown is not None:
        options.markdown.write_text("\n".join(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
