"""Files that are no models, or no whole ones: one line that names the file, the place and the fix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgec.ir.errors import InputError
from edgec.ir.files import load, save

AGAIN = "the file is corrupted; export it again"


def message(path: Path) -> str:
    """What loading says, without the folder."""
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; export the network again"),
        (
            b"PK\x03\x04rest",
            "is a zip archive (a torch or Keras file?), not an ONNX model; export the network to ONNX first",
        ),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras?), not an ONNX model; export the network to ONNX first"),
        (b"\x1c\0\0\0TFL3", "is a TFLite file, not an ONNX model; export the network to ONNX first"),
        (b"\x80\x02}q\0.", "is a pickle (torch?), not an ONNX model; export the network to ONNX first"),
        (b"\x1f\x8b\x08\0", "is a gzip archive, not an ONNX model; export the network to ONNX first"),
        (b"\0\0\0\0ORTM", "is an onnxruntime flatbuffer, not an ONNX model; export the network to ONNX first"),
        (b'{"a": 1}', "is text, not an ONNX model; export the network to ONNX first"),
        (b"<html>", "is text, not an ONNX model; export the network to ONNX first"),
        (b"version https://git-lfs", "is not an ONNX model (byte 0 starts no protobuf field); give an .onnx file"),
        (b"\x0a\x00", "is not an ONNX model (it has no graph or no opset); give an .onnx file"),
        (b"\x08" + b"\xff" * 12, "is not an ONNX model (no protobuf number at byte 11); give an .onnx file"),
        (b"\x08\xff", "ends too early, at byte 2; the file is truncated or corrupted; export or copy it again"),
        (
            b"\x3a\x08\x0a\x02",
            "ends too early: a field at byte 0 needs 6 bytes more; "
            "the file is truncated or corrupted; export or copy it again",
        ),
        (
            b"\x3a\x02\x0a\x05",
            "ends too early: a field at byte 2 needs 5 bytes more; the file is truncated or corrupted; "
            "export or copy it again",
        ),
        (b"\x3a\x04\x0a\x02\x0a\x05", "is not an ONNX model, or is corrupted; export it again, or give an .onnx file"),
    ],
)
def test_other_files_are_told_apart(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert message(path) == f"model.onnx: {what}"


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    assert message(tmp_path / "none.onnx") == "none.onnx: does not exist; check the path"
    (tmp_path / "folder.onnx").mkdir()
    assert message(tmp_path / "folder.onnx") == "folder.onnx: is a folder; give the .onnx file in it"
    os.mkfifo(tmp_path / "pipe.onnx")
    assert message(tmp_path / "pipe.onnx") == "pipe.onnx: is a pipe, which cannot be mapped; give a file"
    below = tmp_path / "file"
    below.write_text("")
    assert message(below / "m.onnx") == "m.onnx: cannot be read (Not a directory); check the file's permissions"


def test_a_file_that_may_not_be_read(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a superuser may read everything
    assert message(small_file) == "small.onnx: cannot be read (Permission denied); check the file's permissions"


# -- truncation and bit flips ------------------------------------------------------------------------------------------


def test_a_truncated_file_is_never_taken_for_a_model(small_file: Path, tmp_path: Path) -> None:
    whole = small_file.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in [*range(1, len(whole), 97), *range(1, 64), *range(len(whole) - 64, len(whole))]:
        path.write_bytes(whole[:length])
        try:
            graph = load(path)
        except InputError as error:
            assert str(error).startswith("cut.onnx: ")
        else:  # what is cut off are whole fields behind the graph
            assert graph.constants()
            assert length > len(whole) - 64


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_give_a_graph_or_one_line(small_file: Path, data: st.DataObject) -> None:
    whole = bytearray(small_file.read_bytes())
    structure = [*range(700), *range(len(whole) - 200, len(whole))]
    for place in data.draw(st.lists(st.sampled_from(structure), min_size=1, max_size=4)):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path = small_file.with_name("flipped.onnx")
    path.write_bytes(whole)
    try:
        graph = load(path)
        for constant in graph.constants():
            assert constant.values.shape == constant.shape
        save(graph, path)
    except InputError as error:
        assert "\n" not in str(error)


# -- weights -----------------------------------------------------------------------------------------------------------


def identity(tensor: TensorProto, change: Callable[[TensorProto], object]) -> onnx.ModelProto:
    """A model that hands out one constant, changed as told."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [tensor]))
    change(model.graph.initializer[0])
    return model


