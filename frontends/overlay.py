"""The frequency overlay in numpy and in torch, for those who train on its channels.

Both compute what the stage in a compiled network does (:mod:`edgec.passes.overlay.overlay`), to within the rounding
of float32:

    channels = overlay_channels(images, Overlay(block=4))              # numpy: (n, c, h, w) to (n, channels, h/4, w/4)
    channels = overlay_module(Overlay(block=4))(torch_images)          # the same on torch tensors, any device
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.frequency_bank import LUMA, Overlay, compressed, pieces

if TYPE_CHECKING:
    import torch

__all__ = ["Overlay", "luminance", "overlay_channels", "overlay_module"]


def luminance(images: np.ndarray) -> np.ndarray:
    """Of images (n, 1 or 3, h, w), gray or red, green, blue: (n, h, w), in the dtype of the images.

    Raises:
        InputError: there is another number of channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        what = f"have shape {list(images.shape)}, and gray or RGB images (n, 1 or 3, h, w) are wanted"
        raise InputError("the images", what, "drop an alpha channel, and put channels on axis 1")
    if images.shape[1] == 1:
        return images[:, 0]
    made: np.ndarray = np.einsum("nchw,c->nhw", images, np.array(LUMA, images.dtype))
    return made


def overlay_channels(images: np.ndarray, overlay: Overlay) -> np.ndarray:
    """The channels of images with values from 0 to 1.

    Args:
        images: (n, 1 or 3, h, w), float32; sides that the block does not divide are filled with zeros.
        overlay: which channels.

    Returns:
        (n, channels, h / block, w / block), float32; ``overlay.names`` says what they are.
    """
    light, block = luminance(images), overlay.block
    down, along = (-side % block for side in light.shape[1:])
    light = np.pad(light, ((0, 0), (0, down), (0, along)))
    blocks = light.reshape(len(light), light.shape[1] // block, block, light.shape[2] // block, block)
    small = overlay.reduced(np.array(LUMA if images.shape[1] == 3 else (1.0,))).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (0, down), (0, along)))
    cells = padded.reshape(*images.shape[:2], *blocks.shape[1:])
    made = [np.einsum("ncab,rc->nrab", cells.mean(axis=(3, 5)), small)]
    answers = np.einsum("nhbwc,kbc->nkhw", blocks, (overlay.kernels / block).astype(np.float32), optimize=True)
    if overlay.magnitude != "none":
        sizes = np.abs(answers) if overlay.magnitude == "abs" else answers**2
        answers = np.einsum("nkhw,rk->nrhw", sizes, overlay.mixing.astype(np.float32), optimize=True)
    answers = compressed(answers) if overlay.log else answers
    made.append(answers - answers.mean(axis=(2, 3), keepdims=True) if overlay.center else answers)
    return np.concatenate(made, axis=1).astype(np.float32)


def overlay_module(overlay: Overlay, channels: int = 3) -> torch.nn.Module:
    """A torch module that turns images (n, channels, h, w) with values from 0 to 1 into overlay channels.

    It has buffers and no parameters: it moves with the network that it stands in front of, and is not trained.

    Args:
        overlay: which channels.
        channels: of the images: 1 or 3.
    """
    import torch
    from torch.nn import functional

    weights: Sequence[float] = LUMA if channels == 3 else (1.0,)

    class Stage(torch.nn.Module):
        light: torch.Tensor
        small: torch.Tensor
        kernels: torch.Tensor
        mixing: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            arrays = {
                "light": np.reshape(weights, (1, channels, 1, 1)),
                "small": overlay.reduced(np.array(weights))[:, :, None, None],
                "kernels": overlay.kernels[:, None] / overlay.block,
                "mixing": overlay.mixing[:, :, None, None],
            }
            for name, values in arrays.items():
                self.register_buffer(name, torch.from_numpy(np.array(values, np.float32)))

        def forward(self, images: Any) -> Any:
            block = overlay.block
            images = functional.pad(images, (0, -images.shape[3] % block, 0, -images.shape[2] % block))
            light = functional.conv2d(images, self.light)
            answers = functional.conv2d(light, self.kernels, stride=block)
            if overlay.magnitude != "none":
                sizes = answers.abs() if overlay.magnitude == "abs" else answers.square()
                answers = functional.conv2d(sizes, self.mixing)
            if overlay.log:
                answers = sum(slope * functional.relu(answers - knot) for knot, slope in pieces())
            if overlay.center:
                answers = answers - answers.mean((2, 3), keepdim=True)
            if not len(self.small):
                return answers
            return torch.cat([functional.conv2d(functional.avg_pool2d(images, block), self.small), answers], 1)

    return Stage()
