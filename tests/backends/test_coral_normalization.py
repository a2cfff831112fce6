"""LayerNormalization and its kin: float islands in a network of integers that move no memory."""

from __future__ import annotations

import pytest

IMAGE = (2, 8, 5, 6)


def _last(b, x):
    """Over the channels, as a ConvNeXt writes it."""
    y = b("Transpose", b("Conv", x, b.weight(8, 8, 1, 1)), perm=[0, 2, 3, 1])
    y = b("LayerNormalization", y, b.weight(8), b.weight(8), epsilon=1e-3)
    return b("Conv", b("Transpose", y, perm=[0, 3, 1, 2]), b.weight(4, 8, 3, 3))


def _group_by_reshape(b, x):
    """GroupNormalization as torch exports it."""
    y = b("InstanceNormalization", b("Reshape", x, b.ints(0, 2, -1)), b.weight(2), b.weight(2))
    return b("Mul", b("Reshape", y, b.ints(2, 8, 5, 6)), b.weight(8, 1, 1))


CASES = {
    "LayerNormalization": (17, lambda b, x: b("LayerNormalization", x, b.weight(6), b.weight(6))),
    "LayerNormalization, two dimensions": (17, lambda b, x: b("LayerNormalization", x, b.weight(5, 6), axis=2)),
    "LayerNormalization, all": (17, lambda b, x: b("LayerNormalization", x, b.weight(8, 5, 6), axis=-3)),
    "LayerNormalization, channels": (17, _last),
    "InstanceNormalization": (17, lambda b, x: b("InstanceNormalization", x, b.weight(8), b.weight(8), epsilon=1e-2)),
    "InstanceNormalization, groups": (17, _group_by_reshape),
    "GroupNormalization, 18": (18, lambda b, x: b("GroupNormalization", x, b.weight(4), b.weight(4), num_groups=4)),
    "GroupNormalization, 21": (21, lambda b, x: b("GroupNormalization", x, b.weight(8), b.weight(8), num_groups=4)),
    "ReduceL2": (17, lambda b, x: b("ReduceL2", x, axes=[1])),
    "ReduceL2, all": (17, lambda b, x: b("ReduceL2", x, keepdims=0)),
    "ReduceL2, pixels": (18, lambda b, x: b("ReduceL2", x, b.ints(2, -1), keepdims=0)),
}


@pytest.mark.parametrize("case", list(CASES))
def test_float(lab, case):
    opset, make = CASES[case]
    graph = lab.build(make, [IMAGE], opset)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    # The output of a norm over pixels alone is (N, C): nothing there is an image.
    assert "TRANSPOSE" not in found.kinds


def test_of_one_element(lab):
    graph = lab.build(lambda b, x: b("InstanceNormalization", x, b.weight(1), b.weight(1)), [(1, 1, 1, 1)])
    lab.compared(graph, lab.noise(graph)).close()


@pytest.mark.parametrize("case", ["LayerNormalization, channels", "InstanceNormalization"])
def test_in_a_network_of_integers_it_runs_in_float(lab, case):
    opset, make = CASES[case]
    graph = lab.build(make, [IMAGE], opset)
    feeds = lab.noise(graph)
    quantized = lab.quantized(graph, feeds)
    found = lab.compared(quantized, feeds)
    assert found.steps() <= 1
    assert (found.kinds.count("DEQUANTIZE"), found.kinds.count("QUANTIZE")) == (1, 1)
    assert "TRANSPOSE" not in found.kinds
    node = next(n for n in quantized.nodes if n.op.endswith("Normalization"))
    note = f"node '{node.name}' ({node.op}) runs in float: TFLite has no int8 kernel for it"
    assert note in found.lowered.notes


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization_is_typed(lab, opset):
    scale = (lambda b: b.weight(4)) if opset == 18 else (lambda b: b.weight(8))
    graph = lab.build(
        lambda b, x: b("Relu", b("GroupNormalization", x, scale(b), scale(b), num_groups=4)), [IMAGE], opset
    )
    lab.compared(graph, lab.noise(graph)).close()
