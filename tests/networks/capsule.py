"""The example's capsule autoencoder and its images, as arrays.

Input ``image`` and output ``reconstruction``: 1x1x128x128, gray, 0 to 1. The images are drawn by examples/capsule.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "capsule"
MODEL = EXAMPLE / "autoencoder.onnx"
INPUT, OUTPUT = "image", "reconstruction"


def render() -> None:
    """Draws the images where they are missing; 12 seconds."""
    subprocess.run([sys.executable, str(EXAMPLE / "render.py")], check=True, stdout=subprocess.DEVNULL)


def calibration(count: int = 64) -> np.ndarray:
    """Sound capsules that the network was trained on, evenly chosen: (count, 1, 128, 128) float32."""
    paths = sorted((EXAMPLE / "data" / "train" / "good").iterdir())
    return _read([paths[index * len(paths) // count] for index in range(count)])


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """All test images, and for each whether it shows a flaw."""
    paths = sorted((EXAMPLE / "data" / "test").glob("*/*.png"))
    return _read(paths), np.array([path.parent.name != "good" for path in paths])


def _read(paths: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("L"), np.float32)[None] / np.float32(255) for path in paths])
