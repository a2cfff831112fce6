"""Where samples lie in what a network takes."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.execution import Session, batch_size, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.sample_axis import as_taken, sample_shapes_of


def graph(signature: str, body: str = "y = Relu(x)") -> Graph:
    return parse(f'<ir_version: 8, opset_import: ["" : 17]> g {signature} {{ {body} }}')


@pytest.mark.parametrize(
    ("signature", "size", "shapes"),
    [
        ("(float[1,3,8,8] x) => (float[1,3,8,8] y)", 1, {"x": (1, 3, 8, 8)}),
        ("(float[4,3,8,8] x) => (float[4,3,8,8] y)", 4, {"x": (4, 3, 8, 8)}),
        ("(float[4,3] x, float[4] z) => (float[4,3] y)", 4, {"x": (4, 3), "z": (4,)}),
        ("(float[1,512] x, float[2,1,8] h) => (float[1,512] y)", 1, {"x": (1, 512), "h": (1, 2, 1, 8)}),
        ("(float[4,512] x, float[2,4,8] h) => (float[4,512] y)", 1, {"x": (1, 4, 512), "h": (1, 2, 4, 8)}),
        ("(float[3,8,8] x) => (float[10] y)", 1, {"x": (1, 3, 8, 8)}),
        ("(float[3,8,8] x) => (float y)", 1, {"x": (1, 3, 8, 8)}),
        ("(float[1,4] x, float k) => (float[1,4] y)", 1, {"x": (1, 4), "k": (1,)}),
        ("(float[N,4] x) => (float[N,4] y)", 1, {"x": ("N", 4)}),
    ],
)
def test_a_batch_is_what_all_inputs_and_outputs_share(
    signature: str, size: int, shapes: dict[str, tuple[int | str, ...]]
) -> None:
    network = graph(signature)
    assert batch_size(network) == size
    assert sample_shapes_of(network) == shapes


def test_the_sample_axis_goes_where_an_input_is_taken_whole() -> None:
    assert as_taken(np.zeros((1, 2, 1, 8)), [2, 1, 8]).shape == (2, 1, 8)
    assert as_taken(np.zeros(1), []).shape == ()
    assert as_taken(np.zeros((1, 3)), [1, 3]).shape == (1, 3)
    assert as_taken(np.zeros((2, 3)), [2, 3]).shape == (2, 3)


def test_noise_for_scalars() -> None:
    network = graph("(float[1,4] x, float k, int64 n, bool b) => (float[1,4] y)", "c = Cast<to=1>(n) m = Mul(x, k)"
                    " d = Cast<to=1>(b) e = Add(m, d) y = Add(e, c)")  # fmt: skip
    feeds = seeded_feeds(network)[0]
    assert [feeds[name].shape for name in ("x", "k", "n", "b")] == [(1, 4), (), (), ()]
    assert [feeds[name].dtype for name in ("k", "n", "b")] == [np.float32, np.int64, np.bool_]
    assert Session(network).run(feeds)["y"].shape == (1, 4)
