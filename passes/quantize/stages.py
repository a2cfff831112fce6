"""The stages of quantization, and which of them each effort runs.

A stage is a function of the :class:`Quantization` at hand, which it takes a step further: masks are bounded, channels
equalized or split; operators that stay float are chosen; ranges are calibrated and scales solved; Q and DQ written;
accuracy is recovered; what it cost is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

from edgec.ir.graph import Graph, Node
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme, Target
from edgec.passes.quantize.goals import Goal
from edgec.passes.quantize.mixed_precision import Try, choose
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.first_last_layers import ends_in_float
from edgec.passes.quantize.placement.placement import KeepFloat, Site
from edgec.passes.quantize.plan import Calibration, Prepared, prepare
from edgec.passes.quantize.prepare.channel_splitting import split_channels
from edgec.passes.quantize.prepare.equalization import equalize
from edgec.passes.quantize.prepare.masks import bound_masks
from edgec.passes.quantize.prepare.stream_noise import Rounding
from edgec.passes.quantize.quantized_weights import LIMIT
from edgec.passes.quantize.ranges.calibrators import counts
from edgec.passes.quantize.recover.recovery import recover_accuracy, with_biases
from edgec.passes.quantize.recover.weight_pairs import bound_pairs
from edgec.passes.quantize.report.effects import noise_shares
from edgec.passes.quantize.report.layer_errors import layer_errors
from edgec.passes.quantize.report.remarks import remark
from edgec.passes.quantize.writing import write


@dataclass(frozen=True)
class Settings:
    """The options of :class:`~edgec.passes.quantize.quantize.Quantize`, with what they leave open decided.

    Attributes:
        calibration: how ranges are chosen, and on how many samples.
        per_channel: whether weights have a scale for each output channel where the target takes that.
        equalize: whether channels are made about equally wide first.
        split: the part of the work that splitting channels may add.
        recover: whether weights and biases are chosen for what they compute.
        train: whether they are learnt behind that.
        automatic: whether the fewest layers stay float with which what is asked is met.
        budget: the SQNR asked for, in dB; ``None`` for what the recipe requires.
        keep_float: why an option keeps a node in float; ``None`` where none does.
        selective: whether only some nodes are wanted in integers.
        sensitivity: whether each layer's share of the noise is measured.
        compared: batches on which each layer's error is measured.
    """

    calibration: Calibration
    per_channel: bool
    equalize: bool
    split: float
    recover: bool
    train: bool
    automatic: bool
    budget: float | None
    keep_float: KeepFloat
    selective: bool
    sensitivity: bool
    compared: int


@dataclass
class Quantization:
    """A network on its way into integers.

    Attributes:
        graph: float at first; it is changed.
        settings: what was asked.
        scheme, target: what the device takes.
        ctx: of the pass.
        goal: what is to be met, where layers may stay float for it.
        floats: the operators that stay float, and why, besides those that options keep.
        prepared: where Q and DQ go, once that is known.
        pair: the float network beside the quantized one, once there are two.
        scales: by operator, how many scales its weights and its output have, once they are written.
    """

    graph: Graph
    settings: Settings
    scheme: Scheme
    target: Target
    ctx: Context
    goal: Goal | None = None
    floats: Mapping[Node, str] = field(default_factory=dict)
    prepared: Prepared | None = None
    pair: Pair | None = None
    scales: Mapping[Node, tuple[int, int]] | None = None

    @property
    def limit(self) -> int:
        """The largest integer of weights."""
        return LIMIT[self.scheme.reduce_range]

    def prepare(self, graph: Graph, floats: Mapping[Node, str], ctx: Context) -> Prepared:
        """Where Q and DQ go in ``graph``, and with which integers, if these operators of it stay float."""
        settings, calibration = self.settings, self.settings.calibration
        if calibration.calibrator == "output" and len(graph.graphs()) > 1:
            calibration = replace(calibration, calibrator="mse")
        keep = settings.keep_float
        return prepare(graph, self.scheme, self.target, lambda node: keep(node) or floats.get(node), calibration, ctx)

    def attempt(self, *, recovered: bool = False) -> Try:
        """Quantizes copies of the network: weights rounded to the nearest integers, or chosen for what they compute."""
        graph = self.graph

        def attempt(floats: Mapping[Node, str]) -> tuple[Pair, Sequence[Site]]:
            copy = graph.copy()
            twins = dict(zip(graph.nodes, copy.nodes, strict=True))
            inner = self.ctx.derive(copy)
            prepared = self.prepare(copy, {twins[node]: reason for node, reason in floats.items()}, inner)
            if recovered:
                prepared.placement.sites = with_biases(copy, prepared.placement.sites)
            pair = Pair(copy.copy(), copy)
            write(copy, prepared, inner, scheme=self.scheme, per_channel=self.settings.per_channel)
            if recovered:
                recover_accuracy(pair, inner, self.limit, self.settings.calibration.samples)
                self.bound_pairs(prepared)
            return pair, prepared.placement.sites

        return attempt

    def bound_pairs(self, prepared: Prepared) -> None:
        """Keeps pairs of products within what the device's kernels add without saturating."""
        bound_pairs(site for site in prepared.placement.sites if self.scheme.adds_pairs(site.node.op))


Stage = Callable[[Quantization], None]


def masks(run: Quantization) -> None:
    """Bounds masks, where sums are rounded that they would leave without steps for anything else."""
    if run.scheme.rounds == "all":
        calibration = run.settings.calibration
        bound_masks(run.graph, run.ctx, calibration.samples, histograms=counts(calibration.calibrator))


