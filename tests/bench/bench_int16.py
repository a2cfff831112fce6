"""16-bit activations in LiteRT: how long its kernels take beside int8 and float, and what a network gains by them.

    python tests/bench/bench_int16.py [--layers]

EfficientNet-Lite0 and single layers of its shapes, on one thread, interleaved: in float; with int8 weights and float
arithmetic (``weights_only``); in int8; and 16x8, that is int16 activations of zero-point 0 and int8 weights with a
scale for each channel. Its biases have 64 bits, as TFLite's specification asks, or 32, with which LiteRT has faster
kernels for CONV_2D. The 16x8 files are the int8 one with its activations widened. edgec emits no such files: these
figures are why.
"""

from __future__ import annotations

import sys
import tempfile
import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from networks import efficientnet_lite0, photos

from edgec.backends.coral import flatbuffer
from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.flatbuffer import File, Tensor
from edgec.backends.coral.quantization import Quantization, per_tensor
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, run_pass

flatbuffer._TYPES[np.dtype(np.int16)] = schema.TensorType.INT16
LARGEST = 32767
#: The first version of an operator with int16 activations (lite/tools/versioning/op_version.cc).
VERSIONS = {
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 5,
    "ADD": 3,
    "MEAN": 3,
    "RESHAPE": 1,
    "FULLY_CONNECTED": 7,
    "QUANTIZE": 2,
}
#: The 16x8 variants, and the bits of their biases where there is a choice.
WIDE = {"16x8": 64, "16x8 with int32 biases": 32}
BOARD = target("coral-dev-board")

#: operator, input height = width, channels in, channels out, kernel, stride
LAYERS = [
    ("CONV_2D", 224, 3, 32, 3, 2),
    ("CONV_2D", 56, 24, 144, 1, 1),
    ("DEPTHWISE_CONV_2D", 56, 144, 144, 3, 1),
    ("CONV_2D", 56, 144, 24, 1, 1),
    ("DEPTHWISE_CONV_2D", 28, 240, 240, 5, 1),
    ("CONV_2D", 14, 112, 672, 1, 1),
    ("DEPTHWISE_CONV_2D", 14, 672, 672, 5, 1),
    ("CONV_2D", 14, 672, 112, 1, 1),
    ("CONV_2D", 7, 320, 1280, 1, 1),
]


def widened(file: File, bias_bits: int) -> File:
    """An int8 file with activations of 16 bits: the same weights, ranges made symmetric, clamps made explicit."""
    tensors = [_widened(tensor) for tensor in file.tensors]
    made = File(tensors, [], file.inputs, file.outputs)
    for operator in file.operators:
        options, inputs = copy(operator.options), list(operator.inputs)
        if "CONV" in operator.kind:
            before = file.tensors[operator.outputs[0]].quantization
            assert before is not None
            if before.zero_point[0] == -128:
                options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
            narrow = bias_bits == 32 and operator.kind == "CONV_2D"
            if narrow:
                options.quantizedBiasType = schema.TensorType.INT32
            inputs[2] = _bias(made, file, inputs, np.dtype(np.int32 if narrow else np.int64))
        if operator.kind == "ADD":
            options.potScaleInt16 = False
        made.operator(operator.kind, inputs, operator.outputs, options, operator.source)
        made.operators[-1].version = VERSIONS[operator.kind]
    return made


def _widened(tensor: Tensor) -> Tensor:
    if tensor.data is not None or tensor.quantization is None:
        return tensor
    scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zero_point[0])
    top = scale * max(128 + zero, 127 - zero)
    return replace(tensor, dtype=np.dtype(np.int16), quantization=per_tensor(top / LARGEST, 0))


def _bias(made: File, file: File, inputs: list[int], dtype: np.dtype) -> int:
    """The bias of a convolution in steps of the new input's scale."""
    source, weight = made.tensors[inputs[0]].quantization, made.tensors[inputs[1]].quantization
    old = file.tensors[inputs[2]]
    assert source is not None and weight is not None and old.quantization is not None and old.data is not None
    scale = (source.scale[0] * weight.scale).astype(np.float32)
    steps = np.rint(old.quantization.exact(old.data) / scale.astype(np.float64))
    # A channel whose weights are all zero may have a scale too small for its bias.
    steps = steps.clip(-(2.0**31 - 1), 2.0**31 - 1).astype(dtype)
    return made.constant(f"{old.name}.{dtype}", steps, Quantization(scale, np.zeros(scale.size, np.int64), 0))


class Run:
    """A file, ready to run on one thread."""

    def __init__(self, contents: bytes) -> None:
        self._runtime: Any = Interpreter(model_content=contents, num_threads=1)
        self._runtime.allocate_tensors()
        (self._input,), (self._output,) = self._runtime.get_input_details(), self._runtime.get_output_details()
        self.times: list[float] = []

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The output for an input, both in float and in the file's layout."""
        scale, zero = self._input["quantization"]
        if scale:
            limits = np.iinfo(self._input["dtype"])
            values = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
        self._runtime.set_tensor(self._input["index"], values.astype(self._input["dtype"]))
        self._runtime.invoke()
        found = self._runtime.get_tensor(self._output["index"])
        scale, zero = self._output["quantization"]
        return (found.astype(np.float64) - zero) * scale if scale else found

    def time(self) -> None:
        start = time.perf_counter()
        self._runtime.invoke()
        self.times.append(1e3 * (time.perf_counter() - start))


