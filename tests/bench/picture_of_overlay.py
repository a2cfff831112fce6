"""Draws docs/pictures/overlay-bands.png: the overlay's channels of a sharp and of a blurred vehicle.

python tests/bench/picture_of_overlay.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks.vehicles import vehicles

from edgec.frontends.overlay import Overlay, overlay_channels

PLACE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "overlay-bands.png"


def main() -> None:
    sharp = vehicles(1, "clear", seed=4)[0][0, 0]
    picture = Image.fromarray((sharp * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    blurred = np.asarray(picture, np.float32) / 255
    overlay = Overlay(4, log=True)
    images = np.stack([sharp, blurred])[:, None]
    channels = overlay_channels(images, overlay)
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(2, 1 + len(overlay.names))
    for row, (image, bands) in enumerate(zip(images, channels, strict=True)):
        for axis, values, name in zip(axes[row], (image[0], *bands), ("image", *overlay.names), strict=True):
            axis.imshow(
                values, cmap="gray", vmin=0, vmax=1 if name in ("image", "luminance") else channels[:, 1:].max()
            )
            axis.set(xticks=[], yticks=[], title=name if row == 0 else "")
        axes[row, 0].set_ylabel(("sharp", "out of focus")[row])
    figure.savefig(PLACE, dpi=80)


if __name__ == "__main__":
    main()