SMALL = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
LARGE = numpy_helper.from_array(np.zeros((100, 30), np.float32), "w")
TYPED = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], [0.0] * 6)
TEXT = helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"])


def _set(**fields: object) -> Callable[[TensorProto], object]:
    def change(tensor: TensorProto) -> None:
        for name, value in fields.items():
            if name == "dims":
                tensor.dims[:] = value  # type: ignore[index]
            else:
                setattr(tensor, name, value)

    return change


@pytest.mark.parametrize(
    ("tensor", "change", "what"),
    [
        (SMALL, _set(dims=[2, 4]), f"has 24 bytes where 32 are needed; {AGAIN}"),
        (LARGE, _set(dims=[100, 31]), f"has 12000 bytes where 12400 are needed; {AGAIN}"),
        (LARGE, _set(data_type=TensorProto.INT4), f"has 12000 bytes where 1500 are needed; {AGAIN}"),
        (TYPED, _set(dims=[2, 4]), f"has 6 values where 8 are needed; {AGAIN}"),
        (TYPED, _set(data_type=TensorProto.INT4), f"has 0 values where 3 are needed; {AGAIN}"),
        (TEXT, _set(dims=[3]), f"has 2 values where 3 are needed; {AGAIN}"),
        (SMALL, _set(data_type=TensorProto.STRING), f"holds strings as raw bytes, which ONNX does not allow; {AGAIN}"),
        (LARGE, _set(data_type=0), f"has no element type or an impossible shape; {AGAIN}"),
        (SMALL, _set(dims=[-2, 3]), f"has no element type or an impossible shape; {AGAIN}"),
        (SMALL, _set(dims=[0, 2**62, 2**62]), f"has no element type or an impossible shape; {AGAIN}"),
        (
            SMALL,
            _set(data_type=99),
            f"has the element type 99, which is unknown to onnx {onnx.__version__}; {AGAIN}",
        ),
    ],
)
def test_a_weight_that_does_not_fit_its_shape(
    tensor: TensorProto, change: Callable[[TensorProto], object], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(identity(tensor, change).SerializeToString())
    assert message(path) == f"model.onnx: weight 'w': {what}"


def test_two_weights_of_one_name(tmp_path: Path) -> None:
    model = identity(SMALL, lambda tensor: None)
    model.graph.initializer.append(SMALL)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert message(path) == f"model.onnx: weight 'w': stands twice among the initializers; {AGAIN}"


def test_an_unknown_type_of_an_input(tmp_path: Path) -> None:
    model = identity(SMALL, lambda tensor: None)
    model.graph.output[0].type.tensor_type.elem_type = 99
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    what = f"has the element type 99, which is unknown to onnx {onnx.__version__}"
    assert message(path) == f"model.onnx: tensor 'y': {what}; {AGAIN}"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = identity(SMALL, lambda tensor: None).SerializeToString()
    path.write_bytes(model.replace(b"\x0a\x01w", b"\x0a\x01\xff"))
    assert message(path) == f"model.onnx: holds a name that is not text in UTF-8; {AGAIN}"


@pytest.mark.parametrize(
    ("indices", "dims", "what"),
    [
        ([0, 9], [2, 3], "is sparse with an index outside its shape"),
        ([0, -1], [2, 3], "is sparse with an index outside its shape"),
        ([0], [2, 3], "is sparse with indices that do not fit its values"),
        ([[0, 1], [1, 9]], [2, 3], "is sparse with an index outside its shape"),
        ([[0, 1, 1], [1, 2, 1]], [2, 3], "is sparse with indices that do not fit its values"),
        ([0, 1], [2**40, 2**10], "is sparse with an impossible shape, [1099511627776, 1024]"),
    ],
)
def test_a_sparse_weight_that_does_not_fit(indices: list[int], dims: list[int], what: str, tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    model = identity(SMALL, lambda tensor: None)
    del model.graph.initializer[:]
    model.graph.sparse_initializer.add(
        values=values, indices=numpy_helper.from_array(np.array(indices, np.int64)), dims=dims
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert message(path) == f"model.onnx: weight 'w': {what}; {AGAIN}"


# -- external data -----------------------------------------------------------------------------------------------------


def external(folder: Path, **entries: str) -> Path:
    """A model whose weight lies in ``data.bin``; ``entries`` change what the model says of it."""
    (folder / "data.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())

    def change(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in ({"location": "data.bin"} | entries).items():
            if value:
                tensor.external_data.add(key=key, value=value)

    path = folder / "model.onnx"
    path.write_bytes(identity(SMALL, change).SerializeToString())
    return path


def test_external_data_is_found(tmp_path: Path) -> None:
    found = load(external(tmp_path)).constants()[0]
    np.testing.assert_array_equal(found.values, np.arange(6).reshape(2, 3))
    (tmp_path / "link.bin").symlink_to(tmp_path / "data.bin")  # a link that stays inside is fine
    assert load(external(tmp_path, location="link.bin")).constants()


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"location": "none.bin"}, "needs 'none.bin', which does not exist; copy the data file beside the model"),
        ({"location": ""}, f"has external data without a location; {AGAIN}"),
        ({"offset": "x"}, f"has an offset or a length that is no number; {AGAIN}"),
        ({"length": "20"}, f"claims 20 bytes of 'data.bin' where 24 are needed; {AGAIN}"),
        ({"offset": "-8"}, f"starts at byte -8 of 'data.bin'; {AGAIN}"),
        (
            {"offset": "8"},
            "needs bytes 8 to 32 of 'data.bin', which has 24; the data file is truncated; copy it again",
        ),
        (
            {"location": "../data.bin"},
            "points to '../data.bin', outside the model's folder; put its data file beside the model",
        ),
        (
            {"location": "/etc/passwd"},
            "points to '/etc/passwd', outside the model's folder; put its data file beside the model",
        ),
        ({"location": "link"}, "points to 'link', outside the model's folder; put its data file beside the model"),
        ({"location": "folder"}, "needs 'folder', which does not exist; copy the data file beside the model"),
        ({"location": "a\0b"}, f"names the file 'a\\x00b', which is none (no path can be made of it); {AGAIN}"),
        ({"location": "a" * 300}, f"names the file '{'a' * 300}', which is none (File name too long); {AGAIN}"),
    ],
)
def test_external_data_that_cannot_be_used(entries: dict[str, str], what: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "data.bin").write_bytes(b"\0" * 24)
    (folder / "link").symlink_to(tmp_path / "data.bin")
    assert message(external(folder, **entries)) == f"model.onnx: weight 'w': {what}"


def test_empty_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"")
    what = "needs bytes 0 to 24 of 'data.bin', which has 0; the data file is truncated; copy it again"
    assert message(path) == f"model.onnx: weight 'w': {what}"


def test_a_message_cannot_refer_to_another_file(tmp_path: Path) -> None:
    from edgec.ir.protos import from_proto

    model = onnx.load(external(tmp_path), load_external_data=False)
    with pytest.raises(InputError) as caught:
        from_proto(model)
    assert str(caught.value) == "weight 'w': lies in another file, which a message cannot name; load the file"
