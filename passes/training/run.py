"""One training run of a pass: what is trained for what, on what, and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch

from edgec.ir.errors import UsageError
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.torch_module.layout import channels_last
from edgec.ir.torch_module.module import TorchModule
from edgec.passes import input_domain
from edgec.passes.protocol import Context, Outside
from edgec.passes.training.checkpoints import Checkpoint
from edgec.passes.training.feeding import Entrance, Feeding
from edgec.passes.training.learner import Learner, Objective
from edgec.passes.training.objective import Task, find_task
from edgec.passes.training.parallel import World, joined
from edgec.passes.training.teacher import Distance, Match, Teacher, find_matches
from edgec.passes.training.threads import torch_threads
from edgec.passes.training.trainer import History, Monitor, Trainer
from edgec.passes.training_pass import TRAIN, Teaching, TrainingPass

_JUDGED_AT_ONCE = 32


def train(options: TrainingPass, graph: Graph, ctx: Context) -> None:
    """Trains the weights of ``graph`` in place; see :meth:`TrainingPass.run`."""
    with torch_threads(ctx.threads), joined() as world:
        run = _Run(options, graph, ctx, world)
        history = run.trainer.run()
        network = run.learner.network.cpu()
        run.report(history, len(network.write_back()))


class _Run:
    """What one run is made of."""

    def __init__(self, options: TrainingPass, graph: Graph, ctx: Context, world: World) -> None:
        self.options, self.graph, self.ctx, self.device = options, graph, ctx, world.device
        torch.manual_seed(ctx.seed)
        data = ctx.data[TRAIN]
        network = TorchModule(graph, frozen=options.frozen(graph), scales=options.scales)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UsageError(options.name, "finds no weights to train", "freeze less, or leave the pass out")
        self.feeding = Feeding(data, ctx.seed, options.hold_out)
        where = f"{options.name}: loss"
        function = None
        if options.loss.startswith("python:"):
            function = _outside(ctx, where).function(options.loss.removeprefix("python:"), where)
        task = find_task(options.loss, graph, data.labels, data.source, function, where)
        self.teacher: Graph | None = None
        distance = self._distance(task, options.teaching) if options.teaching is not None else None
        if task is None and distance is None:
            mend = "add labels to data.train, name a loss, or write teacher: original"
            raise UsageError(where, "nothing says what the network should compute", mend)
        self.entrance = Entrance({tensor.name: input_domain.folded(graph, tensor.name) for tensor in graph.inputs})
        low = options.precision == "bfloat16" or (
            options.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        objective = Objective(task, distance, options.teaching.labels if options.teaching is not None else 0.0)
        learner = Learner(network, objective, self.entrance, segments=options.segments, low=low)
        channels_last(learner.network)
        self.learner = learner.to(self.device)
        self.trainer = Trainer(
            options, self.learner, self.feeding, self._monitor(), world, Checkpoint(ctx.checkpoints, self._key()),
            ctx.seed, ctx.progress,
        )  # fmt: skip

    # -- what is minimised ------------------------------------------------------------------------------------------

    def _distance(self, task: Task | None, teaching: Teaching) -> Distance:
        where, original = f"{self.options.name}: teacher", teaching.teacher == "original"
        graph = self.ctx.original if original else _outside(self.ctx, where).model(teaching.teacher, where)
        if graph is None:
            raise UsageError(where, "there is no original model here", "name a model's path")
        self.teacher = graph
        matches: list[Match] = []
        if teaching.inside:
            matches = find_matches(self.graph, graph, teaching.match, f"{self.options.name}: match")
        teacher = Teacher(graph, self.graph, matches, self.feeding.total, self.device, where)
        classes = (task is not None and task.classes) or (self.ctx.judge is not None and self.ctx.judge.name == "top1")
        held = self.feeding.held_out()
        typical = held[torch.arange(min(len(held), _JUDGED_AT_ONCE))].to(self.device)
        return Distance(
            teacher, self.graph, graph, classes=classes, temperature=teaching.temperature, inside=teaching.inside,
            typical=typical,
        )  # fmt: skip

    # -- what chooses the epoch -------------------------------------------------------------------------------------

    @property
    def monitored(self) -> str:
        """``metric`` or ``loss``."""
        if self.options.monitor == "auto":
            return "metric" if self.ctx.judge is not None else "loss"
        if self.options.monitor == "metric" and self.ctx.judge is None:
            raise UsageError(
                f"{self.options.name}: monitor", "there is no data.eval to judge by", "write loss, or add data.eval"
            )
        return self.options.monitor

    def _monitor(self) -> Monitor:
        judge = self.ctx.judge
        if self.monitored == "loss" or judge is None:
            return Monitor("held-out loss", self._held_out_loss)
        return Monitor(judge.name, lambda: judge.measure(self._evaluated), judge.higher_is_better)

    def _held_out_loss(self) -> float:
        held = self.feeding.held_out()
        total = 0.0
        for chosen in torch.arange(len(held)).split(_JUDGED_AT_ONCE):
            total += float(self.learner(held[chosen].to(self.device))) * len(chosen)
        return total / len(held)

    def _evaluated(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the network as it is on feeds of the original."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for name, x in feeds.items()}
        with torch.no_grad():
            outputs = self.learner.network(self.entrance(tensors))
        return {name: x.float().cpu().numpy() for name, x in outputs.items()}

    # -- what is said -----------------------------------------------------------------------------------------------

    def _key(self) -> str:
        """A hash of what the run depends on; of many samples, those that are held out stand for all."""
        digest = hashlib.sha256(to_bytes(self.graph))
        if self.teacher is not None:
            digest.update(to_bytes(self.teacher))
        for _, values in sorted(self.feeding.held_out().feeds.items()):
            digest.update(values.numpy().tobytes())
        described = {
            **asdict(self.options),
            "pass": self.options.name,
            "seed": self.ctx.seed,
            "torch": torch.__version__,
        }
        digest.update(json.dumps([described, self.ctx.data[TRAIN].source, self.feeding.total], sort_keys=True).encode())
        return digest.hexdigest()

    def report(self, history: History, changed: int) -> None:
        """Tells the context."""
        epochs = len(history.losses)
        by = "data.eval's metric" if self.monitored == "metric" else "the loss on held-out samples"
        samples = f"{epochs} epochs on {self.feeding.trained_on} samples for {self.learner.objective.words}"
        what = f"{samples}; {_kept(history)} by {by}"
        figures = {"rate": history.rate, "epochs": epochs, "best_epoch": history.best, "constants": changed}
        if history.losses:
            figures |= {"loss_first": history.losses[0], "loss_last": history.losses[-1]}
        self.ctx.did("the network", what, **figures)
        if history.stopped:
            self.ctx.missed("the network", f"stopped early: {history.stopped}")
        self.ctx.curves["loss"] = history.losses
        self.ctx.curves["monitored"] = [self.trainer.monitor.figure(cost) for cost in history.monitored]


def _outside(ctx: Context, where: str) -> Outside:
    if ctx.outside is None:
        raise UsageError(where, "names something outside the graph, and there is no recipe", "run it by a recipe")
    return ctx.outside


def _kept(history: History) -> str:
    if not history.best:
        return "none of them is better than the weights as they were, which are kept,"
    return f"epoch {history.best} is the best"
