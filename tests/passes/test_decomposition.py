"""The mathematics of factorize, on its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.factorize.cp import most_rank, polyadic, rebuild
from edgec.passes.factorize.low_rank import svd_spectrum, truncated_svd
from edgec.passes.factorize.tucker import reconstruct, tucker2, tucker2_spectrum
from edgec.passes.factorize.vbmf import rank_above_noise, threshold


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def decaying(out: int, into: int, taps: int, seed: int = 0) -> np.ndarray:
    """A kernel whose channels matter less and less in a rotated basis, as trained ones do."""
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((out, into, taps))
    kernel *= (np.arange(1, out + 1) ** -0.7)[:, None, None] * (np.arange(1, into + 1) ** -0.7)[None, :, None]
    left, right = (np.linalg.qr(random.standard_normal((n, n)))[0] for n in (out, into))
    return np.einsum("ao,bi,oit->abt", left, right, kernel, optimize=True).astype(np.float32)


def relative(kernel: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(kernel - other) / np.linalg.norm(kernel))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 9]), st.data())
def test_errors_are_what_they_say_and_full_rank_is_exact(out: int, into: int, taps: int, data: st.DataObject) -> None:
    kernel = gaussian(out, into, taps, seed=data.draw(st.integers(0, 1000)))
    ranks = data.draw(st.integers(1, out)), data.draw(st.integers(1, into))
    factors = tucker2(kernel, *ranks)
    assert factors.core.shape == (*ranks, taps)
    assert (factors.first is None) == (ranks[1] == into)
    assert (factors.last is None) == (ranks[0] == out)
    assert factors.relative_error == pytest.approx(relative(kernel, reconstruct(factors)), abs=2e-5)
    if ranks == (out, into):
        assert np.array_equal(factors.core, kernel)


def test_full_rank_in_both_modes_is_exact_through_the_bases_too() -> None:
    kernel = gaussian(12, 7, 9)
    kernel[-1], kernel[:, -1] = 0, 0  # so that one rank less loses nothing
    factors = tucker2(kernel, 11, 6)
    assert factors.relative_error < 1e-6
    assert relative(kernel, reconstruct(factors)) < 1e-6


@pytest.mark.parametrize("make", [gaussian, decaying])
@pytest.mark.parametrize("part", [0.1, 0.25, 0.5])
def test_the_error_is_within_half_a_percent_of_tensorlys(make: object, part: float) -> None:
    from tensorly.decomposition import partial_tucker
    from tensorly.tenalg import multi_mode_dot

    assert callable(make)
    kernel = make(96, 64, 9)
    ranks = [int(96 * part), int(64 * part)]
    (core, factors), _ = partial_tucker(kernel, rank=ranks, modes=[0, 1], init="svd")
    theirs = relative(kernel, multi_mode_dot(core, factors, modes=[0, 1]))
    assert tucker2(kernel, *ranks).relative_error <= 1.005 * theirs


@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (7, 7)])
def test_svd_is_the_best_of_its_rank(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape)
    values = np.linalg.svd(matrix, compute_uv=False)
    kept = svd_spectrum(matrix)
    for rank in (1, 3, min(shape)):
        factors = truncated_svd(matrix, rank)
        assert factors.first.shape == (rank, shape[1])
        assert factors.last.shape == (shape[0], rank)
        best = np.sqrt((values[rank:] ** 2).sum() / (values**2).sum())
        assert relative(matrix, factors.last @ factors.first) == pytest.approx(best, abs=1e-5)
        assert factors.relative_error == pytest.approx(best, abs=1e-5)
        assert np.sqrt(max(0.0, 1 - kept[rank - 1])) == pytest.approx(best, abs=2e-3)


def test_singular_values_are_shared_out_evenly() -> None:
    factors = truncated_svd(gaussian(20, 12) * 100, 5)
    np.testing.assert_allclose(np.linalg.norm(factors.first, axis=1), np.linalg.norm(factors.last, axis=0), rtol=1e-4)


def test_a_spectrum_foretells_truncation_and_refinement_only_gains() -> None:
    kernel = decaying(24, 16, 9)
    kept = tucker2_spectrum(kernel)
    assert kept.shape == (24, 16)
    assert kept[-1, -1] == pytest.approx(1)
    assert np.all(np.diff(kept, axis=0) >= 0) and np.all(np.diff(kept, axis=1) >= 0)
    for ranks in ((3, 2), (8, 8), (24, 4)):
        foretold = np.sqrt(1 - kept[ranks[0] - 1, ranks[1] - 1])
        assert tucker2(kernel, *ranks).relative_error <= foretold * (1 + 1e-4)


def test_signs_are_fixed_and_double_precision_is_kept() -> None:
    kernel = decaying(16, 12, 9)
    one, other = tucker2(kernel, 4, 4), tucker2(-kernel, 4, 4)
    np.testing.assert_array_equal(one.first, other.first)
    np.testing.assert_array_equal(one.core, -other.core)
    assert tucker2(kernel.astype(np.float64), 4, 4).core.dtype == np.float64
    assert tucker2(kernel.astype(np.float16), 4, 4).core.dtype == np.float32


def test_a_corrupted_factor_is_seen() -> None:
    kernel = decaying(16, 12, 9)
    factors = tucker2(kernel, 8, 8)
    right = relative(kernel, reconstruct(factors))
    factors.core[0, 0, 0] += 10 * np.abs(factors.core).max()
    assert relative(kernel, reconstruct(factors)) > 2 * right


@pytest.mark.parametrize("size", [1e-30, 1e17, 1e37])
def test_the_size_of_the_weights_does_not_matter(size: float) -> None:
    kernel = decaying(8, 6, 9)
    scaled = (kernel.astype(np.float64) * size).astype(np.float32)
    with np.errstate(over="raise", invalid="raise"):
        factors = tucker2(scaled, 4, 3)
        np.testing.assert_allclose(tucker2_spectrum(scaled), tucker2_spectrum(kernel), rtol=1e-4)
    assert factors.relative_error == pytest.approx(tucker2(kernel, 4, 3).relative_error, rel=1e-4)


@pytest.mark.parametrize("make", [gaussian, decaying])
@pytest.mark.parametrize("part", [0.1, 0.3, 0.5])
def test_large_modes_are_not_diagonalised_and_lose_nothing_by_it(make: object, part: float) -> None:
    assert callable(make)
    kernel = make(192, 224, 9)
    ranks = int(192 * part), int(224 * part)
    bases = [np.linalg.eigh(f @ f.T)[1][:, ::-1] for f in (kernel.reshape(192, -1), swapped(kernel))]
    last, first = (basis[:, :rank] for basis, rank in zip(bases, ranks, strict=True))
    for _ in range(6):  # higher-order orthogonal iteration with all eigenvectors
        half = np.einsum("oit,oa->iat", kernel, last, optimize=True).reshape(224, -1)
        first = np.linalg.eigh(half @ half.T)[1][:, ::-1][:, : ranks[1]]
        half = np.einsum("oit,ib->obt", kernel, first, optimize=True).reshape(192, -1)
        last = np.linalg.eigh(half @ half.T)[1][:, ::-1][:, : ranks[0]]
    exact = np.sqrt(1 - np.linalg.norm(last.T @ half) ** 2 / np.linalg.norm(kernel) ** 2)
    factors = tucker2(kernel, *ranks)
    assert factors.relative_error <= 1.004 * exact
    assert factors.relative_error == pytest.approx(relative(kernel, reconstruct(factors)), rel=1e-3)
    assert factors.first is not None and factors.last is not None
    np.testing.assert_allclose(factors.first @ factors.first.T, np.eye(ranks[1]), atol=1e-5)
    np.testing.assert_allclose(factors.last.T @ factors.last, np.eye(ranks[0]), atol=1e-5)


def swapped(kernel: np.ndarray) -> np.ndarray:
    """The unfolding along the input channels."""
    return kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)


def test_a_large_mode_of_deficient_rank_is_given_back() -> None:
    random = np.random.default_rng(0)
    left, core, right = (random.standard_normal(s) for s in ((256, 20), (20, 24, 9), (24, 240)))
    kernel = np.einsum("oa,abt,bi->oit", left, core, right, optimize=True).astype(np.float32)
    for ranks in ((20, 24), (40, 30), (200, 200)):
        factors = tucker2(kernel, *ranks)
        assert factors.relative_error < 1e-5
        assert relative(kernel, reconstruct(factors)) < 1e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 12), st.integers(0, 99))
def test_cp_says_its_error_and_shares_norms_evenly(out: int, into: int, rank: int, seed: int) -> None:
    tensor = gaussian(out, into, 3, 3, seed=seed)
    made = polyadic(tensor, rank)
    assert [factor.shape for factor in made.factors] == [(size, rank) for size in tensor.shape]
    assert made.relative_error == pytest.approx(relative(tensor, rebuild(made.factors)), abs=1e-4)
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in made.factors])
    np.testing.assert_allclose(norms, np.broadcast_to(norms[:1], norms.shape), rtol=1e-4, atol=1e-5)


def test_cp_finds_a_tensor_of_low_rank_and_does_not_degenerate() -> None:
    random = np.random.default_rng(0)
    low = rebuild([random.standard_normal((size, 6)) for size in (24, 16, 3, 3)])
    assert polyadic(low, 6).relative_error < 0.01
    # The sum of three products whose best approximation by two does not exist: two grow against each other without end.
    a, b = np.eye(4)[:, :1], np.eye(4)[:, 1:2]
    limit = rebuild([a, a, b]) + rebuild([a, b, a]) + rebuild([b, a, a])
    assert max(float(np.abs(factor).max()) for factor in polyadic(limit, 2).factors) < 20
    assert polyadic(np.zeros((4, 3, 3, 3)), 2).relative_error == 0


@pytest.mark.parametrize("shape", [(3, 2, 3), (5, 4, 3, 3), (7, 1, 5)])
def test_the_rank_that_always_suffices(shape: tuple[int, ...]) -> None:
    assert most_rank(shape) == np.prod(shape) // max(shape)
    assert most_rank(shape) * sum(shape) > np.prod(shape)


@pytest.mark.parametrize("shape", [(64, 576), (300, 40), (128, 128)])
@pytest.mark.parametrize("rank", [0, 1, 7, 20])
@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_variational_bayes_counts_what_is_above_the_noise(shape: tuple[int, int], rank: int, noise: float) -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, shape[1]))
    matrix += noise * random.standard_normal(shape)
    assert rank_above_noise(matrix) == rank
    assert rank_above_noise(1e12 * matrix) == rank
    assert rank_above_noise(np.stack([matrix, random.standard_normal(shape)])) == rank


def test_variational_bayes_of_exact_and_empty_matrices() -> None:
    random = np.random.default_rng(0)
    assert rank_above_noise(random.standard_normal((20, 4)) @ random.standard_normal((4, 30))) == 4
    assert rank_above_noise(np.zeros((3, 4))) == 0
    # Nakajima et al. give 2.5129 for the square case.
    assert threshold(1.0) == pytest.approx(2.5129, abs=1e-4)
