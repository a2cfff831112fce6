"""Training samples: held in memory where they fit, read in windows where not; shuffled by the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from edgec.ir.errors import InputError
from edgec.passes.calibration.dataset import DataSet

# Bytes of samples that are held at once, and samples that are read at once.
_MOST_BYTES, _READ = 1 << 30, 64
# Held-out samples are at most so many: they are run after each epoch. Of few samples so many are held out, or one in so
# many: by one or two alone nothing can be judged.
_MOST_HELD_OUT = 512
_FEW_HELD_OUT, _ONE_IN = 4, 3


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        feeds: as the original model takes them, by input name.
        labels: on the first axis; ``None`` where there are none.
        numbers: which samples of the data set they are.
    """

    feeds: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen: torch.Tensor) -> Batch:
        labels = None if self.labels is None else self.labels[chosen]
        return Batch({name: x[chosen] for name, x in self.feeds.items()}, labels, self.numbers[chosen])

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return Batch({name: x.to(device) for name, x in self.feeds.items()}, labels, self.numbers.to(device))


class Feeding:
    """Samples of a data set for epoch after epoch, and those that weights are judged by.

    Args:
        data: the samples; they come in the same order each time.
        seed: of the order in which they are seen.
        hold_out: the part that is not trained on where there is no ``validation``.
        validation: samples that nothing is fitted to, by which weights are judged; all of ``data`` is trained on then.
            Where ``data`` has labels and these have none, they are of no use.

    Raises:
        InputError: there are none.
    """

    def __init__(self, data: DataSet, seed: int, hold_out: float, validation: DataSet | None = None) -> None:
        self._data, self._seed, self._count = data, seed, len(data)
        if not self._count:
            raise InputError(data.source, "has no samples to train on", "name a data set that has some")
        able = validation is not None and len(validation) and (data.labels is None or validation.labels is not None)
        self._validation = validation if able else None
        held = 0 if self._validation is not None else _held_out(self._count, hold_out)
        order = np.random.Generator(np.random.PCG64([seed, 0x0E0])).permutation(self._count)
        self._held = np.zeros(self._count, bool)
        self._held[order[:held]] = True
        self._window: int | None = None
        self._whole: Batch | None = None
        self._held_out: Batch | None = None

    @property
    def trained_on(self) -> int:
        """How many samples an epoch sees."""
        return self._count - int(self._held.sum())

    @property
    def total(self) -> int:
        """How many samples there are, those to judge by among them: their numbers are below that."""
        return self._count + (0 if self._validation is None else len(self._validation))

    @property
    def unseen(self) -> bool:
        """Whether what is judged by is not trained on; one sample alone is both."""
        return self._validation is not None or bool(self._held.any())

    def held_out(self) -> Batch:
        """The samples to judge by, that are not trained on; the only one where there is but one."""
        if self._held_out is None:
            if self._validation is not None:
                self._held_out = self._validated(self._validation)
            elif (whole := self._all()) is not None:
                kept = self._held if self._held.any() else ~self._held
                self._held_out = whole[torch.from_numpy(np.flatnonzero(kept))]
            else:
                self._held_out = _joined(
                    [part[torch.from_numpy(self._held[part.numbers.numpy()])] for part in _read(self._data)]
                )
        return self._held_out

    def _validated(self, validation: DataSet) -> Batch:
        """Samples of the validation data, evenly chosen of many; their numbers are behind those of the data."""
        count = len(validation)
        kept = np.zeros(count, bool)
        kept[np.linspace(0, count - 1, min(count, _MOST_HELD_OUT)).round().astype(int)] = True
        parts = [part[torch.from_numpy(kept[part.numbers.numpy()])] for part in _read(validation)]
        whole = _joined([part for part in parts if len(part)])
        return Batch(whole.feeds, whole.labels, whole.numbers + self._count)

    def epoch(self, number: int, size: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of ``size`` samples in the order of an epoch, the last one shorter; ``skip`` leaves out the first."""
        chance = np.random.Generator(np.random.PCG64([self._seed, 1 + number]))
        for window in self._windows():
            able = np.flatnonzero(~self._held[window.numbers.numpy()])
            order = torch.from_numpy(able[chance.permutation(len(able))])
            for chosen in order.split(size):
                if skip:
                    skip -= 1
                    continue
                yield window[chosen]

    def _windows(self) -> Iterator[Batch]:
        whole = self._all()
        if whole is not None:
            yield whole
            return
        with ThreadPoolExecutor(1) as reader:  # the next window is decoded while this one is trained on
            parts = self._grouped()
            coming = reader.submit(next, parts, None)
            while (window := coming.result()) is not None:
                coming = reader.submit(next, parts, None)
                yield window

    def _all(self) -> Batch | None:
        """All samples, where they fit."""
        if self._whole is None and self._window is None:
            parts = _read(self._data)
            first = next(parts)
            each = sum(x.nbytes for x in first.feeds.values()) / len(first)
            if each * self._count <= _MOST_BYTES:
                self._whole = _joined([first, *parts])
            else:
                self._window = max(int(_MOST_BYTES / 3 / each), 1)
        return self._whole

    def _grouped(self) -> Iterator[Batch]:
        """Windows: so many samples in a row that three of them fit."""
        held: list[Batch] = []
        for part in _read(self._data):
            held.append(part)
            if sum(map(len, held)) >= (self._window or 1):
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)


def _held_out(count: int, share: float) -> int:
    """How many of so many samples are not trained on: none of one."""
    few = min(_FEW_HELD_OUT, count // _ONE_IN)
    return min(max(round(share * count), few, 1), _MOST_HELD_OUT, count - 1)


def _read(data: DataSet) -> Iterator[Batch]:
    labels = data.labels
    start = 0
    for feeds in data.batches(_READ):
        count = len(next(iter(feeds.values())))
        numbers = np.arange(start, start + count)
        own = None if labels is None else torch.from_numpy(np.ascontiguousarray(labels[start : start + count]))
        tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in feeds.items()}
        yield Batch(tensors, own, torch.from_numpy(numbers))
        start += count


def _joined(parts: list[Batch]) -> Batch:
    labels = None if parts[0].labels is None else torch.cat([part.labels for part in parts if part.labels is not None])
    feeds = {name: torch.cat([part.feeds[name] for part in parts]) for name in parts[0].feeds}
    return Batch(feeds, labels, torch.cat([part.numbers for part in parts]))


class Entrance:
    """Turns feeds of the original model into those of a graph that takes raw values (see :mod:`..input_domain`).

    Args:
        affine: by input name, what (scale, offset) was folded into the graph; ``None`` where nothing was.
    """

    def __init__(self, affine: Mapping[str, tuple[np.ndarray, np.ndarray] | None]) -> None:
        self._affine = {
            name: tuple(torch.from_numpy(np.asarray(v, np.float32)) for v in known)
            for name, known in affine.items()
            if known is not None
        }

    def __call__(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        entered = dict(feeds)
        for name, (scale, offset) in self._affine.items():
            x = feeds[name]
            shape = (1, -1) + (1,) * (x.ndim - 2)
            entered[name] = (x - offset.to(x.device).reshape(shape)) / scale.to(x.device).reshape(shape)
        return entered


Forward = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]
