"""Static 8-bit quantization: ranges from calibration data, QuantizeLinear and DequantizeLinear pairs in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgec.ir.errors import InputError, UsageError
from edgec.ir.graph import Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.protocol import Context, Effect, Pass
from edgec.passes.quantization.calibration import calibrate
from edgec.passes.quantization.calibrators import COUNTING, Calibrator, ranges
from edgec.passes.quantization.joins import uneven_joins
from edgec.passes.quantization.layer_errors import layer_errors
from edgec.passes.quantization.pair import Pair
from edgec.passes.quantization.placement import candidates, place
from edgec.passes.quantization.problem import Problem, quantized_tensors, too_coarse
from edgec.passes.quantization.quantized_weights import LIMIT
from edgec.passes.quantization.recovery import recover_accuracy, with_biases
from edgec.passes.quantization.remarks import remark
from edgec.passes.quantization.scale_constraints import solve
from edgec.passes.quantization.writing import write

_LEAST_OPSET = 13
_CALIBRATOR: dict[str, Calibrator] = {"fast": "minmax", "balanced": "mse", "max": "mse"}
# Batches on which the error of each layer is measured.
_LOOKED_AT = {"fast": 4, "balanced": 16, "max": 16}


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
        Literal["auto"] | Calibrator,
        Field(description="where activations saturate; auto is minmax where the effort is fast, else mse"),
    ] = "auto"
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
    effort: Annotated[
        Literal["fast", "balanced", "max"],
        Field(description="fast rounds; balanced chooses weights layer by layer; max then trains them together"),
    ] = "balanced"
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
        calibrator: Calibrator = self.calibrator if self.calibrator != "auto" else _CALIBRATOR[self.effort]
        shapes = ctx.get(Shapes)
        title, coarse = ctx.target.title, dict[Node, str]()
        while True:
            placement = place(graph, scheme, shapes, title, lambda node: self._kept_float(node) or coarse.get(node))
            wanted = quantized_tensors(placement)
            if not wanted:
                break
            seen = calibrate(
                graph,
                wanted,
                candidates(graph, shapes),
                ctx,
                samples=self.samples,
                histograms=calibrator in COUNTING,
            )
            found = too_coarse(placement, seen, scheme) | uneven_joins(placement, seen)
            if not found:
                break
            coarse.update(found)
        for node, reason in placement.left:
            ctx.missed(node, reason)
        if not wanted:
            ctx.missed("the network", f"has no operator that {title} runs on 8-bit integers")
            return
        spans = ranges(graph, seen, calibrator, self.percentile, scheme)
        problem = Problem(graph, placement, seen, spans, scheme, ctx)
        chosen, broken = solve(problem.activations, problem.ties, scheme)
        for node, activation in broken:
            ctx.missed(
                node,
                f"'{activation.tensor.name}' cannot have the scale of its output: it is requantized on the way in",
            )
        if self.effort != "fast":
            placement.sites = with_biases(graph, placement.sites)
        pair = Pair(graph.copy(), graph)
        scales = write(graph, placement, problem, chosen, ctx, scheme=scheme, per_channel=self.per_channel)
        if self.effort != "fast":
            limit, train = LIMIT[scheme.reduce_range], self.effort == "max"
            recover_accuracy(pair, ctx, limit, self.samples, train=train)
        errors = layer_errors(pair, placement.sites, ctx, _LOOKED_AT[self.effort])
        remark(placement.sites, scheme, scales, errors, ctx)

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
