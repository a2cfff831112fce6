"""Static 8-bit quantization: ranges from calibration data, QuantizeLinear and DequantizeLinear pairs in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import lcm
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgec.ir.errors import InputError, UsageError
from edgec.ir.graph import Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.dataset import ROLE, noise
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme, Target
from edgec.passes.quantize.goals import Goal
from edgec.passes.quantize.mixed_precision import Try, choose
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.first_last_layers import ends_in_float
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.plan import Calibration, Prepared, prepare
from edgec.passes.quantize.prepare.channel_splitting import split_channels
from edgec.passes.quantize.prepare.equalization import equalize
from edgec.passes.quantize.prepare.half_precision import half_type, to_float32
from edgec.passes.quantize.prepare.masks import bound_masks
from edgec.passes.quantize.prepare.stream_noise import Rounding
from edgec.passes.quantize.quantized_weights import LIMIT
from edgec.passes.quantize.ranges.calibrator_option import AUTO, CalibratorName
from edgec.passes.quantize.ranges.calibrators import counts
from edgec.passes.quantize.recover.recovery import recover_accuracy, with_biases
from edgec.passes.quantize.recover.weight_pairs import bound_pairs
from edgec.passes.quantize.report.effects import noise_shares
from edgec.passes.quantize.report.layer_errors import layer_errors
from edgec.passes.quantize.report.remarks import remark
from edgec.passes.quantize.weights_only import Stored, store_weights
from edgec.passes.quantize.writing import write

_LEAST_OPSET = 13
_CALIBRATOR = {"fast": "minmax", "balanced": "mse", "max": "output"}
_SPLIT = {"fast": 0.0, "balanced": 0.0, "max": 0.05}
# Batches on which the error of each layer is measured.
_LOOKED_AT = {"fast": 4, "balanced": 8, "max": 16}


@dataclass(frozen=True)
class Quantize(Pass):
    """Quantizes to int8 after training, under the target's own scheme, with ranges from the calibration data."""

    name: ClassVar[str] = "quantize"
    effect: ClassVar[Effect] = "lossy"
    methods: ClassVar[tuple[str, ...]] = (
        "PTQ", "per-channel", "mixed precision", "GPTQ", "AdaRound", "BRECQ", "QDrop", "bias correction",
        "cross-layer equalization", "outlier channel splitting", "entropy calibration",
    )  # fmt: skip
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    gives: ClassVar[frozenset[str]] = frozenset({"quantized"})
    breaks: ClassVar[frozenset[str]] = frozenset({"float", "trainable"})
    uses: ClassVar[frozenset[str]] = frozenset({"calibration"})
    per_target: ClassVar[bool] = True

    calibrator: Annotated[
        CalibratorName,
        Field(
            description="where activations saturate; by effort, auto is minmax (fast), mse (balanced) or output (max)"
        ),
    ] = AUTO
    percentile: Annotated[
        float, Field(gt=50, le=100, description="the upper percentile; the lower one is 100 less it")
    ] = 99.99
    samples: Annotated[int | None, Field(ge=1, description="how many calibration samples to use; all by default")] = (
        None
    )
    random: Annotated[
        bool, Field(description="calibrate on noise where there are no data; nothing that is measured means much then")
    ] = False
    per_channel: Annotated[
        bool, Field(description="one weight scale for each output channel, where the target takes that")
    ] = True
    only: Annotated[list[str] | None, Field(description="quantize only the nodes with these names (* and ? match)")] = (
        None
    )
    skip: Annotated[list[str] | None, Field(description="keep the nodes with these names in float")] = None
    effort: Annotated[
        Literal["fast", "balanced", "max"],
        Field(description="fast rounds; balanced chooses weights by layer; max also equalizes channels and trains"),
    ] = "balanced"
    precision: Annotated[
        Literal["int8", "auto"],
        Field(description="auto keeps the fewest layers in float with which budget, or what is required, is met"),
    ] = "int8"
    split_channels: Annotated[
        float | None,
        Field(
            ge=0,
            le=3,
            description="the part of multiply-accumulates that may be added to compute channels twice "
            "whose rounding harms most; 0.05 with effort max, else 0",
        ),
    ] = None
    weights_only: Annotated[
        Stored | None, Field(description="store weights so, and compute in float32: for files that must only be small")
    ] = None
    sensitivity: Annotated[
        bool, Field(description="report which part of the noise at the outputs comes from each layer; needs torch")
    ] = False
    strict: Annotated[
        bool, Field(description="fail where a target has no 8-bit arithmetic, instead of leaving it in float")
    ] = False
    budget: Annotated[
        float | None, Field(description="stop where less SQNR than this is left, in dB against the original model")
    ] = None

    def missing_data(self, roles: frozenset[str]) -> str | None:
        return None if self.weights_only is not None or self.random else super().missing_data(roles)

    def chooses_by_metric(self, require: Mapping[str, float]) -> bool:
        return self.precision == "auto" and self.budget is None and any(n.startswith("metric_") for n in require)

    def budget_db(self) -> float | None:
        return self.budget

    def run(self, graph: Graph, ctx: Context) -> None:
        """Places Q and DQ.

        Raises:
            UsageError: there is no target, a pattern matches no node, or ``strict`` and the target has no integers.
            InputError: the graph is quantized already, of an opset below 13, or not finite on the data.
        """
        target = ctx.target
        if target is None:
            raise UsageError("quantize", "needs a target", "name one: its scheme says how to quantize")
        scheme = target.scheme
        self._check(graph)
        if scheme is not None or self.weights_only is not None:
            self._widen_halves(graph, ctx)
        if self.weights_only is not None:
            store_weights(graph, self.weights_only, self._kept_float, self.per_channel, ctx)
            return
        if scheme is None and self.strict:
            fix = "take the target out, or leave out 'strict' to get it in float"
            raise UsageError("quantize: strict", f"{target.title} has no 8-bit arithmetic", fix)
        if scheme is None:
            ctx.missed("the network", f"{target.title} has no 8-bit arithmetic: it stays in float")
            return
        if self.random and ROLE not in ctx.data:
            ctx = ctx.having(data={**ctx.data, ROLE: noise(graph, ctx.seed)})
            ctx.missed("the network", "calibrated on noise: neither ranges nor accuracy say anything about real data")
        if scheme.rounds == "all":
            bound_masks(graph, ctx, self.samples, histograms=counts(self._calibrator()))
        if self.effort == "max" or (self.effort == "balanced" and not self.per_channel):
            rounding = Rounding(scheme.symmetric, scheme.rounds == "inputs", self.per_channel)
            # What equal channels cost the weights is partly fixed later: with time for it, what is left then decides.
            attempt = self._attempt(graph, scheme, target, ctx, recovered=self.effort == "max")
            equalize(graph, rounding, attempt, ctx)
        share = self.split_channels if self.split_channels is not None else _SPLIT[self.effort]
        if len(graph.graphs()) > 1 and (share or self._calibrator() == "output"):
            what = "ranges are those of mse, and channels are computed once: it has control flow"
            ctx.missed("the network", what)
        elif share > 0:
            self._split(graph, share, scheme, target, ctx)
        floats: Mapping[Node, str] = {}
        goal = Goal(graph, ctx, self.budget) if self.precision == "auto" else None
        if goal is not None:
            floats = self._mixed(graph, scheme, target, goal, ctx)
        elif scheme.rounds == "inputs" and self.only is None:
            pair, sites = self._attempt(graph, scheme, target, ctx)({})
            floats = ends_in_float(graph, pair, sites, ctx)
        ready = self._prepared(graph, scheme, target, floats, ctx)
        for node, reason in ready.placement.left:
            ctx.missed(node, reason)
        if not ready.placement.sites:
            ctx.missed("the network", f"has no operator that {target.title} runs on 8-bit integers")
            return
        for node, activation in ready.broken:
            ctx.missed(
                node,
                f"'{activation.tensor.name}' cannot have the scale of its output: it is requantized on the way in",
            )
        for node, activation in ready.apart if "Concat" in scheme.tied else ():
            ctx.did(node, f"'{activation.tensor.name}' keeps its finer scale: it is requantized on the way in")
        if self.effort != "fast":
            ready.placement.sites = with_biases(graph, ready.placement.sites)
        pair = Pair(graph.copy(), graph)
        scales = write(graph, ready, ctx, scheme=scheme, per_channel=self.per_channel)
        if self.effort != "fast":
            limit, train = LIMIT[scheme.reduce_range], self.effort == "max"
            meets = None if goal is None else lambda one: goal.reached(one).met
            recover_accuracy(pair, ctx, limit, self.samples, train=train, meets=meets)
            bound_pairs(site for site in ready.placement.sites if scheme.adds_pairs(site.node.op))
        errors = layer_errors(pair, ready.placement.sites, ctx, _LOOKED_AT[self.effort])
        shares = noise_shares(pair, ready.placement.sites, ctx) if self.sensitivity else {}
        remark(ready.placement.sites, scheme, scales, errors, shares, ctx)

    def _widen_halves(self, graph: Graph, ctx: Context) -> None:
        """Makes a network of half floats one of float32."""
        half = half_type(graph, ctx.get(Shapes))
        if half is None:
            return
        to_float32(graph, ctx.get(Shapes))
        ctx.changed()
        ctx.did("the network", f"computes in float32 instead of {half}, to be quantized")

    def _prepared(
        self, graph: Graph, scheme: Scheme, target: Target, floats: Mapping[Node, str], ctx: Context
    ) -> Prepared:
        calibrator = self._calibrator()
        if calibrator == "output" and len(graph.graphs()) > 1:
            calibrator = "mse"
        calibration = Calibration(calibrator, self.percentile, self.samples)
        return prepare(graph, scheme, target, lambda node: self._kept_float(node) or floats.get(node), calibration, ctx)

    def _calibrator(self) -> str:
        return self.calibrator if self.calibrator != AUTO else _CALIBRATOR[self.effort]

    def _split(self, graph: Graph, share: float, scheme: Scheme, target: Target, ctx: Context) -> None:
        """Computes those channels more than once whose rounding harms most."""

        def quantized(one: Graph) -> Graph:
            pair, _ = self._attempt(one, scheme, target, ctx.derive(one))({})
            return pair.rounded_activations()

        ready = self._prepared(graph, scheme, target, {}, ctx)
        multiple = lcm(target.channel_multiple, scheme.channel_block)
        split_channels(graph, share, ready, quantized, multiple, ctx)

    def _mixed(self, graph: Graph, scheme: Scheme, target: Target, goal: Goal, ctx: Context) -> Mapping[Node, str]:
        """The nodes that stay float so that what is asked is met, and why."""
        recovered = None if self.effort == "fast" else self._attempt(graph, scheme, target, ctx, recovered=True)
        mixed = choose(graph, self._attempt(graph, scheme, target, ctx), recovered, goal, ctx)
        what = f"{len(mixed.floats)} of {len(graph.nodes)} operators stay float, {mixed.share:.1%} of the work"
        figures = {**mixed.reached.figures, "float_share": round(mixed.share, 4)}
        if mixed.reached.met:
            ctx.did("the network", f"{what}, for {goal.words}", **figures)
        else:
            ctx.missed("the network", f"{goal.words} is not met even so: {what}", **figures)
        return mixed.floats

    def _attempt(self, graph: Graph, scheme: Scheme, target: Target, ctx: Context, *, recovered: bool = False) -> Try:
        """Quantizes copies of ``graph``: weights rounded to the nearest integers, or chosen for what they compute."""

        def attempt(floats: Mapping[Node, str]) -> tuple[Pair, Sequence[Site]]:
            copy = graph.copy()
            twins = dict(zip(graph.nodes, copy.nodes, strict=True))
            inner = ctx.derive(copy)
            kept = {twins[node]: reason for node, reason in floats.items()}
            ready = self._prepared(copy, scheme, target, kept, inner)
            if recovered:
                ready.placement.sites = with_biases(copy, ready.placement.sites)
            pair = Pair(copy.copy(), copy)
            write(copy, ready, inner, scheme=scheme, per_channel=self.per_channel)
            if recovered:
                recover_accuracy(pair, inner, LIMIT[scheme.reduce_range], self.samples)
                bound_pairs(site for site in ready.placement.sites if scheme.adds_pairs(site.node.op))
            return pair, ready.placement.sites

        return attempt

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
            raise InputError(
                where, "the model is quantized already", "put 'dequantize' before it, or take 'quantize' out"
            )
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
