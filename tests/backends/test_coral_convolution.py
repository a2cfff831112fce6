"""Random convolutions against onnxruntime: float to 1e-5, int8 to one step, and shapes that no case list has."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIDE = st.integers(1, 12)
KERNEL = st.integers(1, 5)
STEP = st.integers(1, 3)
PADS = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@st.composite
def groupings(draw):
    """(group, input channels, output channels)."""
    group = draw(st.sampled_from([1, 1, 2, 3, 5]))
    return group, group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))


def _check(lab, make, shape):
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    assert found.steps() <= 1
    assert not {"TRANSPOSE", "QUANTIZE", "DEQUANTIZE"} & set(found.kinds)


@SETTINGS
@given(
    sides=st.tuples(SIDE, SIDE),
    kernel=st.tuples(KERNEL, KERNEL),
    strides=st.tuples(STEP, STEP),
    dilations=st.tuples(STEP, STEP),
    pads=PADS,
    grouping=groupings(),
    bias=st.booleans(),
)
def test_conv(lab, sides, kernel, strides, dilations, pads, grouping, bias):
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    assume(all(side + pads[i] + pads[i + 2] >= reach[i] for i, side in enumerate(sides)))
    group, taken, given_ = grouping

    def make(b, x):
        weights = [b.weight(given_, taken // group, *kernel)] + ([b.weight(given_)] if bias else [])
        return b("Conv", x, *weights, group=group, strides=strides, dilations=dilations, pads=pads)

    _check(lab, make, (1, taken, *sides))


@SETTINGS
@given(
    sides=st.tuples(SIDE, SIDE),
    kernel=st.tuples(KERNEL, KERNEL),
    strides=st.tuples(STEP, STEP),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    grouping=groupings(),
    bias=st.booleans(),
)
def test_conv_transpose(lab, sides, kernel, strides, dilations, pads, extra, grouping, bias):
    group, taken, given_ = grouping
    for i in (0, 1):
        assume(extra[i] < strides[i])
        full = (sides[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i]
        assume(full - pads[i] - pads[i + 2] > 0)

    def make(b, x):
        weights = [b.weight(taken, given_ // group, *kernel)] + ([b.weight(given_)] if bias else [])
        return b(
            "ConvTranspose",
            x,
            *weights,
            group=group,
            strides=strides,
            dilations=dilations,
            pads=pads,
            output_padding=extra,
        )

    _check(lab, make, (1, taken, *sides))


@SETTINGS
@given(
    sides=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    kernel=st.integers(1, 3),
    stride=STEP,
    pad=st.integers(0, 1),
    ceil=st.booleans(),
    including=st.booleans(),
    op=st.sampled_from(["MaxPool", "AveragePool"]),
)
def test_pool(lab, sides, kernel, stride, pad, ceil, including, op):
    assume(pad < kernel)
    attrs = {"count_include_pad": int(including)} if op == "AveragePool" else {}

    def make(b, x):
        return b(op, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=int(ceil), **attrs)

    graph = lab.build(make, [(1, 3, *sides)], opset=19)
    feeds = lab.noise(graph)
    lab.compared(graph, feeds).close()
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    # A window that counts fewer elements than it has is rounded twice.
    assert found.steps() <= (2 if "MUL" in found.kinds else 1)
    assert "QUANTIZE" not in found.kinds
