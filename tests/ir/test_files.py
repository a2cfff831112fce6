"""Saving: whole or not at all, over the very file that is mapped, beyond 2 GB, with external data."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.ir import files
from edgec.ir.files import load, save, to_bytes
from edgec.ir.graph import Constant, Graph


def listed(path: Path) -> list[str]:
    """What lies in the folder of ``path``, by name."""
    return sorted(item.name for item in path.parent.iterdir())


def fc(graph: Graph) -> Constant:
    """The large weight of the small network."""
    found = graph.nodes[-1].inputs[1]
    assert isinstance(found, Constant)
    return found


@pytest.fixture
def external_file(small_file: Path) -> Path:
    """The small network with its large weight in ``small.onnx.data``."""
    save(load(small_file), small_file, external=True)
    return small_file


def test_saving_over_the_file_that_is_mapped(small_file: Path) -> None:
    graph = load(small_file)
    before = fc(graph).values.copy()
    conv = graph.nodes[0].inputs[1]
    assert isinstance(conv, Constant)
    conv.values = conv.values * 2
    assert save(graph, small_file) == [small_file]
    again = load(small_file)
    np.testing.assert_array_equal(fc(again).values, before)
    np.testing.assert_array_equal(fc(graph).values, before)  # the old mapping still holds
    np.testing.assert_array_equal(again.nodes[0].inputs[1].values, conv.values)
    assert listed(small_file) == [small_file.name]


def test_saving_over_the_external_data_that_is_mapped(external_file: Path) -> None:
    graph = load(external_file)
    before = fc(graph).values.copy()
    graph.nodes[0].inputs[1].values = np.zeros((4, 3, 3, 3), np.float32)
    save(graph, external_file, external=True)
    np.testing.assert_array_equal(fc(load(external_file)).values, before)
    assert listed(external_file) == ["small.onnx", "small.onnx.data"]


@pytest.mark.parametrize("external", [False, True])
def test_an_exception_in_the_middle_leaves_the_old_files(
    external_file: Path, external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = external_file.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    original = files._raw_chunks

    def broken(constant: Constant) -> Iterator[bytes | memoryview]:
        yield from original(constant)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_raw_chunks", broken)
    with pytest.raises(OSError, match="No space left"):
        save(load(external_file), external_file, external=external)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_new_file_is_as_readable_as_any_other(small_file: Path) -> None:
    other = small_file.with_name("other")
    other.write_text("")
    save(load(small_file), small_file)
    assert stat.S_IMODE(small_file.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_external_data_is_aligned_and_read_by_onnx(external_file: Path) -> None:
    model = onnx.load(external_file, load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert [tensor.name for tensor in outside] == ["fc.weight"]
    entry = {item.key: item.value for item in outside[0].external_data}
    assert entry["location"] == "small.onnx.data"
    assert int(entry["offset"]) % 64 == 0
    onnx.checker.check_model(external_file)
    whole = onnx.load(external_file)
    found = next(tensor for tensor in whole.graph.initializer if tensor.name == "fc.weight")
    np.testing.assert_array_equal(numpy_helper.to_array(found), fc(load(external_file)).values)


def test_docs_and_metadata_of_external_weights_survive(small_file: Path) -> None:
    graph = load(small_file)
    fc(graph).doc_string, fc(graph).metadata = "large", {"key": "value"}
    save(graph, small_file, external=True)
    again = load(small_file)
    assert (fc(again).doc_string, fc(again).metadata) == ("large", {"key": "value"})


def test_beyond_the_limit_of_one_message_weights_go_into_a_file_of_their_own(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(small_file)
    size = len(to_bytes(graph))
    monkeypatch.setattr(files, "INTERNAL_LIMIT", size - 2000)
    target = small_file.with_name("large.onnx")
    assert save(graph, target) == [target, target.with_name("large.onnx.data")]
    assert target.stat().st_size < size
    np.testing.assert_array_equal(fc(load(target)).values, fc(graph).values)
    assert save(graph, target, external=False) == [target]


def test_several_weights_share_a_data_file_without_overlap(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    graph = Graph(inputs=[])
    arrays = {f"w{index}": random.standard_normal(1000 + index).astype(np.float32) for index in range(5)}
    graph.outputs = [
        graph.op("Identity", [graph.const(name, array)], name=f"n{name}") for name, array in arrays.items()
    ]
    path = tmp_path / "many.onnx"
    save(graph, path, external=True)
    for constant in load(path).constants():
        np.testing.assert_array_equal(constant.values, arrays[constant.name])


def test_taps_become_outputs_of_the_file_alone(small_file: Path, tmp_path: Path) -> None:
    graph = load(small_file)
    tap = graph.nodes[0].outputs[0]
    tapped = tmp_path / "tapped.onnx"
    save(graph, tapped, extra_outputs=(tap, tap, graph.outputs[0]))
    assert [item.name for item in onnx.load(tapped).graph.output] == ["y", "c"]
    assert [tensor.name for tensor in graph.outputs] == ["y"]


def test_a_model_that_lies_in_pieces_of_the_folder_below_is_read(small_file: Path) -> None:
    model = onnx.load(small_file)
    original = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "fc.weight"))
    (small_file.parent / "weights").mkdir()
    onnx.save(model, small_file, save_as_external_data=True, location="all.bin", size_threshold=1024)
    (small_file.parent / "all.bin").rename(small_file.parent / "weights" / "all.bin")
    moved = onnx.load(small_file, load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "weights/all.bin" if entry.key == "location" else entry.value
    small_file.write_bytes(moved.SerializeToString())
    graph = load(small_file)
    assert fc(graph).stored is not None
    np.testing.assert_array_equal(fc(graph).values, original)


def test_external_data_in_attributes_is_read(tmp_path: Path) -> None:
    array = np.arange(4000, dtype=np.float32)
    node = helper.make_node("Constant", [], ["y"], "c", value=numpy_helper.from_array(array, "v"))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4000])
    model = helper.make_model(helper.make_graph([node], "g", [], [result]))
    path = tmp_path / "attribute.onnx"
    onnx.save(model, path, save_as_external_data=True, location="a.bin", convert_attribute=True, size_threshold=0)
    assert onnx.load(path, load_external_data=False).graph.node[0].attribute[0].t.data_location == TensorProto.EXTERNAL
    np.testing.assert_array_equal(load(path).nodes[0].attrs["value"].values, array)


def test_a_folder_that_does_not_exist_is_an_error_of_the_system(small: Graph, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(small, tmp_path / "none" / "model.onnx")
