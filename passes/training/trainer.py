"""The training loop: epochs, the best one kept, and what stops it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from edgec.ir.errors import UsageError
from edgec.ir.torch_module.module import TorchModule
from edgec.passes.training.checkpoints import Checkpoint
from edgec.passes.training.feeding import Batch, Entrance, Feeding
from edgec.passes.training.rates import STEPS, factor, found_rate, step_size
from edgec.passes.training_pass import TrainingPass

_MOMENTUM = 0.9
# Rounds of epochs between checkpoints are one; a state is small beside what an epoch costs.
Objective = Callable[[dict[str, torch.Tensor], Batch], torch.Tensor]


@dataclass
class History:
    """What happened.

    Attributes:
        losses: the mean loss of each epoch.
        monitored: by epoch, what chose the best one; the first is before training.
        best: which of ``monitored``.
        rate: the highest learning rate.
        stopped: why it ended early; empty where it did not.
    """

    losses: list[float] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)
    best: int = 0
    rate: float = 0.0
    stopped: str = ""


@dataclass
class Trainer:
    """A module with what it is trained for.

    Attributes:
        options: of the pass.
        module: what is trained.
        objective: of outputs and taps, and a batch.
        adapters: what is trained beside the module.
        taps: tensors inside that the objective wants.
        entrance: from the original's feeds to the module's.
        feeding: the samples.
        monitor: what an epoch is judged by, the lower the better; called in evaluation mode.
        device: where it runs.
        checkpoint: for a run that is killed.
        seed: of whatever is drawn.
        progress: told of (done, total, what).
    """

    options: TrainingPass
    module: TorchModule
    objective: Objective
    adapters: torch.nn.Module
    taps: list[str]
    entrance: Entrance
    feeding: Feeding
    monitor: Callable[[], float]
    device: torch.device
    checkpoint: Checkpoint
    seed: int
    progress: Callable[[int, int, str], None]

    def run(self) -> History:
        """Trains, and leaves the weights of the best epoch in the module.

        Raises:
            UsageError: a batch does not fit memory.
        """
        history = History()
        state = self.checkpoint.load()
        if state is None:
            self._fits()
            history.rate = self.options.rate or self._found_rate()
        else:
            history.rate = state["rate"]
        optimizer = self._optimizer(self.module, self.adapters)
        steps = math.ceil(self.feeding.trained_on / self.options.batch)
        if state is None:
            history.monitored.append(self._judged())
            best = copy.deepcopy(self.module.state_dict())
            first = 0
        else:
            best, first = self._resumed(state, optimizer, history)
        for epoch in range(first, self.options.epochs):
            if history.stopped:
                break
            mean = self._epoch(epoch, steps, optimizer, history)
            if history.stopped:
                break
            history.losses.append(mean)
            history.monitored.append(self._judged())
            if history.monitored[-1] < history.monitored[history.best]:
                history.best = len(history.monitored) - 1
                best = copy.deepcopy(self.module.state_dict())
            waited = len(history.monitored) - 1 - history.best
            if self.options.patience is not None and waited >= self.options.patience:
                history.stopped = f"no better epoch in {waited}"
            self.progress(epoch + 1, self.options.epochs, f"loss {mean:.4g}, epoch")
            self._saved(history, best, optimizer, epoch + 1)
        self.module.load_state_dict(best)
        return history

    def loss(self, batch: Batch, module: TorchModule | None = None) -> torch.Tensor:
        """The objective on a batch, as training computes it."""
        batch = batch.to(self.device)
        with self._autocast():
            outputs = (module or self.module)(self.entrance(batch.feeds), self.taps, self.options.segments)
        return self.objective(outputs, batch)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int, steps: int, optimizer: torch.optim.Optimizer, history: History) -> float:
        """One pass over the samples: the mean loss."""
        self.module.train()
        torch.manual_seed(self.seed + epoch)  # for what a loss of the user's draws
        total, seen = torch.zeros((), dtype=torch.float64), 0
        for step, batch in enumerate(self.feeding.epoch(epoch, self.options.batch)):
            part = factor(self.options.schedule, epoch * steps + step, self.options.epochs * steps)
            _set_rate(optimizer, history.rate * part)
            loss = self._step(batch, optimizer)
            value = float(loss)
            if not math.isfinite(value):
                what = "NaN" if math.isnan(value) else "infinite"
                history.stopped = (
                    f"the loss became {what} in step {step + 1} of epoch {epoch + 1}, at rate {history.rate * part:.3g}"
                )
                return math.nan
            total += value * len(batch)
            seen += len(batch)
        return float(total) / max(seen, 1)

    def _step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(_trained(self.module, self.adapters), self.options.clip, foreach=True)
        optimizer.step()
        return loss.detach()

    def _judged(self) -> float:
        self.module.eval()
        with torch.no_grad():
            value = self.monitor()
        return value if math.isfinite(value) else math.inf

    def _optimizer(self, module: torch.nn.Module, adapters: torch.nn.Module) -> torch.optim.Optimizer:
        """Kernels decay, biases and scales do not; each steps by what its size allows."""
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for parameter in _trained(module, adapters):
            groups.setdefault((step_size(parameter), parameter.ndim > 1), []).append(parameter)
        described = [
            {"params": held, "size": size, "weight_decay": self.options.weight_decay if decays else 0.0}
            for (size, decays), held in groups.items()
        ]
        if self.options.optimizer == "sgd":
            return torch.optim.SGD(described, lr=0.0, momentum=_MOMENTUM)
        return torch.optim.AdamW(described, lr=0.0)

    def _found_rate(self) -> float:
        """The rate by a trial on a copy of the module."""
        twin, adapters = copy.deepcopy(self.module).train(), copy.deepcopy(self.adapters)
        optimizer = self._optimizer(twin, adapters)
        batches = self._endless()

        def loss_at(rate: float) -> float:
            _set_rate(optimizer, rate)
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss(next(batches), twin)
            if torch.isfinite(loss):
                loss.backward()
                torch.nn.utils.clip_grad_norm_(_trained(twin, adapters), self.options.clip, foreach=True)
                optimizer.step()
            return float(loss.detach())

        self.progress(0, STEPS, "looking for a learning rate")
        return found_rate(loss_at)

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.feeding.epoch(epoch, self.options.batch)
            epoch += 1

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        low = self.options.precision == "bfloat16" or (
            self.options.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        with torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext():
            yield

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
                self.loss(batch[torch.arange(size)]).backward()
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
                self.module.zero_grad(set_to_none=True)
                self.adapters.zero_grad(set_to_none=True)
        if size < len(batch):
            where = f"{self.options.name}: batch"
            raise UsageError(
                where, f"memory does not suffice for {self.options.batch} samples", f"write {size}, or raise segments"
            )

    def _saved(self, history: History, best: dict[str, Any], optimizer: torch.optim.Optimizer, epochs: int) -> None:
        state = {
            "epochs": epochs, "rate": history.rate, "losses": history.losses, "monitored": history.monitored,
            "best_at": history.best, "stopped": history.stopped, "best": best, "module": self.module.state_dict(),
            "adapters": self.adapters.state_dict(), "optimizer": optimizer.state_dict(),
        }  # fmt: skip
        self.checkpoint.save(state)

    def _resumed(
        self, state: dict[str, Any], optimizer: torch.optim.Optimizer, history: History
    ) -> tuple[dict[str, Any], int]:
        """Takes a saved state up: the best weights, and how many epochs are done."""
        self.module.load_state_dict(state["module"])
        self.adapters.load_state_dict(state["adapters"])
        optimizer.load_state_dict(state["optimizer"])
        history.losses, history.monitored = state["losses"], state["monitored"]
        history.best, history.stopped = state["best_at"], state["stopped"]
        return state["best"], state["epochs"]


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["size"]


def _trained(*modules: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
