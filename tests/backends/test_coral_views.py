"""Two views of one buffer, in orders of their own: what reads them gets each as ONNX means it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# An image turned, reshaped, and turned again: 4 x 9 = 6 x 6, so that every view can meet every other.
_SHAPES = ((36, 36), (4, 9, 36), (36, 4, 9), (6, 6, 6, 6), (1, 36, 6, 6), (9, 4, 9, 4), (2, 18, 36))


@st.composite
def views(draw: st.DrawFn) -> list[tuple[list[int], list[int], list[int]]]:
    """Two to four views, each a transposition of 1x6x6x36, a shape, and a transposition of that."""
    made = []
    for _ in range(draw(st.integers(2, 4))):
        first = draw(st.permutations([1, 2, 3]))
        shape = draw(st.sampled_from(_SHAPES))
        made.append(([0, *first], list(shape), list(draw(st.permutations(range(len(shape)))))))
    return made


def _view(b, x, turn, shape, again):
    return b(
        "Reshape",
        b("Transpose", b("Reshape", b("Transpose", x, perm=turn), b.ints(*shape)), perm=again),
        b.ints(36, 36),
    )


_READERS = {
    "MatMul": lambda b, left, right: b("MatMul", left, right),
    "Concat": lambda b, left, right: b("Concat", left, right, axis=1),
    "Add": lambda b, left, right: b("Add", left, right),
    "Sub": lambda b, left, right: b("Sub", left, right),
}


def _network(chosen, reader):
    def make(b, x):
        x = b("Relu", x)
        parts = [_view(b, x, *view) for view in chosen]
        if reader == "Mul of images":
            parts = [b("Reshape", part, b.ints(36, 6, 6)) for part in parts]
            return [b("Mul", left, right) for left, right in pairwise(parts)]
        return [_READERS[reader](b, left, right) for left, right in pairwise(parts)]

    return make


@pytest.mark.parametrize("reader", [*_READERS, "Mul of images"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(chosen=views())
def test_views_in_random_orders(lab, reader, chosen):
    graph = lab.build(_network(chosen, reader), [(1, 6, 6, 36)])
    feeds = lab.noise(graph, 3)
    lab.compared(graph, feeds).close()


@pytest.mark.parametrize("reader", ["MatMul", "Concat", "Add", "Sub"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(chosen=views())
def test_views_in_random_orders_on_integers(lab, reader, chosen):
    graph = lab.build(_network(chosen, reader), [(1, 6, 6, 36)])
    feeds = lab.noise(graph, 3)
    assert lab.compared(lab.quantized(graph, feeds), feeds).steps() <= 1


@pytest.mark.parametrize("op", ["Sub", "Div", "Pow"])
def test_operands_that_are_views_of_one_tensor_keep_their_places(lab, op):
    def make(b, x):
        x = b("Add", b("Relu", x), b.const(0.5))
        return b(op, b("Transpose", x, perm=[0, 1, 3, 2]), x)

    graph = lab.build(make, [(1, 4, 6, 6)])
    lab.compared(graph, lab.noise(graph)).close()


def test_padding_of_two_views_of_one_buffer(lab):
    def make(b, x):
        seen = b(
            "Reshape",
            b("Transpose", b("Reshape", b("Transpose", x, perm=[0, 2, 3, 1]), b.ints(1, 4, 9, 4)), perm=[0, 3, 1, 2]),
            b.ints(1, 4, 4, 9),
        )
        pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
        return [b("MaxPool", x, **pool), b("MaxPool", seen, **pool)]

    graph = lab.build(make, [(1, 4, 6, 6)])
    lab.compared(graph, lab.noise(graph)).close()