def equalization(run: Quantization) -> None:
    """Makes the channels of activations about equally wide, where that helps."""
    if not run.settings.equalize:
        return
    rounding = Rounding(run.scheme.symmetric, run.scheme.rounds == "inputs", run.settings.per_channel)
    # What equal channels cost the weights is partly made up for later: with time for it, what is left then decides.
    equalize(run.graph, rounding, run.attempt(recovered=run.settings.train), run.ctx)


def channel_splitting(run: Quantization) -> None:
    """Computes those channels more than once whose rounding harms most."""
    graph, share = run.graph, run.settings.split
    if len(graph.graphs()) > 1 and (share or run.settings.calibration.calibrator == "output"):
        run.ctx.missed("the network", "ranges are those of mse, and channels are computed once: it has control flow")
        return
    if not share:
        return

    def quantized(one: Graph) -> Graph:
        pair, _ = replace(run, graph=one, ctx=run.ctx.derive(one)).attempt()({})
        return pair.rounded_activations()

    multiple = lcm(run.target.channel_multiple, run.scheme.channel_block)
    split_channels(graph, share, run.prepare(graph, {}, run.ctx), quantized, multiple, run.ctx)


def float_operators(run: Quantization) -> None:
    """Chooses the operators that stay float: the fewest with which what is asked is met, or first and last ones."""
    if run.settings.automatic:
        run.goal = Goal(run.graph, run.ctx, run.settings.budget)
        run.floats = _mixed(run, run.goal)
    elif run.scheme.rounds == "inputs" and not run.settings.selective:
        pair, sites = run.attempt()({})
        run.floats = ends_in_float(run.graph, pair, sites, run.ctx)


def _mixed(run: Quantization, goal: Goal) -> Mapping[Node, str]:
    ctx, recovered = run.ctx, run.attempt(recovered=True) if run.settings.recover else None
    mixed = choose(run.graph, run.attempt(), recovered, goal, ctx)
    what = f"{len(mixed.floats)} of {len(run.graph.nodes)} operators stay float, {mixed.share:.1%} of the work"
    figures = {**mixed.reached.figures, "float_share": round(mixed.share, 4)}
    if mixed.reached.met:
        ctx.did("the network", f"{what}, for {goal.words}", **figures)
    else:
        ctx.missed("the network", f"{goal.words} is not met even so: {what}", **figures)
    return mixed.floats


def placement(run: Quantization) -> None:
    """Calibrates, and decides where Q and DQ go and with which scales."""
    ctx = run.ctx
    run.prepared = prepared = run.prepare(run.graph, run.floats, ctx)
    for node, reason in prepared.placement.left:
        ctx.missed(node, reason)
    if not prepared.placement.sites:
        ctx.missed("the network", f"has no operator that {run.target.title} runs on 8-bit integers")
        return
    for node, activation in prepared.broken:
        what = f"'{activation.tensor.name}' cannot have the scale of its output: it is requantized on the way in"
        ctx.missed(node, what)
    for node, activation in prepared.apart if "Concat" in run.scheme.tied else ():
        ctx.did(node, f"'{activation.tensor.name}' keeps its finer scale: it is requantized on the way in")


def qdq(run: Quantization) -> None:
    """Writes Q and DQ, and biases of zeros where accuracy will be recovered by biases."""
    prepared = _known(run)
    if run.settings.recover:
        prepared.placement.sites = with_biases(run.graph, prepared.placement.sites)
    run.pair = Pair(run.graph.copy(), run.graph)
    run.scales = write(run.graph, prepared, run.ctx, scheme=run.scheme, per_channel=run.settings.per_channel)


def recovery(run: Quantization) -> None:
    """Chooses weights and biases for what they compute, and learns them where that is asked."""
    prepared, goal = _known(run), run.goal
    assert run.pair is not None
    meets = None if goal is None else lambda one: goal.reached(one).met
    samples, train = run.settings.calibration.samples, run.settings.train
    recover_accuracy(run.pair, run.ctx, run.limit, samples, train=train, meets=meets)
    run.bound_pairs(prepared)


def report(run: Quantization) -> None:
    """Measures what rounding each layer costs, and remarks on it."""
    prepared = _known(run)
    assert run.pair is not None and run.scales is not None
    sites = prepared.placement.sites
    errors = layer_errors(run.pair, sites, run.ctx, run.settings.compared)
    shares = noise_shares(run.pair, sites, run.ctx) if run.settings.sensitivity else {}
    remark(sites, run.scheme, run.scales, errors, shares, run.ctx)


def _known(run: Quantization) -> Prepared:
    assert run.prepared is not None, "scales are known before Q and DQ are written"
    return run.prepared


#: By effort what is done, in order; what follows ``placement`` only where there is an operator to quantize.
EFFORTS: Mapping[str, Sequence[Stage]] = {
    "fast": (masks, channel_splitting, float_operators, placement, qdq, report),
    "balanced": (masks, equalization, channel_splitting, float_operators, placement, qdq, recovery, report),
    "max": (masks, equalization, channel_splitting, float_operators, placement, qdq, recovery, report),
}


def quantize(run: Quantization, effort: str) -> None:
    """Runs the stages of an effort."""
    for stage in EFFORTS[effort]:
        stage(run)
        if run.prepared is not None and not run.prepared.placement.sites:
            return
