"""A dilated AveragePool becomes a convolution that every target has, and gives what it gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.dilated_pooling import pool_by_convolution
from edgec.backends.protocol import legalize
from edgec.backends.registry import backend, target
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.testing import assert_same, model, operators


def pool(options: str) -> Graph:
    text = f"y = AveragePool <kernel_shape = [2, 3], dilations = [2, 2], {options}> (x)"
    graph = model(text, "(float[1,3,9,10] x) => (float[1,3,h,w] y)", opset=19)
    Shapes(graph).annotate(graph)
    return graph


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("strides = [1, 1]", ["Conv"]),
        ("strides = [2, 1], pads = [1, 2, 0, 1], count_include_pad = 1", ["Conv"]),
        ("strides = [1, 2], pads = [1, 2, 1, 2]", ["Conv", "Mul"]),
        ('auto_pad = "VALID"', ["Conv"]),
        ("ceil_mode = 1", ["AveragePool"]),  # windows that pass the end count otherwise
    ],
)
def test_it_gives_the_same(options: str, expected: list[str]) -> None:
    graph = pool(options)
    before = graph.copy()
    assert pool_by_convolution(graph) == (expected != ["AveragePool"])
    assert operators(graph) == expected
    assert_same(before, graph)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "jetson-orin-nano"])
def test_every_backend_does_so(board: str) -> None:
    graph, device = pool("strides = [1, 1]"), target(board)
    legalize(graph, backend(device.backend), device)
    assert "AveragePool" not in operators(graph)


def test_a_plain_pool_stays() -> None:
    graph: Any = model(
        "y = AveragePool <kernel_shape = [2, 2]> (x)", "(float[1,3,9,10] x) => (float[1,3,h,w] y)", opset=19
    )
    assert pool_by_convolution(graph) == 0
    assert operators(graph) == ["AveragePool"]
    assert np.dtype(np.float32) == graph.inputs[0].dtype
