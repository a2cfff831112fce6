"""One operator set for every model: functions inlined, old opsets upgraded, weights left where they are.

onnx's inliner and version converter work on whole messages. They are given one in which each large weight is an input,
and the weights are put back afterwards; so nothing is copied, and a model over 2 GB can be upgraded too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter

from edgec.frontends.old_operators import modernize, settle_resizes
from edgec.frontends.tidying import name_nodes
from edgec.ir.errors import InputError
from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.protos import data_type, from_proto, is_structural, to_proto

# The oldest opset that is read, which is the oldest that onnxruntime runs, and the one that older models are brought
# to: per-channel quantization needs 13.
OLDEST = 7
WORKING = 17
# Up to here what an upgrade computes is compared with what the model does: operators changed more than their form.
CHECKED = 10
# What rounding may move an output by, in units of the last place of its largest value.
_ROUNDING = 4096
# The opsets that have as one operator what exporters spell out: Gelu and Mish.
WITH_GELU, WITH_MISH = 20, 18
# The factor by which a Gelu by Tanh is known.
_OF_TANH_GELU = 0.044715


def inline_functions(graph: Graph, source: str) -> Graph:
    """``graph`` with the model's own functions in the place of their calls; the same graph where it has none.

    Raises:
        InputError: onnx cannot inline them.
    """
    if graph.carried is None or not graph.carried.functions:
        return graph

    def inline(message: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.inliner.inline_local_functions(message, convert_version=True)

    made = _through(graph, inline, source, "has functions that cannot be inlined")
    assert made.carried is not None
    del made.carried.functions[:]
    return made


def check_versions(graph: Graph, source: str) -> None:
    """Raises InputError where the opset is older than 7, or the opset or the format newer than the onnx installed."""
    version, newest = graph.opset, onnx.defs.onnx_opset_version()
    if version < OLDEST:
        fix = f"export the network again with opset_version={WORKING}"
        raise InputError(source, f"is of opset {version}, and edgec reads {OLDEST} and later", fix)
    if version > newest:
        fix = f"install a newer onnx, or export with opset_version={WORKING}"
        what = f"is of opset {version}, and onnx {onnx.__version__} knows {newest} and earlier"
        raise InputError(source, what, fix)
    if (graph.ir_version or 0) > onnx.IR_VERSION:
        what = f"is of IR version {graph.ir_version}, and onnx {onnx.__version__} knows {onnx.IR_VERSION} and earlier"
        raise InputError(source, what, "install a newer onnx, or export the network again")


def upgrade(graph: Graph, source: str, notes: list[str]) -> Graph:
    """``graph`` in opset 17 where it is older, in 18 or 20 where it seems to spell out a Mish or a Gelu.

    As it is where it is newer.

    Where it is of opset 10 or older, both are run on noise and compared, if onnxruntime takes it as it is.

    Args:
        graph: with static input shapes; old operators in it may be spelt out anew.
        source: the model's file name, for errors.
        notes: takes up what was decided for the user.

    Raises:
        InputError: its upgrade fails, or computes something else.
    """
    version = graph.opset
    wanted = _wanted(graph)
    if version >= wanted:
        return graph
    original = graph.copy() if version <= CHECKED else None
    modernize(graph)

    def convert(message: onnx.ModelProto) -> onnx.ModelProto:
        # Adapters such as Softmax's ask for ranks.
        inferred = onnx.shape_inference.infer_shapes(message, data_prop=True)
        return onnx.version_converter.convert_version(inferred, wanted)

    upgraded = _through(graph, convert, source, f"cannot be upgraded from opset {version} to {wanted}")
    settle_resizes(upgraded, version)
    upgraded.ir_version = max(upgraded.ir_version or 0, _least_ir_version(wanted))
    name_nodes(upgraded)
    if original is not None:
        _check_same(original, upgraded, source, notes)
    return upgraded


def _wanted(graph: Graph) -> int:
    """The opset that what exporters spell out in ``graph`` asks for."""
    operators = {node.op for node in graph.nodes}
    if "Erf" in operators or ("Tanh" in operators and any(map(_is_tanh_gelu_factor, graph.constants()))):
        return WITH_GELU
    return WITH_MISH if {"Softplus", "Tanh", "Mul"} <= operators else WORKING


def _is_tanh_gelu_factor(constant: Constant) -> bool:
    if constant.dtype.kind != "f" or constant.nbytes > 8 or not constant.nbytes:
        return False
    return abs(float(constant.values.reshape(-1)[0]) - _OF_TANH_GELU) < 1e-6


def _least_ir_version(opset: int) -> int:
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def _check_same(original: Graph, upgraded: Graph, source: str, notes: list[str]) -> None:
    """Raises InputError where an upgraded graph computes something else than it did, on noise in onnxruntime."""
    original.ir_version = 8  # from 4 on, weights need not be inputs
    change = f"from opset {original.opset} to {upgraded.opset}"
    try:
        before = Session(original)
        feeds = seeded_feeds(original, samples=2)
        wanted = [before.run(one) for one in feeds]
    except InputError:
        notes.append(f"upgraded {change}, unchecked: onnxruntime does not run it as it is")
        return
    fix = f"export the network again with opset_version={WORKING}"
    try:
        after = Session(upgraded)
        got = [after.run(one) for one in feeds]
    except InputError as error:
        raise InputError(source, f"cannot be upgraded {change}: onnxruntime {error.what}", fix) from None
    for old, new in zip(wanted, got, strict=True):
        for name, x in old.items():
            if x.shape != new[name].shape or not _close(x, new[name]):
                what = f"cannot be upgraded {change}: its output '{name}' would change"
                raise InputError(source, what, fix)
    notes.append(f"upgraded {change}: onnxruntime computes the same before and after")


def _close(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two outputs agree to within rounding."""
    if x.dtype.kind != "f":
        return bool(np.array_equal(x, y))
    finite = np.abs(x.astype(np.float64), where=np.isfinite(x), out=np.zeros(x.shape))
    limit = _ROUNDING * float(np.finfo(x.dtype).eps) * max(float(finite.max(initial=0.0)), 1e-30)
    return bool(np.allclose(x.astype(np.float64), y.astype(np.float64), rtol=0, atol=limit, equal_nan=True))


