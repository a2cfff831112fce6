"""Covariances are shrunk as far as images disagree."""

import numpy as np

from edgec.passes.prune.covariance import Moments, Seen


def moments(images: np.ndarray, samples: int) -> Moments:
    """Of images (images, rows, width) about zero."""
    found = Moments(np.zeros(images.shape[2]), samples)
    for rows in images:
        products = rows.T @ rows
        squares = float(np.vdot(products, products)) / len(rows) ** 2
        found.add(Seen(len(rows), rows.sum(axis=0), products, squares))
    return found


def test_few_images_lose_most_of_what_they_say_of_dependence() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    images = np.repeat(random.normal(size=(5, 1, 8)), 3, axis=1)
    found = moments(images, 5)
    off = ~np.eye(8, dtype=bool)
    assert np.allclose(np.diag(found.shrunk()), np.diag(found.covariance))
    assert np.abs(found.shrunk()[off]).sum() < 0.5 * np.abs(found.covariance[off]).sum()


def test_images_that_agree_are_believed() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    mixed = random.normal(size=(40, 500, 8)) @ random.normal(size=(8, 8))
    found = moments(mixed, 40)
    assert np.allclose(found.shrunk(), found.covariance, atol=0.01 * np.abs(found.covariance).max())
    expected = np.cov(mixed.reshape(-1, 8).T, bias=True)
    assert np.allclose(found.covariance, expected)
    assert np.allclose(found.power, np.square(mixed).mean(axis=(0, 1)))


def test_images_that_resemble_each_other_count_as_one() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    images = random.normal(size=(12, 50, 4)) @ random.normal(size=(4, 4))
    apart, alike = moments(images, 12).shrunk(), moments(images, 3).shrunk()
    off = ~np.eye(4, dtype=bool)
    assert np.abs(alike[off]).sum() < np.abs(apart[off]).sum()


def test_one_image_is_taken_as_it_is() -> None:
    found = moments(np.random.Generator(np.random.PCG64(3)).normal(size=(1, 20, 4)), 1)
    assert np.array_equal(found.shrunk(), found.covariance)
