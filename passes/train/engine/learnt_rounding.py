"""Weights of a block whose rounding is learnt, so that the block computes what it should.

Each weight becomes its present integer plus h(V), a sigmoid of V that is stretched so that it reaches its ends and
rectified there (AdaRound, Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020; with
their zeta of 1.1 and gamma of -0.1). A penalty that grows sharper while the training goes on moves every h to a whole
number. The biases are trained along. What the block reads, and what is rounded inside, is at random the float network's
or the quantized one's, element by element (QDrop, Wei et al., ICLR 2022).

AdaRound's h is from 0 to 1, above the integer below the float weight. Here it is from -1 to 1 around integers that were
chosen with regard to the data already, and is 0 in the beginning: training starts from exactly these. Measured on two
blocks of EfficientNet-Lite0 behind ``balanced``, as the error on images that were not learnt from: that fell by 1.7 and
1.9 %; with h from 0 to 1 it rose, by 1.5 and 2.6 % from the float weights (within one step of the integers), and by 1.2
and 0.7 % from 0.03 of a step beside the integers, towards the float weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.func import functional_call

from edgec.ir.errors import InputError
from edgec.ir.torch_module.conversion import to_numpy, to_torch
from edgec.ir.torch_module.layout import channels_last
from edgec.ir.torch_module.module import TorchModule
from edgec.passes.quantize.recover.block_network import BlockNetwork, Examples, Rounded
from edgec.passes.train.engine.threads import torch_threads

# How far the sigmoid is stretched, and how large the penalty is beside the error, in parts of what it was.
_ZETA, _GAMMA, _PENALTY = 1.1, -0.1, 20.0
# The exponent of the penalty falls so behind a part of the steps that has none.
_SHARPEST, _LEAST, _WITHOUT = 20.0, 2.0, 0.2
# Rates of V and, falling to zero, of the biases in units of theirs.
_RATE, _BIAS_RATE = 2e-2, 2e-3
_DROPPED = 0.5
# Samples in a step: fewer where one has so many elements that a few say as much.
_BATCH, _MOST_ELEMENTS = 8, 2**21
# Bits that masks are pieces of, at least.
_FEWEST_BITS = 2**20


def learn_rounding(
    network: BlockNetwork, examples: Examples, error: float, steps: int, threads: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each layer the integers, at most one step from those that it has, and the bias.

    Args:
        network: the block; it is not changed.
        examples: what is learnt from.
        error: the mean squared error as it is, which that of the training is set against.
        steps: how many.
        threads: that torch uses.
        seed: of what is drawn.

    Raises:
        InputError: an operator cannot be trained through.
    """
    if not error:
        return [(layer.integers, layer.bias.values) for layer in network.layers]
    with torch_threads(threads):
        return _learnt(network, examples, error, steps, torch.Generator().manual_seed(seed))


