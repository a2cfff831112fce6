"""What is fitted to few samples is no worse on others than what is fitted to none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from edgec.ir.errors import UsageError
from edgec.ir.execution import sqnr_db, stacked
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.passes.calibration.batch_split import split_groups
from edgec.passes.calibration.dataset import Part
from edgec.passes.calibration.near_duplicates import channel_means, folds
from edgec.passes.compress.compress import Compress
from edgec.passes.compress.trial import Budget, Passes, attempt
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.images import Images, spread
from edgec.passes.factorize.isotropy import PARTS, isotropic_part
from edgec.passes.factorize.layers import find_layers
from edgec.passes.factorize.samples import Samples as Rows
from edgec.passes.factorize.samples import Target, samples_of
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.prune.prune import Prune
from edgec.testing import Samples, model, outputs, run_pass

PERCEPTRON = """
a = Gemm <transB = 1> (x, w1, b1)
ra = Relu (a)
b = Gemm <transB = 1> (ra, w2, b2)
rb = Relu (b)
y = Gemm <transB = 1> (rb, w3, b3)
"""


def perceptron() -> Graph:
    weights = "float[48,64] w1, float[48] b1, float[32,48] w2, float[32] b2, float[8,32] w3, float[8] b3"
    return model(PERCEPTRON, "(float[1,64] x) => (float[1,8] y)", weights)


def drawn(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Feeds of which most pixels are zero, others in each."""
    random = np.random.default_rng(seed)
    return [{"x": (random.random((1, 64)) * (random.random((1, 64)) < 0.2)).astype(np.float32)} for _ in range(count)]


def left(before: Graph, after: Graph, feeds: list[dict[str, np.ndarray]]) -> float:
    """SQNR over all of the feeds."""
    return sqnr_db(*(stacked([outputs(graph, feed) for feed in feeds]) for graph in (before, after)))


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("step", [Factorize(params=0.5), Prune(params=0.6), Compress(params=0.5)], ids=lambda s: s.name)
def test_samples_are_no_worse_than_none_on_others(step: Pass, count: int) -> None:
    graph, unseen = perceptron(), drawn(40, 9)
    aware, free = graph.copy(), graph.copy()
    run_pass(step, aware, data={"calibration": Samples(drawn(count, 5))})
    run_pass(step, free)
    assert left(graph, aware, unseen) > left(graph, free, unseen) - 0.3


@pytest.mark.parametrize("step", [Factorize(params=0.5), Prune(params=0.6)], ids=lambda s: s.name)
def test_one_sample_is_left_alone_and_that_is_said(step: Pass) -> None:
    aware, free = perceptron(), perceptron()
    ctx = run_pass(step, aware, data={"calibration": Samples(drawn(1, 5))})
    run_pass(step, free)
    assert to_bytes(aware) == to_bytes(free)
    [said] = [remark.what for remark in ctx.left if remark.node == "the calibration data"]
    assert said == (
        "nothing is fitted to them: one sample, or all resemble each other, and none can be held out to judge by"
    )


def test_compress_says_the_same_of_one_sample() -> None:
    graph = perceptron()
    ctx = run_pass(Compress(params=0.5), graph, data={"calibration": Samples(drawn(1, 5))})
    [said] = [remark.what for remark in ctx.left if remark.node == "the calibration data"]
    assert said.startswith("nothing is fitted to them: one sample")
    assert ctx.done[0].what.endswith("(fitted to nothing and measured on 1 calibration samples)")


def test_samples_that_harm_are_left_alone_and_that_is_said() -> None:
    """Calibration data of two kinds: what fits one of them is wrong for the other."""
    graph = perceptron()
    feeds = drawn(6, 5)
    for place, feed in enumerate(feeds):
        feed["x"][:, np.arange(64) % 6 != place] = 0
    ctx = run_pass(Prune(params=0.6), graph, data={"calibration": Samples(feeds)})
    said = [remark.what for remark in ctx.left if remark.node == "the calibration data"]
    assert len(said) <= 1
    assert all(" dB with them, " in what and what.endswith(" dB without, on samples held out") for what in said)


def test_near_duplicates_are_one_sample() -> None:
    """Ten frames of one scene: nothing can be held out that was not seen."""
    [scene] = drawn(1, 5)
    frames = [{"x": scene["x"]} for _ in range(10)]
    graph = perceptron()
    ctx = run_pass(Factorize(params=0.5), graph, data={"calibration": Samples(frames)})
    assert any(remark.node == "the calibration data" for remark in ctx.left)


def rows(values: np.ndarray, kernel: np.ndarray) -> Rows:
    """One row an image."""
    centred = (values - values.mean(axis=0)).astype(np.float32)[None]
    wanted = centred @ kernel.swapaxes(1, 2)
    means = np.zeros((1, 1, values.shape[1])), np.zeros((1, 1, kernel.shape[1]))
    return Rows(centred, wanted, *means, [slice(0, len(values))], np.arange(len(values)), True)


