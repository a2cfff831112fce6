"""Cutting a network before its end, at tensors that the user names: a detection head that finishes on the CPU, say."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph, Variable


def cut(graph: Graph, outputs: Sequence[str], source: str) -> None:
    """Makes the named tensors the graph's outputs, in that order, and removes what only the old ones needed.

    Args:
        graph: typed; changed in place.
        outputs: names of tensors, or of nodes for what they compute first.
        source: the model's name, for errors.

    Raises:
        UsageError: a name is unknown, given twice, or of something that no node computes.
    """
    tensors = {variable.name: variable for variable in graph.variables()}
    computed = {name: tensor for name, tensor in tensors.items() if tensor.inputs}
    for node in graph.nodes:
        if node.outputs and isinstance(node.outputs[0], Variable):
            computed.setdefault(node.name, node.outputs[0])
    chosen: list[Variable] = []
    for name in outputs:
        found = computed.get(name)
        if found is None:
            what = f"the model computes nothing named '{name}'{did_you_mean(name, list(computed))}"
            raise UsageError(f"--cut {name}", what, f"'edgec inspect {source}' lists the nodes")
        if found in chosen:
            raise UsageError(f"--cut {name}", "names an output that was named already", "name it once")
        chosen.append(found)
    graph.outputs = list(chosen)
    graph.remove_dead()
    graph.inputs = [tensor for tensor in graph.inputs if tensor.outputs or tensor in chosen]
