"""Vehicles from the side in weather, drawn deterministically: 128x128, gray, 0 to 1.

Five classes that differ in fine detail: sedan, wagon, minivan, van and truck, in any scale, place, tilt, paint and
light, to the left and to the right, before a street. Clear and mild weather is for training; bad weather is snow, rain
with droplets on the lens, fog, and night, each strong.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("sedan", "wagon", "minivan", "van", "truck")
BAD = ("snow", "rain", "fog", "night")
SIZE, _FINE = 128, 2

# Outlines in units of the length, x from the front, y up from the sill; then windows.
_BODY = {
    "sedan": "0,.04 .01,.15 .26,.20 .38,.335 .64,.345 .80,.22 .98,.20 1,.04",
    "wagon": "0,.04 .01,.15 .26,.20 .38,.335 .66,.350 .92,.33 .99,.20 1,.04",
    "minivan": "0,.04 .01,.17 .17,.22 .34,.390 .66,.405 .95,.38 .99,.20 1,.04",
    "van": "0,.04 .01,.19 .12,.24 .24,.430 .60,.445 .97,.44 .99,.20 1,.04",
    "truck": "0,.04 .01,.19 .10,.22 .18,.370 .33,.375 .34,.06 .99,.06 1,.04",
}
_WINDOWS = {
    "sedan": [".30,.205 .40,.315 .52,.32 .52,.21", ".54,.21 .54,.32 .63,.32 .75,.22"],
    "wagon": [
        ".30,.205 .40,.315 .52,.325 .52,.21", ".54,.21 .54,.325 .70,.325 .70,.215", ".72,.215 .72,.325 .89,.31 .94,.22",
    ],
    "minivan": [
        ".22,.235 .36,.365 .50,.375 .50,.24", ".52,.24 .52,.375 .72,.375 .72,.245", ".74,.245 .74,.375 .92,.36 .95,.25",
    ],
    "van": [".15,.26 .25,.405 .36,.41 .36,.26"],
    "truck": [".12,.23 .19,.345 .30,.35 .30,.23"],
}  # fmt: skip
_WHEELS = {"sedan": (0.2, 0.8), "wagon": (0.2, 0.8), "minivan": (0.18, 0.8), "van": (0.17, 0.79), "truck": (0.17, 0.8)}


def vehicles(count: int, weather: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 1, 128, 128) float32, and their classes.

    Args:
        count: how many.
        weather: ``clear``, ``mild`` (clear or a little of bad), ``bad``, or one of ``BAD``.
        seed: of everything.
    """
    random = np.random.default_rng([seed, len(weather)])
    labels = np.arange(count) % len(CLASSES)
    made = np.empty((count, 1, SIZE, SIZE), np.float32)
    for index, label in enumerate(labels):
        image = _scene(CLASSES[label], random)
        kind = weather
        strength = 1.0
        if weather in ("bad", "mild"):
            kind = BAD[int(random.integers(len(BAD)))]
            strength = 1.0 if weather == "bad" else float(random.choice([0.0, 0.0, random.uniform(0.05, 0.3)]))
        if kind in BAD and strength:
            image = _WEATHER[kind](image, strength, random)
        made[index, 0] = np.clip(image + random.normal(0, 0.01, image.shape), 0, 1)
    return np.round(made * 255) / np.float32(255), labels


