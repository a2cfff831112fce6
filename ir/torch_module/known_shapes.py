"""Shapes of every tensor, where some hang on numbers that the graph computes from constants.

Exporters leave such numbers behind: the amounts of a Pad put together from shapes, say. onnx's inference does not
compute them, and says nothing of the shapes that follow. Here they are computed and put in the place of their nodes,
and what follows is inferred anew, until nothing more becomes known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from edgec.ir.graph import Graph, Node, Tensor, Variable, detach
from edgec.ir.node_list import NodeList
from edgec.ir.shapes import Shapes
from edgec.ir.torch_module.conversion import to_numpy, to_torch
from edgec.ir.torch_module.lowering import Call, Site
from edgec.ir.torch_module.operators import RULES


class KnownShapes(Shapes):
    """Shape and element type by tensor.

    Args:
        graph: whose tensors; all its operators have rules.
        constants: the constants that no training changes, with their elements.

    Raises:
        InputError: the operators contradict each other, or one cannot be lowered.
    """

    def __init__(self, graph: Graph, constants: Mapping[Tensor, np.ndarray]) -> None:
        super().__init__(graph)
        known = dict(constants)
        while any(not self._is_static(variable) for variable in graph.variables()):
            before = len(known)
            self._compute(graph, known)
            if len(known) == before:
                return
            self._infer_again(graph, known)

    def _is_static(self, tensor: Tensor) -> bool:
        shape = self.shape(tensor)
        return shape is not None and None not in shape

    def _compute(self, graph: Graph, known: dict[Tensor, np.ndarray]) -> None:
        for node in graph.nodes:
            if node.outputs[0] in known:
                continue
            sized = node.op in ("Shape", "Size") and self._is_static(node.inputs[0])
            if sized or all(not tensor.name or tensor in known for tensor in node.inputs):
                site = Site(node, graph.opset, self, known, None)
                evaluate(RULES[node.op](site), site, known)

    def _infer_again(self, graph: Graph, known: Mapping[Tensor, np.ndarray]) -> None:
        twins: dict[Tensor, Tensor] = {}
        twin = graph.copy(twins)
        outputs = set(twin.outputs)
        gone: set[Node] = set()
        for tensor, values in known.items():
            made = twins.get(tensor)
            if isinstance(made, Variable) and len(made.inputs[0].outputs) == 1 and made not in outputs:
                gone.add(made.inputs[0])
                detach(made.inputs[0])
                # What is quantized is held in floats; inference is to see the integers.
                made.to_constant(values.astype(self.dtype(tensor) or values.dtype, copy=False))
        twin.nodes = NodeList([node for node in twin.nodes if node not in gone])
        found = Shapes(twin)
        for variable in graph.variables():
            self._shape[variable] = found.shape(twins[variable])
            self._dtype[variable] = found.dtype(twins[variable])


def evaluate(call: Call, site: Site, known: dict[Tensor, np.ndarray]) -> None:
    """Runs a call whose operands are all known, and adds what it gives."""
    with torch.no_grad():
        result = call(*[None if tensor is None else to_torch(known[tensor]) for tensor in site.reads])
    for tensor, value in zip(site.node.outputs, result if isinstance(result, tuple) else (result,), strict=False):
        known[tensor] = to_numpy(value)
