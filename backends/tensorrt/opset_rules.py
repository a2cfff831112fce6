"""What opsets after 13 say in another way, operator by operator: how the older one says it, or why it cannot.

``tests/backends/test_tensorrt_opsets.py`` walks the schemas of onnx and holds every operator, attribute and input that
came after 13 to be in one of these tables, or in one of the rewrites (:mod:`.spelling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from edgec.backends.tensorrt.spelling import Writer
from edgec.ir.graph import Node, Tensor
from edgec.ir.rules import registering

Rule = Callable[[Writer], bool]
RULES: dict[str, Rule] = {}
older = registering(RULES)
_FLOAT8 = frozenset(range(17, 21)) | {24}
_FLOAT = onnx.TensorProto.FLOAT

# The oldest opset that says what a node means, where an older one has the operator and means something else.
SINCE: Mapping[str, Callable[[Node], int]] = {
    # Without the attribute, version 10 computes what later ones call output_half_pixel.
    "RoiAlign": lambda node: (
        16 if node.attrs.get("coordinate_transformation_mode", "half_pixel") == "half_pixel" else 10
    ),
    "ScatterElements": lambda node: 16 if node.attrs.get("reduction", "none") != "none" else 11,
    "ScatterND": lambda node: 16 if node.attrs.get("reduction", "none") != "none" else 11,
}

# Versions whose schema is the older one's and whose text is not: whether a node means what the older text says.
MEANINGS: Mapping[tuple[str, int], Callable[[Node], bool]] = {
    ("Pad", 19): lambda node: node.attrs.get("mode", "constant") != "wrap",
    ("Resize", 19): lambda node: node.attrs.get("coordinate_transformation_mode") != "half_pixel_symmetric",
    ("ScatterElements", 18): lambda node: node.attrs.get("reduction", "none") not in ("max", "min"),
    ("ScatterND", 18): lambda node: node.attrs.get("reduction", "none") not in ("max", "min"),
    # Mended texts: what is computed did not change.
    ("DepthToSpace", 28): lambda node: True,
    ("Mod", 28): lambda node: True,
    ("ReduceLogSum", 28): lambda node: True,
    ("ReduceLogSumExp", 28): lambda node: True,
}

_IN_INFERENCE = "export the network in inference mode (model.eval())"
_REPLACE = "replace it in the network"
# By operator and the attribute, input or type that came later: what a node that uses it does, and how to fix that.
# Most of them are spelled out before the opset is lowered; what comes here is beyond those rewrites.
REFUSED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Reshape", "allowzero"): ("makes an empty tensor", "drop the branch that is empty from the network"),
    ("Resize", "antialias"): ("is antialiased and of no static shape", "pin the network's shapes with --input"),
    ("Resize", "keep_aspect_ratio_policy"): ("keeps the aspect ratio of no static shape",
                                             "pin the network's shapes with --input"),
    ("Resize", "axes"): ("resizes some axes of no static shape", "pin the network's shapes with --input"),
    ("Pad", "axes"): ("pads axes that the network computes", "give it constant axes and amounts"),
    ("Pad", "mode"): ("wraps around", "pin the network's shapes with --input"),
    ("Split", "num_outputs"): ("splits an axis of no static size", "pin the network's shapes with --input"),
    ("BatchNormalization", "training_mode"): ("normalizes by the batch", _IN_INFERENCE),
    ("AveragePool", "dilations"): ("is dilated", "pin the network's shapes with --input, or write it as a Conv"),
    ("LpPool", "dilations"): ("is dilated", _REPLACE),
    ("LpPool", "ceil_mode"): ("rounds its size up", "pad what it reads, and leave ceil_mode off"),
    ("ScatterND", "reduction"): ("reduces", "scatter to places that are constant and each named once"),
    ("ScatterElements", "reduction"): ("reduces", "scatter to places that are constant and each named once"),
    ("GRU", "layout"): ("has its batch first", "export it with the sequence first (batch_first=False)"),
    ("LSTM", "layout"): ("has its batch first", "export it with the sequence first (batch_first=False)"),
    ("RNN", "layout"): ("has its batch first", "export it with the sequence first (batch_first=False)"),
    ("Shape", "start"): ("gives part of an unknown shape", "pin the network's shapes with --input"),
    ("GridSample", "mode"): ("samples volumes", _REPLACE),
    ("QuantizeLinear", "block_size"): ("has a scale for each block", "quantize with edgec, or with a scale a channel"),
    ("DequantizeLinear", "block_size"): ("has a scale for each block", "put 'dequantize' first in the recipe's passes"),
    ("DFT", "axis"): ("is a Fourier transform", "compute the spectrum before the network"),
    ("SpaceToDepth", "mode"): ("orders its channels by another mode", "write it as Reshape and Transpose"),
    ("Range", "stash_type"): ("counts in half precision", "export the network in float32"),
    ("Cast", "to"): ("casts to float8", "export the network in float32"),
}  # fmt: skip

_STRINGS = ("works on text", "do that before the network, and give it numbers")
_OPTIONAL = ("works on optional values", "export the network with plain tensors")
_SPECTRUM = (
    "computes a spectrum",
    "compute it before the network, or write it as a Conv of constant weights",
)
_BITS = ("works on bits", "use And, Or, Xor and Not of truth values, or arithmetic")
# Operators that came after 13 and that no older ones spell out: what they do, and how to fix that.
NEW_OPERATORS: Mapping[str, tuple[str, str]] = {
    "BitCast": _BITS, "BitwiseAnd": _BITS, "BitwiseNot": _BITS, "BitwiseOr": _BITS, "BitwiseXor": _BITS,
    "CumProd": ("multiplies up", "add up logarithms with CumSum"),
    "DFT": _SPECTRUM, "STFT": _SPECTRUM, "MelWeightMatrix": _SPECTRUM,
    "CausalConvWithState": ("keeps a state", "write it as Concat, Conv and Slice, the state an input and an output"),
    "LinearAttention": ("keeps a state", "write it as MatMul and Mul, the state an input and an output"),
    "DeformConv": ("moves its kernel", "compile for a board with TensorRT 10.1 or later, or use a plain Conv"),
    "ImageDecoder": ("decodes pictures", "decode them before the network"),
    "Optional": _OPTIONAL, "OptionalGetElement": _OPTIONAL, "OptionalHasElement": _OPTIONAL,
    "RegexFullMatch": _STRINGS, "StringConcat": _STRINGS, "StringSplit": _STRINGS,
    "SequenceMap": ("works on a sequence", "export the network with plain tensors"),
    "TensorScatter": ("writes into a cache", "write it as ScatterND at constant places"),
    "GridSample": ("samples at places that are computed", "compile for a board with TensorRT 8.5 or later"),
}  # fmt: skip


def _reads(write: Writer, place: int) -> bool:
    return write.input(place) is not None


@older(*(f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")))
def reduction(write: Writer) -> bool:
    """Axes become an attribute again; with none named, all are reduced, or none where the node says so."""
    node = write.node
    if "axes" in node.attrs:
        return True
    keeps_all = bool(node.attrs.pop("noop_with_empty_axes", 0))
    axes = write.fixed(1)
    if axes is None and _reads(write, 1):
        return False
    if axes is not None and axes.size:
        node.attrs["axes"] = [int(axis) for axis in axes.reshape(-1)]
    elif keeps_all:
        return write.done(_of_each(write))
    del node.inputs[1:]
    return True


def _of_each(write: Writer) -> Tensor:
    """What a reduction over nothing gives: of each value by itself."""
    x, op = write.node.inputs[0], write.node.op
    if op in ("ReduceL1", "ReduceL2"):
        return write.op("Abs", "each", x)
    if op == "ReduceSumSquare":
        return write.op("Mul", "each", x, x)
    return write.op("Log" if op == "ReduceLogSum" else "Identity", "each", x)


@older("Reshape")
def reshape(write: Writer) -> bool:
    """A 0 that is meant becomes what it stands for; the attribute goes where there is none, as torch writes it."""
    node = write.node
    if not node.attrs.pop("allowzero", 0):
        return True
    shape = write.fixed(1)
    if shape is not None and np.all(shape != 0):
        return True
    sizes = write.static(node.outputs[0])
    if sizes is None or 0 in sizes:
        node.attrs["allowzero"] = 1
        return False
    node.inputs[1] = write.integers("shape", sizes)
    return True


@older("Split")
def split(write: Writer) -> bool:
    """``num_outputs`` becomes the sizes that it stands for: all alike, the last one what is left."""
    node, shape = write.node, write.dimensions(write.node.inputs[0])
    if _reads(write, 1) or "num_outputs" not in node.attrs:
        node.attrs.pop("num_outputs", None)
        return True
    count = int(node.attrs["num_outputs"])
    size = None if shape is None else shape[int(node.attrs.get("axis", 0))]
    if not isinstance(size, int):
        return False
    del node.attrs["num_outputs"]
    part = -(-size // count)
    del node.inputs[1:]
    node.inputs.append(write.integers("sizes", [part] * (count - 1) + [size - part * (count - 1)]))
    return True


@older("Pad")
def pad(write: Writer) -> bool:
    """Padding of some axes becomes padding of all."""
    node, shape = write.node, write.dimensions(write.node.inputs[0])
    if not _reads(write, 3):
        del node.inputs[3:]
        return True
    pads, axes = write.fixed(1), write.fixed(3)
    if shape is None or pads is None or axes is None:
        return False
    amounts = np.zeros((2, len(shape)), np.int64)
    amounts[:, [int(axis) % len(shape) for axis in axes.reshape(-1)]] = pads.reshape(2, -1)
    node.inputs[1] = write.integers("pads", amounts)
    del node.inputs[3 if _reads(write, 2) else 2 :]
    return True


@older("Resize")
def resize(write: Writer) -> bool:
    """Scales or sizes of some axes become those of all."""
    node = write.node
    for name, usual in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if node.attrs.get(name, usual) != usual:
            return False
        node.attrs.pop(name, None)
    axes = node.attrs.get("axes")
    if axes is None:
        return True
    shape = write.dimensions(node.inputs[0])
    if shape is None:
        return False
    named = [int(axis) % len(shape) for axis in axes]
    sizes = list(shape)
    scales = np.ones(len(shape), np.float32)
    if (given := write.fixed(2)) is not None and given.size:
        scales[named] = given
        node.inputs[2] = write.array("scales", scales)
    elif (asked := write.fixed(3)) is not None and None not in shape:
        for axis, size in zip(named, asked.reshape(-1), strict=True):
            sizes[axis] = int(size)
        node.inputs[3] = write.integers("sizes", [int(size or 0) for size in sizes])
    else:
        return False
    roi = write.fixed(1)
    if roi is not None and roi.size:
        whole = np.concatenate([np.zeros(len(shape)), np.ones(len(shape))]).astype(roi.dtype)
        whole[[*named, *(axis + len(shape) for axis in named)]] = roi
        node.inputs[1] = write.array("roi", whole)
    del node.attrs["axes"]
    return True


@older("Shape")
def shape_of_all(write: Writer) -> bool:
    """Part of a shape becomes a Slice of it."""
    attrs = write.node.attrs
    if not attrs.pop("start", 0) and attrs.get("end") is None:
        attrs.pop("end", None)
        return True
    return False


@older("AveragePool", "LpPool")
def pool(write: Writer) -> bool:
    """Dilations of 1 are none."""
    if all(int(value) == 1 for value in write.node.attrs.get("dilations", ())):
        write.node.attrs.pop("dilations", None)
    return True


@older("RoiAlign")
def roi_align(write: Writer) -> bool:
    """What version 10 computes has a name from 16 on; the usual way of 16 needs that version (:data:`SINCE`)."""
    if write.node.attrs.get("coordinate_transformation_mode") == "output_half_pixel":
        del write.node.attrs["coordinate_transformation_mode"]
    return True


@older("GridSample")
def grid_sample(write: Writer) -> bool:
    """The modes' names of before opset 20, where the usual one was bilinear."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = write.node.attrs.get("mode", "linear")
    write.node.attrs["mode"] = names.get(mode, mode)
    return write.rank() in (None, 4)


