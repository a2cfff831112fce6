"""Render capsule images for visual inspection, in the folder layout of MVTec AD's `capsule` class.

    python examples/capsule/render.py [--out DIR] [--size 128] [--seed 0] [--only N]

A two-piece hard capsule (black cap, orange body, white print) lies on a light table under a long lamp. Pose,
lamp, colours, print, surface texture and sensor noise differ from image to image; a flawed image carries one
flaw. Every image is drawn from its own seed, (seed, folder, index), so none depends on another.

Lengths are in image widths, with the origin at the image's centre; (u, v) run along and across the capsule.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from PIL import Image

FOLDERS: dict[str, int] = {
    "train/good": 219,
    "test/good": 23,
    "test/crack": 23,
    "test/faulty_imprint": 22,
    "test/poke": 21,
    "test/scratch": 23,
    "test/squeeze": 20,
}
"""Images per folder: MVTec AD's own split of the class."""

STAMP = "rendered.json"

HALF_LENGTH = 0.265  # of the straight part
CAP_RADIUS = 0.140
BODY_RADIUS = 0.131
OVERSAMPLING = 2
STROKE = 0.075  # half the width of a print stroke, in glyph heights

Array = np.ndarray


# --- the print ----------------------------------------------------------------------------------------------


def _arc(cx: float, cy: float, rx: float, ry: float, start: float, stop: float, points: int = 14) -> Array:
    angle = np.radians(np.linspace(start, stop, points))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _glyph_strokes(text: str) -> list[Array]:
    """Polylines of `text` in glyph heights: x to the right, y down, centred on the origin."""
    five = np.vstack([[[0.25, -0.5], [-0.2, -0.5], [-0.24, -0.06]], _arc(0.0, 0.18, 0.28, 0.31, -130, 145)])
    glyphs = {
        "5": [five],
        "0": [_arc(0.0, 0.0, 0.28, 0.5, 0, 360, 28)],
        "A": [np.array([[-0.34, 0.5], [0.0, -0.5], [0.34, 0.5]]), np.array([[-0.22, 0.16], [0.22, 0.16]])],
        "C": [_arc(0.04, 0.0, 0.34, 0.5, 45, 315, 24)],
    }
    advance = 0.82
    offsets = (np.arange(len(text)) - (len(text) - 1) / 2) * advance
    return [stroke + np.array([dx, 0.0]) for letter, dx in zip(text, offsets, strict=True) for stroke in glyphs[letter]]


def stroke_distance(x: Array, y: Array, points: Array) -> Array:
    """Distance from each (x, y) to a polyline of shape (n, 2), n >= 2; the result has x's shape."""
    a, step = points[:-1], np.diff(points, axis=0)
    px, py = x[..., None] - a[:, 0], y[..., None] - a[:, 1]
    along = (px * step[:, 0] + py * step[:, 1]) / np.maximum((step**2).sum(axis=1), 1e-12)
    along = np.clip(along, 0.0, 1.0)
    return np.sqrt(((px - along * step[:, 0]) ** 2 + (py - along * step[:, 1]) ** 2).min(axis=-1))


ATLAS_HALF_HEIGHT, ATLAS_STEP = 0.8, 1 / 48


@cache
def _glyph_atlas(text: str) -> Array:
    """Distance field of `text`, sampled every ATLAS_STEP glyph heights."""
    half_width = 0.41 * len(text) + 0.3
    x = np.arange(-half_width, half_width, ATLAS_STEP)
    y = np.arange(-ATLAS_HALF_HEIGHT, ATLAS_HALF_HEIGHT, ATLAS_STEP)
    gx, gy = np.meshgrid(x, y)
    return np.min([stroke_distance(gx, gy, stroke) for stroke in _glyph_strokes(text)], axis=0)


def _ink(x: Array, y: Array, text: str, softness: float) -> Array:
    """How much ink lies at each (x, y), in glyph heights: 0 bare, 1 covered."""
    atlas = _glyph_atlas(text)
    rows, columns = atlas.shape
    column = np.clip(x / ATLAS_STEP + columns / 2, 0, columns - 1.001)
    row = np.clip(y / ATLAS_STEP + rows / 2, 0, rows - 1.001)
    c, r = column.astype(np.intp), row.astype(np.intp)
    fc, fr = column - c, row - r
    upper = atlas[r, c] * (1 - fc) + atlas[r, c + 1] * fc
    lower = atlas[r + 1, c] * (1 - fc) + atlas[r + 1, c + 1] * fc
    return np.clip(0.5 + (STROKE - (upper * (1 - fr) + lower * fr)) / softness, 0.0, 1.0)


