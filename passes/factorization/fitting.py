"""Chains fitted to what a layer computes instead of to its weights.

The error of a chain is a quadratic form of the kernel that it stands for (:mod:`.metric`), and that kernel is linear in
every single stage. So the stages are solved for in turns, each for the others as they are (alternating least squares):
the last one exactly from its normal equations; where it is a matrix the last two together, by reduced-rank regression
(Izenman 1975), which is the best choice of output directions there is; the stages in front by preconditioned conjugate
gradients, which need products with the covariance only and never its inverse.

The first guess is the decomposition of the kernel whitened by the root of its input's covariance between channels and
between the taps of each axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.methods import SVD
from edgec.passes.factorization.metric import Metric
from edgec.passes.factorization.observed import Observed
from edgec.passes.factorization.offers import Choice
from edgec.passes.factorization.regression import Regression
from edgec.passes.factorization.stages import Chain, Stage, compose
from edgec.passes.factorization.whitening import symmetric_root

# Rounds of alternation, and steps of conjugate gradients for each stage in each.
ROUNDS, _STEPS = 3, 6
_AXES = "xyz"


def fitted(choice: Choice, observed: Observed, start: Chain | None = None, *, rounds: int = ROUNDS) -> Chain:
    """The chain that computes best what a layer should.

    Args:
        choice: the method and its ranks.
        observed: the layer on its data.
        start: a chain of the same choice to begin with.
        rounds: of alternation.

    Returns:
        The chain; its relative error is that of the output (see :meth:`Metric.error`), as an amplitude.
    """
    layer, metrics = observed.layer, observed.metrics
    if start is None:
        start = begun(choice, observed)
    groups = [_Group(layer, start.stages, group, metric) for group, metric in enumerate(metrics)]
    for group in groups:
        group.fit(rounds)
    stages = tuple(
        Stage(stage.name, np.concatenate([g.kernel(place) for g in groups]), stage.axes)
        for place, stage in enumerate(start.stages)
    )
    return Chain(stages, observed.error(compose(stages)))


def begun(choice: Choice, observed: Observed) -> Chain:
    """The first guess."""
    if observed.layer.is_matrix:
        return SVD.blank(observed.layer, choice.ranks)  # its solution does not depend on where one begins
    whitening = observed.whitening
    return whitening.undone(choice.method.decompose(observed.layer, whitening.kernel, choice.ranks))


class _Group:
    """The stages of one group as a product of arrays, one letter an index: ``i`` for the layer's input channels, ``o``
    for its output channels, ``a``, ``b``, ... for what is between stages, ``x``, ``y``, ``z`` for the spatial axes."""

    def __init__(self, layer: Layer, stages: tuple[Stage, ...], group: int, metric: Metric) -> None:
        self.metric = metric
        self.shape = (layer.out, layer.into, *layer.taps)
        self.letters = _AXES[: len(layer.taps)]
        self.terms: list[str] = []
        self.arrays: list[np.ndarray] = []
        self._stored: list[tuple[int, ...]] = []
        channel, depthwise = "i", []
        for place, stage in enumerate(stages):
            parts = len(stage.kernel) // layer.groups
            kernel = stage.kernel[group * parts : (group + 1) * parts].astype(np.float32)
            self._stored.append(kernel.shape)
            own = "".join(_AXES[axis] for axis in stage.axes)
            taps = [layer.taps[axis] for axis in stage.axes]
            depthwise.append(parts > 1)
            if parts > 1:
                term, kernel = channel + own, kernel.reshape(parts, *taps)
            else:
                behind = "o" if place == len(stages) - 1 else "abcdefgh"[place]
                term, kernel = behind + channel + own, kernel.reshape(*kernel.shape[1:3], *taps)
                channel = behind
            self.terms.append(term)
            self.arrays.append(kernel)
        self._reduced_rank = len(stages) > 1 and not stages[-1].axes and not depthwise[-2]
        self._reads = metric.second.reshape(*self.shape[1:], *self.shape[1:])
        self._wanted = metric.cross.reshape(self.shape)

    def kernel(self, place: int) -> np.ndarray:
        return self.arrays[place].reshape(self._stored[place])

    def composed(self) -> np.ndarray:
        return self._product(range(len(self.terms)), "oi" + self.letters)

    def fit(self, rounds: int) -> None:
        if self.metric.silent:  # nothing but the decomposition of its weights to go by
            return
        tail = len(self.terms) - (2 if self._reduced_rank else 1)
        for number in range(rounds):
            self._solve_tail(tail)
            if tail == 0 or number == rounds - 1:
                return
            for place in reversed(range(tail)):
                self._descend(place)
            self._normalise()

    # -- the last stages, exactly -----------------------------------------------------------------------------------

    def _solve_tail(self, tail: int) -> None:
        """Solves for all stages from ``tail`` on together; they are one stage of full rank, or two of a lower one."""
        term = self.terms[tail]
        channel, own = ("i", term[2:]) if tail == 0 else (self.terms[tail][1], term[2:])
        inner = "".join(letter for letter in self.letters if letter not in own)
        rows = channel + own
        if tail == 0:
            normal, right = self._reads, self._wanted
            size = int(np.prod(self.shape[1:]))
        else:
            head = self._product(range(tail), channel + "i" + inner)
            upper = str.maketrans({letter: letter.upper() for letter in "i" + self.letters + channel})
            reads = "i" + self.letters
            half = np.einsum(
                f"{channel}i{inner},{reads}{reads.translate(upper)}->{rows}{reads.translate(upper)}",
                head,
                self._reads,
                optimize=True,
            )
            other = f"{channel}i{inner}".translate(upper)
            normal = np.einsum(
                f"{rows}{reads.translate(upper)},{other}->{rows}{rows.translate(upper)}", half, head, optimize=True
            )
            right = np.einsum(f"o{reads},{channel}i{inner}->o{rows}", self._wanted, head, optimize=True)
            size = int(np.prod(normal.shape[: normal.ndim // 2]))
        regression = (
            self.metric.regression
            if tail == 0
            else Regression(normal.reshape(size, size), right.reshape(len(right), size))
        )
        if not self._reduced_rank:
            self._set(tail, regression.weights())
            return
        last, core, spread = regression.reduced(self.arrays[-1].shape[1])
        # Every channel between the two at the same strength, as one scale for the whole tensor wants it.
        strength = np.where(spread > 1e-6 * spread[0], spread, 1.0) if spread[0] > 0 else np.ones_like(spread)
        self._set(-1, last * strength)
        self._set(tail, core / strength[:, None])

    def _set(self, place: int, values: np.ndarray) -> None:
        self.arrays[place] = values.reshape(self.arrays[place].shape).astype(np.float32)

    # -- the stages in front, by conjugate gradients ----------------------------------------------------------------

    def _descend(self, place: int) -> None:
        """Some steps towards the best stage at ``place`` for the others as they are."""
        wanted, arrays = self._wanted, list(self.arrays)
        size = int(np.prod(self.shape[1:]))
        if self._reduced_rank:
            # Outputs that the last stage cannot reach are wrong whatever is in front: its own directions are enough.
            directions, arrays[-1] = np.linalg.qr(self.arrays[-1])
            wanted = np.tensordot(directions.T, wanted, (1, 0))
        others = [i for i in range(len(self.terms)) if i != place]

        def kernel(values: np.ndarray) -> np.ndarray:
            return _einsum(self.terms, [*arrays[:place], values, *arrays[place + 1 :]], "oi" + self.letters)

        def gradient(form: np.ndarray) -> np.ndarray:
            return _einsum(
                ["oi" + self.letters, *(self.terms[i] for i in others)],
                [form, *(arrays[i] for i in others)],
                self.terms[place],
            )

        def apply(values: np.ndarray) -> np.ndarray:
            composed = kernel(values)
            return gradient((composed.reshape(-1, size) @ self.metric.second).reshape(composed.shape))

        precondition = self._preconditioner(place, arrays)
        x = self.arrays[place]
        residual = gradient(wanted) - apply(x)
        step = direction = precondition(residual)
        strength = float(np.vdot(residual, step))
        for _ in range(_STEPS):
            if strength <= 0:
                break
            moved = apply(direction)
            curvature = float(np.vdot(direction, moved))
            if curvature <= 0:
                break
            x = x + np.float32(strength / curvature) * direction
            residual = residual - np.float32(strength / curvature) * moved
            step = precondition(residual)
            before, strength = strength, float(np.vdot(residual, step))
            direction = step + np.float32(strength / before) * direction
        self.arrays[place] = x

    def _preconditioner(self, place: int, arrays: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse of what the quadratic form of a stage would be if all between channels and taps came apart."""
        term = self.terms[place]
        if place != 0 or len(term) < 2 or term[1] != "i":
            return lambda values: values
        behind = [i for i in range(len(self.terms)) if i != 0]
        channel = term[0]
        letters = "".join(self.terms[i] for i in behind)
        free = "".join(dict.fromkeys(letter for letter in letters if letter == "o" or letter in self.letters))
        downstream = _einsum([self.terms[i] for i in behind], [arrays[i] for i in behind], channel + free)
        flat = downstream.reshape(len(downstream), -1).astype(np.float64)
        gram = flat @ flat.T
        gram[np.diag_indices(len(gram))] += 1e-6 * np.trace(gram) / len(gram) + 1e-30
        left = np.linalg.inv(gram).astype(np.float32)
        channels = self.metric.channels.astype(np.float64)
        channels = channels + np.eye(len(channels)) * (1e-3 * np.trace(channels) / len(channels) + 1e-30)
        right = np.linalg.inv(channels).astype(np.float32)

        def precondition(values: np.ndarray) -> np.ndarray:
            solved = np.tensordot(left, values, (1, 0))
            return np.moveaxis(np.tensordot(solved, right, (1, 0)), -1, 1)

        return precondition

    def _normalise(self) -> None:
        """Makes what the first stage computes uncorrelated and of equal strength where the next stage can undo it."""
        if len(self.terms) < 2 or self.terms[1][:1] == self.terms[0][:1]:
            return
        first = self.arrays[0]
        half = np.moveaxis(np.tensordot(first, self.metric.channels, (1, 0)), -1, 1)
        gram = np.tensordot(half.reshape(len(first), -1), first.reshape(len(first), -1), (1, 1)).astype(np.float64)
        root, inverse = symmetric_root(gram)
        flat = inverse.astype(np.float32) @ first.reshape(len(first), -1)
        self.arrays[0] = flat.reshape(first.shape)
        self.arrays[1] = np.moveaxis(np.tensordot(self.arrays[1], root.astype(np.float32), (1, 0)), -1, 1)

    def _product(self, places: Iterable[int], result: str) -> np.ndarray:
        places = list(places)
        return _einsum([self.terms[i] for i in places], [self.arrays[i] for i in places], result)


def _einsum(terms: list[str], arrays: list[np.ndarray], result: str) -> np.ndarray:
    return np.einsum(",".join(terms) + "->" + result, *arrays, optimize=len(terms) > 1)
