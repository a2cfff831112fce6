"""GatherElements, GatherND, Expand and Tile against onnxruntime, by known and by computed indices."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.execution import Session
from edgec.ir.graph import Variable

IMAGE = (2, 4, 3, 5)


def indices(shape, sizes, seed=0):
    """Indices of this shape, of axes of these sizes (one, or one for each number of the last axis); some negative."""
    random = np.random.Generator(np.random.PCG64(seed))
    return random.integers(-np.array(sizes), np.array(sizes), shape, dtype=np.int64)


CASES = {
    f"elements, axis {axis}": ("GatherElements", indices((2, 3, 2, 4), IMAGE[axis], axis % 4), {"axis": axis})
    for axis in (0, 1, 2, 3, -1)
} | {
    "nd, rows": ("GatherND", indices((6, 2), IMAGE[:2]), {}),
    "nd, elements": ("GatherND", indices((2, 3, 4), IMAGE), {}),
    "nd, one axis": ("GatherND", indices((3, 2, 1), IMAGE[:1]), {}),
    "nd, one place": ("GatherND", indices((2,), IMAGE[:2]), {}),
    "nd, batches": ("GatherND", indices((2, 3, 2), IMAGE[1:3]), {"batch_dims": 1}),
    "nd, two batches": ("GatherND", indices((2, 4, 3, 1), IMAGE[2:3]), {"batch_dims": 2}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_by_known_indices(lab, case):
    op, numbers, attrs = CASES[case]
    graph = lab.build(lambda b, x: b(op, b("Relu", x), b.const(numbers, np.int64), **attrs), [IMAGE])
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    assert lab.compared(lab.quantized(graph, feeds), feeds).steps() <= 1


# ONNX has GatherND with int64 alone.
KINDS = [(case, np.int64) for case in CASES] + [(case, np.int32) for case in CASES if case.startswith("elements")]


@pytest.mark.parametrize(("case", "kind"), KINDS)
def test_by_computed_indices(lab, case, kind):
    op, numbers, attrs = CASES[case]
    graph = lab.build(lambda b, x: b(op, x, b.const(numbers.astype(kind), kind), **attrs), [IMAGE])
    (node,) = graph.nodes
    given = Variable("where", np.dtype(kind), list(numbers.shape))
    graph.inputs.append(given)
    node.inputs[1] = given
    feeds = {"x0": lab.noise(graph)["x0"], "where": numbers.astype(kind)}
    lab.compared(graph, feeds).close()


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 1, 0, 2)])
def test_of_what_lies_in_another_order(lab, order):
    shape = tuple(IMAGE[axis] for axis in order)
    numbers = indices((*shape[:3], 2), shape[3])

    def make(b, x):
        return b("GatherElements", b("Transpose", x, perm=list(order)), b.const(numbers, np.int64), axis=3)

    graph = lab.build(make, [IMAGE])
    lab.compared(graph, lab.noise(graph)).close()


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 2, 4, 3, 5), (3, 2, 4, 3, 5)])
def test_expand_and_tile_of_integers(lab, shape):
    def make(b, x):
        places = b("ArgMax", x, axis=1, keepdims=1)
        wide = b("Expand", places, b.ints(*shape))
        return b("Cast", wide, to=1), b("Cast", b("Tile", places, b.ints(1, 2, 1, 3)), to=1)

    graph = lab.build(make, [IMAGE])
    lab.compared(graph, lab.noise(graph)).close()


def test_tile_keeps_the_integers_of_what_it_repeats(lab):
    graph = lab.build(lambda b, x: b("Tile", b("Relu", x), b.ints(1, 3, 2, 1)), [IMAGE])
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    assert list(Session(graph).run(feeds)["y0"].shape) == [2, 12, 6, 5]
