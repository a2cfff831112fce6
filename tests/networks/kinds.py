"""Small networks of different kinds, trained here in seconds, each with a smaller version and data to train that on.

What they see comes with packages that the tests need anyway: scikit-image's faces and photographs, scikit-learn's
digits; bars and signals are drawn. Nothing is downloaded. A seed says which samples are whose, and draws all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from networks.photos import CALIBRATION, HELD_OUT, photos, squares
from training import Data

import edgec
from edgec.backends.registry import target
from edgec.ir.graph import Graph
from edgec.passes.compress.compress import Compress
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.prune.prune import Prune
from edgec.passes.quantize.quantize import Quantize

INPUT = "x"
CALIBRATED, UNSEEN = 96, 256


@dataclass(frozen=True)
class Setting:
    """A network, how it is made smaller, and what that is trained on.

    Attributes:
        module: the network, not trained.
        samples: (count, seed) -> samples and what is to be computed of them; other seeds give other samples.
        task: ``classes``, ``numbers`` or ``itself``: what the network is first trained for.
        passes: that make it smaller.
        count: training samples of the smaller one.
        labelled: whether these have labels; without them the smaller one learns from the original.
        epochs: of the network's own training.
    """

    module: Callable[[], Any]
    samples: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    task: str
    passes: tuple[Pass, ...]
    count: int = 256
    labelled: bool = False
    epochs: int = 12


@dataclass(frozen=True)
class Situation:
    """What a user comes with.

    Attributes:
        original, smaller: the networks; the second one is to be trained.
        train: what it is trained on.
        unseen: samples that nothing was fitted to, with labels.
        task: as in :class:`Setting`, where there are labels; ``original`` where there are none.
    """

    original: Graph
    smaller: Graph
    train: Data
    unseen: Data
    task: str


def situation(name: str, seed: int, threads: int = 1) -> Situation:
    """Trains the network of that name and makes it smaller; the same seed gives the same."""
    import torch

    setting = SETTINGS[name]
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    module = setting.module()
    x, y = setting.samples(2048, 4 * seed)
    _train(module, x, y, setting)
    graph = edgec.load(module.eval(), torch.from_numpy(x[:1]), input_names=[INPUT], output_names=["y"])
    calibration = Data({INPUT: setting.samples(CALIBRATED, 4 * seed + 1)[0]})
    data = {"calibration": calibration, "train": calibration}
    smaller = graph.copy()
    original = None
    for step in (Fold(), *setting.passes):
        board = target("cpu", "networks") if isinstance(step, Quantize) else None
        step.run(
            smaller, Context(smaller, RunConfig(data=data, seed=seed, threads=threads, original=original, target=board))
        )
        smaller.sort()
        smaller.remove_dead()
        if original is None:
            original = smaller.copy()
    assert original is not None
    train, wanted = setting.samples(setting.count, 4 * seed + 2)
    unseen, truth = setting.samples(UNSEEN, 4 * seed + 3)
    labels = wanted if setting.labelled else None
    task = setting.task if setting.labelled else "itself" if setting.task == "itself" else "original"
    return Situation(original, smaller, Data({INPUT: train}, labels), Data({INPUT: unseen}, truth), task)


def _train(module: Any, x: np.ndarray, y: np.ndarray, setting: Setting) -> None:
    import torch
    from torch.nn import functional

    pictures, wanted = torch.from_numpy(x), torch.from_numpy(y)
    steps = setting.epochs * -(-len(x) // 32)
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    loss = functional.cross_entropy if setting.task == "classes" else functional.mse_loss
    module.train()
    for _ in range(setting.epochs):
        for chosen in torch.randperm(len(pictures)).split(32):
            optimizer.zero_grad()
            loss(module(pictures[chosen]), wanted[chosen]).backward()
            optimizer.step()
            schedule.step()


# -- samples ----------------------------------------------------------------------------------------------------------


def _faces(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of 24 x 24 of faces and of what is none, mirrored and in other light, and which they are of the two."""
    from skimage.data import lfw_subset

    chance = np.random.default_rng(seed)
    pictures = lfw_subset().astype(np.float32)
    order = np.random.default_rng(seed // 4).permutation(len(pictures))  # none is in two roles
    which = order[np.arange(count) % 50 + 50 * (seed % 4)]
    down, right, turned = chance.integers(0, 2, (3, count))
    made = np.stack([pictures[n][d : d + 24, r : r + 24] for n, d, r in zip(which, down, right, strict=True)])
    made = np.where(turned[:, None, None] == 1, made[:, :, ::-1], made)
    made = made * chance.uniform(0.7, 1.2, (count, 1, 1)) + chance.uniform(-0.1, 0.1, (count, 1, 1))
    return np.ascontiguousarray(made[:, None], np.float32), (which < 100).astype(np.int64)


def _digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits of 8 x 8, moved by a pixel at most, and which they are."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    part = np.random.default_rng(seed // 4).permutation(len(pixels))[seed % 4 :: 4]
    chance = np.random.default_rng(seed)
    which = part[chance.integers(0, len(part), count)]
    moved = np.pad(pixels.reshape(-1, 8, 8)[which] / 16, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(moved, (8, 8), axis=(1, 2))
    down, right = chance.integers(0, 3, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), down, right][:, None], np.float32), labels[which]