def _learnt(
    network: BlockNetwork, examples: Examples, error: float, steps: int, chance: torch.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    module, together = _module(network, examples)
    feeding = _Feeding(network, examples, together, chance)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    fixed = {name: parameter.detach() for name, parameter in module.named_parameters()}
    learnt = [_Learnt(layer) for layer in network.layers]
    places = [
        [names[id(module.parameter_of(constant))] for constant in (layer.weight, layer.bias)]
        for layer in network.layers
    ]
    optimizer = torch.optim.Adam(
        [{"params": [one.v for one in learnt], "lr": _RATE}, {"params": [one.moved for one in learnt]}]
    )
    [output] = network.graph.outputs
    weights = sum(one.v.numel() for one in learnt)
    for step in range(steps):
        feeds, wanted = feeding.draw()
        offsets = [one.offsets() for one in learnt]
        values = dict(fixed)
        for one, (weight, bias), offset in zip(learnt, places, offsets, strict=True):
            values[weight], values[bias] = one.weight(offset), one.bias()
        made = functional_call(module, values, (feeds,))[output.name]
        loss = (made - wanted).square().mean() / error
        part = (step / steps - _WITHOUT) / (1 - _WITHOUT)
        if part >= 0:
            exponent = _SHARPEST + (_LEAST - _SHARPEST) * part
            loss = loss + _PENALTY / weights * torch.stack([_unrounded(one, exponent) for one in offsets]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.param_groups[1]["lr"] = _BIAS_RATE * (1 - step / steps)
        optimizer.step()
    return [one.result() for one in learnt]


class _Learnt:
    """What is trained of one layer.

    Attributes:
        v: of each weight.
        moved: of each bias, in units.
    """

    def __init__(self, layer: Rounded) -> None:
        self._layer = layer
        self._integers, self._scale = _laid(to_torch(layer.integers)), to_torch(layer.scale)
        self._bias, self._unit = to_torch(layer.bias.values), to_torch(layer.unit)
        self.v = torch.nn.Parameter(torch.zeros_like(self._integers))
        self.moved = torch.nn.Parameter(torch.zeros_like(self._bias))

    def offsets(self) -> torch.Tensor:
        """h(V), from -1 to 1."""
        stretched = torch.sigmoid(self.v) * (_ZETA - _GAMMA) + _GAMMA
        return stretched.clamp(0.0, 1.0) * 2 - 1

    def weight(self, offsets: torch.Tensor) -> torch.Tensor:
        """The weights as they are in training."""
        return (self._integers + offsets).clamp(-self._layer.limit, self._layer.limit) * self._scale

    def bias(self) -> torch.Tensor:
        """The bias as it is in training."""
        return self._bias + self._unit * self.moved

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The integers and the bias."""
        with torch.no_grad():
            integers = (self._integers + torch.round(self.offsets())).clamp(-self._layer.limit, self._layer.limit)
            return to_numpy(integers), to_numpy(self.bias())


def _unrounded(offsets: torch.Tensor, exponent: float) -> torch.Tensor:
    """The penalty: of each number 0 where it is whole, and 1 between two."""
    return (1 - (2 * (offsets - offsets.detach().floor()) - 1).abs().pow(exponent)).sum()


class _Feeding:
    """Draws samples of a block, mixed of both networks.

    Args:
        network: the block.
        examples: what is drawn from.
        together: whether samples of several batches run together; a step takes one batch otherwise.
        chance: what draws.
    """

    def __init__(self, network: BlockNetwork, examples: Examples, together: bool, chance: torch.Generator) -> None:
        self._together, self._chance = together, chance
        self._given = {name: self._held(values) for name, values in examples.given.items()}
        self._exact = {name: self._held(values) for name, values in examples.exact.items()}
        self._wanted = self._held(examples.wanted)
        batches = [values.shape[1:] for values in (examples.wanted, *examples.given.values())]
        masks = {mask.name: tuple(int(size or 0) for size in mask.shape or ()) for mask in network.masks}
        most, size = max(math.prod(shape) for shape in (*batches, *masks.values())), 1
        if together:
            size = batches[-1][0]
            self._count = max(1, min(_BATCH, _MOST_ELEMENTS * size // max(most, 1), len(self._wanted)))
            masks = {name: (shape[0] * self._count // size, *shape[1:]) for name, shape in masks.items()}
        else:
            self._count = 1
        self._masks = masks
        self._order = torch.zeros(0, dtype=torch.long)
        self._bits = torch.rand(max(2 * most * self._count // size, _FEWEST_BITS), generator=chance) < _DROPPED

    def draw(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """What the block reads in one step, masks included, and what it should compute of that."""
        if len(self._order) < self._count:
            self._order = torch.cat([self._order, torch.randperm(len(self._wanted), generator=self._chance)])
        chosen, self._order = self._order[: self._count], self._order[self._count :]
        feeds = {}
        for name, x in self._given.items():
            own, exact = self._chosen(x, chosen), self._chosen(self._exact[name], chosen)
            feeds[name] = torch.where(self._mask(own.shape), exact, own)
        for name, shape in self._masks.items():
            feeds[name] = self._mask(shape)
        return feeds, self._chosen(self._wanted, chosen)

    def _held(self, values: np.ndarray) -> torch.Tensor:
        """(samples, ...) where samples run together, (batches, *shape) otherwise; the array itself."""
        return torch.from_numpy(values.reshape(-1, *values.shape[2:]) if self._together else values)

    def _chosen(self, values: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return _laid(values[numbers] if self._together else values[numbers[0]])

    def _mask(self, shape: Sequence[int]) -> torch.Tensor:
        """Random bits, laid as activations are: a piece of those that there are, which costs nothing."""
        count = math.prod(shape)
        first = int(torch.randint(0, len(self._bits) - count + 1, (1,), generator=self._chance))
        piece = self._bits[first : first + count]
        if len(shape) != 4:
            return piece.view(*shape)
        samples, channels, height, width = shape
        return piece.view(samples, height, width, channels).permute(0, 3, 1, 2)


def _module(network: BlockNetwork, examples: Examples) -> tuple[TorchModule, bool]:
    """The block in torch, and whether samples of several batches run together there."""
    [output] = network.graph.outputs
    try:
        module = TorchModule(network.graph)
        together = module.batch_axes[output.name] == 0
    except InputError:  # samples do not stay apart, or lie along other axes
        together = False
    if not together:
        module = TorchModule(network.graph, any_batch=False)
    channels_last(module)
    return module, together


def _laid(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