def _points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def _scene(name: str, random: np.random.Generator) -> np.ndarray:
    side = SIZE * _FINE
    sky, street = random.uniform(0.5, 0.85), random.uniform(0.25, 0.5)
    horizon = int(side * random.uniform(0.35, 0.55))
    canvas = np.full((side, side), street)
    canvas[:horizon] = np.linspace(sky, sky * random.uniform(0.8, 1), horizon)[:, None]
    image = Image.fromarray((canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(3, 9))):  # houses and trees
        left, width, height = random.uniform(0, side), random.uniform(10, 60), random.uniform(10, horizon * 0.8)
        draw.rectangle([left, horizon - height, left + width, horizon], fill=int(255 * random.uniform(0.25, 0.75)))
    length = side * random.uniform(0.55, 0.85)
    ground = side * random.uniform(0.68, 0.82)
    x0, tilt = random.uniform(0.04, 0.96) * (side - length), random.uniform(-0.05, 0.05)
    flip, tall = bool(random.integers(2)), random.uniform(0.93, 1.07)
    paint, glass = random.uniform(0.15, 0.95), random.uniform(0.05, 0.3)

    def at(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        placed = []
        for x, y in points:
            x = 1 - x if flip else x
            px, py = x * length, (y + 0.06) * tall * length
            placed.append((x0 + px, ground - py - tilt * (px - length / 2)))
        return placed

    def fill(value: float) -> int:
        return int(255 * np.clip(value, 0, 1))

    draw.ellipse([x0 - 4, ground - 8, x0 + length + 4, ground + 8], fill=fill(street * 0.55))
    draw.polygon(at(_points(_BODY[name])), fill=fill(paint))
    if name == "truck":
        height = random.uniform(0.36, 0.46)
        draw.polygon(
            at([(0.36, 0.09), (0.36, height), (0.99, height), (0.99, 0.09)]), fill=fill(random.uniform(0.4, 0.95))
        )
    for window in _WINDOWS[name]:
        draw.polygon(at(_points(window)), fill=fill(glass))
    draw.line(at([(0.02, 0.11), (0.98, 0.11)]), fill=fill(paint * 0.75), width=2)
    radius = 0.075 * length
    for x in _WHEELS[name]:
        ((cx, cy),) = at([(x, 0.015)])
        draw.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], fill=fill(0.08))
        draw.ellipse([cx - radius / 2, cy - radius / 2, cx + radius / 2, cy + radius / 2], fill=fill(0.5))
    small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
    light = 1 + random.uniform(-0.2, 0.2) * np.linspace(-1, 1, SIZE, dtype=np.float32)[None]
    return small * light * random.uniform(0.8, 1.1)


def _blobs(count: int, least: float, most: float, random: np.random.Generator) -> np.ndarray:
    """Discs of random size on black, 0 to 1."""
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    for x, y, r, v in zip(*random.uniform(0, SIZE, (2, count)), random.uniform(least, most, count),
                          random.uniform(120, 255, count), strict=True):  # fmt: skip
        draw.ellipse([x - r, y - r, x + r, y + r], fill=int(v))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(least)), np.float32) / 255


def _blurred(image: np.ndarray, radius: float) -> np.ndarray:
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, np.float32) / 255


def _snow(image: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Flakes, some of them large and out of focus in front of the lens."""
    near = _blobs(int(10 * strength) + 1, 6, 14, random) * 0.75 * strength
    far = _blobs(int(50 * strength) + 1, 0.6, 1.6, random)
    veil = 0.25 * strength
    image = image * (1 - veil) + 0.85 * veil
    image = image * (1 - near) + 0.95 * near
    return image * (1 - far) + far


def _rain(image: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Streaks, and droplets on the lens that blur and brighten what is behind them."""
    streaks = Image.new("L", (SIZE, SIZE))
    draw, slant = ImageDraw.Draw(streaks), random.uniform(-6, 6)
    for x, y in random.uniform(0, SIZE, (int(60 * strength) + 1, 2)):
        draw.line([x, y, x + slant, y + random.uniform(8, 22)], fill=int(random.uniform(40, 110)))
    mask = np.clip(_blobs(int(12 * strength) + 1, 5, 12, random) * 1.3, 0, 1)
    image = image * (1 - mask) + (_blurred(image, 6) * 0.85 + 0.12) * mask
    return image * (1 - 0.25 * strength) + np.asarray(streaks, np.float32) / 255 * 0.6


def _fog(image: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Contrast is lost, more of it higher up."""
    thick = np.clip(strength * random.uniform(0.6, 0.82) + 0.08 * np.linspace(1, -1, SIZE)[:, None], 0, 0.95)
    return (image * (1 - thick) + random.uniform(0.6, 0.8) * thick).astype(np.float32)


def _night(image: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Little light and the noise of a camera, lamps with halos."""
    dark = image * (1 - strength * random.uniform(0.7, 0.85))
    lamps = np.zeros((SIZE, SIZE), np.float32)
    for x, y in random.uniform([0, 0], [SIZE, SIZE * 0.45], (int(random.integers(1, 4)), 2)):
        distance = np.hypot(np.arange(SIZE)[None] - x, np.arange(SIZE)[:, None] - y)
        lamps += 0.6 * strength * np.exp(-((distance / random.uniform(4, 10)) ** 2)) + 0.15 * strength / (
            1 + distance / 8
        )
    return (dark + lamps + random.normal(0, 0.012 * strength, image.shape)).astype(np.float32)


_WEATHER = {"snow": _snow, "rain": _rain, "fog": _fog, "night": _night}