def _textures(size: int, noise: float = 0.0) -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
    """Grey crops of photographs in [0, 1], and the same without the noise; unseen ones are of other photographs."""

    def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        sources = photos(HELD_OUT if seed % 4 == 3 else CALIBRATION)
        grey = np.stack([crop.mean(2, keepdims=True) for crop in squares(sources, count, size, seed, least=4)])
        clean = np.ascontiguousarray(grey.transpose(0, 3, 1, 2) / 255, np.float32)
        dirty = clean + np.float32(noise) * np.random.default_rng(seed).standard_normal(clean.shape, np.float32)
        return dirty, clean

    return samples


def _halved(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops at half their resolution, and the whole ones."""
    clean = _textures(24)(count, seed)[1]
    return clean.reshape(count, 1, 12, 2, 12, 2).mean((3, 5)), clean


def _bars(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a bar, and the cosine and the sine of twice its angle."""
    from networks.angles import pictures

    drawn, angles = pictures(count, seed)
    return drawn, np.stack([np.cos(2 * angles), np.sin(2 * angles)], 1).astype(np.float32)


def _signals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two channels of 64 samples of a noisy oscillation, and its frequency, phase difference and damping."""
    chance = np.random.default_rng(seed)
    frequency, phase, damping = (
        chance.uniform(1, 8, count),
        chance.uniform(0, np.pi, count),
        chance.uniform(0, 3, count),
    )
    time = np.linspace(0, 1, 64)[None]
    waves = [
        np.exp(-damping[:, None] * time) * np.sin(2 * np.pi * frequency[:, None] * time + part * phase[:, None])
        for part in (0, 1)
    ]
    made = np.stack(waves, 1) + 0.05 * chance.standard_normal((count, 2, 64))
    wanted = np.stack([frequency / 8, np.cos(phase), damping / 3], 1)
    return made.astype(np.float32), wanted.astype(np.float32)


# -- networks ---------------------------------------------------------------------------------------------------------


def _layers(before: int, widths: Sequence[int], *, pooled: Sequence[int] = ()) -> list[Any]:
    """Convolutions with BatchNormalization and Relu; behind those of ``pooled`` the size is halved."""
    from torch import nn

    layers: list[Any] = []
    for place, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        if place in pooled:
            layers.append(nn.MaxPool2d(2))
        before = width
    return layers


def _face_network() -> Any:
    from torch import nn

    body = _layers(1, (12, 24, 24, 32, 32), pooled=(0, 1, 3))
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(32 * 9, 48), nn.ReLU(), nn.Linear(48, 2))


def _digit_network() -> Any:
    from torch import nn

    body = _layers(1, (24, 24, 48), pooled=(1,))
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(48 * 16, 48), nn.ReLU(), nn.Linear(48, 10))


def _residual_network() -> Any:
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.branch = nn.Sequential(*_layers(width, (width,)), nn.Conv2d(width, width, 3, padding=1))

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(x + self.branch(x))

    body = [*_layers(1, (24,)), Block(24), nn.MaxPool2d(2), Block(24)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


def _perceptron() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 10))


def _separable_network() -> Any:
    """Depthwise and pointwise convolutions with Relu6."""
    from torch import nn

    layers = [nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    before = 16
    for width in (32, 48, 64):
        layers += [nn.Conv2d(before, before, 3, 2, 1, groups=before, bias=False), nn.BatchNorm2d(before), nn.ReLU6()]
        layers += [nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 4, 2))


def _autoencoder() -> Any:
    from torch import nn

    down = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    narrow = [nn.Flatten(), nn.Linear(32 * 36, 48), nn.Linear(48, 32 * 36), nn.ReLU(), nn.Unflatten(1, (32, 6, 6))]
    up = [nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid()]
    return nn.Sequential(*down, *narrow, *up)


def _resolution_network() -> Any:
    from torch import nn

    body = [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 24, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(24, 1, 4, 2, 1))


def _u_network() -> Any:
    """Two levels with a concatenation across."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Sequential(*_layers(1, (16, 16))), nn.Sequential(*_layers(16, (32, 32)))
            self.pool, self.up = nn.MaxPool2d(2), nn.ConvTranspose2d(32, 16, 2, 2)
            self.last = nn.Sequential(*_layers(32, (16,)), nn.Conv2d(16, 1, 1))

        def forward(self, x: Any) -> Any:
            outer = self.first(x)
            return self.last(torch.cat([outer, self.up(self.inner(self.pool(outer)))], 1))

    return Network()


def _signal_network() -> Any:
    from torch import nn

    layers: list[Any] = []
    before = 2
    for width in (24, 32, 48):
        layers += [nn.Conv1d(before, width, 5, 2, 2), nn.BatchNorm1d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 8, 3))


