"""Einsum in the form that TensorRT takes: lower-case letters, no ellipsis, no dimension of 1 that broadcasts."""

from __future__ import annotations

from string import ascii_lowercase

from edgec.backends.tensorrt.spelling import Writer, rewrites
from edgec.ir.graph import Tensor

_ELLIPSIS = "..."


@rewrites("einsum-ellipsis", "einsum-letters", "einsum-broadcast")
def einsum(write: Writer) -> bool:
    """A letter for each dimension that an ellipsis stands for; dimensions of 1 that others broadcast over go."""
    node = write.node
    equation = str(node.attrs["equation"]).replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    shapes = [write.static(tensor) for tensor in node.inputs]
    if any(shape is None for shape in shapes) or len(terms) != len(shapes):
        return False
    known = [tuple(shape or ()) for shape in shapes]
    ranks = [len(shape) - len(term.replace(_ELLIPSIS, "")) for term, shape in zip(terms, known, strict=True)]
    widest = max([rank for term, rank in zip(terms, ranks, strict=True) if _ELLIPSIS in term], default=0)
    letters = dict.fromkeys(letter for letter in equation if letter.isalpha())
    if len(letters) + widest > len(ascii_lowercase):
        return False
    renamed = dict(zip(letters, ascii_lowercase, strict=False))
    free = ascii_lowercase[len(letters) : len(letters) + widest]

    def spelled(term: str, rank: int) -> str:
        dots = free[widest - rank :] if _ELLIPSIS in term else ""
        head, found, tail = term.partition(_ELLIPSIS)
        return "".join(renamed[c] for c in head) + (dots if found else "") + "".join(renamed[c] for c in tail)

    named = [spelled(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    if "->" in equation:
        result = spelled(right, widest)
    else:
        once = sorted(letter for letter in letters if left.count(letter) == 1)
        result = free + "".join(renamed[letter] for letter in once)
    sizes: dict[str, int] = {}
    for term, shape in zip(named, known, strict=True):
        if len(set(term)) < len(term):
            return False  # a diagonal
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    inputs: list[Tensor] = []
    for place, (term, shape) in enumerate(zip(named, known, strict=True)):
        kept = [i for i, letter in enumerate(term) if shape[i] == sizes[letter]]
        tensor = node.inputs[place]
        if len(kept) < len(term):
            tensor = write.reshaped(f"narrow{place}", tensor, [shape[i] for i in kept])
            named[place] = "".join(term[i] for i in kept)
        inputs.append(tensor)
    return write.done(write.op("Einsum", "einsum", *inputs, equation=f"{','.join(named)}->{result}"))