def interleaved(runs: dict[str, Run], rounds: int) -> None:
    """Each run in turn, so that the machine's moods meet all alike; the first two rounds warm up."""
    for _ in range(rounds + 2):
        for run in runs.values():
            run.time()
    for run in runs.values():
        del run.times[:2]


def layer(kind: str, side: int, taken: int, given: int, kernel: int, stride: int, arithmetic: str) -> File:
    """One convolution of seeded weights, behind ranges of -4 to 4 and in front of -8 to 8."""
    random = np.random.Generator(np.random.PCG64(0))
    deep = kind == "DEPTHWISE_CONV_2D"
    shape = (1, kernel, kernel, given) if deep else (given, kernel, kernel, taken)
    axis = 3 if deep else 0
    weight = random.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape) / given))
    bias = random.normal(size=given).astype(np.float32)
    file = File()
    dtype = np.float32 if arithmetic == "float" else np.int8
    before, after = (None, None) if arithmetic == "float" else (per_tensor(4 / 127, 0), per_tensor(8 / 127, 0))
    file.inputs = [file.tensor("x", (1, side, side, taken), dtype, before)]
    if before is None:
        places = [file.constant("w", weight), file.constant("b", bias)]
    else:
        scale = (np.abs(weight).max(axis=tuple(a for a in range(4) if a != axis)) / 127).astype(np.float32)
        zeros, steps = np.zeros(given, np.int64), (before.scale[0] * scale).astype(np.float32)
        integers = Quantization(scale, zeros, axis).integers(weight)
        places = [
            file.constant("w", integers, Quantization(scale, zeros, axis)),
            file.constant("b", np.rint(bias / steps).astype(np.int32), Quantization(steps, zeros, 0)),
        ]
    options = schema.DepthwiseConv2DOptionsT() if deep else schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
    options.dilationHFactor = options.dilationWFactor = 1
    if deep:
        options.depthMultiplier = 1
    size = -(-side // stride)
    file.outputs = [file.tensor("y", (1, size, size, given), dtype, after)]
    file.operator(kind, [*file.inputs, *places], file.outputs, options)
    return widened(file, WIDE[arithmetic]) if arithmetic in WIDE else file


def layers() -> None:
    """A line for each layer: milliseconds, and dB to the float layer."""
    for case in LAYERS:
        kind, side, taken, given, kernel, stride = case
        runs = {name: Run(layer(*case, name).to_bytes()) for name in ("float", "int8", *WIDE)}
        values = np.random.default_rng(1).normal(size=(1, side, side, taken)).clip(-4, 4).astype(np.float32)
        found = {name: run(values) for name, run in runs.items()}
        interleaved(runs, 30)
        shown = [
            f"{name} {median(run.times):.3f} ms"
            + (f" {_db(found['float'], found[name]):.0f} dB" if name != "float" else "")
            for name, run in runs.items()
        ]
        slower = [median(a / b for a, b in zip(runs[name].times, runs["float"].times, strict=True)) for name in WIDE]
        title = f"{kind} {kernel}x{kernel}/{stride} {side}x{side}x{taken} -> {given}"
        print(f"{title}: {', '.join(shown)}; {slower[0]:.1f} and {slower[1]:.1f} x float")


def network() -> None:
    """EfficientNet-Lite0: bytes, dB to the float network, milliseconds."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        efficientnet_lite0.export(path, batch_norm=True)
        graphs = {name: load(path) for name in ("float", "int8 weights", "int8")}
    held_out = [efficientnet_lite0.feed(crop) for crop in photos.held_out_crops()]
    calibration = Samples([efficientnet_lite0.feed(crop) for crop in photos.calibration_crops()])
    original = Session(graphs["float"])
    (wanted_name,) = (t.name for t in graphs["float"].outputs)
    contents = {}
    for name, graph in graphs.items():
        run_pass(Fold(), graph)
        legalize(graph, CoralBackend(), BOARD)
        contents[name] = _compiled(name, graph, calibration)
    contents |= {name: widened(lower(graphs["int8"]).file, bits).to_bytes() for name, bits in WIDE.items()}
    runs = {name: Run(data) for name, data in contents.items()}
    wanted = np.concatenate([original.run(feeds)[wanted_name] for feeds in held_out])
    for name, run in runs.items():
        (key,) = held_out[0]
        found = np.concatenate([run(feeds[key].transpose(0, 2, 3, 1)) for feeds in held_out])
        agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
        run.times.clear()
        print(f"{name}: {len(contents[name]):,} bytes, {_db(wanted, found):.1f} dB, top-1 agreement {agreement:.3f}")
    interleaved(runs, 30)
    print(", ".join(f"{name} {median(run.times):.1f} ms" for name, run in runs.items()))


def _compiled(name: str, graph: Graph, calibration: Samples) -> bytes:
    if name == "int8 weights":
        run_pass(Quantize(weights_only="int8"), graph, target=BOARD)
    elif name == "int8":
        run_pass(Quantize(), graph, target=BOARD, data={"calibration": calibration})
    return lower(graph).file.to_bytes()


def _db(wanted: np.ndarray, found: np.ndarray) -> float:
    return sqnr_db({"": wanted}, {"": found})


if __name__ == "__main__":
    layers()
    if "--layers" not in sys.argv:
        network()
