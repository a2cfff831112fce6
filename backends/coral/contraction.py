"""Einsum as transpositions, sums and a product of matrices.

Source: the ONNX operator Einsum, whose notation is numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from string import ascii_letters

from edgec.backends.coral.legalize import rewrites
from edgec.backends.coral.steps import Steps, sizes
from edgec.ir.graph import Graph, Node, Tensor


@rewrites("Einsum")
def einsum(graph: Graph, node: Node) -> bool:
    """Of one tensor a sum and a transposition; of two a MatMul over what only they share; more from the left."""
    shapes = [sizes(tensor) for tensor in node.inputs]
    dtype = node.inputs[0].dtype
    if dtype is None or dtype.kind != "f" or any(shape is None for shape in shapes):
        return False
    equation = node.attrs["equation"]
    text = (equation.decode() if isinstance(equation, bytes) else str(equation)).replace(" ", "")
    spelled = _spelled(text, [len(shape or ()) for shape in shapes])
    if spelled is None:
        return False
    terms, result = spelled
    length: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape or (), strict=True):
            if length.setdefault(letter, size) != size:
                return False  # a dimension of 1 that broadcasts
    steps = Steps(graph, node)
    tensors: list[Tensor] = list(node.inputs)
    while len(tensors) > 1:
        later = {letter for term in terms[2:] for letter in term} | set(result)
        term, tensor = _product(steps, terms[:2], tensors[:2], later, length)
        terms, tensors = [term, *terms[2:]], [tensor, *tensors[2:]]
    return steps.done(_ordered(steps, terms[0], tensors[0], result))


def _spelled(text: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """The terms with a letter for each dimension, and the result; ``None`` where one is a diagonal."""
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    free = [letter for letter in ascii_letters if letter not in text]
    widest = max((rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0)
    dots = free[:widest]
    spelled = []
    for term, rank in zip(terms, ranks, strict=True):
        own = dots[widest - (rank - len(term) + 3) :] if "..." in term else []
        spelled.append(term.replace("...", "".join(own)))
    if not arrow:
        letters = sorted({letter for letter in left if letter.isalpha() and left.count(letter) == 1})
        right = "..." * ("..." in left) + "".join(letters)
    if any(len(set(term)) < len(term) or len(term) != rank for term, rank in zip(spelled, ranks, strict=True)):
        return None
    return spelled, right.replace("...", "".join(dots))


def _ordered(steps: Steps, term: str, tensor: Tensor, result: str) -> Tensor:
    """A tensor summed over what the result has not, in the result's order."""
    gone = [place for place, letter in enumerate(term) if letter not in result]
    if gone:
        tensor = steps("ReduceSum", tensor, steps.integers("axes", gone), keepdims=0)
        term = "".join(letter for letter in term if letter in result)
    if term == result:
        return tensor if gone else steps("Identity", tensor)
    return steps("Transpose", tensor, perm=[term.index(letter) for letter in result])


def _product(
    steps: Steps, terms: Sequence[str], tensors: Sequence[Tensor], later: set[str], length: dict[str, int]
) -> tuple[str, Tensor]:
    """The product of two tensors, summed over what only they have."""
    left, right = terms
    both = [letter for letter in left if letter in right]
    batch = [letter for letter in both if letter in later]
    inner = [letter for letter in both if letter not in later]
    rows = [letter for letter in left if letter not in right and letter in later]
    columns = [letter for letter in right if letter not in left and letter in later]
    a = _ordered(steps, left, tensors[0], "".join([*batch, *rows, *inner]))
    b = _ordered(steps, right, tensors[1], "".join([*batch, *inner, *columns]))

    def count(letters: Sequence[str]) -> int:
        return prod(length[letter] for letter in letters)

    lead = [length[letter] for letter in batch]
    a = steps.reshaped(a, [*lead, count(rows), count(inner)])
    b = steps.reshaped(b, [*lead, count(inner), count(columns)])
    term = [*batch, *rows, *columns]
    product = steps("MatMul", a, b)
    return "".join(term), steps.reshaped(product, [length[letter] for letter in term])
