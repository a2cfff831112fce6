"""TFLite metadata, read by the schema's field numbers as other tools read it."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table
from networks.board_networks import NETWORKS

from edgec.backends.coral import interpreter, metadata
from edgec.backends.coral.backend import _described, lower

U8, U32, F32 = (flatbuffers.number_types.Uint8Flags, flatbuffers.number_types.Uint32Flags,
                flatbuffers.number_types.Float32Flags)  # fmt: skip
RESULTS = {
    "kind": "classes", "output": "", "labels": ["a", "b"], "input_size": [24, 32],
    "preprocess": {"input": "x", "color": "rgb", "size": None, "scale": [1 / 51] * 3, "offset": [-2.5, -2.0, -1.5]},
}  # fmt: skip


class Read:
    """A table of a flatbuffer; fields by number."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def _at(self, field: int) -> int:
        offset = self.table.Offset(4 + 2 * field)
        assert offset, f"field {field} is not there"
        return int(offset)

    def has(self, field: int) -> bool:
        return bool(self.table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return str(self.table.String(self._at(field) + self.table.Pos).decode())

    def number(self, field: int, flags: Any) -> int:
        return int(self.table.Get(flags, self._at(field) + self.table.Pos))

    def under(self, field: int) -> Read:
        return Read(Table(self.table.Bytes, self.table.Indirect(self._at(field) + self.table.Pos)))

    def all_of(self, field: int) -> list[Read]:
        start, length = self.table.Vector(self._at(field)), self.table.VectorLen(self._at(field))
        return [Read(Table(self.table.Bytes, self.table.Indirect(start + 4 * i))) for i in range(length)]

    def floats(self, field: int) -> list[float]:
        return [float(v) for v in self.table.GetVectorAsNumpy(F32, self._at(field))]


def read(contents: bytes) -> Read:
    model = schema.ModelT.InitFromPackedBuf(contents, 0)
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    data = model.buffers[entry.buffer].data.tobytes()
    assert data[4:8] == b"M001"
    return Read(Table(bytearray(data), int.from_bytes(data[:4], "little")))


@pytest.fixture
def described(lab: Any) -> Any:
    make, shape = NETWORKS["mobile_blocks"]
    graph = lab.build(make, [shape])
    graph = lab.quantized(graph, lab.noise(graph))
    lowered = lower(graph)
    (entered,), (left,) = lowered.inputs, lowered.outputs
    results = {**RESULTS, "output": left.name, "preprocess": {**RESULTS["preprocess"], "input": entered.name}}
    return graph, lowered, results


def test_a_picture_and_its_classes(described: Any) -> None:
    graph, lowered, results = described
    contents = _described(graph, lowered, {}, results)
    model = read(contents)
    (subgraph,) = model.all_of(3)
    (entered,), (left,) = subgraph.all_of(2), subgraph.all_of(3)
    assert (entered.text(0), left.text(0)) == (lowered.inputs[0].name, lowered.outputs[0].name)
    content = entered.under(3)
    assert content.number(0, U8) == 2, "an image"
    size = content.under(1).under(1)
    assert (size.number(0, U32), size.number(1, U32)) == (32, 24), "width, height"
    (unit,) = entered.all_of(4)
    assert unit.under(1).floats(0) == pytest.approx([127.5, 102, 76.5], rel=1e-5)
    assert unit.under(1).floats(1) == pytest.approx([51] * 3, rel=1e-5)
    quantization = lowered.inputs[0].quantization
    least, most = quantization.real(np.array([-128, 127], np.int8))
    assert (entered.under(5).floats(1), entered.under(5).floats(0)) == ([least], [most])
    (names,) = left.all_of(6)
    assert (names.text(0), names.number(2, U8)) == ("labels.txt", 2)
    assert zipfile.ZipFile(io.BytesIO(contents)).read("labels.txt") == b"a\nb\n"
    assert contents == _described(graph, lowered, {}, results), "the same bytes each time"


def test_what_is_normalized_inside_takes_pixels(described: Any) -> None:
    graph, lowered, results = described
    folded = {lowered.inputs[0].name: {"scale": [1 / 255], "offset": [0.0]}}
    (subgraph,) = read(_described(graph, lowered, folded, results)).all_of(3)
    (unit,) = subgraph.all_of(2)[0].all_of(4)
    assert (unit.under(1).floats(0), unit.under(1).floats(1)) == ([0], [1])


def test_nothing_is_told_that_is_not_known(described: Any) -> None:
    graph, lowered, _ = described
    contents = _described(graph, lowered, {}, None)
    (subgraph,) = read(contents).all_of(3)
    (entered,), (left,) = subgraph.all_of(2), subgraph.all_of(3)
    assert not entered.has(3) and not entered.has(4) and not left.has(6)
    assert not zipfile.is_zipfile(io.BytesIO(contents))


def test_it_computes_the_same(described: Any) -> None:
    graph, lowered, results = described
    codes = np.random.default_rng(0).integers(-128, 128, tuple(lowered.file.tensors[lowered.file.inputs[0]].shape))
    feeds = [codes.astype(np.int8)]
    plain = interpreter.run_stored(lowered.file.to_bytes(), feeds)
    told = interpreter.run_stored(_described(graph, lowered, {}, results), feeds)
    assert len(told) == 1 and np.array_equal(told[0], plain[0])


def test_a_mask_of_class_numbers() -> None:
    facts = metadata.TensorFacts("mask", "A class for each place.", labels=True, valued=True)
    data = metadata.encode("net", [], [facts])
    (subgraph,) = Read(Table(bytearray(data), int.from_bytes(data[:4], "little"))).all_of(3)
    assert subgraph.all_of(3)[0].all_of(6)[0].number(2, U8) == 3
