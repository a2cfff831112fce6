"""A small network that tells the angle of a drawn bar: a regression, trained here on rendered pictures.

A bar of random length, width, brightness and place is drawn on a ground with a gradient and noise; the network gives
the cosine and the sine of twice its angle. Input: 1x1x32x32 in [0, 1].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 32
INPUT, OUTPUT = "image", "direction"


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, (count, 1, 32, 32) float32, and the angles of their bars in radians, (count,), from 0 to pi."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, np.pi, (count, 1, 1))
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)[:, None] - SIZE / 2
    left, down = random.uniform(-4, 4, (2, count, 1, 1))
    along = (x - left) * np.cos(angle) + (y - down) * np.sin(angle)
    across = (y - down) * np.cos(angle) - (x - left) * np.sin(angle)
    length, width = random.uniform(6, 12, (count, 1, 1)), random.uniform(1.0, 2.5, (count, 1, 1))
    bar = np.exp(-((along / length) ** 6) - (across / width) ** 2)
    ground = 0.3 + random.uniform(-0.01, 0.01, (count, 1, 1)) * x + random.uniform(-0.01, 0.01, (count, 1, 1)) * y
    picture = ground + random.uniform(0.2, 0.6, (count, 1, 1)) * bar + 0.03 * random.standard_normal(bar.shape)
    return np.clip(picture, 0, 1)[:, None].astype(np.float32), angle.reshape(-1)


def mean_error(outputs: np.ndarray, angles: np.ndarray) -> float:
    """The mean error of the angles that outputs (count, 2) stand for, in degrees; a bar has no front."""
    found = np.arctan2(outputs[:, 1], outputs[:, 0]) / 2
    apart = np.abs((found - angles + np.pi / 2) % np.pi - np.pi / 2)
    return float(np.degrees(apart.mean()))


def export(path: Path, epochs: int = 16) -> None:
    """Trains the network (about a minute) and writes it to ``path`` as ONNX, BatchNormalization as nodes."""
    import torch

    torch.manual_seed(0)
    network = _network()
    images, angles = pictures(6000, seed=0)
    x = torch.from_numpy(images)
    y = torch.from_numpy(np.stack([np.cos(2 * angles), np.sin(2 * angles)], 1).astype(np.float32))
    steps = epochs * len(x) // 100
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(100):
            loss = torch.nn.functional.mse_loss(network(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the older of torch's two
        torch.onnx.export(
            network.eval(), (x[:1],), str(path), opset_version=17, input_names=[INPUT], output_names=[OUTPUT],
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, dynamo=False,
        )  # fmt: skip


def _network() -> Any:
    """Depthwise and pointwise convolutions with Relu6, as MobileNet has them: what 8 bits are hard on."""
    from torch import nn

    def behind(convolution: nn.Module, channels: int) -> list[nn.Module]:
        return [convolution, nn.BatchNorm2d(channels), nn.ReLU6()]

    layers = behind(nn.Conv2d(1, 16, 3, 2, 1, bias=False), 16)
    channels = 16
    for width in (32, 64, 64, 96):
        stride = 1 if channels == width else 2
        layers += behind(nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), channels)
        layers += behind(nn.Conv2d(channels, width, 1, bias=False), width)
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4, 2))
