"""AveragePool whose padding counts, where windows may pass the end: onnxruntime computes it in two ways.

Its integer kernel (1.31) divides a window that passes the end by the window's whole size, its float kernel by what is
inside. The rewrite is exact, and leaves nothing that they differ in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Graph, Node
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization


@dataclass(frozen=True)
class CountedPadding(Legalization):
    """Gives AveragePool that counts its padding a Pad of its own, where runtimes disagree about it."""

    name: ClassVar[str] = "counted-padding"
    words: ClassVar[str] = "pads in front, where its padding counts"

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        return count_padding_outside(graph)


def count_padding_outside(graph: Graph) -> int:
    """Gives such an AveragePool a Pad of its own, whose zeros count; returns how many nodes were changed."""
    changed = 0
    for node in list(graph.nodes):
        if node.op == "AveragePool" and node.domain in ("", "ai.onnx"):
            changed += _rewrite(graph, node)
    return changed


def _rewrite(graph: Graph, node: Node) -> bool:
    attrs, x = node.attrs, node.inputs[0]
    if not (attrs.get("ceil_mode", 0) and attrs.get("count_include_pad", 0)):
        return False
    if attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or x.dtype != np.float32:
        return False
    rank = len(attrs["kernel_shape"])
    pads = list(attrs.pop("pads", [0] * (2 * rank)))
    if any(pads):
        amounts = np.array([0, 0, *pads[:rank], 0, 0, *pads[rank:]], np.int64)
        padded = graph.op("Pad", [x, graph.const(f"{node.name}.pads", amounts)], name=f"{node.name}.pad", before=node)
        padded.dtype = x.dtype
        node.inputs[0] = padded
    attrs["count_include_pad"] = 0
    return True