def _transformer() -> Any:
    """One block of attention over the rows of a digit."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.query, self.key, self.value = (nn.Linear(n, 32) for n in (8, 32, 32, 32))
            self.one, self.two = nn.LayerNorm(32), nn.LayerNorm(32)
            self.feed = nn.Sequential(nn.Linear(32, 96), nn.GELU(), nn.Linear(96, 32))
            self.leave = nn.Linear(8 * 32, 10)

        def forward(self, x: Any) -> Any:
            x = self.enter(x.squeeze(1))
            n = self.one(x)
            x = x + (self.query(n) @ self.key(n).transpose(1, 2) / 32**0.5).softmax(-1) @ self.value(n)
            return self.leave((x + self.feed(self.two(x))).flatten(1))

    return Network()


SETTINGS: Mapping[str, Setting] = {
    "faces, a twentieth of the weights": Setting(_face_network, _faces, "classes", (Compress(params=0.05),), count=384),
    "digits, a tenth of the weights, labels": Setting(
        _digit_network, _digits, "classes", (Prune(params=0.1),), count=800, labelled=True
    ),
    "residual, factorized, labels": Setting(
        _residual_network, _digits, "classes", (Factorize(params=0.12),), count=800, labelled=True
    ),
    "perceptron, pruned": Setting(_perceptron, _digits, "classes", (Prune(params=0.4),)),
    "transformer, factorized": Setting(_transformer, _digits, "classes", (Factorize(params=0.5),)),
    "separable, compressed": Setting(_separable_network, _bars, "numbers", (Compress(params=0.5),)),
    "separable, quantized": Setting(_separable_network, _bars, "numbers", (Quantize(effort="fast"),)),
    "autoencoder, a tenth of the weights": Setting(_autoencoder, _textures(24), "itself", (Factorize(params=0.1),)),
    "resolution, almost all of the weights": Setting(_resolution_network, _halved, "numbers", (Prune(params=0.8),)),
    "u-net, pruned, numbers": Setting(
        _u_network, _textures(24, 0.1), "numbers", (Prune(params=0.4),), labelled=True, epochs=6
    ),
    "signals, factorized": Setting(_signal_network, _signals, "numbers", (Factorize(params=0.3),)),
}
