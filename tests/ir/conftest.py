"""Networks that the tests of the IR share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.ir.graph import Graph
from edgec.ir.protos import from_proto


def small_model(large: int = 4096) -> onnx.ModelProto:
    """Two layers with everything around them that a file can say, and one weight of ``large`` floats to map."""
    random = np.random.default_rng(7)
    weight = numpy_helper.from_array(random.standard_normal((4, 3, 3, 3), np.float32), "conv.weight")
    weight.doc_string = "of the first layer"
    weight.metadata_props.add(key="origin", value="trained")
    matrix = numpy_helper.from_array(random.standard_normal((4, large // 4), np.float32), "fc.weight")
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], "conv", pads=[1, 1, 1, 1], doc_string="first"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "fc.weight"], ["y"], "fc"),
    ]
    nodes[0].metadata_props.add(key="layer", value="1")
    signature = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"], "the image")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", large // 4])
    inside = helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 4, "H", "W"])
    inside.metadata_props.add(key="kind", value="features")
    graph = helper.make_graph(nodes, "net", [signature], [result], [weight, matrix, scale], "a net", [inside])
    annotation = graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    graph.metadata_props.add(key="graph", value="main")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="trainer")
    model.producer_version, model.domain, model.model_version, model.doc_string = "1.5", "org.example", 42, "a model"
    model.metadata_props.add(key="dataset", value="capsules")
    return model


@pytest.fixture
def small() -> Graph:
    """:func:`small_model` as a graph."""
    return from_proto(small_model())


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """:func:`small_model` as a file."""
    path = tmp_path / "small.onnx"
    path.write_bytes(small_model().SerializeToString(deterministic=True))
    return path
