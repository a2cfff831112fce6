"""The training loop: epochs, the best one kept, a rate that falls where it does harm, and what stops it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from edgec.ir.errors import UsageError
from edgec.passes.train.engine.checkpoints import Checkpoint
from edgec.passes.train.engine.feeding import Batch, Feeding
from edgec.passes.train.engine.learner import Learner, Loss
from edgec.passes.train.engine.parallel import World
from edgec.passes.train.engine.rates import DOWN, RATES, factor, find_rate, first_steps
from edgec.passes.train.engine.stepping import Stepping, step_sizes
from edgec.passes.train.engine.trials import Trials
from edgec.passes.train.engine.verdicts import Monitor, Verdict
from edgec.passes.train.training_pass import TrainingPass

# A rate that was found is lowered so often at most, behind an epoch whose held-out loss is, by more than chance, above
# that of the weights that came in, or so many times that of the best ones; the first steps of an optimizer say little.
_LOWERED, _LOST, _FIRST_STEPS = 3, 2.0, 16
# Batches for short runs take this much memory at most.
_MOST_BYTES = 1 << 28


@dataclass
class History:
    """What happened.

    Attributes:
        losses: the mean loss of each epoch.
        verdicts: before training and behind each epoch.
        best: the epoch whose weights are kept; 0 for those that came in.
        kept: its verdict.
        rate: the highest learning rate.
        lowered: the epochs behind which it was lowered, and to what.
        stopped: why it ended early; empty where it did not.
    """

    losses: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    best: int = 0
    kept: Verdict | None = None
    rate: float = 0.0
    lowered: list[tuple[int, float]] = field(default_factory=list)
    stopped: str = ""

    @property
    def start(self) -> Verdict:
        """The verdict on the weights that came in."""
        return self.verdicts[0]

    @property
    def present(self) -> float:
        """The rate as it is now, at its highest."""
        return self.lowered[-1][1] if self.lowered else self.rate


@dataclass
class Trainer:
    """A learner and how it is trained.

    Attributes:
        options: of the pass.
        learner: what is trained.
        feeding: the samples.
        monitor: what an epoch is judged by.
        world: the processes that train together.
        checkpoint: for a run that is killed.
        seed: of whatever is drawn.
        progress: told of (done, total, what).
    """

    options: TrainingPass
    learner: Learner
    feeding: Feeding
    monitor: Monitor
    world: World
    checkpoint: Checkpoint
    seed: int
    progress: Callable[[int, int, str], None]

    def __post_init__(self) -> None:
        self._sizes = step_sizes(self.learner)
        self._steps = math.ceil(self.feeding.trained_on / self.options.batch)

    def run(self) -> History:
        """Trains, and leaves the weights of the best epoch in the network.

        Raises:
            UsageError: a batch does not fit memory.
        """
        history = History()
        state = self.world.shared(self.checkpoint.load())
        if state is None:
            self._fits()
            history.verdicts.append(self._judged())
            history.kept = history.start
            history.rate = self.options.rate or self.world.shared(self._found_rate(history.start))
        loss = self.world.wrapped(self.learner)
        stepping = self._stepping(loss)
        if state is None:
            best, first = copy.deepcopy(self.learner.state_dict()), 0
        else:
            best, first = self._resumed(state, stepping, history)
        for epoch in range(first, self.options.epochs):
            if history.stopped:
                break
            mean, stopped = self._epoch(epoch, stepping, history.present)
            if stopped and self.options.rate is not None:
                history.stopped = stopped
                break
            worse = bool(stopped)
            if not stopped:
                history.losses.append(mean)
                verdict = self._judged()
                history.verdicts.append(verdict)
                if self._better(verdict, history):
                    history.best, history.kept = epoch + 1, verdict
                    best = copy.deepcopy(self.learner.state_dict())
                taken = (epoch + 1 - (history.lowered[-1][0] if history.lowered else 0)) * self._steps
                worse = self.options.rate is None and taken >= _FIRST_STEPS and self._harmed(verdict, history)
            if worse and (len(history.lowered) < _LOWERED or not history.best):
                self.learner.load_state_dict(best)
                stepping = self._stepping(loss)
                self._lower(epoch + 1, history, stopped)
            waited = epoch + 1 - history.best
            if self.options.patience is not None and waited >= self.options.patience:
                history.stopped = f"no better epoch in {waited}"
            figure = self.monitor.figure(history.verdicts[-1])
            self.progress(epoch + 1, self.options.epochs, f"loss {mean:.4g}, {self.monitor.name} {figure:.4g}, epoch")
            if self.world.rank == 0:
                self._saved(history, best, stepping, epoch + 1)
        self.learner.load_state_dict(best)
        return history

    # -- what is better ---------------------------------------------------------------------------------------------

    def _judged(self) -> Verdict:
        verdict: Verdict = self.world.shared(self.monitor.judge(self.learner))
        return verdict

    def _better(self, verdict: Verdict, history: History) -> bool:
        """Whether weights are to be kept in place of the best ones until now."""
        assert history.kept is not None
        return self.monitor.accepts(verdict, history.start) and (not history.best or verdict.betters(history.kept))

    def _harmed(self, verdict: Verdict, history: History) -> bool:
        """Whether an epoch has lost what was there, or what had been reached."""
        assert history.kept is not None
        return verdict.harmed(history.start) or verdict.harmed(history.kept, _LOST)

    def _lower(self, epoch: int, history: History, stopped: str) -> None:
        """Makes the rate lower, or ends a run that no rate makes better."""
        if len(history.lowered) < _LOWERED:
            history.lowered.append((epoch, float(f"{history.present * DOWN:.2g}")))
        else:
            history.stopped = stopped or f"no rate down to {history.present:.2g} lowers the held-out loss"

    # -- steps ------------------------------------------------------------------------------------------------------

    def _stepping(self, loss: Loss) -> Stepping:
        return Stepping(self.options, self.learner, loss, self.world, self._sizes)

    def _epoch(self, epoch: int, stepping: Stepping, rate: float) -> tuple[float, str]:
        """One pass over the samples: the mean loss, and why it stopped where it did."""
        self.learner.train()
        torch.manual_seed(self.seed + epoch)  # for what a loss of the user's draws
        whole, total, seen = self.options.epochs * self._steps, 0.0, 0
        for step, batch in enumerate(self.feeding.epoch(epoch, self.options.batch)):
            over = epoch * self._steps + step
            self.learner.objective.progress = over / whole
            present = rate * factor(self.options.schedule, over, whole)
            value = stepping.take(batch, present)
            if not math.isfinite(value):
                kind = "NaN" if math.isnan(value) else "infinite"
                return (
                    math.nan,
                    f"the loss became {kind} in step {step + 1} of epoch {epoch + 1}, at rate {present:.3g}",
                )
            total += value * len(batch)
            seen += len(batch)
        return total / max(seen, 1), ""

    def _found_rate(self, start: Verdict) -> float:
        """The rate by short runs of copies; every process makes the same ones."""
        rates, steps = RATES[self.options.optimizer], first_steps(self.options.epochs * self._steps)
        longest = steps * 2 ** (len(rates).bit_length() - 2)
        trials = Trials(self.options, self.learner, self._some(longest), self._sizes, self.world, self.monitor.parts)
        made = 0

        def trial(rate: float, count: int) -> np.ndarray:
            nonlocal made
            made += 1
            self.progress(made, 2 * len(rates) - 2, "looking for a learning rate")
            return trials(rate, count)

        return find_rate(trial, rates, steps, start.parts)

    def _some(self, count: int) -> list[Batch]:
        """So many batches of training, or as many of them as fit memory."""
        most = next(self.feeding.epoch(0, self.options.batch))
        each = sum(x.nbytes for x in most.feeds.values())
        count = min(count, max(_MOST_BYTES // max(each, 1), 1))
        batches: list[Batch] = []
        epoch = 0
        while len(batches) < count:
            batches += islice(self.feeding.epoch(epoch, self.options.batch), count - len(batches))
            epoch += 1
        return batches

    # -- memory and kills -------------------------------------------------------------------------------------------

    def _fits(self) -> None:
        """Tries one step without taking it.

        Raises:
            UsageError: memory does not suffice; the line names the batch that would fit.
        """
        batch = next(self.feeding.epoch(0, self.options.batch))
        size = len(batch)
        while True:
            try:
                self.learner(batch[torch.arange(size)].to(self.world.device)).backward()
                break
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _is_memory(error):
                    raise
                if size == 1:
                    raise UsageError(
                        self.options.name, "memory does not suffice for one sample", "raise segments"
                    ) from None
                size //= 2
            finally:
                self.learner.zero_grad(set_to_none=True)
        if size < len(batch):
            where = f"{self.options.name}: batch"
            raise UsageError(
                where, f"memory does not suffice for {self.options.batch} samples", f"write {size}, or raise segments"
            )

    def _saved(self, history: History, best: dict[str, Any], stepping: Stepping, epochs: int) -> None:
        assert history.kept is not None
        state = {
            "epochs": epochs, "rate": history.rate, "losses": history.losses, "lowered": history.lowered,
            "verdicts": [_packed(verdict) for verdict in history.verdicts], "kept": _packed(history.kept),
            "best_at": history.best, "stopped": history.stopped, "best": best, "learner": self.learner.state_dict(),
            "stepping": stepping.state(),
        }  # fmt: skip
        self.checkpoint.save(state)

    def _resumed(self, state: dict[str, Any], stepping: Stepping, history: History) -> tuple[dict[str, Any], int]:
        """Takes a saved state up: the best weights, and how many epochs are done."""
        self.learner.load_state_dict(state["learner"])
        stepping.restore(state["stepping"])
        sizes = self.monitor.sizes
        history.rate, history.losses = state["rate"], state["losses"]
        history.lowered = [(epoch, rate) for epoch, rate in state["lowered"]]
        history.verdicts = [Verdict(cost, losses.numpy(), sizes) for cost, losses in state["verdicts"]]
        history.kept = Verdict(state["kept"][0], state["kept"][1].numpy(), sizes)
        history.best, history.stopped = state["best_at"], state["stopped"]
        return state["best"], state["epochs"]


def _packed(verdict: Verdict) -> tuple[float, torch.Tensor]:
    """As a checkpoint keeps it."""
    return verdict.cost, torch.from_numpy(np.array(verdict.losses))


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
