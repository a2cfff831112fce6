"""Weights whose products two by two fit into 16 bits, so that every x86 CPU computes what the file says.

On CPUs without VNNI the kernel for uint8 activations and int8 weights (``VPMADDUBSW``) adds the products of two
neighbouring inputs in 16 bits, and what is beyond saturates: 255 (a + b) fits where a + b is 128 at most. Networks lose
10 to 20 dB by that, without a word. Half of the range for all weights avoids it at the price of one bit. It is enough,
though, that no two neighbours are large together: that costs a channel its largest pair over 128, mostly a third of a
bit, and only where there is such a pair.

The order of the inputs is that in which onnxruntime multiplies: the channels of one tap beside each other (it computes
convolutions as products of matrices in NHWC). A depthwise convolution multiplies in 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgec.ir.graph import Constant, Node, producer, static_shape
from edgec.passes.quantize.placement.placement import Site

#: The largest sum of two weights of one sign: 255 times it is below 2^15.
LARGEST = 128
# What scales are chosen for: rounding moves a weight by half a step, and what is learnt later by one more.
WANTED = 126.0


def multiplies_pairs(node: Node, shape: Sequence[int | str | None]) -> bool:
    """Whether an operator with weights of that shape adds products two by two; a depthwise convolution does not."""
    if node.op == "Conv":
        return shape[1] != 1 or int(node.attrs.get("group", 1)) == 1
    return node.op in ("Gemm", "MatMul")


def rows(node: Node, weights: np.ndarray) -> np.ndarray:
    """The weights as (outputs, inputs in the order of the kernel), a view where numpy can make one."""
    if node.op == "Conv":
        return np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1)
    if node.op == "Gemm" and node.attrs.get("transB"):
        return weights
    return weights.swapaxes(-1, -2).reshape(-1, weights.shape[-2])


def largest_pair(inputs: np.ndarray) -> np.ndarray:
    """By row, the largest sum of the weights of one sign in a pair of neighbours: (..., n) to (...)."""
    even, odd = inputs[..., 0::2], inputs[..., 1::2]
    zero = inputs.dtype.type(0)
    both = np.zeros(inputs.shape[:-1], inputs.dtype)
    for sign in (1, -1):
        first = np.maximum(sign * even, zero)
        first[..., : odd.shape[-1]] += np.maximum(sign * odd, zero)
        both = np.maximum(both, first.max(axis=-1, initial=0))
    return both


def bound_pairs(sites: Iterable[Site]) -> int:
    """Takes a few steps from weights whose pair is too large still, in place; how many weights there were.

    Args:
        sites: of a quantized network; their scales were chosen by :func:`largest_pair`.
    """
    moved = 0
    for site in sites:
        if site.weight is None:
            continue
        shape = static_shape(site.node.inputs[site.weight])
        stored = producer(site.node.inputs[site.weight])
        integers = stored.inputs[0] if stored is not None else None
        if not isinstance(integers, Constant) or not multiplies_pairs(site.node, shape):
            continue
        values = integers.values.astype(np.int16)
        row = rows(site.node, values).copy()
        over = _bound(row, 1) + _bound(row, -1)
        if over:
            integers.values = _as_stored(site.node, row, values.shape).astype(integers.dtype)
        moved += over
    return moved


def _bound(row: np.ndarray, sign: int) -> int:
    """Takes from the larger weight of each pair of that sign what is too much; how many there were."""
    pairs = row[:, : row.shape[1] // 2 * 2].reshape(row.shape[0], -1, 2)
    over = np.maximum(sign * pairs, 0).sum(axis=2) - LARGEST
    outputs, places = np.nonzero(over > 0)
    larger = (sign * pairs[outputs, places]).argmax(axis=1)
    row[outputs, 2 * places + larger] -= sign * over[outputs, places]
    return len(outputs)


def _as_stored(node: Node, row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What :func:`rows` came from."""
    if node.op == "Conv":
        return np.moveaxis(row.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    if node.op == "Gemm" and node.attrs.get("transB"):
        return row
    return row.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)
