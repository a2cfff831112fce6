"""What a tensor is, by content: equal fingerprints mean equal values for equal inputs.

A tensor's fingerprint is a hash over the operator that computes it, its attributes and the fingerprints of what it
reads (a Merkle tree), so names do not matter, and two graphs that share their first layers share those fingerprints.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor

_never_twice = count()


def fingerprints(graph: Graph) -> dict[Tensor, str]:
    """The fingerprint of each tensor of a sorted graph; a graph input is known by its name and its domain."""
    found: dict[Tensor, str] = {}
    domain = sorted(graph.metadata.items())
    for tensor in graph.inputs:
        found[tensor] = _digest("input", tensor.name, tensor.dtype, tensor.shape, domain)
    versions = sorted(graph.opsets.items())
    for node in graph.nodes:
        reads = [_of(tensor, found) for tensor in node.inputs]
        own = _digest(node.op, node.domain, versions, reads, _attributes(node))
        for place, tensor in enumerate(node.outputs):
            found[tensor] = f"{own}.{place}"
    return found


def _of(tensor: Tensor, found: dict[Tensor, str]) -> str:
    if tensor not in found:
        found[tensor] = _array(tensor.values) if isinstance(tensor, Constant) else _digest("omitted", tensor.name)
    return found[tensor]


def _attributes(node: Node) -> list[tuple[str, str]]:
    return [(key, _attribute(value)) for key, value in sorted(node.attrs.items())]


def _attribute(value: Any) -> str:
    if isinstance(value, Constant):
        return _array(value.values)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, list | tuple):
        return _digest(*map(_attribute, value))
    if isinstance(value, str | bytes | int | float):
        return repr(value)
    # A subgraph reads tensors by name from outside: it is taken to equal nothing but itself.
    return f"unlike anything: {next(_never_twice)}"


def _array(values: np.ndarray) -> str:
    if values.dtype.kind == "O":
        return _digest("strings", values.shape, values.tolist())
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    return f"{values.dtype}{values.shape}{hashlib.blake2b(data, digest_size=16).hexdigest()}"


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
