"""The ONNX files of a bundle: for each range of TensorRT versions, one for each precision.

Below TensorRT 10 the files are in FP32, with Q and DQ where INT8 is meant, and options of the build say that FP16 may
be used. From 10 on the files say themselves what is FP16. Both are for one network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.backends.tensorrt.bundle import BundledModel, Manifest, Precision, Versions
from edgec.backends.tensorrt.half import in_half, overflowing, rounded
from edgec.backends.tensorrt.lint import dequantized
from edgec.backends.tensorrt.older_opset import lower_opset, needed_by, needed_opset
from edgec.backends.tensorrt.quantized_weights import weights_as_floats
from edgec.backends.tensorrt.versions import Profile, Rules
from edgec.ir.errors import EmitError
from edgec.ir.files import load
from edgec.ir.graph import Graph, Variable
from edgec.passes.framework.settling import settle
from edgec.passes.layers.linear import LINEAR

# trtexec separates what it is told of layers by commas and colons.
_UNWRITABLE = re.compile(r"[^A-Za-z0-9_./-]")
_TYPED_FROM = "10.0"
_ANY = Versions()


@dataclass(frozen=True)
class Model:
    """One file.

    Attributes:
        file: its name.
        graph: the network, its shapes static.
        precision: the lowest that it runs in.
        rules: of the oldest TensorRT that is to read it.
        versions: those that it is for.
        typed: whether it says itself what runs in which precision.
        float32_layers: the nodes that FP16 does not hold.
        fallback: whether it is only for when no other one passes.
        opened: the same for any batch size, where the file is to take that.
    """

    file: str
    graph: Graph
    precision: Precision
    rules: Rules
    versions: Versions = _ANY
    typed: bool = False
    float32_layers: tuple[str, ...] = ()
    fallback: bool = False
    opened: Graph | None = None

    @property
    def written(self) -> Graph:
        """What the file holds."""
        return self.graph if self.opened is None else self.opened

    @property
    def integer_layers(self) -> list[str]:
        """The nodes that are to run in INT8: their weights and what they read come through a DQ."""
        nodes = (node for one in self.graph.graphs() for node in one.nodes if node.op in LINEAR)
        return [node.name for node in nodes if all(map(dequantized, node.inputs[:2]))]

    def as_half(self) -> Graph:
        """The network as the file's precision computes it, FP16 rounding and all."""
        if self.precision == "fp32":
            return self.graph
        graph = self.graph.copy()
        compute_in_half(graph, self.float32_layers, typed=self.typed)
        return graph


def compute_in_half(graph: Graph, float32_layers: Iterable[str], *, typed: bool) -> None:
    """Rewrites the graph of a file, in place, so that onnxruntime rounds what is FP16 on the board.

    Args:
        graph: of the file.
        float32_layers: the nodes that are FP32 there.
        typed: whether the file itself says what is FP16.
    """
    if not typed:
        in_half(graph, frozenset(float32_layers))
        settle(graph, "FP16")
    rounded(graph)
    settle(graph, "rounded to FP16")


def as_computed(folder: Path, manifest: Manifest, model: BundledModel) -> Graph:
    """The network of a bundle's file, with what is FP16 on the board rounded to FP16.

    One that takes any batch size is brought back to the one that it was compiled at.

    Raises:
        InputError: the file cannot be read.
    """
    graph = load(folder / model.file)
    if any(port.profile for port in manifest.inputs):
        shapes = {port.name: port.shape for port in (*manifest.inputs, *manifest.outputs)}
        for tensor in (*graph.inputs, *graph.outputs):
            if isinstance(tensor, Variable) and tensor.name in shapes:
                tensor.shape = list(shapes[tensor.name])
        settle(graph, f"{model.file}: one batch size")
    if model.precision != "fp32":
        compute_in_half(graph, model.float32_layers, typed=model.strongly_typed)
    return graph


def is_quantized(graph: Graph) -> bool:
    """Whether a network has Q or DQ."""
    return any(node.op in ("QuantizeLinear", "DequantizeLinear") for one in graph.graphs() for node in one.nodes)


def models_of(
    profile: Profile, plain: Graph | None, quantized: Graph | None, samples: Iterable[Mapping[str, np.ndarray]]
) -> list[Model]:
    """The files for a board; what is wanted most comes first.

    Args:
        profile: the board's.
        plain: the float network; ``None`` where there is none, and only INT8 is emitted then.
        quantized: the network with Q and DQ; ``None`` for boards or recipes without INT8.
        samples: of the calibration data, as the networks take them.

    Raises:
        EmitError: the parser of the board's oldest TensorRT does not read the network.
    """
    plain, quantized = (None if graph is None else _ready(graph, profile) for graph in (plain, quantized))
    beyond: Sequence[str] = () if plain is None else overflowing(plain, samples)
    found = [model for rules in (profile.typed, profile.weak) if rules is not None
             for model in _for(rules, profile, plain, quantized, tuple(beyond))]  # fmt: skip
    if plain is not None:
        found.append(Model("model_fp32.onnx", plain, "fp32", profile.oldest, fallback=True))
    return found


def _for(
    rules: Rules, profile: Profile, plain: Graph | None, quantized: Graph | None, beyond: tuple[str, ...]
) -> Iterator[Model]:
    """The files for the versions that ``rules`` are the oldest of."""
    versions = Versions(_TYPED_FROM if rules.typed and profile.weak else None, _TYPED_FROM if not rules.typed else None)
    if not profile.typed or not profile.weak:
        versions = _ANY
    suffix = "_typed" if rules.typed else ""
    bases: tuple[tuple[Precision, Graph | None], ...] = (("int8", quantized), ("fp16", plain))
    for precision, base in bases:
        if base is None:
            continue
        graph = base.copy()
        if rules.typed:
            in_half(graph, frozenset(beyond))
        elif precision == "int8":
            weights_as_floats(graph)
        settle(graph, f"model_{precision}")
        inside = tuple(node.name for one in graph.graphs() for node in one.nodes if node.name in set(beyond))
        yield Model(f"model_{precision}{suffix}.onnx", graph, precision, rules, versions, rules.typed, inside)


def _ready(graph: Graph, profile: Profile) -> Graph:
    """A copy in the opset that the oldest TensorRT reads, with names of nodes that trtexec can be told."""
    graph = graph.copy()
    rules, where = profile.oldest, profile.board.name
    opset = needed_opset(graph, profile.opset)
    if opset > rules.opset:
        newest = next(
            node for one in graph.graphs() for node in one.nodes if needed_by(node, graph.opset, profile.opset) == opset
        )
        what = f"{newest.op} came with opset {opset}, and {rules.tensorrt} reads {rules.opset} and earlier"
        fix = "replace it in the network, or compile for a board with a newer TensorRT"
        raise EmitError(f"{where}: node '{newest.name or newest.op}'", what, fix)
    lower_opset(graph, opset, where)
    graph.ir_version = None
    _give_conditions(graph)
    _name_nodes(graph)
    settle(graph, f"{where}: opset {opset}")
    return graph


def _give_conditions(graph: Graph) -> None:
    """A Loop that has no condition gets one that always holds: the parser wants one."""
    for inside in graph.graphs():
        for node in inside.nodes:
            if node.op == "Loop" and not node.inputs[1].name:
                node.inputs[1] = inside.const(f"{node.name}.condition", np.array(True))


def _name_nodes(graph: Graph) -> None:
    taken: set[str] = set()
    for inside in graph.graphs():
        for node in inside.nodes:
            base = _UNWRITABLE.sub("_", node.name or node.op)
            name, count = base, 0
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            taken.add(name)
            node.name = name
