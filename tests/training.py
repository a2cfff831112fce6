"""What tests of training share: small networks, data sets with labels, and a metric that is a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import InMemory
from edgec.testing import model

IMAGE = (3, 8, 8)
BODY = """
a = Conv <pads = [1,1,1,1]> (x, w1, b1)
r = Relu (a)
c = Conv <pads = [1,1,1,1]> (r, w2, b2)
s = Relu (c)
y = Conv <pads = [1,1,1,1]> (s, w3, b3)
"""
WEIGHTS = "float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[3,8,3,3] w3, float[3] b3"


class Data(InMemory):
    """Samples in arrays, with labels or without."""

    def __init__(self, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None = None) -> None:
        super().__init__(arrays, "training data", labels)


@dataclass
class Metric:
    """A judge whose verdict is a function of how a network runs."""

    verdict: Callable[[Any], float]
    name: str = "custom"
    higher_is_better: bool = True

    def measure(self, run: Any) -> float:
        return self.verdict(run)


def images(count: int = 40, seed: int = 1) -> np.ndarray:
    """Smooth pictures, (count, 3, 8, 8)."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((5, *IMAGE)).astype(np.float32)
    return np.tensordot(random.standard_normal((count, 5)).astype(np.float32), mixing, (1, 0)) / np.float32(2)


def network() -> Graph:
    """Three convolutions, from an image to one of the same shape."""
    return model(BODY, "(float[1,3,8,8] x) => (float[1,3,8,8] y)", WEIGHTS)


def classifier(classes: int = 4, *, softmax: bool = False) -> Graph:
    """A convolution, the mean over the image, a fully connected layer, and Softmax where it is asked for."""
    head = (
        "h = Gemm <transB = 1> (f, w2, b2)\ny = Softmax <axis = 1> (h)"
        if softmax
        else "y = Gemm <transB = 1> (f, w2, b2)"
    )
    body = f"""
    a = Conv <pads = [1,1,1,1]> (x, w1, b1)
    r = Relu (a)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    {head}
    """
    weights = f"float[16,3,3,3] w1, float[16] b1, float[{classes},16] w2, float[{classes}] b2"
    return model(body, f"(float[1,3,8,8] x) => (float[1,{classes}] y)", weights)


def labelled(count: int = 80, classes: int = 4) -> Data:
    """Pictures of constant colour, the class being which of the corners of colour is nearest."""
    random = np.random.default_rng(2)
    labels = random.integers(0, classes, count)
    colours = np.random.default_rng(3).standard_normal((classes, 3)).astype(np.float32)
    noise = 0.3 * random.standard_normal((count, *IMAGE)).astype(np.float32)
    return Data({"x": colours[labels][:, :, None, None] + noise}, labels)


def shaken(graph: Graph, amount: float = 0.2) -> Graph:
    """A copy whose kernels are off by noise."""
    copy, random = graph.copy(), np.random.default_rng(5)
    for constant in copy.constants():
        if constant.values.ndim > 1:
            noise = random.standard_normal(constant.shape).astype(np.float32)
            constant.values = constant.values + np.float32(amount * constant.values.std()) * noise
    return copy
