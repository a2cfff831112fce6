"""The training loop: epochs, the best one kept, and what stops it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from edgec.ir.errors import UsageError
from edgec.passes.training.checkpoints import Checkpoint
from edgec.passes.training.feeding import Batch, Feeding
from edgec.passes.training.gradients import Gradients
from edgec.passes.training.learner import Learner, Loss
from edgec.passes.training.parallel import World
from edgec.passes.training.rates import STEPS, factor, found_rate, step_size
from edgec.passes.training_pass import TrainingPass

_MOMENTUM = 0.9
# Runs are short: what is usual of a gradient has to be known after a hundred steps, not after a thousand.
_BETAS = (0.9, 0.99)
# By what the rate of the least loss of a trial is divided: plain steps diverge where AdamW's only grow noisy.
_BACK = {"adamw": 1.0, "sgd": 3.0}


@dataclass
class History:
    """What happened.

    Attributes:
        losses: the mean loss of each epoch.
        monitored: by epoch, the cost that chose the best one; the first is before training.
        best: which of ``monitored``.
        rate: the highest learning rate.
        stopped: why it ended early; empty where it did not.
    """

    losses: list[float] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)
    best: int = 0
    rate: float = 0.0
    stopped: str = ""


@dataclass(frozen=True)
class Monitor:
    """What an epoch is judged by.

    Attributes:
        name: of the figure, as a progress line shows it.
        measure: the figure; called in evaluation mode.
        higher_is_better: which way is better.
    """

    name: str
    measure: Callable[[], float]
    higher_is_better: bool = False

    def cost(self) -> float:
        """The figure now, turned so that less is better; infinite where it is no number."""
        value = -self.measure() if self.higher_is_better else self.measure()
        return value if math.isfinite(value) else math.inf

    def figure(self, cost: float) -> float:
        """What :meth:`cost` made that of."""
        return -cost if self.higher_is_better else cost


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
        self.gradients = Gradients(self.options.clip)

    def run(self) -> History:
        """Trains, and leaves the weights of the best epoch in the network.

        Raises:
            UsageError: a batch does not fit memory.
        """
        history = History()
        state = self.world.shared(self.checkpoint.load())
        if state is None:
            self._fits()
            history.rate = self.options.rate or self._found_rate()
        else:
            history.rate = state["rate"]
        loss, optimizer = self.world.wrapped(self.learner), self._optimizer(self.learner)
        steps = math.ceil(self.feeding.trained_on / self.options.batch)
        if state is None:
            history.monitored.append(self._judged())
            best = copy.deepcopy(self.learner.network.state_dict())
            first = 0
        else:
            best, first = self._resumed(state, optimizer, history)
        for epoch in range(first, self.options.epochs):
            if history.stopped:
                break
            mean = self._epoch(epoch, steps, loss, optimizer, history)
            if history.stopped:
                break
            history.losses.append(mean)
            history.monitored.append(self._judged())
            if history.monitored[-1] < history.monitored[history.best]:
                history.best = len(history.monitored) - 1
                best = copy.deepcopy(self.learner.network.state_dict())
            waited = len(history.monitored) - 1 - history.best
            if self.options.patience is not None and waited >= self.options.patience:
                history.stopped = f"no better epoch in {waited}"
            figure = self.monitor.figure(history.monitored[-1])
            self.progress(epoch + 1, self.options.epochs, f"loss {mean:.4g}, {self.monitor.name} {figure:.4g}, epoch")
            if self.world.rank == 0:
                self._saved(history, best, optimizer, epoch + 1)
        self.learner.network.load_state_dict(best)
        return history

    # -- steps ------------------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int, steps: int, loss: Loss, optimizer: torch.optim.Optimizer, history: History) -> float:
        """One pass over the samples: the mean loss."""
        self.learner.train()
        torch.manual_seed(self.seed + epoch)  # for what a loss of the user's draws
        total, seen = torch.zeros((), dtype=torch.float64), 0
        for step, batch in enumerate(self.feeding.epoch(epoch, self.options.batch)):
            part = factor(self.options.schedule, epoch * steps + step, self.options.epochs * steps)
            _set_rate(optimizer, history.rate * part)
            value = self._step(batch, loss, optimizer)
            if not math.isfinite(value):
                what = "NaN" if math.isnan(value) else "infinite"
                history.stopped = (
                    f"the loss became {what} in step {step + 1} of epoch {epoch + 1}, at rate {history.rate * part:.3g}"
                )
                return math.nan
            total += value * len(batch)
            seen += len(batch)
        return float(total) / max(seen, 1)

    def _step(self, batch: Batch, loss: Loss, optimizer: torch.optim.Optimizer) -> float:
        own, weight = self.world.part(batch)
        optimizer.zero_grad(set_to_none=True)
        value = weight * loss(own.to(self.world.device))
        value.backward()
        self.gradients.shorten(self.learner.trained())
        optimizer.step()
        return self.world.mean(value.detach())

    def _judged(self) -> float:
        self.learner.eval()
        with torch.no_grad():
            return self.monitor.cost()

    def _optimizer(self, learner: Learner) -> torch.optim.Optimizer:
        """Kernels decay, biases and scales do not; each steps by what its size allows."""
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for parameter in learner.trained():
            groups.setdefault((step_size(parameter), parameter.ndim > 1), []).append(parameter)
        described = [
            {"params": held, "size": size, "weight_decay": self.options.weight_decay if decays else 0.0}
            for (size, decays), held in groups.items()
        ]
        if self.options.optimizer == "sgd":
            return torch.optim.SGD(described, lr=0.0, momentum=_MOMENTUM)
        return torch.optim.AdamW(described, lr=0.0, betas=_BETAS)

    def _found_rate(self) -> float:
        """The rate by a trial on a copy; every process makes the same one."""
        twin = copy.deepcopy(self.learner).train()
        optimizer, gradients = self._optimizer(twin), Gradients(self.options.clip)
        batches = self._endless()

        def loss_at(rate: float) -> float:
            _set_rate(optimizer, rate)
            optimizer.zero_grad(set_to_none=True)
            loss = twin(next(batches).to(self.world.device))
            if torch.isfinite(loss):
                loss.backward()
                gradients.shorten(twin.trained())
                optimizer.step()
            return float(loss.detach())

        self.progress(0, STEPS, "looking for a learning rate")
        return found_rate(loss_at, _BACK[self.options.optimizer])

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.feeding.epoch(epoch, self.options.batch)
            epoch += 1

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

    def _saved(self, history: History, best: dict[str, Any], optimizer: torch.optim.Optimizer, epochs: int) -> None:
        state = {
            "epochs": epochs, "rate": history.rate, "losses": history.losses, "monitored": history.monitored,
            "best_at": history.best, "stopped": history.stopped, "best": best,
            "learner": self.learner.state_dict(), "optimizer": optimizer.state_dict(), "usual": self.gradients.usual,
        }  # fmt: skip
        self.checkpoint.save(state)

    def _resumed(
        self, state: dict[str, Any], optimizer: torch.optim.Optimizer, history: History
    ) -> tuple[dict[str, Any], int]:
        """Takes a saved state up: the best weights, and how many epochs are done."""
        self.learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        self.gradients.usual = state["usual"]
        history.losses, history.monitored = state["losses"], state["monitored"]
        history.best, history.stopped = state["best_at"], state["stopped"]
        return state["best"], state["epochs"]


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["size"]


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
