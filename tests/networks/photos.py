"""Photographs that packages ship (scikit-image, scikit-learn, foolbox), and crops of them; nothing is downloaded.

Crops for calibration and for training, and crops held out, come from different photographs, the two halves of a stereo
pair from the same side. Only training needs foolbox.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from PIL import Image

_SKIMAGE = "skimage.data"
_SKLEARN = "sklearn.datasets.images"
_FOOLBOX = "foolbox"
CALIBRATION = (
    (_SKIMAGE, "astronaut.png"), (_SKIMAGE, "brick.png"), (_SKIMAGE, "camera.png"), (_SKLEARN, "china.jpg"),
    (_SKIMAGE, "coffee.png"), (_SKIMAGE, "coins.png"), (_SKIMAGE, "moon.png"), (_SKIMAGE, "motorcycle_left.png"),
    (_SKIMAGE, "motorcycle_right.png"), (_SKIMAGE, "retina.jpg"),
)  # fmt: skip
HELD_OUT = (
    (_SKIMAGE, "cell.png"), (_SKIMAGE, "chelsea.png"), (_SKIMAGE, "clock_motion.png"), (_SKLEARN, "flower.jpg"),
    (_SKIMAGE, "grass.png"), (_SKIMAGE, "gravel.png"), (_SKIMAGE, "hubble_deep_field.jpg"), (_SKIMAGE, "ihc.png"),
    (_SKIMAGE, "rocket.jpg"),
)  # fmt: skip
#: Photographs of what is in none of ImageNet's classes: cells, grass, gravel, stars, a stained tissue.
OF_NO_CLASS = frozenset({"cell.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"})
# Twenty of ImageNet's, numbered in their files' names beside their class.
TRAINING = CALIBRATION + tuple(
    (_FOOLBOX, f"data/imagenet_{number:02}_{label}.jpg")
    for number, label in enumerate(
        (243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305)
    )
)


def photos(which: tuple[tuple[str, str], ...] = CALIBRATION + HELD_OUT) -> list[np.ndarray]:
    """The photographs as RGB, uint8, height x width x 3; grey ones have three equal channels."""
    found = []
    for package, name in which:
        with (files(package) / name).open("rb") as file, Image.open(file) as image:
            found.append(np.asarray(image.convert("RGB")))
    return found


def calibration_crops(count: int = 64, size: int = 224) -> list[np.ndarray]:
    """Crops to calibrate with, uint8, ``size`` x ``size`` x 3; the same ones at every call."""
    return squares(photos(CALIBRATION), count, size, seed=1)


def training_crops(count: int, size: int = 224) -> list[np.ndarray]:
    """Crops to train on, a fifth to the whole of the shorter side of a photograph.

    Few photographs have to stand for all: colours are moved, and every other crop is mixed with one of another
    photograph (as Asano and Saeed, "Extrapolating from a Single Image to a Thousand Classes using Distillation", ICLR
    2023, do with one).
    """
    crops = squares(photos(TRAINING), count, size, seed=3, least=5)
    random = np.random.Generator(np.random.PCG64(4))
    mixed = []
    for number, crop in enumerate(crops):
        picture = crop.astype(np.float32)
        if number % 2:
            part = np.float32(random.uniform(0.3, 0.7))
            picture = part * picture + (1 - part) * crops[int(random.integers(0, count))]
        gain, offset = random.uniform(0.7, 1.3, 3), random.uniform(-30, 30)
        mixed.append(np.clip(picture * gain.astype(np.float32) + np.float32(offset), 0, 255).astype(np.uint8))
    return mixed


def held_out_crops(count: int = 96, size: int = 224) -> list[np.ndarray]:
    """Crops to measure on, of photographs that no calibration crop shows."""
    return squares(photos(HELD_OUT), count, size, seed=2)


def squares(sources: list[np.ndarray], count: int, size: int, seed: int, least: int = 2) -> list[np.ndarray]:
    """Squares of one ``least``-th to the whole of the shorter side, from each photograph in turn, half of them
    mirrored."""
    random = np.random.Generator(np.random.PCG64(seed))
    crops = []
    for number in range(count):
        photo = sources[number % len(sources)]
        height, width = photo.shape[:2]
        side = int(random.integers(min(height, width) // least, min(height, width) + 1))
        top, left = (int(random.integers(0, length - side + 1)) for length in (height, width))
        square = Image.fromarray(photo[top : top + side, left : left + side])
        crop = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
        crops.append(np.ascontiguousarray(crop[:, ::-1]) if random.integers(0, 2) else crop)
    return crops