def part_of(values: np.ndarray, kernel: np.ndarray) -> float:
    samples = rows(values, kernel)
    return isotropic_part(samples, kernel, np.array([float(np.square(samples.patches).mean())]))


def test_few_samples_of_what_has_no_structure_are_not_believed() -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((1, 24, 40)).astype(np.float32) * np.linspace(2, 0.1, 24, dtype=np.float32)[:, None]
    few, many = random.standard_normal((4, 40)), random.standard_normal((4000, 40))
    assert part_of(few, kernel) >= 0.02
    assert part_of(many, kernel) > 0  # the truth is the identity


def test_many_samples_of_what_has_structure_are_believed() -> None:
    random = np.random.default_rng(1)
    kernel = random.standard_normal((1, 24, 40)).astype(np.float32)
    structured = random.standard_normal((3000, 3)) @ random.standard_normal((3, 40))
    structured += 0.01 * random.standard_normal((3000, 40))
    assert part_of(structured, kernel) == PARTS[0]


def test_one_image_says_as_much_as_one_more() -> None:
    kernel = np.random.default_rng(2).standard_normal((1, 5, 6)).astype(np.float32)
    assert part_of(np.ones((1, 6)), kernel) == 0.5


def test_an_image_counts_once_however_many_nodes_read_it() -> None:
    graph = model(
        "a = Gemm <transB = 1> (x, w, b)\nc = Gemm <transB = 1> (x, w, b)\ny = Add (a, c)",
        "(float[1,4] x) => (float[1,3] y)",
        "float[3,4] w, float[3] b",
    )
    [layer] = find_layers(graph, Context(graph).get(_shapes()), lambda node: None, lambda node, reason: None)
    target = Target(np.arange(1), (1, 3), np.zeros((1, 1, 3), np.float32))
    taken = [[np.full((1, 1, 4, 1), image, np.float32)] * 2 for image in range(5)]
    made = samples_of(layer, [[target] * 2] * 5, taken, np.array([0, 1, 1, 2, 3]))
    assert made.rows == 10
    assert [len(np.arange(10)[image]) for image in made.images] == [2, 4, 2, 2]


def _shapes() -> type:
    from edgec.ir.shapes import Shapes

    return Shapes


def test_folds_leave_groups_whole() -> None:
    groups = np.array([0, 0, 0, 1, 2, 2, 3, 1])
    assert [fold.tolist() for fold in folds(groups, 4)] == [[0, 1, 2], [3, 7], [4, 5], [6]]
    assert [fold.tolist() for fold in folds(np.zeros(3, np.int64), 4)] == [[0, 1, 2]]


def test_the_mean_of_each_channel() -> None:
    values = np.arange(24.0).reshape(1, 2, 3, 4)
    assert channel_means(values).tolist() == [5.5, 17.5]
    assert channel_means(np.arange(3.0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("groups", "fit", "judge"),
    [
        (np.arange(12), (0, 1, 3, 4, 5, 6, 8, 9, 10, 11), (2, 7)),
        (np.array([0, 0, 1, 1]), (0, 1), (2, 3)),
        (np.zeros(3, np.int64), (0, 1, 2), (0, 1, 2)),
    ],
)
def test_tries_are_judged_by_other_groups(groups: np.ndarray, fit: tuple[int, ...], judge: tuple[int, ...]) -> None:
    parts = split_groups(groups, 128)
    assert (parts.fit, parts.judge) == (fit, judge)
    assert parts.apart == (not set(fit) & set(judge))


class Counting(Samples):
    """Keeps the indices of what is decoded."""

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        self.decoded = list(range(len(self)) if indices is None else indices)
        yield from super().batches(size, indices)


def test_only_the_wanted_batches_are_decoded() -> None:
    data = Counting(drawn(20, 1))
    assert len(list(Part(data, (1, 4, 9), 2).batches(2))) == 3
    assert data.decoded == [2, 3, 8, 9, 18, 19]


def test_images_that_are_not_held_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.passes.factorize.images._MOST_BYTES", 3 * 64 * 4)
    data, graph = Counting(drawn(30, 1)), perceptron()
    assert len(Images(graph, Context(graph, RunConfig(data={"calibration": data}))).feeds) == 3
    assert data.decoded == spread(30, 3) == [5, 15, 25]


class Broken(Factorize):
    """A pass whose library is missing."""

    def run(self, graph: Graph, ctx: Context) -> None:
        raise UsageError("factorize", "needs a library that is missing", "install it")


def test_an_error_that_is_no_budget_is_not_taken_for_one() -> None:
    graph = perceptron()
    total = sum(int(np.prod(constant.shape)) for constant in graph.constants())
    passes = Passes(None, Broken())
    with pytest.raises(UsageError, match="needs a library that is missing"):
        attempt(graph, Budget("params", 0.5, total), passes, 1.0, Context(graph), {})
