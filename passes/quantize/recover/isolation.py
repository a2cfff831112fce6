"""Each quantized layer by itself: beside the float network, on what that one computes.

What a layer of a quantized network does wrong is its own rounding, of weights and of what it gives, and what it got
from the layers before. Here every layer reads the float network's values, so that only its own is left, and one run
shows that of all layers. A value that no layer rounds behind itself (the network's input, or all of them where the
scheme rounds the inputs of layers only) is rounded by the layers that read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import Site


@dataclass(frozen=True)
class Output:
    """What a layer gives.

    Attributes:
        site: the layer, in the quantized network.
        exact: what it is in the float network.
        given: in the quantized network: behind Q and DQ where it is rounded.
        ranged: the value whose integers the layer chooses, in the float network: what it gives, where that is rounded,
            else what it reads.
        dequantize: that value's DQ.
    """

    site: Site
    exact: Variable
    given: Variable
    ranged: Variable
    dequantize: Node


def layer_outputs(pair: Pair, sites: Sequence[Site]) -> list[Output]:
    """What ``sites`` (of ``pair.quantized``) give, in order."""
    exact = pair.twins()
    found = []
    for site in sites:
        for tensor in (site.fused[-1] if site.fused else site.node).outputs:
            dequantizes = [consumers(q.outputs[0])[0] for q in consumers(tensor) if q.op == "QuantizeLinear"]
            if site.outputs:
                found += [Output(site, exact[tensor], d.outputs[0], exact[tensor], d) for d in dequantizes]
            elif tensor.name:
                reads = producer(site.node.inputs[site.activations[0]])
                assert reads is not None, "what a layer reads was quantized"
                source = reads.inputs[0].inputs[0].inputs[0]
                found.append(Output(site, exact[tensor], tensor, exact[source], reads))
    return found


def isolated(pair: Pair, outputs: Sequence[Output]) -> tuple[Graph, list[tuple[Variable, Variable]], list[Variable]]:
    """The float network with the layers of the quantized one beside it, each reading from the float network.

    Args:
        pair: the networks; they are not changed.
        outputs: of the layers, as :func:`layer_outputs` has them.

    Returns:
        The graph; for each of ``outputs`` what the float network computes and what the layer by itself gives; and what
        it ranges.
    """
    side = _Side(pair, {output.exact for output in outputs if output.exact is output.ranged})
    found = [(side.exact(output.exact), side.alone(output)) for output in outputs]
    return side.graph.sort(), found, [side.exact(output.ranged) for output in outputs]


class _Side:
    """A copy of the float network that copies of quantized layers are put beside."""

    def __init__(self, pair: Pair, rounded: set[Variable]) -> None:
        self._rounded_before = rounded
        self._copies: dict[Tensor, Tensor] = {}
        self.graph = pair.original.copy(self._copies)
        self._twins = pair.twins()
        self._made: dict[Tensor, Variable] = {}

    def exact(self, tensor: Tensor) -> Variable:
        """A tensor of the float network, here."""
        found = self._copies[tensor]
        assert isinstance(found, Variable)
        return found

    def alone(self, output: Output) -> Variable:
        """What a layer gives, rounded."""
        nodes = (output.site.node, *output.site.fused)
        for node in nodes:
            if node.outputs[0] not in self._made:
                made = self._copy(node, [self._read(tensor, nodes) for tensor in node.inputs])
                self._made.update(zip(node.outputs, made, strict=True))
        if output.given in self._made:
            return self._made[output.given]
        quantize, _ = _around(output.given)
        return self._rounded(output.given, self._made[quantize.inputs[0]])

    def _read(self, tensor: Tensor, layer: Sequence[Node]) -> Tensor:
        """What a node of a layer reads in the place of ``tensor`` of the quantized network."""
        maker = producer(tensor)
        if isinstance(tensor, Constant):
            return self.graph.const(tensor.name, tensor.values)
        if maker is None:
            return self.exact(self._twins[tensor]) if tensor.name else Variable.empty()
        if maker in layer:
            return self._made[tensor]
        if maker.op != "DequantizeLinear":
            return self.exact(self._twins[tensor])
        if isinstance(maker.inputs[0], Constant):
            return self._copy(maker, [self._read(one, layer) for one in maker.inputs])[0]
        quantize, _ = _around(tensor)
        source = self._twins[quantize.inputs[0]]
        exact = self.exact(source)
        return exact if source in self._rounded_before else self._rounded(tensor, exact)

    def _rounded(self, tensor: Tensor, source: Variable) -> Variable:
        """``source`` through the Q and DQ that ``tensor`` comes from."""
        value = source
        for node in _around(tensor):
            value = self._copy(node, [value, *(self._read(one, ()) for one in node.inputs[1:])])[0]
        return value

    def _copy(self, node: Node, inputs: Sequence[Tensor]) -> list[Variable]:
        return self.graph.op(
            node.op, inputs, name=node.name, outputs=[_blank(self.graph, one) for one in node.outputs], **node.attrs
        )


def _around(tensor: Tensor) -> tuple[Node, Node]:
    """The Q and the DQ that a tensor comes from."""
    dequantize = tensor.inputs[0]
    return dequantize.inputs[0].inputs[0], dequantize


def _blank(graph: Graph, like: Variable) -> Variable:
    return Variable(graph.fresh(like.name), like.dtype, like.shape) if like.name else Variable.empty()
