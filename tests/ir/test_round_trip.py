"""What goes in comes out: every onnx node-test model, through a graph and through a file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgec.ir.files import load, save, to_bytes
from edgec.ir.graph import Constant, Graph
from edgec.ir.protos import from_proto, to_proto
from edgec.ir.verifier import verify

# Node-test models that do not survive, with the reason. None.
EXCLUDED: dict[str, str] = {}


@pytest.fixture(scope="module")
def node_tests() -> dict[str, onnx.ModelProto]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute with NaN and infinity on purpose
        return {case.name: case.model for case in collect_testcases(None)}


def normalized(model: onnx.ModelProto) -> bytes:
    """The model's bytes without what carries no meaning: empty names, the order of attributes and of initializers."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for item in twin.opset_import:
        if not item.domain:
            item.ClearField("domain")
    _normalise(twin.graph)
    return twin.SerializeToString(deterministic=True)


def _normalise(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:  # held dense
        dense = np.zeros(tuple(sparse.dims), numpy_helper.to_array(sparse.values).dtype)
        dense.reshape(-1)[numpy_helper.to_array(sparse.indices)] = numpy_helper.to_array(sparse.values)
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
    constants = sorted(graph.initializer, key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for node in graph.node:
        if not node.domain:
            node.ClearField("domain")
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        copies = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in attributes]
        del node.attribute[:]
        node.attribute.extend(copies)
        for attribute in node.attribute:
            if attribute.HasField("t") and not attribute.t.name:
                attribute.t.ClearField("name")
            if attribute.type == AttributeProto.GRAPH:
                _normalise(attribute.g)


def test_every_node_test_model_survives(node_tests: dict[str, onnx.ModelProto]) -> None:
    assert len(node_tests) > 1800
    lost = []
    for name, model in node_tests.items():
        before = model.SerializeToString(deterministic=True)
        made, left_out = to_proto(from_proto(model), inline=lambda constant: True)
        assert not left_out
        assert model.SerializeToString(deterministic=True) == before, f"{name}: the source message was changed"
        if normalized(made) != normalized(model):
            lost.append(name)
    assert sorted(lost) == sorted(EXCLUDED)


def test_every_node_test_model_survives_a_copy(node_tests: dict[str, onnx.ModelProto]) -> None:
    for name, model in node_tests.items():
        graph = from_proto(model)
        twin, _ = to_proto(graph.copy(), inline=lambda constant: True)
        same, _ = to_proto(graph, inline=lambda constant: True)
        assert twin == same, name


def test_every_node_test_model_is_sound(node_tests: dict[str, onnx.ModelProto]) -> None:
    faults = {name: found for name, model in node_tests.items() if (found := verify(from_proto(model)))}
    assert faults == {}


def test_node_test_models_survive_a_file(node_tests: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for name, model in list(node_tests.items())[::9]:
        save(from_proto(model), path)
        assert normalized(onnx.load(path)) == normalized(to_proto(load(path), inline=lambda constant: True)[0]), name
        assert normalized(onnx.load(path)) == normalized(model), name


def test_everything_around_the_network_survives_a_file(small_file: Path, tmp_path: Path) -> None:
    before = onnx.load(small_file)
    copied = tmp_path / "copied.onnx"
    save(load(small_file), copied)
    after = onnx.load(copied)
    assert normalized(after) == normalized(before)
    assert after.ir_version == 8
    assert [(item.domain, item.version) for item in after.opset_import] == [("", 17), ("ai.onnx.ml", 3)]
    assert (after.producer_name, after.producer_version) == ("trainer", "1.5")
    assert (after.domain, after.model_version, after.doc_string) == ("org.example", 42, "a model")
    assert [(item.key, item.value) for item in after.metadata_props] == [("dataset", "capsules")]
    assert after.graph.doc_string == "a net"
    assert after.graph.node[0].doc_string == "first"
    assert after.graph.input[0].doc_string == "the image"
    assert [dim.dim_param or dim.dim_value for dim in after.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        3,
        "H",
        "W",
    ]
    assert after.graph.quantization_annotation[0].quant_parameter_tensor_names[0].value == "scale"


def test_saving_twice_gives_the_same_bytes(small_file: Path) -> None:
    once = to_bytes(load(small_file))
    assert to_bytes(load(small_file)) == once
    assert to_bytes(load(small_file).copy()) == once


def test_the_source_message_is_neither_changed_nor_referred_to() -> None:
    info = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    typed = helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [
        helper.make_node("SequenceInsert", ["s", "c"], ["y"], "insert"),
        helper.make_node("Optional", [], ["o"], "none", type=info.type),
    ]
    outputs = [
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2]),
        helper.make_value_info("o", helper.make_optional_type_proto(info.type)),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [info], outputs, [typed]), ir_version=8)
    before = model.SerializeToString(deterministic=True)
    graph = from_proto(model)
    written = to_bytes(graph)
    graph.opset = 16
    graph.metadata["key"] = "value"
    to_bytes(graph)
    assert model.SerializeToString(deterministic=True) == before
    # And the other way round: what happens to the message later does not reach the graph.
    graph = from_proto(model)
    model.graph.initializer[0].float_data[0] = 9.0
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.INT8
    model.graph.node[1].attribute[0].tp.sequence_type.elem_type.tensor_type.elem_type = TensorProto.INT8
    assert to_bytes(graph) == written


