"""What spatial frequencies a block of luminance holds: kernels of a transform, by bands, and what is made of them.

The image is cut into blocks of ``block`` pixels. Of each block its mean is kept, which is the image made small, and
beside it how much there is in bands of higher frequencies. This is the definition that the numpy and torch stages
(:mod:`edgec.frontends.overlay`) and the stage in the graph share.

Levels are counted from the finest: 1 holds details of 2 pixels, 2 of 4, 3 of 8. Orientations are those of wavelets:
``h`` varies along a row, ``v`` along a column, ``d`` along both. Transforms are orthonormal: the squares of all
kernels' answers, over ``block`` squared, add up to the variance of the block (Parseval).

Sources: type II DCT (Ahmed, Natarajan and Rao, 1974) as block DCT input channels in Xu et al., "Learning in the
Frequency Domain" (CVPR 2020); Haar (1910); the overlay of both on the reduced luminance, JP2019175107A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

import numpy as np

Transform = Literal["dct", "haar", "laplacian"]
Magnitude = Literal["none", "abs", "square"]
BLOCKS = (2, 4, 8)
#: ITU-R BT.601: what red, green and blue give to luminance.
LUMA = (0.299, 0.587, 0.114)
#: Where the compression by logarithm has its corners; there it is log2(1 + 511 m) / 9.
KNOTS = (0.0, 1 / 512, 1 / 128, 1 / 32, 1 / 8, 1.0)
_REACH, _OCTAVES = 511, 9


@dataclass(frozen=True)
class Overlay:
    """Which channels are made of a block.

    Attributes:
        block: its side, in pixels.
        transform: whose kernels.
        bands: patterns of band names (``h1``, ``*2``); all where it is ``None``.
        magnitude: of a band: the answers of its kernels as they are (``none``, a channel for each kernel), the sum of
            their absolute values over the root of their number (``abs``), or of their squares (``square``).
        log: compress bands by a logarithm, in straight pieces.
        center: take from each band its mean over the image. Behind the logarithm that takes away how bright and how
            rich in contrast the image is.
        low: what the reduced luminance is multiplied by; 0 leaves it out.
        chroma: keep the reduced colour too: two channels, the differences of blue and red to luminance.

    Raises:
        ValueError: a value is not one of those that there are.
    """

    block: int = 4
    transform: Transform = "dct"
    bands: tuple[str, ...] | None = None
    magnitude: Magnitude = "abs"
    log: bool = False
    low: float = 1.0
    chroma: bool = False
    center: bool = False

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ValueError(f"block is {self.block}, and can be {', '.join(map(str, BLOCKS))}")
        if self.log and self.magnitude == "none":
            raise ValueError("log needs a magnitude that is never negative: abs or square")
        known = band_names(self.transform, self.block)
        for pattern in self.bands or ():
            if not any(fnmatchcase(name, pattern) for name in known):
                raise ValueError(f"no band is named '{pattern}'; there are {', '.join(known)}")
        if not self.names:
            raise ValueError("nothing is left of the image: low is 0 and no band is chosen")

    @cached_property
    def chosen(self) -> tuple[str, ...]:
        """The bands, coarsest first."""
        known = band_names(self.transform, self.block)
        if self.bands is None:
            return known
        return tuple(name for name in known if any(fnmatchcase(name, pattern) for pattern in self.bands))

    @cached_property
    def kernels(self) -> np.ndarray:
        """Of the chosen bands, in their order: (kernels, block, block), float64; each sums up to zero."""
        return np.concatenate([bank(self.transform, self.block)[name] for name in self.chosen]) if self.chosen else (
            np.zeros((0, self.block, self.block))
        )  # fmt: skip

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many kernels each chosen band has."""
        return tuple(len(bank(self.transform, self.block)[name]) for name in self.chosen)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the channels: ``luminance``, then a band each, or ``h1.0``, ``h1.1`` ... where kernels are kept apart."""
        first = (("luminance",) if self.low else ()) + (("blue", "red") if self.chroma else ())
        if self.magnitude != "none":
            return (*first, *self.chosen)
        return (
            *first,
            *(f"{band}.{i}" for band, size in zip(self.chosen, self.sizes, strict=True) for i in range(size)),
        )

    def reduced(self, luma: np.ndarray) -> np.ndarray:
        """What each colour gives to the channels that are only made small: (0 to 3, colours), float64.

        Args:
            luma: what each gives to luminance: (3,), or (1,) for gray.

        Raises:
            ValueError: chroma of a gray image.
        """
        if self.chroma and len(luma) != 3:
            raise ValueError("a gray image has no chroma")
        rows = [self.low * luma] if self.low else []
        if self.chroma:  # in [-0.5, 0.5], as BT.601 scales them
            for color in (2, 0):
                rows.append((np.eye(3)[color] - luma) / (2 * (1 - luma[color])))
        return np.stack(rows) if rows else np.zeros((0, len(luma)))

    @cached_property
    def mixing(self) -> np.ndarray:
        """What each kernel's magnitude gives to each band: (bands, kernels), float64."""
        mixed = np.zeros((len(self.chosen), sum(self.sizes)))
        start = 0
        for row, size in zip(mixed, self.sizes, strict=True):
            row[start : start + size] = 1 / math.sqrt(size) if self.magnitude == "abs" else 1.0
            start += size
        return mixed


