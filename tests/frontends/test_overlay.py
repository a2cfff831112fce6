"""The frequency overlay in numpy and torch, and that its bands are what they are called."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from edgec.frontends.overlay import Overlay, luminance, overlay_channels, overlay_module
from edgec.ir.errors import InputError
from edgec.ir.frequency_bank import KNOTS, Transform, band_names, bank, compressed

TWO_WAYS: tuple[Transform, ...] = ("haar", "dct")
ALL = [
    Overlay(block, transform, None, magnitude, log, low, chroma=bool(low), center=log or block == 8)
    for block, transform, magnitude, log, low in itertools.product(
        (2, 4, 8), ("dct", "haar", "laplacian"), ("none", "abs", "square"), (False, True), (0.0, 0.7)
    )
    if not (log and magnitude == "none")
]


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("transform", ["dct", "haar"])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_kernels_are_orthonormal_and_see_no_mean(transform: Transform, block: int) -> None:
    kernels = np.concatenate(list(bank(transform, block).values())).reshape(block**2 - 1, -1)
    np.testing.assert_allclose(kernels @ kernels.T, np.eye(block**2 - 1), atol=1e-12)
    np.testing.assert_allclose(kernels.sum(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("transform", ["dct", "haar", "laplacian"])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_squares_add_up_to_the_variance_of_a_block(transform: Transform, block: int) -> None:
    x = images(2, 1, 16, 24)
    channels = overlay_channels(x, Overlay(block, transform, None, "square", low=0.0))
    blocks = x[:, 0].reshape(2, 16 // block, block, 24 // block, block)
    np.testing.assert_allclose(channels.sum(axis=1), blocks.var(axis=(2, 4)), rtol=1e-4)


def test_bands_are_what_they_are_called() -> None:
    """A stripe along a row is horizontal detail of its own width."""
    for width, level in ((1, 1), (2, 2), (4, 3)):
        stripes = np.tile(np.repeat([0.0, 1.0], width), 16 // width).astype(np.float32)[:16]
        for transform in TWO_WAYS:
            overlay = Overlay(8, transform, None, "square", low=0.0)
            for image, kind in ((np.tile(stripes, (16, 1)), "h"), (np.tile(stripes[:, None], (1, 16)), "v")):
                found = overlay_channels(image[None, None], overlay).mean(axis=(0, 2, 3))
                assert overlay.names[int(found.argmax())] == f"{kind}{level}", (transform, width)


@pytest.mark.parametrize("overlay", ALL, ids=str)
def test_torch_computes_the_same(overlay: Overlay) -> None:
    x = images(2, 3, 16, 24)
    wanted = overlay_channels(x, overlay)
    assert wanted.shape == (2, len(overlay.names), 16 // overlay.block, 24 // overlay.block)
    module = overlay_module(overlay)
    assert not list(module.parameters())
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), wanted, atol=2e-6)


def test_gray_and_sides_that_the_block_does_not_divide() -> None:
    overlay = Overlay(4)
    x = images(1, 1, 10, 13)
    made = overlay_channels(x, overlay)
    assert made.shape == (1, 7, 3, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 3)))
    np.testing.assert_array_equal(made, overlay_channels(padded, overlay))
    with torch.no_grad():
        np.testing.assert_allclose(overlay_module(overlay, 1)(torch.from_numpy(x)).numpy(), made, atol=2e-6)
    np.testing.assert_allclose(made[:, 0, 0, 0], x[:, 0, :4, :4].mean(axis=(1, 2)), rtol=1e-6)


def test_chroma() -> None:
    x = np.zeros((3, 3, 4, 4), np.float32)
    x[0, 0], x[1, 2], x[2] = 1, 1, 0.5
    made = overlay_channels(x, Overlay(4, bands=(), chroma=True))[:, :, 0, 0]
    np.testing.assert_allclose(made, [[0.299, -0.169, 0.5], [0.114, 0.5, -0.081], [0.5, 0, 0]], atol=1e-3)
    with pytest.raises(ValueError, match="a gray image has no chroma"):
        overlay_channels(x[:, :1], Overlay(4, chroma=True))


def test_choosing_bands() -> None:
    assert Overlay(8).chosen == ("h3", "v3", "d3", "h2", "v2", "d2", "h1", "v1", "d1")
    assert Overlay(4, "laplacian").names == ("luminance", "l2", "l1")
    assert Overlay(4, bands=("*2", "h*")).chosen == ("h2", "v2", "d2", "h1")
    assert Overlay(2, magnitude="none", low=0).names == ("h1.0", "v1.0", "d1.0")
    assert band_names("haar", 2) == ("h1", "v1", "d1")


def test_the_logarithm() -> None:
    m = np.linspace(0, 1, 1001)
    exact = np.log2(1 + 511 * m) / 9
    made = compressed(m)
    assert np.abs(made - exact).max() < 0.1
    corners = np.array(KNOTS)
    np.testing.assert_allclose(compressed(corners), np.log2(1 + 511 * corners) / 9)
    assert (np.diff(made) > 0).all()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"block": 3}, "block is 3, and can be 2, 4, 8"),
        ({"magnitude": "none", "log": True}, "log needs a magnitude that is never negative: abs or square"),
        ({"bands": ("x1",)}, "no band is named 'x1'; there are h2, v2, d2, h1, v1, d1"),
        ({"bands": (), "low": 0}, "nothing is left of the image: low is 0 and no band is chosen"),
    ],
)
def test_mistakes(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=r"^" + line.replace("(", r"\(")):
        Overlay(**options)


def test_images_of_other_channels() -> None:
    with pytest.raises(InputError) as caught:
        luminance(images(1, 4, 8, 8))
    assert str(caught.value) == (
        "the images: have shape [1, 4, 8, 8], and gray or RGB images (n, 1 or 3, h, w) are wanted; drop an alpha "
        "channel, and put channels on axis 1"
    )
