"""A block of a quantized network by itself, its integer weights and biases as floats, so that their rounding is learnt.

What is rounded inside may be left unrounded, element by element (QDrop, Wei et al., "QDrop: Randomly Dropping
Quantization for Extremely Low-bit Post-Training Quantization", ICLR 2022): the network reads masks that say where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import WEIGHT_INPUT
from edgec.passes.quantize.recover.blocks import Block
from edgec.passes.quantize.stored_layers import StoredLayer

# What stands for the usual input of a layer, in steps of its scale: half of the range.
_USUAL = 128


@dataclass(frozen=True)
class Examples:
    """What a block reads and should compute, in batches of the size that the network is exported at.

    Attributes:
        given: by entry, what the quantized network computes there, (batches, *shape).
        exact: the same of the float network.
        wanted: what the float network's block computes, (batches, *shape).
    """

    given: Mapping[str, np.ndarray]
    exact: Mapping[str, np.ndarray]
    wanted: np.ndarray

    def first(self, count: int) -> Examples:
        """The first batches, not copied."""
        given, exact = ({name: x[:count] for name, x in of.items()} for of in (self.given, self.exact))
        return Examples(given, exact, self.wanted[:count])


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer in a block's network.

    Attributes:
        weight: its weights there, float32.
        integers: what they are now, in steps of ``scale``, float32.
        scale: of these, so that it broadcasts.
        limit: of the integers.
        bias: there, float32.
        unit: what one step of one weight changes in each output, by the size of the inputs: the scale of a change of
            the bias.
    """

    weight: Constant
    integers: np.ndarray
    scale: np.ndarray
    limit: int
    bias: Constant
    unit: np.ndarray


@dataclass(frozen=True, eq=False)
class BlockNetwork:
    """A block by itself.

    Attributes:
        graph: reads the block's entries and the masks, by name.
        layers: those of the block.
        masks: inputs that say where a value inside is not rounded.
    """

    graph: Graph
    layers: tuple[Rounded, ...]
    masks: tuple[Variable, ...]

    @staticmethod
    def of(pair: Pair, block: Block, shapes: Mapping[str, tuple[int, ...]]) -> BlockNetwork:
        """The network of ``block``, of which ``shapes`` has those of the entries by name."""
        mapped: dict[Tensor, Tensor] = {}
        graph = pair.quantized.copy(mapped)
        for entry in block.entries:
            fed = Variable(entry.name, np.float32, list(shapes[entry.name]))
            graph.replace_uses(mapped[entry], fed)
            graph.inputs.append(fed)
        graph.outputs = [mapped[block.exit]]
        layers = tuple(_in_floats(layer, graph, mapped[layer.node.outputs[0]].inputs[0]) for layer in block.layers)
        graph.remove_dead()
        graph.inputs = [tensor for tensor in graph.inputs if tensor.outputs]
        masks = tuple(_sparing(node, graph) for node in list(graph.nodes) if _rounds(node, graph))
        graph.sort()
        return BlockNetwork(graph, layers, masks)


def _in_floats(layer: StoredLayer, graph: Graph, node: Node) -> Rounded:
    """Puts floats in the place of a layer's integers; ``node`` is the layer in ``graph``."""
    place, values = WEIGHT_INPUT[node.op], layer.values()
    dequantize = producer(node.inputs[place])
    assert dequantize is not None
    integers, scale = layer.weight.values.astype(np.float32), np.asarray(layer.weight_scale.values, np.float32)
    axis = int(dequantize.attrs.get("axis", 1)) % integers.ndim
    scale = scale.reshape([-1 if i == axis and scale.size > 1 else 1 for i in range(integers.ndim)])
    weight = graph.const(layer.weight.name, integers * scale)
    bias = graph.const(layer.bias.name, (values.bias * layer.factor).astype(np.float32).reshape(layer.bias.shape))
    node.inputs[place], node.inputs[2] = weight, bias
    unit = (values.scale * layer.factor * layer.input_scale * _USUAL).astype(np.float32).reshape(layer.bias.shape)
    return Rounded(weight, integers, scale, layer.limit, bias, unit)


def _rounds(node: Node, graph: Graph) -> bool:
    """Whether it is the DQ of a value inside, whose shape is known."""
    maker = producer(node.inputs[0]) if node.op == "DequantizeLinear" else None
    if maker is None or maker.op != "QuantizeLinear" or node.outputs[0] in graph.outputs:
        return False
    shape = node.outputs[0].shape
    return shape is not None and all(isinstance(size, int) for size in shape)


def _sparing(node: Node, graph: Graph) -> Variable:
    """What reads the DQ ``node`` reads the value in front of its Q where the mask says so; the mask."""
    rounded, exact = node.outputs[0], node.inputs[0].inputs[0].inputs[0]
    mask = Variable(graph.fresh(f"{exact.name}.exact"), bool, list(rounded.shape or ()))
    graph.inputs.append(mask)
    readers = consumers(rounded)
    mixed = graph.op("Where", [mask, exact, rounded])
    for reader in readers:
        for place, tensor in enumerate(reader.inputs):
            if tensor is rounded:
                reader.inputs[place] = mixed
    return mask