def _through(graph: Graph, change: Callable[[onnx.ModelProto], onnx.ModelProto], source: str, failure: str) -> Graph:
    message, weights = to_proto(graph, inline=is_structural)
    message.ir_version = max(message.ir_version, 8)  # from 4 on, initializers need not be inputs
    for weight in weights:
        info = onnx.helper.make_tensor_value_info(weight.name, data_type(weight), weight.shape)
        message.graph.input.append(info)
    try:
        changed = change(message)
    except (RuntimeError, ValueError, TypeError, IndexError, onnx.checker.ValidationError) as error:
        said = " ".join(str(error).split())[:200]
        fix = f"export the network again with opset_version={WORKING}"
        raise InputError(source, f"{failure} (onnx says: {said})", fix) from None
    made = from_proto(changed, source=source)
    _restore(made, graph, {weight.name: weight for weight in weights})
    return made


def _restore(made: Graph, original: Graph, weights: dict[str, Constant]) -> None:
    """Puts back what onnx's tools drop: the weights, and whatever documents or annotates the model."""
    stubs = {tensor: weights[tensor.name] for tensor in made.inputs if tensor.name in weights}
    made.inputs = [tensor for tensor in made.inputs if tensor not in stubs]
    for stub, weight in stubs.items():
        twin = Constant(weight.name, weight.held)
        twin.doc_string, twin.metadata = weight.doc_string, weight.metadata
        made.replace_uses(stub, twin)
    made.name, made.doc_string = original.name, original.doc_string
    made.metadata, made.graph_metadata = original.metadata, original.graph_metadata
    made.producer_name, made.producer_version = original.producer_name, original.producer_version
    made.ir_version = original.ir_version
    if original.carried is not None:
        made.carried = onnx.ModelProto()
        made.carried.CopyFrom(original.carried)
    nodes = {tensor.name: node for node in original.nodes for tensor in node.outputs if tensor.name}
    for node in made.nodes:
        before = next((nodes[t.name] for t in node.outputs if t.name in nodes), None)
        if before is not None:
            _restore_node(node, before)
    known = {tensor.name: tensor for tensor in _tensors(made)}
    for tensor in _tensors(original):
        if tensor.name in known:
            _restore_tensor(known[tensor.name], tensor, known)


def _tensors(graph: Graph) -> list[Tensor]:
    return [*graph.variables(), *graph.constants()]


def _restore_node(node: Node, before: Node) -> None:
    node.name = node.name or before.name
    node.doc_string = before.doc_string
    node.metadata = before.metadata


def _restore_tensor(twin: Tensor, tensor: Tensor, known: dict[str, Tensor]) -> None:
    twin.doc_string = tensor.doc_string
    twin.metadata = tensor.metadata
    if isinstance(twin, Variable) and twin.dtype is None:
        twin.dtype = tensor.dtype
    if tensor.quantization is not None:
        twin.quantization = {key: known.get(value.name, value) for key, value in tensor.quantization.items()}
