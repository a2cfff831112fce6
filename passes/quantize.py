"""Static 8-bit quantization: ranges from calibration data, QuantizeLinear and DequantizeLinear pairs in the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from edgec.ir.errors import InputError, UsageError
from edgec.ir.graph import Constant, Graph, Node, Variable, consumers, producer
from edgec.ir.shapes import Shapes
from edgec.passes import input_domain
from edgec.passes.protocol import Context, Effect, Pass
from edgec.passes.quantization.calibration import Statistics, calibrate
from edgec.passes.quantization.placement import Placement, Site, candidates, place
from edgec.passes.quantization.qdq import QdqWriter
from edgec.passes.quantization.quantized_weights import quantize_parameters
from edgec.passes.quantization.ranges import Parameters, Range
from edgec.passes.quantization.scale_constraints import Activation, Tie, solve
from edgec.passes.target import Scheme

_LEAST_OPSET = 13
# How far, in pixels, the pixel of value zero may be from a whole one.
_WHOLE = 1e-3
# How many steps of a prescribed scale a tensor must reach for integers to be worth while.
_FEWEST_STEPS = 8


@dataclass(frozen=True)
class Quantize(Pass):
    """Quantizes to 8 bits under the target's own scheme, with ranges from the calibration data."""

    name: ClassVar[str] = "quantize"
    effect: ClassVar[Effect] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    gives: ClassVar[frozenset[str]] = frozenset({"quantized"})
    breaks: ClassVar[frozenset[str]] = frozenset({"float", "trainable"})
    uses: ClassVar[frozenset[str]] = frozenset({"calibration"})
    per_target: ClassVar[bool] = True

    calibrator: Annotated[
        Literal["minmax", "percentile"],
        Field(description="activation ranges from the extremes, or between two percentiles"),
    ] = "minmax"
    percentile: Annotated[
        float, Field(gt=50, le=100, description="the upper percentile; the lower one is 100 less it")
    ] = 99.99
    samples: Annotated[int | None, Field(ge=1, description="how many calibration samples to use; all by default")] = (
        None
    )
    per_channel: Annotated[
        bool, Field(description="one weight scale for each output channel, where the target takes that")
    ] = True
    only: Annotated[list[str] | None, Field(description="quantize only the nodes with these names (* and ? match)")] = (
        None
    )
    skip: Annotated[list[str] | None, Field(description="keep the nodes with these names in float")] = None
    budget: Annotated[
        float | None, Field(description="stop where less SQNR than this is left, in dB against the original model")
    ] = None

    def budget_db(self) -> float | None:
        return self.budget

    def run(self, graph: Graph, ctx: Context) -> None:
        """Places Q and DQ.

        Raises:
            UsageError: there is no target, or a pattern matches no node.
            InputError: the graph is quantized already, of an opset below 13, or not finite on the data.
        """
        if ctx.target is None:
            raise UsageError("quantize", "needs a target", "name one: its scheme says how to quantize")
        scheme = ctx.target.scheme
        self._check(graph)
        if scheme is None:
            ctx.missed("the network", f"{ctx.target.title} has no 8-bit arithmetic: it stays in float")
            return
        shapes = ctx.get(Shapes)
        title, coarse = ctx.target.title, dict[Node, str]()
        while True:
            placement = place(graph, scheme, shapes, title, lambda node: self._kept_float(node) or coarse.get(node))
            wanted = _tensors(placement)
            if not wanted:
                break
            seen = calibrate(
                graph,
                wanted,
                candidates(graph, shapes),
                ctx,
                samples=self.samples,
                histograms=self.calibrator == "percentile",
            )
            found = _too_coarse(placement, seen, scheme)
            if not found:
                break
            coarse.update(found)
        for node, reason in placement.left:
            ctx.missed(node, reason)
        if not wanted:
            ctx.missed("the network", f"has no operator that {title} runs on 8-bit integers")
            return
        percent = self.percentile if self.calibrator == "percentile" else None
        problem = _Problem(graph, placement, seen, percent, scheme, ctx)
        chosen, broken = solve(problem.activations, problem.ties, scheme)
        for node, activation in broken:
            ctx.missed(
                node,
                f"'{activation.tensor.name}' cannot have the scale of its output: it is requantized on the way in",
            )
        self._write(graph, placement, problem, chosen, ctx, shapes)

    def _check(self, graph: Graph) -> None:
        for option, patterns in (("only", self.only), ("skip", self.skip)):
            for pattern in patterns or ():
                if not any(fnmatchcase(node.name, pattern) for node in graph.nodes):
                    raise UsageError(
                        f"quantize: {option}",
                        f"no node is named '{pattern}'",
                        "'edgec inspect' lists the nodes' names",
                    )
        found = next((node for node in graph.nodes if node.op in ("QuantizeLinear", "DequantizeLinear")), None)
        if found is not None:
            where = f"node '{found.name}' ({found.op})"
            raise InputError(where, "the model is quantized already", "take 'quantize' out of the recipe")
        if graph.opset < _LEAST_OPSET:
            raise InputError(
                "the model",
                f"has opset {graph.opset}, and scales for each channel need opset {_LEAST_OPSET}",
                "load it through edgec's frontend, which upgrades it",
            )

    def _kept_float(self, node: Node) -> str | None:
        if self.only is not None and not any(fnmatchcase(node.name, pattern) for pattern in self.only):
            return "is not among 'only'"
        if any(fnmatchcase(node.name, pattern) for pattern in self.skip or ()):
            return "is kept in float by 'skip'"
        return None

    def _write(
        self,
        graph: Graph,
        placement: Placement,
        problem: _Problem,
        chosen: dict[Activation, Parameters],
        ctx: Context,
        shapes: Shapes,
    ) -> None:
        assert ctx.target is not None and ctx.target.scheme is not None
        scheme = ctx.target.scheme
        writer = QdqWriter(graph, shapes)
        behind = {tensor: writer.activation(tensor, chosen[a]) for tensor, a in problem.variables.items()}
        layers: dict[Node, tuple[int, int]] = {}
        for site in placement.sites:
            node = site.node
            for index in site.activations:
                tensor = node.inputs[index]
                if isinstance(tensor, Constant):
                    by = chosen[problem.constants[node, index]]
                    integers = _quantized(tensor.values, by)
                    scale = np.float32(by.scale)
                    node.inputs[index] = writer.constant(tensor.name, integers, scale, by.zero_point, None, node)
            if site.weight is not None:
                source = chosen[problem.variables[node.inputs[site.activations[0]]]]
                layers[node] = self._write_parameters(site, source.scale, scheme, writer, ctx)
        produced = {tensor for site in placement.sites for tensor in site.outputs}
        for site in placement.sites:
            for index in site.activations:
                tensor = site.node.inputs[index]
                if tensor in behind and tensor not in produced:
                    site.node.inputs[index] = behind[tensor]
        for tensor, given in behind.items():
            if tensor in produced:
                writer.replace_uses(tensor, given)
        writer.finish()
        for site in placement.sites:
            _remark(site, scheme, layers.get(site.node), ctx)

    def _write_parameters(
        self, site: Site, input_scale: float, scheme: Scheme, writer: QdqWriter, ctx: Context
    ) -> tuple[int, int]:
        """Quantizes a node's weights and bias; how many scales there are, and how many were enlarged."""
        node = site.node
        assert site.weight is not None
        layer = quantize_parameters(
            node,
            input_scale,
            per_channel=self.per_channel and node.op in scheme.per_channel,
            integer_bias=scheme.bias == "int32",
            reduce_range=scheme.reduce_range,
        )
        weight = node.inputs[site.weight]
        node.inputs[site.weight] = writer.constant(weight.name, layer.weight, layer.scale, 0, layer.axis, node)
        if layer.bias is not None and layer.bias_scale is not None and site.bias is not None:
            bias = node.inputs[site.bias]
            axis = 0 if layer.bias_scale.ndim else None
            node.inputs[site.bias] = writer.constant(bias.name, layer.bias, layer.bias_scale, 0, axis, node)
            node.attrs.pop("beta", None)
        node.attrs.pop("alpha", None)
        return layer.scale.size, layer.widened