# --- what may be wrong --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A line on the surface: `depth` darkens its core, `lip` lights its lower edge, `haze` whitens it."""

    points: Array
    width: float
    depth: float = 0.0
    lip: float = 0.0
    haze: float = 0.0


@dataclass(frozen=True)
class Flaw:
    """What sets a flawed capsule apart from its sound twin; the default is no flaw."""

    marks: tuple[Mark, ...] = ()
    squeeze: tuple[float, float, float, float] | None = None  # place u, half width, depth above, depth below
    smear: float = 0.0  # ink dragged along u, in glyph heights
    ghost: tuple[float, float, float] | None = None  # a second print: shift x, y in glyph heights, strength
    wiped: tuple[float, float, float] | None = None  # print rubbed off: x, y, radius in glyph heights
    blot: tuple[float, float, float] | None = None  # ink spilt: likewise


def _line(rng: Generator, length: float, bend: float, pieces: int) -> Array:
    """A wandering line somewhere on the capsule's visible side, shape (pieces + 1, 2) in (u, v)."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, pieces))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / pieces)
    line = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    line += [rng.uniform(-0.27, 0.27), rng.uniform(-0.07, 0.07)] - line.mean(axis=0)
    line[:, 1] = np.clip(line[:, 1], -0.11, 0.11)
    return line


def _crack(rng: Generator) -> Flaw:
    line = _line(rng, rng.uniform(0.12, 0.26), 0.5, 7)
    core = Mark(line, rng.uniform(0.0045, 0.0075), depth=rng.uniform(0.6, 0.9), lip=rng.uniform(0.35, 0.60))
    branch = line[3] + np.cumsum(rng.normal(0, 0.012, (3, 2)), axis=0)
    return Flaw(marks=(core, replace(core, points=np.vstack([line[3], branch]), width=core.width * 0.7)))


def _scratch(rng: Generator) -> Flaw:
    first = _line(rng, rng.uniform(0.12, 0.28), 0.08, 5)
    width, haze = rng.uniform(0.0035, 0.006), rng.uniform(0.35, 0.65)
    beside = [first + rng.normal(0, 0.012, 2) for _ in range(rng.integers(0, 3))]
    return Flaw(marks=tuple(Mark(line, width, haze=haze) for line in [first, *beside]))


def _poke(rng: Generator) -> Flaw:
    place = np.array([rng.uniform(-0.30, 0.30), rng.uniform(-0.08, 0.08)])
    radius = rng.uniform(0.014, 0.024)
    points = np.stack([place, place + rng.normal(0, 0.004, 2)])
    return Flaw(marks=(Mark(points, radius, depth=rng.uniform(0.6, 0.9), lip=rng.uniform(0.25, 0.5)),))


def _squeeze(rng: Generator) -> Flaw:
    place = rng.uniform(-0.28, 0.28)
    above, below = rng.uniform(0.06, 0.16, 2) * rng.permutation([1.0, rng.choice([0.0, 0.7])])
    return Flaw(squeeze=(place, rng.uniform(0.03, 0.06), above, below))


def _faulty_imprint(rng: Generator) -> Flaw:
    spot = (rng.uniform(-0.9, 0.9), rng.uniform(-0.3, 0.3))
    way = rng.integers(4)
    if way == 0:
        return Flaw(smear=rng.uniform(0.25, 0.6))
    if way == 1:
        aside = rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)
        return Flaw(ghost=(aside, rng.uniform(-0.25, 0.25), rng.uniform(0.5, 0.9)))
    if way == 2:
        return Flaw(wiped=(*spot, rng.uniform(0.4, 0.65)))
    return Flaw(blot=(*spot, rng.uniform(0.18, 0.28)))


FLAWS = {
    "crack": _crack,
    "faulty_imprint": _faulty_imprint,
    "poke": _poke,
    "scratch": _scratch,
    "squeeze": _squeeze,
}


# --- the scene ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Everything that differs between two sound images, the sensor's noise apart."""

    shift: Array
    angle: float
    scale: float
    seam: float
    tilt: float  # how far the view looks onto the seam: it curves
    roll: float  # of the print around the axis, radians
    print_place: float
    print_size: float
    print_strength: float
    gain: float
    slope: Array  # of the lamp's light over the table, per image width
    lamp: float  # where the highlight lies: the normal's v
    lamp_width: float
    gloss: float
    cap: Array
    body: Array
    table: Array
    shadow: Array  # its offset and darkness
    grain: Array = field(repr=False)  # coarse grids of surface noise
    wear: Array = field(repr=False)


