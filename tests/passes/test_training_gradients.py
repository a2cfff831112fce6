"""Gradients that are longer than usual are shortened, whatever the scale of the loss."""

from __future__ import annotations

import pytest
import torch

from edgec.passes.train.engine.gradients import Gradients


def length(gradients: Gradients, parameter: torch.nn.Parameter, wanted: float) -> float:
    """What is left of a gradient of that length."""
    parameter.grad = torch.full((4,), wanted / 2)
    gradients.shorten([parameter])
    return float(parameter.grad.norm())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_only_what_is_unusual_is_shortened(scale: float) -> None:
    gradients, parameter = Gradients(2.0), torch.nn.Parameter(torch.zeros(4))
    for part in (1.0, 1.5, 0.5, 1.0):
        assert length(gradients, parameter, part * scale) == pytest.approx(part * scale, rel=1e-4)
    usual = gradients.usual
    assert usual == pytest.approx(scale, rel=0.02)
    assert length(gradients, parameter, 100 * scale) == pytest.approx(2 * usual, rel=1e-3)
    assert gradients.usual == pytest.approx(0.98 * usual + 0.02 * 2 * usual)


def test_what_is_not_finite_is_not_remembered() -> None:
    gradients, parameter = Gradients(2.0), torch.nn.Parameter(torch.zeros(4))
    length(gradients, parameter, 1.0)
    length(gradients, parameter, float("nan"))
    length(gradients, parameter, float("inf"))
    assert gradients.usual == 1.0
