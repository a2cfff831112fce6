"""TFLite metadata: names, ranges, preprocessing and labels inside model.tflite, for the tools that read them there.

Android's code generator, ML Kit and MediaPipe read a second flatbuffer of the schema ``metadata_schema.fbs`` (1.1.0,
tensorflow/tflite-support) from the buffer that the model's metadata names ``TFLITE_METADATA``, and files of labels from
a ZIP archive behind the model's last byte (https://www.tensorflow.org/lite/models/convert/metadata). No package of a
size that suits a compiler writes them, so the few tables are written here; the numbers are the fields' places there.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

from edgec.backends.coral.lowering import Port

#: What the model's table of metadata calls it.
NAME = "TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER, _PARSER = b"M001", "1.0.0"
_RGB, _GRAYSCALE = 1, 2
_IMAGE, _NORMALIZATION = 2, 1
_AXIS_LABELS, _VALUE_LABELS = 2, 3


@dataclass(frozen=True)
class TensorFacts:
    """What is told of an input or output.

    Attributes:
        name: as the user's network has it.
        description: one sentence.
        minimum, maximum: of what the stored codes stand for; ``None`` for floats.
        color: ``rgb`` or ``gray`` where it takes pictures.
        size: a picture's width and height.
        mean, std: per channel; a picture's values become ``(x - mean) / std``.
        labels: names of classes: along its last axis, or (``valued``) of the values themselves.
    """

    name: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    color: str | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: bool = False
    valued: bool = False


def of_inputs(ports: Sequence[Port], folded: Mapping[str, Any], results: Mapping[str, Any] | None) -> list[TensorFacts]:
    """What is known of a file's inputs.

    Args:
        ports: the inputs.
        folded: by name, whether the preprocessing is part of the network behind that input (no ``None``).
        results: as results.json says them, where it is known.
    """
    preprocess = None if results is None else results["preprocess"]
    facts = []
    for port in ports:
        picture = preprocess if preprocess is not None and preprocess["input"] == port.name else None
        if results is None or picture is None or picture["color"] not in ("rgb", "gray"):
            facts.append(TensorFacts(port.name, "An input of the network.", *_range(port)))
            continue
        scale, offset = np.asarray(picture["scale"], np.float64), np.asarray(picture["offset"], np.float64)
        inside = folded.get(port.name) is not None
        mean, std = (np.zeros(1), np.ones(1)) if inside else (-offset / scale, 1 / scale)
        height, width = results["input_size"]
        facts.append(
            TensorFacts(
                port.name,
                "A picture" + ("; its values are normalized inside the network." if inside else "."),
                *_range(port),
                color=picture["color"],
                size=(width, height),
                mean=tuple(np.atleast_1d(mean).tolist()),
                std=tuple(np.atleast_1d(std).tolist()),
            )
        )
    return facts


def of_outputs(ports: Sequence[Port], results: Mapping[str, Any] | None) -> list[TensorFacts]:
    """What is known of a file's outputs; see :func:`of_inputs`."""
    facts = []
    for port in ports:
        meant = results is not None and results["output"] == port.name
        kind = results["kind"] if results is not None and meant else ""
        facts.append(
            TensorFacts(
                port.name,
                _MEANINGS.get(kind, "An output of the network."),
                *_range(port),
                labels=results is not None and results["labels"] is not None and kind in ("classes", "mask"),
                valued=kind == "mask" and port.onnx_dtype.kind in "iu",
            )
        )
    return facts


_MEANINGS = {
    "classes": "A score for each class.",
    "boxes": "Boxes, encoded as results.json beside this file says.",
    "mask": "A class for each place of the picture.",
    "score": "How far the picture is from what the network was trained on.",
}


def _range(port: Port) -> tuple[float | None, float | None]:
    """The least and the largest that a quantized port can hold."""
    if port.quantization is None:
        return None, None
    bounds = np.iinfo(port.dtype)
    least, most = port.quantization.real(np.array([bounds.min, bounds.max], port.dtype)).tolist()
    return float(least), float(most)


def encode(model: str, inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts]) -> bytes:
    """The metadata's flatbuffer.

    Args:
        model: the network's name.
        inputs, outputs: in the file's order.
    """
    builder = flatbuffers.Builder(1024)
    tensors = [_vector(builder, [_tensor(builder, facts) for facts in side]) for side in (inputs, outputs)]
    subgraph = _table(builder, 7, {2: tensors[0], 3: tensors[1]})
    fields = {
        0: builder.CreateString(model),
        1: builder.CreateString("Compiled by edgec."),
        3: _vector(builder, [subgraph]),
        7: builder.CreateString(_PARSER),
    }
    builder.Finish(_table(builder, 8, fields), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def with_labels(contents: bytes, labels: Sequence[str]) -> bytes:
    """A model with the names of its classes in a ZIP archive behind it, the same bytes each time."""
    archive = io.BytesIO(contents)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(zipfile.ZipInfo(LABELS), "".join(f"{name}\n" for name in labels))
    return archive.getvalue()


def _tensor(builder: flatbuffers.Builder, facts: TensorFacts) -> int:
    fields = {0: builder.CreateString(facts.name), 1: builder.CreateString(facts.description)}
    if facts.color is not None and facts.size is not None:
        size = _table(builder, 2, {}, numbers={0: facts.size[0], 1: facts.size[1]})
        color = _RGB if facts.color == "rgb" else _GRAYSCALE
        image = _table(builder, 2, {1: size}, kinds={0: color})
        fields[3] = _table(builder, 3, {1: image}, kinds={0: _IMAGE})
        options = _table(builder, 2, {0: _floats(builder, facts.mean), 1: _floats(builder, facts.std)})
        fields[4] = _vector(builder, [_table(builder, 2, {1: options}, kinds={0: _NORMALIZATION})])
    if facts.minimum is not None and facts.maximum is not None:
        fields[5] = _table(builder, 2, {0: _floats(builder, [facts.maximum]), 1: _floats(builder, [facts.minimum])})
    if facts.labels:
        name = builder.CreateString(LABELS)
        kind = _VALUE_LABELS if facts.valued else _AXIS_LABELS
        fields[6] = _vector(builder, [_table(builder, 4, {0: name}, kinds={2: kind})])
    return _table(builder, 7, fields)


def _table(
    builder: flatbuffers.Builder,
    size: int,
    offsets: Mapping[int, int],
    *,
    kinds: Mapping[int, int] | None = None,
    numbers: Mapping[int, int] | None = None,
) -> int:
    """A table of so many fields: offsets of what was written before, enumerations of a byte, and unsigned numbers."""
    builder.StartObject(size)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, number in (numbers or {}).items():
        builder.PrependUint32Slot(place, number, 0)
    for place, kind in (kinds or {}).items():
        builder.PrependUint8Slot(place, kind, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, np.float32)))
