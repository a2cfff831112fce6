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

from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.methods import SVD
from edgec.passes.factorize.metric import Metric, products
from edgec.passes.factorize.modes import along
from edgec.passes.factorize.observed import Observed
from edgec.passes.factorize.offers import Choice
from edgec.passes.factorize.stages import Chain, Stage, compose
from edgec.passes.factorize.whitening import symmetric_root
from edgec.passes.layers.regression import Regression

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
    if start is None:
        start = begun(choice, observed)
    able = ~observed.metric.silent  # of the others there is nothing but the decomposition of the weights to go by
    product = _Product(observed.layer, start.stages, able, observed.metric.of(able))
    product.fit(rounds)
    stages = []
    for place, stage in enumerate(start.stages):
        kernel = np.array(stage.kernel, np.float32)
        kernel.reshape(len(able), -1)[able] = product.arrays[place].reshape(int(able.sum()), -1)
        stages.append(Stage(stage.name, kernel, stage.axes))
    return Chain(tuple(stages), observed.error(compose(stages)))


def begun(choice: Choice, observed: Observed) -> Chain:
    """The first guess."""
    if observed.layer.is_matrix:
        return SVD.blank(observed.layer, choice.ranks)  # its solution does not depend on where one begins
    whitening = observed.whitening
    return whitening.undone(choice.method.decompose(observed.layer, whitening.kernel, choice.ranks))


