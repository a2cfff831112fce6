"""Memory orders against numpy's own reshape and transpose, and window arithmetic against counting."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.coral import layout
from edgec.backends.coral.padding import Spread, Window

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
SHAPE = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4).map(tuple)


@st.composite
def permuted_shapes(draw):
    shape = draw(SHAPE)
    return shape, tuple(draw(st.permutations(range(len(shape)))))


def _memory(shape, permutation):
    """Row-major indices of a tensor, in the order in which its memory holds them."""
    return np.arange(prod(shape)).reshape(shape).transpose(permutation).reshape(-1)


@SETTINGS
@given(permuted_shapes())
def test_an_order_lists_the_memory(case):
    shape, permutation = case
    order = layout.permuted(shape, permutation)
    np.testing.assert_array_equal(layout.indices(order), _memory(shape, permutation))
    found = layout.permutation_of(order, shape)
    assert found is not None
    np.testing.assert_array_equal(_memory(shape, found), _memory(shape, permutation))


@SETTINGS
@given(permuted_shapes(), st.data())
def test_transposing_names_dimensions_anew(case, data):
    shape, permutation = case
    turn = data.draw(st.permutations(range(len(shape))))
    order = layout.transposed(layout.permuted(shape, permutation), shape, turn)
    assert order is not None
    # Memory position -> index in the transposed tensor.
    index = np.empty(prod(shape), np.int64)
    index[np.arange(prod(shape)).reshape(shape).transpose(turn).reshape(-1)] = np.arange(prod(shape))
    np.testing.assert_array_equal(layout.indices(order), index[_memory(shape, permutation)])


@SETTINGS
@given(permuted_shapes(), st.data())
def test_moves_bring_memory_into_order(case, data):
    shape, permutation = case
    other = tuple(data.draw(st.permutations(range(len(shape)))))
    step = layout.moves(layout.permuted(shape, permutation), layout.permuted(shape, other))
    assert step is not None
    seen, turn = step
    np.testing.assert_array_equal(
        _memory(shape, permutation).reshape(seen).transpose(turn).reshape(-1), _memory(shape, other)
    )
    if permutation == other:
        assert turn == sorted(turn)


def test_a_reshape_keeps_the_order():
    image = layout.permuted((1, 6, 4, 5), layout.CHANNELS_LAST)
    assert image == ((20, 1), (6, 20))
    assert layout.permutation_of(image, (1, 6, 20)) == (0, 2, 1)
    assert layout.permutation_of(image, (1, 120)) is None
    np.testing.assert_array_equal(layout.inner_permutation(image, (1, 120), (0,)), _memory((6, 20), (1, 0)))


def test_an_order_that_no_transposition_makes():
    # 24 elements transposed as 4 x 6 against as 6 x 4: the factors do not divide each other.
    assert layout.moves(layout.permuted((6, 4), (1, 0)), layout.permuted((4, 6), (1, 0))) is None


WINDOW = st.builds(
    Window,
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
).filter(lambda w: w.size + w.before + w.after >= w.reach)


def _tflite_starts(window, padding):
    """Where each window starts in the input, as kernels/padding.h computes it."""
    if padding == "VALID":
        count = (window.size - window.reach) // window.stride + 1
        before = 0
    else:
        count = -(-window.size // window.stride)
        before = max((count - 1) * window.stride + window.reach - window.size, 0) // 2
    return [i * window.stride - before for i in range(count)]


@SETTINGS
@given(WINDOW)
def test_windows_start_where_tflite_starts_them(window):
    starts = [i * window.stride - window.before for i in range(window.output)]
    assert starts[-1] + window.reach <= window.size + window.before + window.after
    if window.is_same:
        assert _tflite_starts(window, "SAME") == starts
    if window.is_valid:
        assert _tflite_starts(window, "VALID") == starts
    padded = Window(window.size + window.before + window.needed_after, window.kernel, window.stride, window.dilation)
    assert len(_tflite_starts(padded, "VALID")) == window.output


def test_padding_facts():
    assert not Window(8, 3, 2, 1, 1, 1).is_same, "stride 2 with symmetric padding starts a row early"
    assert Window(8, 3, 2, 1, 0, 1).is_same
    assert Window(9, 3, 2, 1, 1, 1).is_same
    assert Spread(4, 4, 2, 1, 8).is_same
    assert Spread(4, 3, 2, 1, 7).is_same
    assert not Spread(4, 3, 2, 1, 8).is_same, "output_padding 1"


INPUTS = {
    "one channel by Reshape": (
        lambda b, x: b("Conv", b("Reshape", x, b.ints(1, 1, 8, 6)), b.weight(4, 1, 3, 3)),
        (1, 8, 6, 1),
        (0, 1, 2, 3),
    ),
    "one channel by Unsqueeze": (
        lambda b, x: b("Conv", b("Unsqueeze", x, b.ints(1)), b.weight(4, 1, 3, 3)),
        (1, 8, 6),
        (0, 1, 2),
    ),
    "a Transpose behind arithmetic": (
        lambda b, x: b("Conv", b("Transpose", b("Mul", x, b.weight(3)), perm=[0, 3, 1, 2]), b.weight(4, 3, 3, 3)),
        (1, 8, 6, 3),
        (0, 1, 2, 3),
    ),
    "a Transpose in front of arithmetic": (
        lambda b, x: b(
            "Conv", b("Sub", b("Transpose", x, perm=[0, 3, 1, 2]), b.const(0.5)), b.weight(4, 3, 3, 3), pads=[1] * 4
        ),
        (1, 8, 6, 3),
        (0, 1, 2, 3),
    ),
    "rows, columns, channels": (
        lambda b, x: b("Conv", b("Unsqueeze", b("Transpose", x, perm=[2, 0, 1]), b.ints(0)), b.weight(4, 3, 3, 3)),
        (8, 6, 3),
        (0, 1, 2),
    ),
    "channels first": (lambda b, x: b("Conv", b("Abs", x), b.weight(4, 3, 3, 3)), (1, 3, 8, 6), (0, 2, 3, 1)),
}


@pytest.mark.parametrize("case", list(INPUTS))
@pytest.mark.parametrize("integers", [False, True])
def test_an_input_is_stored_as_its_first_layer_reads_it(lab, case, integers):
    make, shape, permutation = INPUTS[case]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    compared = lab.compared(lab.quantized(graph, feeds) if integers else graph, feeds)
    assert "TRANSPOSE" not in compared.kinds
    assert compared.lowered.inputs[0].permutation == permutation
    if integers:
        assert compared.steps() <= 1
    else:
        compared.close()
