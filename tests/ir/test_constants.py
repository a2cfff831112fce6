"""Weights: mapped, read-only, exact for every element type."""

from __future__ import annotations

import mmap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.ir.files import load, save, to_bytes
from edgec.ir.graph import Constant, Graph
from edgec.ir.protos import constant_proto, from_proto

SMALL_TYPES = [
    ml_dtypes.int4,
    ml_dtypes.uint4,
    ml_dtypes.int2,
    ml_dtypes.uint2,
    ml_dtypes.float4_e2m1fn,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
    ml_dtypes.bfloat16,
    np.float16,
]


def holding(tensor: TensorProto, opset: int = 25) -> onnx.ModelProto:
    """A model whose output is that constant."""
    result = helper.make_tensor_value_info("y", tensor.data_type, list(tensor.dims))
    node = helper.make_node("Identity", [tensor.name], ["y"], "id")
    graph = helper.make_graph([node], "g", [], [result], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def weight(graph: Graph) -> Constant:
    found = graph.nodes[0].inputs[0]
    assert isinstance(found, Constant)
    return found


def written(graph: Graph) -> TensorProto:
    return onnx.load_from_string(to_bytes(graph)).graph.initializer[0]


@pytest.mark.parametrize("dtype", SMALL_TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("count", [5, 4096])
def test_small_types_survive_untouched_touched_and_assigned(dtype: type, count: int, tmp_path: Path) -> None:
    values = (np.arange(count) % 2).astype(dtype).reshape(1, count)
    tensor = numpy_helper.from_array(values, "w")
    path = tmp_path / "model.onnx"
    onnx.save(holding(tensor), path)
    for touch in (lambda w: None, lambda w: w.values, lambda w: setattr(w, "values", w.values.copy())):
        graph = load(path)
        touch(weight(graph))
        assert weight(graph).dtype == np.dtype(dtype)
        assert written(graph).data_type == tensor.data_type
        assert written(graph).raw_data == tensor.raw_data
        assert constant_proto(weight(graph)).raw_data == tensor.raw_data
    again = tmp_path / "again.onnx"
    save(graph, again, external=True)
    np.testing.assert_array_equal(weight(load(again)).values.astype(np.float32), values.astype(np.float32))


@pytest.mark.parametrize("dtype", SMALL_TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_typed_fields_are_read_as_well(dtype: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = helper.make_tensor("w", kind, [3], np.array([0, 1, 1]).astype(dtype))
    assert not tensor.HasField("raw_data")
    graph = from_proto(holding(tensor))
    np.testing.assert_array_equal(weight(graph).values.astype(np.float32), [0, 1, 1])
    np.testing.assert_array_equal(numpy_helper.to_array(written(graph)).astype(np.float32), [0, 1, 1])


def test_strings_survive_and_can_be_replaced(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.STRING, [3], [b"a", "\u00e9".encode(), b"\xff"])
    graph = from_proto(holding(tensor))
    assert weight(graph).values.tolist() == ["a", "\u00e9", b"\xff"]
    assert written(graph).string_data == tensor.string_data
    weight(graph).values = np.array(["new", "text"])
    path = tmp_path / "strings.onnx"
    save(graph, path, external=True)
    assert weight(load(path)).values.tolist() == ["new", "text"]
    assert weight(load(path)).dtype == object


def test_weights_are_views_of_the_file(small_file: Path) -> None:
    graph = load(small_file)
    large = graph.nodes[-1].inputs[1]
    assert isinstance(large, Constant)
    assert large.stored is not None
    assert large.stored.mapping is not None
    mapped, offset = large.stored.mapping
    whole = np.frombuffer(mapped, np.uint8)
    assert np.shares_memory(large.values, whole)
    assert large.values is large.values
    assert bytes(mapped[offset : offset + 4]) == large.values.reshape(-1)[:1].tobytes()
    assert not large.values.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        large.values[0, 0] = 1.0
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        large.values.flags.writeable = True
    assert isinstance(mapped, mmap.mmap)


def test_nothing_is_decoded_to_tell_sizes(small_file: Path) -> None:
    graph = load(small_file)
    for constant in graph.constants():
        assert constant.nbytes == int(np.prod(constant.shape)) * 4
        assert constant.stored is not None
        assert constant.stored._array is None


def test_pieces_hold_every_element_once(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.ir.stored._CHUNK", 4096)
    monkeypatch.setattr("edgec.ir.stored._RELEASED", 4096)
    large = load(small_file).nodes[-1].inputs[1]
    assert isinstance(large, Constant)
    pieces = list(large.pieces())
    assert [piece.size for piece in pieces] == [1024] * 4
    np.testing.assert_array_equal(np.concatenate(pieces), large.values.reshape(-1))
    large.values = large.values[:1]
    assert [piece.size for piece in large.pieces()] == [1024]


def test_an_attribute_is_written_as_its_schema_wants() -> None:
    graph = Graph(opset=17)
    graph.op("LeakyRelu", [], alpha=1)
    graph.op("Upsample", [], scales=[1, 2])
    graph.op("Conv", [], pads=(1, np.int64(2)), strides=[], auto_pad="VALID")
    graph.op("Constant", [], value=np.array([1.5], np.float32))
    graph.op("Custom", [], domain="org.example", ratio=np.float32(0.5), flag=True, names=["a", "b"], sizes=[1, 2.5])
    model = onnx.load_from_string(to_bytes(graph))
    found = [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in model.graph.node]
    assert found[0] == {"alpha": 1.0}
    assert found[1] == {"scales": [1.0, 2.0]}
    assert found[2] == {"pads": [1, 2], "strides": [], "auto_pad": b"VALID"}
    assert numpy_helper.to_array(found[3]["value"]).tolist() == [1.5]
    assert found[4] == {"ratio": 0.5, "flag": 1, "names": [b"a", b"b"], "sizes": [1.0, 2.5]}
    types = [{a.name: a.type for a in node.attribute} for node in model.graph.node]
    assert types[0]["alpha"] == onnx.AttributeProto.FLOAT
    assert types[2]["strides"] == onnx.AttributeProto.INTS


@pytest.mark.parametrize("value", [object(), [1, "a"], [[1], [2]], {"a": 1}, [None], 2**70])
def test_what_onnx_cannot_hold_is_refused(value: object) -> None:
    graph = Graph(opset=17)
    graph.op("Relu", [], name="r", attribute=value)
    kind = type(value).__name__
    with pytest.raises(TypeError) as caught:
        to_bytes(graph)
    assert str(caught.value) == f"node 'r': attribute 'attribute' is {value!r} ({kind}), which ONNX cannot hold"
