"""What the rules for spelled-out operators ask of a graph: who alone reads a tensor, what it is multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.framework.rewriter import Rewriter

# Polynomials are compared up to this degree: a Gelu by tanh has 3.
_DEGREE = 3
# How deep arithmetic is looked into.
_DEPTH = 8


def sole_reader(rw: Rewriter, tensor: Tensor) -> Node | None:
    """The node that reads a tensor, where nothing else does."""
    return tensor.outputs[0] if rw.single_use(tensor) else None


def number(rw: Rewriter, tensor: Tensor) -> float | None:
    """The value of a constant that is one number, of any rank that broadcasts to nothing larger than its partner."""
    values = rw.fixed(tensor)
    if values is None or values.size != 1 or values.dtype.kind != "f":
        return None
    return float(values.reshape(-1)[0])


def reduced_axes(rw: Rewriter, node: Node) -> list[int] | None:
    """The axes that a reduction takes together, counted from the front and rising; ``None`` where they are not said."""
    rank = rw.rank(node.inputs[0])
    given = rw.fixed(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else None
    axes = node.attrs.get("axes") if given is None else given.reshape(-1).tolist()
    return sorted({int(axis) % rank for axis in axes}) if axes and rank else None


def with_number(rw: Rewriter, node: Node) -> tuple[Tensor | None, float]:
    """What an operator of two operands takes together with a number, and the number; ``None`` where there is none.

    Of Sub and Div the second operand is the number; a constant of a rank above its partner's is none.
    """
    for place in (1, 0) if node.op not in ("Div", "Sub") else (1,):
        value, partner = number(rw, node.inputs[place]), node.inputs[1 - place]
        if value is not None and _keeps_rank(rw, node.inputs[place], partner):
            return partner, value
    return None, 0.0


def times(rw: Rewriter, tensor: Tensor | None, x: Tensor) -> float | None:
    """The number that ``tensor`` is ``x`` times; ``None`` where it is something else."""
    coefficients = None if tensor is None else polynomial(rw, tensor, x)
    if coefficients is None or any(coefficients[:1]) or any(coefficients[2:]):
        return None
    return float(coefficients[1])


def polynomial(rw: Rewriter, tensor: Tensor, x: Tensor, depth: int = _DEPTH) -> np.ndarray | None:
    """The coefficients, from the constant's up to that of the third power, of what ``tensor`` is in ``x``.

    ``None`` where it is no such polynomial, or depends on anything else.
    """
    result = np.zeros(_DEGREE + 1)
    if tensor is x:
        result[1] = 1.0
        return result
    value = number(rw, tensor)
    if value is not None:
        result[0] = value
        return result
    node = producer(tensor)
    if node is None or depth == 0 or node.op not in ("Add", "Sub", "Mul", "Div", "Pow", "Neg"):
        return None
    parts = [polynomial(rw, operand, x, depth - 1) for operand in node.inputs]
    if any(part is None for part in parts) or rw.shape(x) is None or rw.shape(tensor) != rw.shape(x):
        return None
    left, right = (parts + parts)[:2]
    assert left is not None and right is not None
    if node.op == "Neg":
        return -left
    if node.op in ("Add", "Sub"):
        return left + right if node.op == "Add" else left - right
    if node.op == "Mul":
        product = np.convolve(left, right)
        return None if np.any(product[_DEGREE + 1 :]) else product[: _DEGREE + 1]
    if np.any(right[1:]):
        return None
    if node.op == "Div":
        return left / right[0] if right[0] else None
    return _power(left, right[0])


def factors_behind(rw: Rewriter, start: Tensor, x: Tensor) -> Iterator[tuple[Node, float, bool]]:
    """Multiplications that follow ``start``, each the only reader of the one before, as far as they go.

    Yields each with the number by which ``start`` is multiplied up to it, and whether ``x`` is a factor as well, which
    it is at most once.
    """
    product, factor, taken = start, 1.0, False
    while (reader := sole_reader(rw, product)) is not None and reader.op in ("Mul", "Div"):
        rest, value = with_number(rw, reader)
        if rest is product and value:
            factor *= value if reader.op == "Mul" else 1 / value
        elif reader.op == "Mul" and not taken:
            other = reader.inputs[1] if reader.inputs[0] is product else reader.inputs[0]
            share = times(rw, other, x)
            if share is None or rw.shape(reader.outputs[0]) != rw.shape(x):
                return
            factor, taken = factor * share, True
        else:
            return
        yield reader, factor, taken
        product = reader.outputs[0]


def replace_by(rw: Rewriter, last: Node, op: str, inputs: list[Tensor], label: str, **attrs: Any) -> bool:
    """Puts one operator in the place of a chain that ends in ``last``; says so. Returns ``True``."""
    out = last.outputs[0]
    name = f"{last.name or out.name}.{label}"
    whole = rw.insert(last, op, inputs, name=name, shape=rw.shape(out), dtype=rw.dtype(out), **attrs)
    rw.did(last, f"the end of a {op} that was spelled out: became one")
    rw.replace(last, whole)
    return True


def _power(base: np.ndarray, exponent: float) -> np.ndarray | None:
    """A power of ``c x``, or of ``a + c x`` where its degree stays within bounds."""
    if exponent not in (1.0, 2.0, 3.0) or np.any(base[2:]):
        return None
    n = int(exponent)
    result = np.zeros(_DEGREE + 1)
    result[: n + 1] = [comb(n, k) * base[0] ** (n - k) * base[1] ** k for k in range(n + 1)]
    return result


def _keeps_rank(rw: Rewriter, constant: Tensor, partner: Tensor) -> bool:
    values, rank = rw.fixed(constant), rw.rank(partner)
    return values is not None and (values.ndim == 0 or (rank is not None and values.ndim <= rank))