def compressed(values: np.ndarray) -> np.ndarray:
    """The compression by logarithm of values from 0 up; beyond 1 the last piece goes on."""
    made = np.zeros_like(values)
    for knot, slope in pieces():
        made += np.asarray(slope, values.dtype) * np.maximum(values - np.asarray(knot, values.dtype), 0)
    return made


def pieces() -> list[tuple[float, float]]:
    """Where each straight piece of the compression begins, and by how much its slope differs from the one before."""
    heights = np.log2(1 + _REACH * np.array(KNOTS)) / _OCTAVES
    slopes = np.diff(heights) / np.diff(KNOTS)
    return list(zip(KNOTS[:-1], np.diff(slopes, prepend=0.0).tolist(), strict=True))


def band_names(transform: Transform, block: int) -> tuple[str, ...]:
    """Of a transform, coarsest level first."""
    levels = range(int(math.log2(block)), 0, -1)
    kinds = "l" if transform == "laplacian" else "hvd"
    return tuple(f"{kind}{level}" for level in levels for kind in kinds)


def bank(transform: Transform, block: int) -> dict[str, np.ndarray]:
    """The kernels of every band: (kernels, block, block), float64."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in band_names(transform, block)}
    make = {"dct": _dct, "haar": _haar, "laplacian": _laplacian}[transform]
    for name, kernel in make(block):
        found[name].append(kernel)
    return {name: np.stack(kernels) for name, kernels in found.items()}


def _dct(block: int) -> list[tuple[str, np.ndarray]]:
    """The octave of the higher of the two frequencies says the level, the lower one's whether it is diagonal."""
    places = np.arange(block)
    rows = np.cos((2 * places[None] + 1) * places[:, None] * np.pi / (2 * block)) * np.sqrt(2 / block)
    rows[0] /= np.sqrt(2)
    deepest = int(math.log2(block))
    octave = [-1, *(int(math.log2(f)) for f in range(1, block))]
    found = []
    for v in range(block):
        for u in range(block):
            if u or v:
                kind = "d" if octave[u] == octave[v] else "h" if octave[u] > octave[v] else "v"
                found.append((f"{kind}{deepest - max(octave[u], octave[v])}", np.outer(rows[v], rows[u])))
    return found


def _haar(block: int) -> list[tuple[str, np.ndarray]]:
    found = []
    for level in range(int(math.log2(block)), 0, -1):
        side = 2**level
        mean = np.full(side, side**-0.5)
        step = mean * np.repeat([1, -1], side // 2)
        for top in range(0, block, side):
            for left in range(0, block, side):
                for kind, (down, along) in (("h", (mean, step)), ("v", (step, mean)), ("d", (step, step))):
                    kernel = np.zeros((block, block))
                    kernel[top : top + side, left : left + side] = np.outer(down, along)
                    found.append((f"{kind}{level}", kernel))
    return found


def _laplacian(block: int) -> list[tuple[str, np.ndarray]]:
    """What the mean of cells of one size lacks to that of cells half as large, each cell weighed by its pixels."""
    found = []
    for level in range(int(math.log2(block)), 0, -1):
        side, half = 2**level, 2 ** (level - 1)
        for top in range(0, block, half):
            for left in range(0, block, half):
                kernel = np.zeros((block, block))
                kernel[top // side * side :, left // side * side :][:side, :side] -= 1 / side**2
                kernel[top : top + half, left : left + half] += 1 / half**2
                found.append((f"l{level}", kernel * half))
    return found