class _Problem:
    """The activations of a placement and what is asked of their scales.

    Attributes:
        variables: by tensor.
        constants: by node and place of the input.
        ties: of the nodes that move values.
    """

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        seen: dict[Variable, Statistics],
        percent: float | None,
        scheme: Scheme,
        ctx: Context,
    ) -> None:
        self.variables = {tensor: Activation(tensor, found.range(percent)) for tensor, found in seen.items()}
        self.constants: dict[tuple[Node, int], Activation] = {}
        self.ties: list[Tie] = []
        for tensor in graph.inputs:
            if tensor not in self.variables or scheme.symmetric:
                continue
            if seen[tensor].pixels:
                self.variables[tensor].prescribed = _unchanged_pixels(graph, tensor, scheme, ctx)
        for tensor, fixed in _prescribed(placement, self.variables, scheme).items():
            self.variables[tensor].prescribed = fixed
        for site in placement.sites:
            members = [self.variables[tensor] for tensor in site.outputs]
            for index in site.activations:
                tensor = site.node.inputs[index]
                if isinstance(tensor, Constant):
                    self.constants[site.node, index] = Activation(tensor, _finite_range(tensor))
                    members.append(self.constants[site.node, index])
                else:
                    members.append(self.variables[tensor])
            if site.node.op in scheme.tied:
                self.ties.append(Tie(site.node, members))

    @property
    def activations(self) -> list[Activation]:
        return [*self.variables.values(), *self.constants.values()]