@older("Cast", "CastLike")
def cast(write: Writer) -> bool:
    """How to round and saturate is asked for float8 only."""
    node = write.node
    if node.attrs.get("to") in _FLOAT8:
        return False
    node.attrs.pop("saturate", None)
    node.attrs.pop("round_mode", None)
    return True


@older("ScatterND", "ScatterElements")
def scatter(write: Writer) -> bool:
    """Nothing is reduced by default."""
    if write.node.attrs.get("reduction", "none") == "none":
        write.node.attrs.pop("reduction", None)
    return True


@older("Relu")
def relu(write: Writer) -> bool:
    """Of integers it is Max with 0, which has had them for longer."""
    if write.dtype.kind not in "iu":
        return True
    return write.done(write.op("Max", "positive", write.node.inputs[0], write.number("zero", 0)))


@older("QuantizeLinear", "DequantizeLinear")
def quantization(write: Writer) -> bool:
    """The type that is asked for becomes that of the zero-point; scales are float32, what is read and given too."""
    node = write.node
    if node.attrs.get("block_size", 0):
        return False
    wanted = int(node.attrs.pop("output_dtype", 0))
    for name in ("block_size", "saturate", "precision"):
        node.attrs.pop(name, None)
    scale = write.input(1)
    assert scale is not None, "it is required"
    if wanted and node.op == "QuantizeLinear" and not _reads(write, 2):
        shape = write.static(scale)
        if shape is None:
            return False
        zero = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(wanted))
        del node.inputs[2:]
        node.inputs.append(write.array("zero", zero))
    given = np.dtype(write.type_of(scale) or np.float32)
    if given == np.float32:
        return not wanted or node.op == "QuantizeLinear" or wanted == _FLOAT
    values = write.fixed(1)
    node.inputs[1] = (
        write.cast("scale", scale, np.float32) if values is None else write.array("scale", values.astype(np.float32))
    )
    if node.op == "QuantizeLinear":
        node.inputs[0] = write.cast("wide", node.inputs[0], np.float32)
        return True
    result = write.graph.op("DequantizeLinear", list(node.inputs), name=node.name, before=node, **node.attrs)
    return write.done(write.cast("narrow", result, given))
