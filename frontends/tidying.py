"""What exporters leave open and passes want settled: names for all nodes, constants as constants."""

from __future__ import annotations

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Variable
from edgec.ir.literals import literal

# What onnx's inference says of a shape in the file that is not the one that it finds.
_CONTRADICTED = "existing shape"


def name_nodes(graph: Graph) -> None:
    """Gives each node of the model, subgraphs included, a name of its own; names that are distinct already stay.

    A node without one is named for its operator and its first output.
    """
    seen: set[str] = set()
    for inside in graph.graphs():
        for node in inside.nodes:
            if not node.name:
                output = next((tensor.name for tensor in node.outputs if tensor.name), "")
                node.name = graph.fresh(f"{node.op.lower()}.{output}" if output else node.op.lower())
            elif node.name in seen:
                node.name = graph.fresh(node.name)
            seen.add(node.name)


def drop_default_inputs(graph: Graph) -> None:
    """Takes weights out of the inputs, where old exporters list them: edgec compiles them in."""
    graph.inputs = [tensor for tensor in graph.inputs if isinstance(tensor, Variable)]


def drop_contradicted_shapes(graph: Graph, fault: InputError, notes: list[str]) -> bool:
    """Forgets what a file declares of the shapes between inputs and outputs, where ``fault`` is that it does not fit.

    Who writes other dimensions into a file's inputs leaves the shapes behind them as they were; onnxruntime goes by the
    inputs, too. Says whether anything was forgotten.
    """
    if _CONTRADICTED not in fault.what:
        return False
    forgotten = forget_shapes(graph)
    if forgotten:
        notes.append(
            f"the shapes that it declares for {forgotten} tensors do not follow from its inputs: inferred anew"
        )
    return forgotten > 0


def forget_shapes(graph: Graph) -> int:
    """Takes away the declared shapes of all that is computed, but of sequences and maps; returns how many."""
    forgotten = 0
    for inside in graph.names.graphs():
        for tensor in (tensor for node in inside.nodes for tensor in node.outputs):
            if isinstance(tensor, Variable) and tensor.type_proto is None:
                forgotten += tensor.shape is not None
                tensor.shape = None
    return forgotten


def settle_constants(graph: Graph) -> None:
    """Turns the results of Constant nodes into constants; one that is an output of its graph stays computed."""
    for inside in graph.graphs():
        outputs = set(inside.outputs)
        for node in [n for n in inside.nodes if n.op == "Constant" and n.domain in ("", "ai.onnx")]:
            result = node.outputs[0]
            values = literal(node)
            if result in outputs or values is None:
                continue
            constant = Constant(result.name, values)
            constant.doc_string, constant.metadata = result.doc_string, result.metadata
            if result.quantization is not None:
                constant.quantization = result.quantization
            inside.replace_uses(result, constant)
            inside.erase(node)
