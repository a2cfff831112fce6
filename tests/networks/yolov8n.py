"""YOLOv8n as the package nudenet ships it (320n.onnx): 320 x 320, 18 classes, boxes joined with scores.

Input: RGB in [0, 1], 1x3x320x320. Output: 1x22x2100, four numbers of a box and 18 scores for each anchor.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from networks import photos

SIZE = 320
INPUT = "images"
BOX, CONFIDENT = 4, 0.25
# Photographs with people, which give it something to find, half of them for each part.
_JUDGING = (photos.TRAINING[0], photos.TRAINING[4], photos.TRAINING[23], photos.HELD_OUT[2])


def path() -> Path:
    """The model's file.

    Raises:
        FileNotFoundError: nudenet is not installed.
    """
    found = find_spec("nudenet")
    if found is None or found.origin is None:
        raise FileNotFoundError("nudenet is not installed: pip install --no-deps nudenet==3.4.2")
    return Path(found.origin).parent / "320n.onnx"


def calibration(count: int = 64) -> list[np.ndarray]:
    """Feeds to calibrate with, of photographs that are not judged by."""
    sources = tuple(photo for photo in photos.TRAINING + photos.HELD_OUT if photo not in _JUDGING)
    return [_feed(crop) for crop in photos.squares(photos.photos(sources), count, SIZE, seed=1)]


def held_out(count: int = 96) -> list[np.ndarray]:
    """Feeds to judge by."""
    return [_feed(crop) for crop in photos.squares(photos.photos(_JUDGING), count, SIZE, seed=2)]


def judged(wanted: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How a network's detections compare with the float network's.

    Args:
        wanted: the float network's outputs, (images, 22, 2100).
        found: the other's.

    Returns:
        ``anchors``: how many the float network is confident of; ``kept``: the part of them of which the other is too,
        for the same class; ``precision``: the part of the other's confident anchors that are such.
    """
    theirs, ours = wanted[:, BOX:], found[:, BOX:]
    before, after = theirs.max(1) > CONFIDENT, ours.max(1) > CONFIDENT
    same = before & after & (theirs.argmax(1) == ours.argmax(1))
    return {
        "anchors": int(before.sum()),
        "kept": float(same.sum() / max(before.sum(), 1)),
        "precision": float(same.sum() / max(after.sum(), 1)),
    }


def _feed(crop: np.ndarray) -> np.ndarray:
    return (crop.transpose(2, 0, 1)[None] / 255).astype(np.float32)
