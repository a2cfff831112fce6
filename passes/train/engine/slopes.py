"""How far errors inside a network move its outputs, by derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgec.ir.graph import Graph
from edgec.ir.torch_module.module import TorchModule

# Random vectors for each sample and output.
_PROBES = 4


@dataclass(frozen=True)
class Derivatives:
    """Tensors of a network on one batch, and how its results depend on them.

    Attributes:
        values: the tensors, as asked for.
        slopes: by result, the derivative of a random combination of its elements by each of the tensors, in the
            tensor's shape; ``None`` where it does not depend on it. The square of its product with a tensor's error is
            on the mean the squared distance that the result moves.
        powers: the squares of each result, summed: (results,).
    """

    values: list[np.ndarray]
    slopes: list[list[np.ndarray | None]]
    powers: np.ndarray


class Slopes:
    """The derivatives of tensors of a network by others in front of them.

    Its methods may be called on several threads at once; :func:`.torch_threads` around says how many each uses.

    Args:
        graph: the network, sorted.
        seed: of the random vectors.

    Raises:
        InputError: torch cannot run an operator of it.
    """

    def __init__(self, graph: Graph, seed: int) -> None:
        self._module = TorchModule(graph, any_batch=False)
        self._seed = seed

    def moved(
        self,
        feeds: Mapping[str, np.ndarray],
        names: Sequence[str],
        errors: Sequence[np.ndarray],
        results: Sequence[str],
        batch: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far the tensors ``results`` move, to first order, where those of ``names`` err by ``errors``.

        Args:
            feeds: one batch.
            names: of tensors of the network.
            errors: of each, in its shape.
            results: of tensors behind them.
            batch: its number, which together with the seed says what the random vectors are.

        Returns:
            Estimates of the squared distances, (names, results), and the power of each result.
        """
        squares, chance = np.zeros((len(names), len(results))), self._chance(batch, 0)
        values = self._run(feeds, names, results)
        layers, wrong = [values[name] for name in names], [torch.from_numpy(error).reshape(-1) for error in errors]
        for place, result in enumerate(results):
            for _ in range(_PROBES):
                slopes = _along_random(values[result], layers, chance)
                along = [0.0 if s is None else float(s.reshape(-1) @ e) for s, e in zip(slopes, wrong, strict=True)]
                squares[:, place] += np.square(along) / _PROBES
        return squares, _powers(values, results)

    def derivatives(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str], results: Sequence[str], batch: int, probe: int
    ) -> Derivatives:
        """The tensors ``names`` and the derivatives of ``results`` by them, along one random vector for each result.

        Args:
            feeds: one batch.
            names: of tensors of the network.
            results: of tensors behind them.
            batch, probe: numbers which together with the seed say what the random vectors are.
        """
        chance, values = self._chance(batch, probe), self._run(feeds, names, results)
        layers = [values[name] for name in names]
        slopes = [_along_random(values[result], layers, chance) for result in results]
        found = [[None if slope is None else slope.numpy() for slope in row] for row in slopes]
        return Derivatives([layer.detach().numpy() for layer in layers], found, _powers(values, results))

    def _run(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str], results: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        inputs = {name: torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for name, x in feeds.items()}
        made: dict[str, torch.Tensor] = self._module(inputs, list(dict.fromkeys([*names, *results])))
        return made

    def _chance(self, batch: int, probe: int) -> torch.Generator:
        [seed] = np.random.SeedSequence([self._seed, batch, probe]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed >> 1))


def _along_random(
    result: torch.Tensor, layers: Sequence[torch.Tensor], chance: torch.Generator
) -> Sequence[torch.Tensor | None]:
    """The derivatives of a random combination of the elements of ``result``."""
    vector = torch.randn(result.shape, generator=chance)
    return torch.autograd.grad(result, layers, vector, retain_graph=True, allow_unused=True)


def _powers(values: Mapping[str, torch.Tensor], results: Sequence[str]) -> np.ndarray:
    return np.array([float(values[result].detach().square().sum()) for result in results])