class _Product:
    """The stages as a product of arrays, one letter an index: ``g`` for the layer's groups, which all arrays have in
    front, ``i`` for its input channels, ``o`` for its output channels, ``a``, ``b``, ... for what is between stages,
    ``x``, ``y``, ``z`` for the spatial axes.

    Args:
        layer: what the chain stands for.
        stages: of the chain.
        able: which of the groups are fitted.
        metric: of those.
    """

    def __init__(self, layer: Layer, stages: tuple[Stage, ...], able: np.ndarray, metric: Metric) -> None:
        self.metric = metric
        self.groups = int(able.sum())
        self.shape = (layer.out, layer.into, *layer.taps)
        self.letters = _AXES[: len(layer.taps)]
        self.terms: list[str] = []
        self.arrays: list[np.ndarray] = []
        channel, depthwise = "i", []
        for place, stage in enumerate(stages):
            parts = len(stage.kernel) // layer.groups
            kernel = stage.kernel.reshape(layer.groups, -1)[able].astype(np.float32)
            own = "".join(_AXES[axis] for axis in stage.axes)
            taps = [layer.taps[axis] for axis in stage.axes]
            depthwise.append(parts > 1)
            if parts > 1:
                term, shape = channel + own, (parts, *taps)
            else:
                behind = "o" if place == len(stages) - 1 else "abcdef"[place]
                term, shape = behind + channel + own, (*stage.kernel.shape[1:3], *taps)
                channel = behind
            self.terms.append("g" + term)
            self.arrays.append(kernel.reshape(self.groups, *shape))
        self._reduced_rank = len(stages) > 1 and not stages[-1].axes and not depthwise[-2]
        self._reads = metric.second.reshape(self.groups, *self.shape[1:], *self.shape[1:])
        self._wanted = metric.cross.reshape(self.groups, *self.shape)

    def fit(self, rounds: int) -> None:
        """So many rounds."""
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
        regression = self.metric.regression if tail == 0 else self._regression(tail)
        if not self._reduced_rank:
            self._set(tail, regression.weights())
            return
        last, core, spread = regression.reduced(self.arrays[-1].shape[2])
        # Every channel between the two at the same strength, as one scale for the whole tensor wants it.
        strength = np.where(spread > 1e-6 * spread[:, :1], spread, 1.0)
        self._set(-1, last * strength[:, None])
        self._set(tail, core / strength[:, :, None])

    def _regression(self, tail: int) -> Regression:
        """Of the stages from ``tail`` on for those in front as they are."""
        channel, own = self.terms[tail][2], self.terms[tail][3:]
        inner = "".join(letter for letter in self.letters if letter not in own)
        rows, reads, through = channel + own, "i" + self.letters, f"{channel}i{inner}"
        upper = str.maketrans({letter: letter.upper() for letter in reads + channel})
        head = self._product(range(tail), "g" + through)
        other = reads.translate(upper)
        half = _einsum(["g" + through, "g" + reads + other], [head, self._reads], "g" + rows + other)
        terms = ["g" + rows + other, "g" + through.translate(upper)]
        normal = _einsum(terms, [half, head], "g" + rows + rows.translate(upper))
        right = _einsum(["go" + reads, "g" + through], [self._wanted, head], "go" + rows)
        size = int(np.prod(right.shape[2:]))
        return Regression(normal.reshape(self.groups, size, size), right.reshape(self.groups, -1, size))

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
            flat = directions.swapaxes(1, 2) @ wanted.reshape(self.groups, len(directions[0]), -1)
            wanted = flat.reshape(self.groups, -1, *self.shape[1:])
        others = [i for i in range(len(self.terms)) if i != place]
        whole = "goi" + self.letters

        def kernel(values: np.ndarray) -> np.ndarray:
            return _einsum(self.terms, [*arrays[:place], values, *arrays[place + 1 :]], whole)

        def gradient(form: np.ndarray) -> np.ndarray:
            terms = [whole, *(self.terms[i] for i in others)]
            return _einsum(terms, [form, *(arrays[i] for i in others)], self.terms[place])

        def apply(values: np.ndarray) -> np.ndarray:
            composed = kernel(values)
            return gradient((composed.reshape(self.groups, -1, size) @ self.metric.second).reshape(composed.shape))

        precondition = self._preconditioner(place, arrays)
        x = self.arrays[place]
        each = (-1,) + (1,) * (x.ndim - 1)
        residual = gradient(wanted) - apply(x)
        direction = precondition(residual)
        strength = products(residual, direction)
        for _ in range(_STEPS):
            moved = apply(direction)
            curvature = products(direction, moved)
            going = (strength > 0) & (curvature > 0)  # the others are where they can get
            if not going.any():
                break
            taken = np.where(going, strength, 0.0) / np.where(going, curvature, 1.0)
            length = taken.astype(np.float32).reshape(each)
            x = x + length * direction
            residual = residual - length * moved
            step = precondition(residual)
            before, strength = strength, np.where(going, products(residual, step), 0.0)
            turned = strength / np.where(going, before, 1.0)
            direction = step + turned.astype(np.float32).reshape(each) * direction
        self.arrays[place] = x

    def _preconditioner(self, place: int, arrays: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse of what the quadratic form of a stage would be if all between channels and taps came apart."""
        term = self.terms[place]
        if place != 0 or term[2:3] != "i":
            return lambda values: values
        behind = [i for i in range(len(self.terms)) if i != 0]
        letters = "".join(self.terms[i] for i in behind)
        free = "".join(dict.fromkeys(letter for letter in letters if letter == "o" or letter in self.letters))
        downstream = _einsum([self.terms[i] for i in behind], [arrays[i] for i in behind], "g" + term[1] + free)
        flat = downstream.reshape(self.groups, downstream.shape[1], -1).astype(np.float64)
        left = _inverse(flat @ flat.swapaxes(1, 2), 1e-6).astype(np.float32)
        right = _inverse(self.metric.channels.astype(np.float64), 1e-3).astype(np.float32)

        def precondition(values: np.ndarray) -> np.ndarray:
            solved = left @ values.reshape(self.groups, values.shape[1], -1)
            return along(solved.reshape(values.shape), right, 2)

        return precondition

    def _normalise(self) -> None:
        """Makes what the first stage computes uncorrelated and of equal strength where the next stage can undo it."""
        if len(self.terms) < 2 or self.terms[1][1] == self.terms[0][1]:
            return
        first = self.arrays[0]
        flat = first.reshape(self.groups, first.shape[1], -1)
        half = along(first, self.metric.channels, 2).reshape(flat.shape)
        root, inverse = symmetric_root(half @ flat.swapaxes(1, 2))
        self.arrays[0] = (inverse.astype(np.float32) @ flat).reshape(first.shape)
        self.arrays[1] = along(self.arrays[1], root.astype(np.float32), 2)

    def _product(self, places: Iterable[int], result: str) -> np.ndarray:
        places = list(places)
        return _einsum([self.terms[i] for i in places], [self.arrays[i] for i in places], result)


def _inverse(matrices: np.ndarray, ridge: float) -> np.ndarray:
    """Of matrices (groups, n, n), with a part of their mean diagonal added to it; they are overwritten."""
    level = np.einsum("gii->g", matrices) / matrices.shape[1]
    np.einsum("gii->gi", matrices)[:] += (ridge * level + 1e-30)[:, None]
    return np.linalg.inv(matrices)


def _einsum(terms: list[str], arrays: list[np.ndarray], result: str) -> np.ndarray:
    return np.einsum(",".join(terms) + "->" + result, *arrays, optimize=len(terms) > 1)