def _draw_scene(rng: Generator) -> Scene:
    return Scene(
        shift=rng.uniform(-0.006, 0.006, 2),
        angle=np.radians(rng.normal(0, 0.6)),
        scale=1 + rng.uniform(-0.006, 0.006),
        seam=0.015 + rng.uniform(-0.004, 0.004),
        tilt=rng.uniform(-0.008, 0.008),
        roll=rng.normal(0, 0.04),
        print_place=0.165 + rng.uniform(-0.004, 0.004),
        print_size=0.088 + rng.uniform(-0.0015, 0.0015),
        print_strength=rng.uniform(0.80, 0.95),
        gain=rng.uniform(0.95, 1.05),
        slope=rng.normal(0, 0.03, 2),
        lamp=-0.42 + rng.uniform(-0.04, 0.04),
        lamp_width=rng.uniform(0.13, 0.17),
        gloss=rng.uniform(0.50, 0.65),
        cap=np.array([0.085, 0.078, 0.080]) * rng.uniform(0.85, 1.15),
        body=np.array([0.86, 0.41, 0.11]) * rng.uniform(0.95, 1.05, 3),
        table=np.array([0.83, 0.84, 0.83]) + rng.normal(0, 0.008, 3),
        shadow=np.array([rng.uniform(-0.01, 0.02), rng.uniform(0.030, 0.042), rng.uniform(0.38, 0.50)]),
        grain=rng.normal(0, 1, (40, 40)).astype(np.float32),
        wear=rng.normal(0, 1, (32, 32)).astype(np.float32),
    )


def _spread(grid: Array, pixels: int) -> Array:
    """A coarse grid of noise, smoothly enlarged to (pixels, pixels)."""
    return np.asarray(Image.fromarray(grid).resize((pixels, pixels), Image.Resampling.BICUBIC))


def _bump(x: Array) -> Array:
    return np.exp(-np.square(x))


def _radius(u: Array, v: Array, on_cap: Array, flaw: Flaw) -> tuple[Array, Array]:
    """The capsule's radius at each point, and its slope along u; `on_cap` goes from 0, body, to 1, cap."""
    radius = BODY_RADIUS + (CAP_RADIUS - BODY_RADIUS) * on_cap
    if flaw.squeeze is None:
        return radius, np.zeros_like(radius)
    place, width, above, below = flaw.squeeze
    dent = np.where(v < 0, above, below) * _bump((u - place) / width)
    return radius * (1 - dent), radius * dent * 2 * (u - place) / width**2


def _outline(u: Array, v: Array, radius: Array) -> Array:
    """Distance from the axis' straight part, less the radius: below 0 inside."""
    return np.hypot(np.maximum(np.abs(u) - HALF_LENGTH, 0), v) - radius


def _print_cover(u: Array, v: Array, radius: Array, scene: Scene, flaw: Flaw, wear: Array) -> Array:
    """Ink on the surface, 0 to 1: the strength "500" on the body and the maker's mark on the cap."""
    around = radius * (np.arcsin(np.clip(v / radius, -1, 1)) - scene.roll)
    x, y = (u - scene.print_place) / scene.print_size, around / scene.print_size
    softness = 0.09
    ink = _ink(x, y, "500", softness)
    if flaw.smear:
        drags = np.linspace(0, flaw.smear, 6)
        trail = np.mean([_ink(x - drag, y, "500", softness) for drag in drags], axis=0)
        ink = np.maximum(0.35 * ink, 1.25 * trail).clip(0, 1)
    if flaw.ghost is not None:
        ink = np.maximum(ink, flaw.ghost[2] * _ink(x - flaw.ghost[0], y - flaw.ghost[1], "500", softness))
    if flaw.wiped is not None:
        away = np.hypot(x - flaw.wiped[0], y - flaw.wiped[1]) - flaw.wiped[2]
        ink = ink * np.clip(away / 0.15 + wear / 6, 0, 1)
    if flaw.blot is not None:
        away = np.hypot(x - flaw.blot[0], y - flaw.blot[1]) - flaw.blot[2] * (1 + wear / 8)
        ink = np.maximum(ink, np.clip(-away / 0.06, 0, 1))
    mark = _ink((u + 0.175) / (0.72 * scene.print_size), around / (0.72 * scene.print_size), "AC", softness)
    return np.maximum(ink, 0.85 * mark) * np.clip(scene.print_strength * (1 - 0.06 * wear), 0, 1)