def test_an_opset_that_is_assigned_is_written(small_file: Path) -> None:
    graph = load(small_file)
    graph.opset = 13
    model = onnx.load_from_string(to_bytes(graph))
    assert {item.domain: item.version for item in model.opset_import} == {"": 13, "ai.onnx.ml": 3}


def test_the_long_name_of_the_standard_domain_is_understood() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], "relu", domain="ai.onnx")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("ai.onnx", 15)], ir_version=8
    )
    graph = from_proto(model)
    assert graph.opset == 15
    assert verify(graph) == []
    graph.opset = 16
    assert graph.opsets == {"": 16}


@pytest.mark.parametrize(("opset", "oldest"), [(11, 6), (13, 7), (15, 8), (17, 8), (19, 9), (21, 10)])
def test_a_graph_made_here_gets_the_oldest_ir_version_for_its_opset(opset: int, oldest: int) -> None:
    assert onnx.load_from_string(to_bytes(Graph(opset=opset))).ir_version == oldest


def test_subgraphs_keep_their_captures_docs_and_types() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool cond, float[2] x) => (float[2] y)
        <float[2] w = {1.0, 2.0}>
        {
            t = Neg(x)
            y = If (cond) <
                then_branch = a () => (float[2] p) { u = Add(t, w)  p = Relu(u) },
                else_branch = b () => (float[2] q) { q = Mul(t, w) }
            >
        }
        """
    )
    # Exporters list captured tensors among the subgraph's own; they are still the outer ones.
    branch = next(a.g for a in model.graph.node[1].attribute if a.name == "then_branch")
    branch.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [2]))
    branch.doc_string = "taken when true"
    graph = from_proto(model)
    assert verify(graph) == []
    then, other = graph.nodes[1].subgraphs()
    assert then.nodes[0].inputs[0] is graph.nodes[0].outputs[0]
    assert then.nodes[0].inputs[1] is other.nodes[0].inputs[1]
    assert isinstance(then.nodes[0].inputs[1], Constant)
    assert then.opsets is graph.opsets
    written, _ = to_proto(graph, inline=lambda constant: True)
    assert next(a.g.doc_string for a in written.graph.node[1].attribute if a.name == "then_branch") == "taken when true"
    assert [tensor.name for tensor in written.graph.initializer] == ["w"]
    onnx.checker.check_model(written, full_check=True)


def test_weights_that_nothing_reads_are_left_behind(small_file: Path, tmp_path: Path) -> None:
    model = onnx.load(small_file)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(5000, np.float32), "unused"))
    path = tmp_path / "unused.onnx"
    onnx.save(model, path)
    assert "unused" not in {constant.name for constant in load(path).constants()}


def test_sparse_initializers_become_dense() -> None:
    values = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    for indices in (np.array([1, 4]), np.array([[0, 1], [2, 0]])):
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), [3, 2])
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], "m")], "g", [x], [y], sparse_initializer=[sparse]
        )
        found = from_proto(helper.make_model(graph)).nodes[0].inputs[1]
        np.testing.assert_array_equal(found.values, [[0, 1], [0, 0], [2, 0]])