def _tensors(placement: Placement) -> list[Variable]:
    """The variables that are quantized, each once, in the graph's order."""
    found: dict[Variable, None] = {}
    for site in placement.sites:
        for index in site.activations:
            tensor = site.node.inputs[index]
            if isinstance(tensor, Variable):
                found[tensor] = None
        found.update(dict.fromkeys(site.outputs))
    return list(found)


def _prescribed(placement: Placement, tensors: Iterable[Variable], scheme: Scheme) -> dict[Variable, Parameters]:
    """The tensors whose scale the target prescribes.

    That of an operator that is not among the target's counts too: a runtime that says so makes an integer kernel of it
    by itself where its neighbours are integers. One that could run on integers and stays float has a float kernel.
    """
    inside = {site.node for site in placement.sites}
    found = {}
    for tensor in tensors:
        maker = producer(tensor)
        if maker is not None and maker.op in scheme.fixed and (maker in inside or maker.op not in scheme.operators):
            scale, zero_point = scheme.fixed[maker.op]
            found[tensor] = Parameters(scale, zero_point, scheme.activations)
    return found


def _too_coarse(placement: Placement, seen: Mapping[Variable, Statistics], scheme: Scheme) -> dict[Node, str]:
    """The nodes to keep in float because a prescribed scale would leave nothing of a tensor, and why.

    A Softmax over a thousand elements gives a thousandth each, and 1/256 is the step that kernels prescribe.
    """
    inside = {site.node for site in placement.sites}
    kept = {}
    for tensor, by in _prescribed(placement, seen, scheme).items():
        largest = max(abs(seen[tensor].low), abs(seen[tensor].high))
        if largest >= _FEWEST_STEPS * by.scale:
            continue
        maker = tensor.inputs[0]
        reason = f"'{tensor.name}' reaches {largest:.2g} only, and steps of {by.scale:.2g} are prescribed for it"
        for node in [maker] if maker in inside else [n for n in consumers(tensor) if n in inside]:
            kept[node] = reason
    return kept


def _unchanged_pixels(graph: Graph, tensor: Variable, scheme: Scheme, ctx: Context) -> Parameters | None:
    """The scale and zero-point with which an input's integers are the pixels themselves (less 128 for int8).

    The input is a * pixel + b; so the scale is a, and the pixel whose value is zero is the zero-point. ``None`` where
    channels differ or no pixel's value is zero.
    """
    known = input_domain.pixels(graph, tensor.name, ctx.affine.get(tensor.name))
    if known is None or np.ptp(known[0]) or np.ptp(known[1]) or known[0][0] <= 0:
        return None
    a, b = float(known[0][0]), float(known[1][0])
    limits = np.iinfo(scheme.activations)
    zero_pixel = -b / a
    if abs(zero_pixel - round(zero_pixel)) > _WHOLE or not 0 <= round(zero_pixel) <= limits.max - limits.min:
        return None
    return Parameters(a, int(limits.min) + round(zero_pixel), scheme.activations)


def _finite_range(constant: Constant) -> Range:
    found = Range.of(constant.values)
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        raise InputError(
            f"constant '{constant.name}'", "has values that are not finite", "train or export the network again"
        )
    return found


def _quantized(values: np.ndarray, by: Parameters) -> np.ndarray:
    limits = np.iinfo(by.dtype)
    steps = np.rint(values / np.float32(by.scale)) + by.zero_point
    return np.clip(steps, limits.min, limits.max).astype(by.dtype)


def _remark(site: Site, scheme: Scheme, layer: tuple[int, int] | None, ctx: Context) -> None:
    parts: list[str] = [scheme.activations]
    figures: dict[str, float] = {}
    if layer is not None:
        scales, widened = layer
        parts.append("int8 weights per channel" if scales > 1 else "int8 weights with one scale")
        figures["weight_scales"] = scales
        if widened:
            parts.append(f"{widened} weight scales enlarged because the bias would not fit")
            figures["enlarged_scales"] = widened
    if site.fused:
        parts.append(f"{' and '.join(node.op for node in site.fused)} fused")
    ctx.did(site.node, ", ".join(parts), **figures)