def _apply_mark(colour: Array, u: Array, v: Array, mark: Mark) -> None:
    """Draw one mark into `colour`, shape (pixels, pixels, 3), in place, touching only the box around it."""
    reach = 3.5 * mark.width
    low, high = mark.points.min(axis=0) - reach, mark.points.max(axis=0) + reach
    near = (u > low[0]) & (u < high[0]) & (v > low[1]) & (v < high[1])
    pu, pv, pixels = u[near], v[near], colour[near]
    core = _bump(stroke_distance(pu, pv, mark.points) / mark.width)[:, None]
    lower = _bump(stroke_distance(pu, pv - 1.3 * mark.width, mark.points) / (0.8 * mark.width))[:, None]
    pixels = pixels * (1 - mark.depth * core) + mark.lip * lower * (1 - core)
    colour[near] = pixels + mark.haze * core * (0.95 - pixels)


def _shade(scene: Scene, flaw: Flaw, pixels: int) -> Array:
    """The image before the sensor, float32 of shape (pixels, pixels, 3), 0 to about 1."""
    axis = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) / np.float32(pixels) - np.float32(0.5)
    x, y = np.meshgrid(axis, axis)
    cos, sin = np.float32(np.cos(scene.angle) / scene.scale), np.float32(np.sin(scene.angle) / scene.scale)
    dx, dy = x - np.float32(scene.shift[0]), y - np.float32(scene.shift[1])
    u, v = cos * dx + sin * dy, cos * dy - sin * dx

    seam = scene.seam + scene.tilt * (1 - np.square(v / CAP_RADIUS))
    radius, slope = _radius(u, v, (u < seam).astype(np.float32), flaw)
    outline = _outline(u, v, radius)
    grain, wear = _spread(scene.grain, pixels), _spread(scene.wear, pixels)

    end = np.sign(u) * np.maximum(np.abs(u) - HALF_LENGTH, 0)
    nu, nv = end / radius, v / radius
    nz = np.sqrt(np.clip(1 - nu**2 - nv**2, 0, 1))
    nu = nu - 0.9 * slope * nv * np.sign(v) + 0.010 * grain
    nv = nv + 0.010 * wear

    light = 0.56 + 0.46 * np.clip(0.30 * nu * -1 - 0.62 * nv + 0.72 * nz, 0, 1)
    strip = _bump((nv - scene.lamp) / scene.lamp_width) * _bump(nu / 0.55)
    sheen = scene.gloss * strip + 0.10 * _bump((nv - 0.62) / 0.10) * _bump(nu / 0.6) + 0.22 * (1 - nz) ** 4

    on_cap = np.clip((seam - u) * pixels, 0, 1)[..., None]
    base = scene.cap * on_cap + scene.body * (1 - on_cap)
    base = base * (1 + 0.012 * grain[..., None])
    past = u - seam
    contact = 1 - 0.45 * _bump(np.maximum(past, 0) / 0.012) * (past > 0)
    ring = _bump((past + 0.085) / 0.006) - _bump((past + 0.097) / 0.006)
    rim = 0.20 * _bump((past + 0.006) / 0.005) * nz + 0.07 * ring * nz

    cover = _print_cover(u, v, radius, scene, flaw, wear)[..., None]
    base = base * (1 - cover) + np.array([0.93, 0.92, 0.90]) * cover
    capsule = base * (light * contact)[..., None] + (sheen + rim)[..., None] * (1 - 0.25 * (1 - on_cap))
    for mark in flaw.marks:
        _apply_mark(capsule, u, v, mark)

    su, sv = u - scene.shadow[0], v - scene.shadow[1]
    shade = _outline(su, sv, _radius(su, sv, np.clip(0.5 - (su - seam) / 0.05, 0, 1), flaw)[0])
    dark = scene.shadow[2] / (1 + np.exp(np.clip(shade / 0.014, -30, 30)))
    touch = 0.25 * np.exp(-np.clip(outline, 0, None) / 0.010)
    table = scene.table * ((1 - dark) * (1 - touch) * (1 - 0.10 * (x**2 + y**2)))[..., None]

    inside = np.clip(0.5 - outline * pixels, 0, 1)[..., None]
    lamp_light = scene.gain * (1 + scene.slope[0] * x + scene.slope[1] * y)
    return (table * (1 - inside) + capsule * inside) * lamp_light[..., None]


