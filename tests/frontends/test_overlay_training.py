"""Channels of worse weather: each of the three operations does what that weather does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edgec.frontends.overlay import Overlay, overlay_channels
from edgec.frontends.overlay_training import disturbed

OVERLAY = Overlay(8, log=True, low=0.0, center=True)
PLAIN = replace(OVERLAY, center=False)
NOTHING = {"lost": 0.0, "floor": 0.0, "foreign": 0.0}


def channels(count: int = 8, contrast: float = 1.0) -> torch.Tensor:
    x = np.random.default_rng(0).random((count, 1, 32, 48), np.float32)
    return torch.from_numpy(overlay_channels(0.5 + contrast * (x - 0.5), PLAIN))


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_is_the_overlay() -> None:
    x = np.random.default_rng(0).random((8, 1, 32, 48), np.float32)
    made = disturbed(channels(), OVERLAY, chance(), **NOTHING)
    np.testing.assert_allclose(made.numpy(), overlay_channels(x, OVERLAY), atol=1e-6)
    assert torch.equal(disturbed(channels(), PLAIN, chance(), **NOTHING), channels())


def test_a_loss_of_contrast_is_subtracted() -> None:
    """From half of the images; to within the straight pieces of the logarithm as the images themselves would have."""
    whole = channels(64)
    less = (whole - disturbed(whole, PLAIN, chance(), **(NOTHING | {"lost": 0.2}))).amax((1, 2, 3))
    assert 0.3 < float((less == 0).float().mean()) < 0.7
    assert 0.1 < float(less.max()) <= 0.2
    octaves = float(((channels() - channels(contrast=0.25)) * 9).mean())
    assert octaves == pytest.approx(2, abs=0.3)


def test_noise_is_a_floor() -> None:
    made = disturbed(torch.zeros(4, 9, 3, 5), PLAIN, chance(), **(NOTHING | {"floor": 0.2}))
    assert torch.equal(made, made[:, :, :1, :1].expand_as(made)), "the same everywhere in a band"
    assert 0.1 < float(made.max()) <= 0.2
    assert len(made[:, :, 0, 0].unique()) == 36
    strong = torch.ones(4, 9, 3, 5)
    assert torch.equal(disturbed(strong, PLAIN, chance(), **(NOTHING | {"floor": 0.2})), strong)


def test_what_lies_in_front_adds_detail_to_some_blocks() -> None:
    before = channels(64)
    made = disturbed(before, PLAIN, chance(), **(NOTHING | {"foreign": 0.5}))
    assert bool((made >= before).all())
    changed = (made > before).any(1).float().mean((1, 2))
    assert 0.15 < float(changed.mean()) < 0.35
    assert float(changed.max()) < 0.8


def test_the_same_chance_gives_the_same() -> None:
    first, again, other = (disturbed(channels(), OVERLAY, chance(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("options", [{"log": False}, {"low": 1.0}, {"chroma": True}])
def test_other_overlays_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        disturbed(channels(), replace(OVERLAY, **options))
    assert str(caught.value) == (
        "worse weather is made of bands behind a logarithm alone: log: true, low: 0, no chroma"
    )
