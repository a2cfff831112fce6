"""Worse weather than was photographed, made out of overlay channels while a network trains on them.

Behind the logarithm three things that weather does to an image are three operations on channels. A loss of contrast
(fog, darkness) subtracts the same from all bands. Noise is a floor, below which a band does not come. What lies in
front (flakes, streaks, drops) brings detail of its own to some blocks, and takes the place of what was weaker there.
None of it needs images of bad weather, nor the images anew.

    plain = replace(overlay, center=False)
    channels = torch.from_numpy(overlay_channels(images, plain))       # once
    scores = network(disturbed(channels[batch], overlay))              # in every step
    scores = network(overlay_module(overlay)(images))                  # when it is trained: as the compiled stage does
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.ir.frequency_bank import Overlay

if TYPE_CHECKING:
    import torch

__all__ = ["disturbed"]


def disturbed(
    channels: torch.Tensor,
    overlay: Overlay,
    generator: torch.Generator | None = None,
    *,
    lost: float = 0.3,
    floor: float = 0.3,
    foreign: float = 0.3,
) -> torch.Tensor:
    """The channels of a batch as worse weather would have them, each image's by chance.

    Args:
        channels: (n, bands, h, w) of ``overlay``, but not centred yet.
        overlay: with ``log`` and without luminance or colour; where it says ``center`` that is done here, at the end.
        generator: of chance.
        lost: most contrast that half of the images lose, in units of the channels: 0.3 is 2.7 octaves.
        floor: most that the noise of a band gives.
        foreign: largest part of an image's blocks that get the detail of other images.

    Returns:
        As many channels; centred if ``overlay`` is.

    Raises:
        ValueError: the overlay is another; in its channels these are not the operations.
    """
    import torch

    if not overlay.log or overlay.low or overlay.chroma:
        raise ValueError("worse weather is made of bands behind a logarithm alone: log: true, low: 0, no chroma")
    count, bands, high, wide = channels.shape

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 1, 1, generator=generator).to(channels)

    less = lost * chance(count, 1) * (chance(count, 1) < 0.5)
    made = torch.maximum(channels - less, floor * chance(count, bands))
    others = made[torch.randperm(count, generator=generator).to(made.device)]
    down, along = (int(torch.randint(side, (), generator=generator)) for side in (high, wide))
    places = torch.rand(count, 1, high, wide, generator=generator).to(made) < foreign * chance(count, 1)
    made = torch.where(places, torch.maximum(made, others.roll((down, along), (2, 3))), made)
    return made - made.mean((2, 3), keepdim=True) if overlay.center else made
