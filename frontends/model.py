"""The graph of a user's ONNX file, in the form that passes expect.

That form is: one opset, no functions, static input shapes, types and shapes on every tensor that inference can tell,
constants as constants, shapes and paddings too where they follow from such, a name for each node, only operators that
onnx defines, weights that are finite numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgec.frontends.bfloat16 import widen
from edgec.frontends.cutting import cut
from edgec.frontends.full_axes import expand_axes
from edgec.frontends.inference_form import leave_training, refuse_noise
from edgec.frontends.opsets import check_versions, inline_functions, upgrade
from edgec.frontends.pins import Pin, Pins, as_pins, parse_pins, pin
from edgec.frontends.shape_arithmetic import decide_conditions, fold_shape_arithmetic
from edgec.frontends.sizes import check_ranges, check_sizes
from edgec.frontends.tidying import drop_contradicted_shapes, drop_default_inputs, name_nodes, settle_constants
from edgec.ir.errors import InputError, InternalError, did_you_mean
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.verifier import STANDARD_DOMAINS, verify

__all__ = ["Pin", "Pins", "as_pins", "open_model", "parse_pins"]

# What a tensor may hold in TFLite, and in a message of protobuf.
_LARGEST_INPUT = (1 << 31) - 1


# Operators that multiply a constant into everything they compute: an infinite value there makes all of it useless. In
# masks, bounds and padding infinities have their uses.
MULTIPLIERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"GroupNormalization", "PRelu", "LSTM", "GRU", "RNN", "QuantizeLinear", "DequantizeLinear", "QLinearConv"}
    | {"QLinearMatMul"}
)


def open_model(
    path: str | os.PathLike[str],
    pins: Pins | None = None,
    outputs: Sequence[str] = (),
    usual: Pins | None = None,
    notes: list[str] | None = None,
    *,
    keep_open: bool = False,
) -> Graph:
    """The graph of an ONNX file as passes see it; its weights are mapped, not read into memory.

    Args:
        path: the ONNX file, of any opset from 7 on.
        pins: by input name shapes, for inputs with open dimensions, or values, for inputs that become constants.
        outputs: tensors or nodes to cut the network at; its own outputs by default.
        usual: shapes for inputs that are open and not pinned, where they fit.
        notes: takes up, in a sentence each, what was decided for the user and changed in the network.
        keep_open: leave open dimensions open where nothing is pinned.

    Raises:
        InputError: the file is no usable model; the line names the node, weight or input, and the fix.
        UsageError: a pin does not fit the model's inputs, or nothing has the name of an output.
    """
    path = Path(path)
    source = path.name
    graph = load(path)
    check_versions(graph, source)
    if not graph.outputs:
        raise InputError(source, "has no outputs", "export the network again")
    graph = inline_functions(graph, source)
    _check_operators(graph, source)
    drop_default_inputs(graph)
    try:
        graph.sort()
    except InternalError as error:
        raise InputError(f"{source}: {error.where}", error.what, "export the network again") from None
    _check_structure(graph, source)
    settle_constants(graph)
    notes = [] if notes is None else notes
    if pins or not keep_open:
        pin(graph, pins or {}, source, usual, notes)
    _check_inputs(graph, source)
    _check_weights(graph, source)
    widen(graph, notes)
    name_nodes(graph)
    leave_training(graph, source, notes)
    sound, graph = graph, upgrade(graph, source, notes)
    if graph is not sound:
        settle_constants(graph)
        _check_structure(graph, source)
    name_nodes(graph)
    try:
        try:
            _settle_shapes(graph)
        except InputError as error:
            if not drop_contradicted_shapes(graph, error, notes):
                raise
            _settle_shapes(graph)
    except InputError as error:
        raise InputError(f"{source}: {error.where}", error.what, error.fix) from None
    if outputs:
        cut(graph, outputs, source)
    refuse_noise(graph, source)
    return graph


def _settle_shapes(graph: Graph) -> None:
    """Computes what shapes follow from, and writes into the graph what shapes are known then."""
    check_ranges(graph)
    decide_conditions(graph)
    shapes = fold_shape_arithmetic(graph)
    if expand_axes(graph, shapes):
        shapes = fold_shape_arithmetic(graph)
    check_sizes(graph, shapes)
    shapes.annotate(graph)


def _check_inputs(graph: Graph, source: str) -> None:
    for tensor in graph.inputs:
        size = math.prod(d for d in tensor.shape or () if isinstance(d, int)) * np.dtype(tensor.dtype).itemsize
        if size > _LARGEST_INPUT:
            where = f"{source}: input '{tensor.name}'"
            raise InputError(
                where, f"takes {size:,} bytes, more than {_LARGEST_INPUT:,}", "export the network for smaller ones"
            )


def _check_operators(graph: Graph, source: str) -> None:
    versions = {("" if domain == "ai.onnx" else domain): version for domain, version in graph.opsets.items()}
    for node in (node for inside in graph.graphs() for node in inside.nodes):
        where = f"{source}: node '{node.name}' ({node.op})"
        domain = "" if node.domain in (None, "ai.onnx") else node.domain
        if domain.startswith("com.microsoft") or domain == "com.ms.internal.nhwc":
            what = f"is onnxruntime's own operator (of the domain '{domain}')"
            raise InputError(where, what, "save the network without onnxruntime's graph optimizations")
        if domain not in STANDARD_DOMAINS:
            what = f"is of the domain '{domain}', which edgec does not know"
            raise InputError(where, what, "export the network with standard ONNX operators")
        version = versions.get(domain)
        if version is None:
            continue  # the structural check says so
        try:
            onnx.defs.get_schema(node.op, version, domain)
        except onnx.defs.SchemaError:
            what = f"is no operator of ONNX {f'{domain} ' if domain else ''}opset {version}"
            raise InputError(where, what, _operator_mend(node.op, domain)) from None


def _operator_mend(op: str, domain: str) -> str:
    if onnx.defs.has(op, domain):
        versions = [schema.since_version for schema in onnx.defs.get_all_schemas_with_history() if schema.name == op]
        return f"it came with opset {min(versions)}: export with opset_version={min(versions)} or later"
    near = did_you_mean(op, sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == domain}))
    return f"export the network with standard ONNX operators{near}"


def _check_structure(graph: Graph, source: str) -> None:
    found = verify(graph)
    if found:
        more = f" (and {len(found) - 1} more fault{'s' if len(found) > 2 else ''})" if len(found) > 1 else ""
        raise InputError(f"{source}: {found[0].where}", f"{found[0].what}{more}", "export the network again")


def _check_weights(graph: Graph, source: str) -> None:
    for constant in graph.constants():
        if not constant.dtype.name.startswith(("float", "bfloat", "complex")):
            continue
        multiplies = any(node.op in MULTIPLIERS for node in constant.outputs)
        count = sum(_not_finite(piece, multiplies) for piece in constant.pieces())
        if count:
            what = f"has {count} value{'s that are' if count > 1 else ' that is'} not finite"
            fix = "train or export the network again"
            raise InputError(f"{source}: weight '{constant.name}'", what, fix)


def _not_finite(values: np.ndarray, infinities: bool) -> int:
    """How many values are NaN, or with ``infinities`` infinite."""
    return int(np.count_nonzero(~np.isfinite(values) if infinities else np.isnan(values)))
