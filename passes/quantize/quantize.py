"""Static 8-bit quantization: ranges from calibration data, QuantizeLinear and DequantizeLinear pairs in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgec.ir.errors import InputError, UsageError
from edgec.ir.graph import Graph, Node
from edgec.passes.calibration.dataset import ROLE, noise
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.quantize.plan import Calibration
from edgec.passes.quantize.prepare.half_precision import widen_halves
from edgec.passes.quantize.ranges.calibrator_option import AUTO, CalibratorName
from edgec.passes.quantize.stages import Quantization, Settings, quantize
from edgec.passes.quantize.weights_only import Stored, store_weights

_LEAST_OPSET = 13
_CALIBRATOR = {"fast": "minmax", "balanced": "mse", "max": "output"}
_SPLIT = {"fast": 0.0, "balanced": 0.0, "max": 0.05}
# Batches on which the error of each layer is measured.
_COMPARED = {"fast": 4, "balanced": 8, "max": 16}


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
        """Places Q and DQ, by the stages of its effort (:data:`~edgec.passes.quantize.stages.EFFORTS`).

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
            widen_halves(graph, ctx)
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
        quantize(Quantization(graph, self._settings(), scheme, target, ctx), self.effort)

    def _settings(self) -> Settings:
        calibrator = self.calibrator if self.calibrator != AUTO else _CALIBRATOR[self.effort]
        return Settings(
            calibration=Calibration(calibrator, self.percentile, self.samples),
            per_channel=self.per_channel,
            equalize=self.effort == "max" or not self.per_channel,
            split=self.split_channels if self.split_channels is not None else _SPLIT[self.effort],
            recover=self.effort != "fast",
            train=self.effort == "max",
            automatic=self.precision == "auto",
            budget=self.budget,
            keep_float=self._kept_float,
            selective=self.only is not None,
            sensitivity=self.sensitivity,
            compared=_COMPARED[self.effort],
        )

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