def _sense(image: Array, size: int, rng: Generator) -> Array:
    """What the camera makes of it: lens blur, pixels, shot and read noise, 8 bits. Shape (size, size, 3)."""
    image = image.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean(axis=(1, 3))
    for axis in (0, 1):
        back, ahead = (image.take(np.clip(np.arange(size) + step, 0, size - 1), axis) for step in (-1, 1))
        image = 0.75 * image + 0.125 * (back + ahead)
    noise = rng.normal(0, 1, image.shape)
    image = image + noise * np.sqrt(0.006**2 + 0.00012 * np.clip(image, 0, 1))
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def render_image(folder: str, index: int, size: int = 128, seed: int = 0, flawed: bool = True) -> Array:
    """Image `index` of `folder` (a key of FOLDERS) as uint8 RGB of shape (size, size, 3).

    `flawed=False` gives the sound twin of a flawed image: the same capsule, lamp and noise, without the flaw.
    """
    if folder not in FOLDERS:
        raise ValueError(f"render_image: folder {folder!r} is unknown; use one of {', '.join(FOLDERS)}")
    key = SeedSequence([seed, list(FOLDERS).index(folder), index])
    scene_rng, flaw_rng, sensor_rng = (Generator(PCG64(child)) for child in key.spawn(3))
    scene = _draw_scene(scene_rng)
    kind = folder.rpartition("/")[2]
    flaw = FLAWS[kind](flaw_rng) if flawed and kind in FLAWS else Flaw()
    return _sense(_shade(scene, flaw, size * OVERSAMPLING), size, sensor_rng)


# --- the data set -------------------------------------------------------------------------------------------


def render_dataset(out: Path, size: int = 128, seed: int = 0, only: int | None = None) -> bool:
    """Write the data set to `out`; False where it is there already, made by the same code and arguments.

    The images are drawn into a folder beside `out` and moved in at the end: `out` is whole or absent. One
    that this script did not make is never replaced: FileExistsError.
    """
    stamp = out / STAMP
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made_with = {"size": size, "seed": seed, "only": only, "render.py": code}
    if stamp.is_file() and json.loads(stamp.read_text()) == made_with:
        return False
    if out.exists() and not stamp.is_file() and any(out.iterdir()):
        raise FileExistsError(f"{out}: holds files that render.py did not write; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        for folder, count in FOLDERS.items():
            (fresh / folder).mkdir(parents=True)
            for index in range(count if only is None else min(count, only)):
                image = Image.fromarray(render_image(folder, index, size, seed))
                image.save(fresh / folder / f"{index:03d}.png", compress_level=4)
        (fresh / STAMP).write_text(json.dumps(made_with) + "\n")
        if out.exists():
            shutil.move(out, Path(scratch) / "old")
        fresh.replace(out)
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render the capsule data set.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data", help="folder to write")
    parser.add_argument("--size", type=int, default=128, help="pixels on a side, 32 to 1024")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="at most this many images per folder")
    options = parser.parse_args(arguments)
    if not 32 <= options.size <= 1024:
        parser.error(f"--size {options.size}: out of range; choose 32 to 1024")
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: is negative; choose 0 or more")
    if options.only is not None and options.only < 1:
        parser.error(f"--only {options.only}: would draw nothing; choose 1 or more")
    try:
        drawn = render_dataset(options.out, options.size, options.seed, options.only)
    except OSError as error:
        print(f"render.py: {error}", file=sys.stderr)
        return 3
    total = sum(min(count, options.only or count) for count in FOLDERS.values())
    print(f"{options.out}: {total} images {'rendered' if drawn else 'are there already'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
