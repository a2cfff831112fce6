"""Training never leaves a network worse by its outputs on held-out samples, whatever the network, seed and options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks.coupled import coupled
from training import Data, Metric

from edgec.backends.registry import target
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.train.distill import Distill
from edgec.passes.train.engine.feeding import Feeding
from edgec.passes.train.finetune import Finetune
from edgec.passes.train.training_pass import TrainingPass
from edgec.testing import Samples, did, networks, outputs

COMMON: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(1, 2),
    "batch": st.sampled_from([1, 4, 16]),
    "optimizer": st.sampled_from(["adamw", "sgd"]),
    "rate": st.sampled_from([None, None, 1e-5, 1e-3, 0.1, 10.0]),
    "schedule": st.sampled_from(["cosine", "linear", "constant"]),
    "weight_decay": st.sampled_from([0.0, 0.1]),
    "hold_out": st.sampled_from([0.1, 0.5]),
    "patience": st.sampled_from([None, 1]),
    "clip": st.sampled_from([0.5, 2.0, 100.0]),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "scales": st.booleans(),
    "segments": st.sampled_from([1, 2]),
    "monitor": st.sampled_from(["auto", "loss"]),
}


@dataclass
class Situation:
    """A network, what it came from, samples, and how it is trained."""

    original: Graph
    network: Graph
    data: Data
    seed: int
    step: TrainingPass
    context: dict[str, Any] = field(default_factory=dict)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    original = draw(networks(blocks=3, channels=4))
    network, random = original.copy(), np.random.default_rng(draw(st.integers(0, 99), label="noise"))
    damage = draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0]), label="damage")
    for constant in network.constants():
        if constant.dtype == np.float32 and constant.values.ndim > 1:
            noise = random.standard_normal(constant.shape).astype(np.float32)
            constant.values = constant.values + np.float32(damage * constant.values.std()) * noise
    shape = tuple(int(d) for d in list(original.inputs[0].shape or ())[1:])
    pictures = random.standard_normal((draw(st.sampled_from([1, 2, 5, 16]), label="samples"), *shape))
    data = Data({"x": pictures.astype(np.float32)})
    context: dict[str, Any] = {}
    if draw(st.booleans(), label="quantized"):
        calibration = Samples([{"x": x[None]} for x in data.feeds["x"]])
        context["target"] = target("cpu", "test")
        Quantize(effort="fast").run(network, Context(network, RunConfig(data={"calibration": calibration}, **context)))
        network.sort()
        network.remove_dead()
    vector = len(original.outputs[0].shape or ()) == 2
    options = {name: draw(values, label=name) for name, values in COMMON.items()}
    judged = draw(st.sampled_from(["", "top1", "custom"] if vector else ["", "custom"]), label="metric")
    if judged:
        chance = np.random.default_rng(1)  # a metric that says nothing of the outputs
        context["metric"] = Metric(lambda run: float(chance.integers(0, 3)), name=judged)
        options["monitor"] = draw(st.sampled_from(["auto", "loss", "metric"]), label="monitor")
    layers = [node.name for node in network.nodes if node.op in ("Conv", "ConvTranspose", "Gemm")]
    if len(layers) > 1 and draw(st.booleans(), label="freeze"):
        options["freeze"] = (draw(st.sampled_from(layers), label="frozen"),)
    if vector and draw(st.booleans(), label="labelled"):
        labels = np.concatenate([outputs(original, {"x": x[None]})["y"] for x in data.feeds["x"]]).argmax(1)
        data = Data(data.feeds, labels)
        options["loss"] = draw(st.sampled_from(["auto", "cross_entropy"]), label="loss")
        options["labels"] = draw(st.sampled_from([0.0, 0.5]), label="labels")
    options["temperature"] = draw(st.sampled_from([1.0, 4.0]), label="temperature")
    options["teacher"] = draw(st.sampled_from(["original", "teacher.onnx"]), label="teacher")
    context["resolver"] = Beside(original)
    if draw(st.booleans(), label="finetune"):
        return Situation(original, network, data, draw(st.integers(0, 3), label="seed"), Finetune(**options), context)
    options["inside"] = draw(st.sampled_from([0.0, 1.0, 10.0]), label="inside")
    inner = [node.outputs[0].name for node in original.nodes[:-1] if node.op == "Conv"]
    if inner and "target" not in context and draw(st.booleans(), label="match"):
        options["match"] = {inner[0]: inner[-1] if draw(st.booleans(), label="another") else inner[0]}
    return Situation(original, network, data, draw(st.integers(0, 3), label="seed"), Distill(**options), context)


class Beside:
    """A recipe beside which the teacher's file lies."""

    def __init__(self, teacher: Graph) -> None:
        self.teacher = teacher

    def model(self, path: str, where: str) -> Graph:
        return self.teacher.copy()

    def function(self, spec: str, where: str) -> Any:
        raise AssertionError("no function is named")


