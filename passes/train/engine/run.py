"""One training run of a pass: what is trained for what, on what, and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import torch

from edgec.ir.errors import UsageError
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.torch_module.layout import channels_last
from edgec.ir.torch_module.module import TorchModule
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context, RecipeResolver
from edgec.passes.framework.transaction import Transaction
from edgec.passes.train.engine.checkpoints import Checkpoint
from edgec.passes.train.engine.distance import Distance
from edgec.passes.train.engine.feeding import Batch, Entrance, Feeding
from edgec.passes.train.engine.learner import Learner, Objective
from edgec.passes.train.engine.objective import Task, find_task
from edgec.passes.train.engine.parallel import World, joined
from edgec.passes.train.engine.teacher import Match, Teacher, find_matches
from edgec.passes.train.engine.threads import torch_threads
from edgec.passes.train.engine.trainable_part import TrainablePart, Unlabelled
from edgec.passes.train.engine.trainer import History, Trainer
from edgec.passes.train.engine.verdicts import Monitor, Verdict
from edgec.passes.train.training_pass import TRAIN, Teaching, TrainingPass

_JUDGED_AT_ONCE = 32
# Of checkpoints; another number for another way of training.
_FORM = 2
# Parts of the held-out samples, at least where there are so many: gains differ between them by chance.
_PARTS = 8
# Samples that adapters are solved on.
_SOLVED_ON = 256
# The data role of samples that nothing is fitted to.
VALIDATION = "validation"


def train(options: TrainingPass, graph: Graph, ctx: Context) -> None:
    """Trains the weights of ``graph`` in place; see :meth:`TrainingPass.run`."""
    part = TrainablePart.of(graph, options.name)
    inner = _of_part(options, part, ctx) if part.ends else ctx
    with torch_threads(ctx.threads), joined() as world:
        run = _Run(options, part, inner, world)
        history = run.trainer.run()
        run.report(history, run.write(history))
    part.write_back()


def _of_part(options: TrainingPass, part: TrainablePart, ctx: Context) -> Context:
    """What the training of a network's part sees: it learns from a teacher's part, and is judged by its loss."""
    ends = f"the network goes on with {' and '.join(part.ends)}, through which nothing is trained"
    if options.monitor == "metric":
        raise UsageError(f"{options.name}: monitor", f"{ends}: there is no metric", "write loss")
    if options.teaching is None:
        raise UsageError(f"{options.name}: teacher", f"{ends}: labels say nothing of it", "write teacher: original")
    ctx.did("the network", f"is trained up to {', '.join(tensor.name for tensor in part.graph.outputs)}: {ends}")
    return ctx.having(data={role: Unlabelled(given) for role, given in ctx.data.items()}, metric=None)


class _Run:
    """What one run is made of."""

    def __init__(self, options: TrainingPass, part: TrainablePart, ctx: Context, world: World) -> None:
        graph = part.graph
        self.options, self.graph, self.ctx, self.device = options, graph, ctx, world.device
        self.partial = bool(part.ends)
        torch.manual_seed(ctx.seed)
        data = ctx.data[TRAIN]
        network = TorchModule(graph, frozen=options.frozen(graph), scales=options.scales)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UsageError(options.name, "finds no weights to train", "freeze less, or leave the pass out")
        self.feeding = Feeding(data, ctx.seed, options.hold_out, ctx.data.get(VALIDATION))
        where = f"{options.name}: loss"
        function = None
        if options.loss.startswith("python:"):
            function = _outside(ctx, where).function(options.loss.removeprefix("python:"), where)
        task = find_task(options.loss, graph, data.labels, data.source, function, where)
        self.teacher: Graph | None = None
        distance = self._distance(task, options.teaching) if options.teaching is not None else None
        if task is None and distance is None:
            fix = "add labels to data.train, name a loss, or write teacher: original"
            raise UsageError(where, "nothing says what the network should compute", fix)
        self.entrance = Entrance({tensor.name: input_domain.folded(graph, tensor.name) for tensor in graph.inputs})
        low = options.precision == "bfloat16" or (
            options.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        teaching = options.teaching
        objective = Objective(task, distance, *((teaching.labels, teaching.inside) if teaching is not None else (0.0,)))
        learner = Learner(network, objective, self.entrance, segments=options.segments, low=low)
        channels_last(learner.network)
        self.learner = learner.to(self.device)
        if distance is not None and objective.taps:
            self._solve(distance)
        self.monitor = self._monitor()
        self.trainer = Trainer(
            options, self.learner, self.feeding, self.monitor, world, Checkpoint(ctx.config.checkpoints, self._key()),
            ctx.seed, ctx.progress,
        )  # fmt: skip

    # -- what is minimized ------------------------------------------------------------------------------------------

    def _distance(self, task: Task | None, teaching: Teaching) -> Distance:
        where, original = f"{self.options.name}: teacher", teaching.teacher == "original"
        graph = self.ctx.config.original if original else _outside(self.ctx, where).model(teaching.teacher, where)
        if graph is None:
            raise UsageError(where, "there is no original model here", "name a model's path")
        if self.partial:
            graph = TrainablePart.at(graph, [tensor.name for tensor in self.graph.outputs], where).graph
        self.teacher = graph
        matches: list[Match] = []
        if teaching.inside:
            matches = find_matches(self.graph, graph, teaching.match, f"{self.options.name}: match")
        teacher = Teacher(graph, self.graph, matches, self.feeding.total, self.device, where)
        metric = self.ctx.config.metric
        classes = (task is not None and task.classes) or (metric is not None and metric.name == "top1")
        held = self.feeding.held_out()
        typical = held[torch.arange(min(len(held), _JUDGED_AT_ONCE))].to(self.device)
        return Distance(
            teacher, self.graph, graph, classes=classes, temperature=teaching.temperature, own=original, typical=typical
        )

    def _solve(self, distance: Distance) -> None:
        """Solves the adapters on some training samples, before anything is judged or searched by them."""

        def batches() -> Iterator[tuple[dict[str, torch.Tensor], Batch]]:
            left = _SOLVED_ON
            for batch in self.feeding.epoch(0, min(self.options.batch, _JUDGED_AT_ONCE)):
                if left <= 0:
                    return
                left -= len(batch)
                held = batch.to(self.device)
                yield self.learner.tensors_inside(held), held

        self.learner.eval()
        with torch.no_grad():
            distance.solve_adapters(batches())

    # -- what chooses the epoch -------------------------------------------------------------------------------------

    @property
    def monitored(self) -> str:
        """``metric`` or ``loss``."""
        if self.options.monitor == "auto":
            return "metric" if self.ctx.config.metric is not None else "loss"
        if self.options.monitor == "metric" and self.ctx.config.metric is None:
            raise UsageError(
                f"{self.options.name}: monitor", "there is no data.eval to judge by", "write loss, or add data.eval"
            )
        return self.options.monitor

    def _monitor(self) -> Monitor:
        judge = self.ctx.config.metric
        held = self.feeding.held_out()
        parts = torch.arange(len(held)).split(min(-(-len(held) // _PARTS), _JUDGED_AT_ONCE))

        def losses(learner: Learner) -> np.ndarray:
            learner.eval()
            with torch.no_grad():
                figures = [torch.stack(learner.judged(held[chosen].to(self.device))) for chosen in parts]
            return torch.stack(figures).double().cpu().numpy()

        sizes = np.array([len(chosen) for chosen in parts], np.float64)
        if self.monitored == "loss" or judge is None:
            return Monitor("held-out loss", losses, sizes)
        by_teacher = self.learner.objective.by_teacher
        return Monitor(
            judge.name, losses, sizes, lambda: judge.measure(self._evaluated), judge.higher_is_better, by_teacher
        )

    def _evaluated(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the network as it is on feeds of the original."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for name, x in feeds.items()}
        with torch.no_grad():
            outputs = self.learner.network(self.entrance(tensors))
        return {name: x.float().cpu().numpy() for name, x in outputs.items()}

    # -- what is left -----------------------------------------------------------------------------------------------

    def write(self, history: History) -> int:
        """Writes the best weights into the graph and says how many constants have changed.

        What was judged is what torch computes with weights in float. Where the graph holds another type, or integers,
        it is judged once more as it was written, and undone where that is not better than what came in.
        """
        if not history.best:
            return 0
        transaction = Transaction(self.graph, self.graph.constants())
        changed = self.learner.network.cpu().write_back()
        if any(constant.dtype != np.float32 for constant in changed) and not self._holds(history):
            transaction.undo()
            history.best, history.kept = 0, history.start
            return 0
        return len(changed)

    def _holds(self, history: History) -> bool:
        """Whether the graph as it is does better than the weights that came in."""
        network = channels_last(TorchModule(self.graph))
        written = Learner(network, self.learner.objective, self.entrance, segments=1, low=False).to(self.device)
        found = Verdict(history.start.cost, self.monitor.losses(written), self.monitor.sizes)
        return found.gained(history.start) if self.monitor.metric is None else found.harmless(history.start)

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
            "form": _FORM,
            "seed": self.ctx.seed,
            "torch": torch.__version__,
        }
        digest.update(json.dumps([described, self.ctx.data[TRAIN].source, self.feeding.total], sort_keys=True).encode())
        return digest.hexdigest()

    def report(self, history: History, changed: int) -> None:
        """Tells the context."""
        epochs = len(history.losses)
        samples = f"{epochs} epochs on {self.feeding.trained_on} samples for {self.learner.objective.words}"
        what = f"{samples}; {self._kept(history)}"
        if history.lowered:
            what += "; the rate was lowered " + ", ".join(
                f"to {rate:.2g} behind epoch {epoch}" for epoch, rate in history.lowered
            )
        figures = {"rate": history.rate, "epochs": epochs, "best_epoch": history.best, "constants": changed}
        if self.monitor.metric is None and history.kept is not None:
            figures |= {"held_out_before": history.start.loss, "held_out_after": history.kept.loss}
        if history.losses:
            figures |= {"loss_first": history.losses[0], "loss_last": history.losses[-1]}
        self.ctx.did("the network", what, **figures)
        if history.stopped:
            self.ctx.missed("the network", f"stopped early: {history.stopped}")
        self.ctx.curves["loss"] = history.losses
        self.ctx.curves["monitored"] = [self.monitor.figure(verdict) for verdict in history.verdicts]

    def _kept(self, history: History) -> str:
        """Which weights are kept, and by what figures."""
        held = len(self.feeding.held_out())
        by = (
            f"the loss on {held} held-out samples"
            if self.feeding.unseen
            else "the loss on the one sample that there is"
        )
        by = by if self.monitor.metric is None else "data.eval's metric"
        before = f"{self.monitor.figure(history.start):.4g}"
        if history.best and history.kept is not None:
            now = f"{self.monitor.figure(history.kept):.4g}"
            return f"epoch {history.best} is the best by {by}, {before} before and {now} now"
        others = history.verdicts[1:]
        if not others:
            return f"the weights as they were are kept, {by} being {before}"
        best = min(others, key=lambda verdict: (verdict.cost, verdict.loss))
        surely = "surely " if best.cost < history.start.cost else ""
        return (
            f"none of them is {surely}better than the weights as they were, which are kept, by {by}, "
            f"{before} before and {self.monitor.figure(best):.4g} at best"
        )


def _outside(ctx: Context, where: str) -> RecipeResolver:
    if ctx.config.resolver is None:
        raise UsageError(where, "names something outside the graph, and there is no recipe", "run it by a recipe")
    return ctx.config.resolver