def trained(case: Situation) -> Context:
    ctx = Context(
        case.network,
        RunConfig(data={"train": case.data}, seed=case.seed, threads=1, original=case.original, **case.context),
    )
    case.step.run(case.network, ctx)
    case.network.sort()
    return ctx


def held_out_error(case: Situation) -> float:
    """The squared error of the outputs on held-out samples by the power of the original's, in onnxruntime."""
    held = Feeding(case.data, case.seed, case.step.hold_out).held_out().feeds["x"].numpy()
    wanted = np.concatenate([outputs(case.original, {"x": x[None]})["y"] for x in held]).astype(np.float64)
    made = np.concatenate([outputs(case.network, {"x": x[None]})["y"] for x in held])
    return float(np.square(made - wanted).sum() / max(np.square(wanted).sum(), 1e-30))


def judged_by_outputs(case: Situation) -> bool:
    """Whether it is the outputs themselves that must be met: labels say something else, and of another network's scores
    only the probabilities are to be met."""
    metric = case.context.get("metric")
    scores = case.data.labels is not None or (metric is not None and metric.name == "top1")
    return not (case.data.labels is not None and getattr(case.step, "labels", 0.0)) and not (
        scores and getattr(case.step, "teacher", "original") != "original"
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(situations())
def test_outputs_on_held_out_samples_are_no_worse(case: Situation) -> None:
    before, weights = held_out_error(case), to_bytes(case.network)
    ctx = trained(case)
    if ctx.done[0].figures["best_epoch"] == 0:
        assert to_bytes(case.network) == weights  # bit for bit
        assert ", which are kept," in did(ctx)[0][1] or "as they were are kept," in did(ctx)[0][1]
    elif judged_by_outputs(case):
        assert held_out_error(case) <= before * 1.001 + 1e-12
    elif "held_out_after" in ctx.done[0].figures:
        assert ctx.done[0].figures["held_out_after"] <= ctx.done[0].figures["held_out_before"]


@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("kind", [Finetune, Distill])
def test_defaults_do_no_harm_to_unseen_samples(kind: type[TrainingPass], count: int) -> None:
    """Networks that are almost right, and far from right, of few samples of noise: the rate is found."""

    random = np.random.default_rng(count)
    for damage in (1e-3, 0.1):
        original = coupled("residual")
        network = original.copy()
        for constant in network.constants():
            if constant.dtype == np.float32 and constant.values.ndim > 1:
                noise = random.standard_normal(constant.shape).astype(np.float32)
                constant.values = constant.values + np.float32(damage * constant.values.std()) * noise
        pictures, unseen = (random.standard_normal((n, 3, 8, 8)).astype(np.float32) for n in (count, 64))
        case = Situation(original, network, Data({"x": pictures}), 0, kind(teacher="original", epochs=3))  # type: ignore[call-arg]
        judged = Situation(original, network, Data({"x": unseen}), 0, kind(teacher="original", hold_out=0.99))  # type: ignore[call-arg]
        before = held_out_error(judged)
        trained(case)
        assert held_out_error(judged) <= before * 10**0.02
