"""From pictures to a network's input, with numpy alone: what lies beside this file says how (results.json).

PNG, PPM and PGM files are read here; others by Pillow or OpenCV, where one is installed. Frames of a camera come as raw
RGB from a pipe. Sizes are changed as Pillow changes them: the filter is widened when a picture shrinks.
"""

import importlib
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Optional, Tuple

import numpy as np

KINDS = (".png", ".ppm", ".pgm", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# A picture of more pixels is refused before it is decoded.
MOST_PIXELS = 100000000
_SUPPORT = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


class PictureError(Exception):
    """A picture that cannot be read; the text is one line."""


def find(place: Path) -> Iterator[Path]:
    """The pictures of a folder and the folders in it, in sorted order; or the one file that ``place`` is."""
    if place.is_dir():
        yield from (path for path in sorted(place.rglob("*")) if path.suffix.lower() in KINDS)
    else:
        yield place


def read(path: Path) -> np.ndarray:
    """The pixels of a file: uint8 of shape [height, width, 3], in RGB order."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(8)
            stream.seek(0)
            if begin == b"\x89PNG\r\n\x1a\n":
                return _png(stream.read(), path)
            if begin[:2] in (b"P5", b"P6"):
                return _netpbm(stream, path)
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror})") from None
    return _by_library(path)


def frames(stream: BinaryIO, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames of raw RGB, as ``ffmpeg -pix_fmt rgb24 -f rawvideo -`` writes them, until the pipe ends."""
    size = width * height * 3
    while True:
        content = stream.read(size)
        if len(content) < size:
            return
        yield np.frombuffer(content, np.uint8).reshape(height, width, 3)


def entered(picture: np.ndarray, how: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray]:
    """What a network takes for a picture, and how to come back.

    Args:
        picture: uint8 of shape [height, width, 3].
        how: ``size``, ``color``, ``scale``, ``offset``, ``resize``, ``fit`` and ``layout``, as the recipe says them.

    Returns:
        float32 without a sample axis, and (x scale, y scale, x offset, y offset) such that a place in the picture is
        scale times the place in the input, plus the offset.
    """
    height, width = picture.shape[:2]
    pixels = _gray(picture)[:, :, np.newaxis] if how["color"] == "gray" else picture
    (tall, wide), inner, (top, left), box, back = placed(height, width, how)
    pixels = resized(pixels, inner[0], inner[1], how["resize"], box)
    if inner != (tall, wide):
        full = np.zeros((tall, wide, pixels.shape[2]), np.uint8)
        full[top : top + inner[0], left : left + inner[1]] = pixels
        pixels = full
    if how["color"] == "bgr":
        pixels = pixels[:, :, ::-1]
    x = pixels * np.asarray(how["scale"], np.float64) + np.asarray(how["offset"], np.float64)
    x = x.astype(np.float32)
    return (x.transpose(2, 0, 1) if how["layout"] == "nchw" else x), back


def placed(height: int, width: int, how: Dict[str, Any]) -> Tuple[Any, ...]:
    """Where a picture of that size goes.

    Returns:
        The input's sides, those of the picture in it, its (top, left) there, the part (top, left, bottom, right) of the
        picture that is taken, and how to come back, as :func:`entered` says it.
    """
    tall, wide = how["size"] or (height, width)
    top, left, box = 0, 0, (0.0, 0.0, float(height), float(width))
    inner = (tall, wide)
    if how["fit"] == "crop":
        ratio = max(tall / height, wide / width)
        cut = (max(height - tall / ratio, 0) / 2, max(width - wide / ratio, 0) / 2)
        box = (cut[0], cut[1], height - cut[0], width - cut[1])
    elif how["fit"] == "pad":
        ratio = min(tall / height, wide / width)
        inner = (min(max(round(height * ratio), 1), tall), min(max(round(width * ratio), 1), wide))
        top, left = (tall - inner[0]) // 2, (wide - inner[1]) // 2
    along, across = (box[2] - box[0]) / inner[0], (box[3] - box[1]) / inner[1]
    back = np.array([across, along, box[1] - left * across, box[0] - top * along])
    return (tall, wide), inner, (top, left), box, back


def resized(
    pixels: np.ndarray, height: int, width: int, kind: str, box: Optional[Tuple[float, float, float, float]] = None
) -> np.ndarray:
    """Pixels of another size, uint8, as Pillow's filter of that name makes them, to within one level.

    Args:
        pixels: uint8 of shape [height, width, channels].
        height: of the result.
        width: of the result.
        kind: ``nearest``, ``bilinear``, ``bicubic``, ``area`` or ``lanczos``.
        box: the part that is taken, (top, left, bottom, right) in pixels; all of it by default.
    """
    top, left, bottom, right = box or (0.0, 0.0, float(pixels.shape[0]), float(pixels.shape[1]))
    x = pixels.astype(np.float32)
    if (left, right) != (0, pixels.shape[1]) or width != pixels.shape[1]:
        columns = _weights(pixels.shape[1], width, left, right, kind)
        x = _rounded(np.matmul(columns, x))
    if (top, bottom) != (0, pixels.shape[0]) or height != pixels.shape[0]:
        rows = _weights(pixels.shape[0], height, top, bottom, kind)
        x = _rounded(np.tensordot(rows, x, axes=(1, 0)))
    return x.astype(np.uint8)


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(x + 0.5), 0, 255)


def _weights(before: int, behind: int, start: float, end: float, kind: str) -> np.ndarray:
    """How much each pixel of a line takes of each pixel of the line before: [behind, before]."""
    step = (end - start) / behind
    centres = start + (np.arange(behind) + 0.5) * step
    if kind == "nearest":
        return np.eye(before, dtype=np.float32)[np.minimum(centres.astype(int), before - 1)]
    distance = (np.arange(before) + 0.5 - centres[:, np.newaxis]) / max(step, 1.0)
    weights = np.where(np.abs(distance) <= _SUPPORT[kind], _kernel(distance, kind), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _kernel(x: np.ndarray, kind: str) -> np.ndarray:
    size = np.abs(x)
    if kind == "area":
        return ((x > -0.5) & (x <= 0.5)).astype(float)
    if kind == "bilinear":
        return np.maximum(1 - size, 0)
    if kind == "lanczos":
        return np.sinc(x) * np.sinc(x / 3)
    near = (1.5 * size - 2.5) * size * size + 1
    far = ((-0.5 * size + 2.5) * size - 4) * size + 2
    return np.where(size < 1, near, far)


def _gray(picture: np.ndarray) -> np.ndarray:
    """Luma by ITU-R 601, in Pillow's integers."""
    red, green, blue = (picture[:, :, place].astype(np.int64) for place in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return picture[:, :, 0]
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _check(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise PictureError(f"{path}: is of {width} x {height} pixels; scale it down")


def _netpbm(stream: BinaryIO, path: Path) -> np.ndarray:
    words = []  # type: list
    while len(words) < 4:
        line = stream.readline()
        if not line:
            raise PictureError(f"{path}: ends in its header")
        words += line.split(b"#")[0].split()
    if len(words) != 4 or words[3] != b"255" or not (words[1].isdigit() and words[2].isdigit()):
        raise PictureError(f"{path}: is no PPM or PGM of 8 bits")
    width, height, channels = int(words[1]), int(words[2]), 3 if words[0] == b"P6" else 1
    _check(path, width, height)
    content = stream.read(width * height * channels)
    if len(content) < width * height * channels:
        raise PictureError(f"{path}: is cut short")
    return _colored(np.frombuffer(content, np.uint8).reshape(height, width, channels))


def _png(content: bytes, path: Path) -> np.ndarray:
    place, data, palette = 8, [], None  # type: int, list, Optional[np.ndarray]
    header = None
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + size]
        place += size + 12
        if kind == b"IHDR" and len(body) == 13:
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"PLTE":
            palette = np.frombuffer(body[: size // 3 * 3], np.uint8).reshape(-1, 3)
        elif kind == b"IDAT":
            data.append(body)
        elif kind == b"IEND":
            break
    if header is None:
        raise PictureError(f"{path}: has no header")
    width, height, depth, color, _, _, interlaced = header
    _check(path, width, height)
    if depth != 8 or interlaced or color not in (0, 2, 3, 4, 6) or (color == 3 and palette is None):
        return _by_library(path)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = width * channels
    try:
        raw = zlib.decompressobj().decompress(b"".join(data), (row + 1) * height)
    except zlib.error as error:
        raise PictureError(f"{path}: cannot be decoded ({error})") from None
    if len(raw) < (row + 1) * height:
        raise PictureError(f"{path}: is cut short")
    lines = np.frombuffer(raw, np.uint8).reshape(height, row + 1)
    pixels = _unfiltered(lines, channels, path).reshape(height, width, channels)
    if palette is not None and color == 3:
        if int(pixels.max()) >= len(palette):
            raise PictureError(f"{path}: takes a colour that its palette lacks")
        return palette[pixels[:, :, 0]]
    return _colored(pixels[:, :, :1] if channels == 2 else pixels[:, :, :3])


def _unfiltered(lines: np.ndarray, step: int, path: Path) -> np.ndarray:
    """PNG's filters undone; a pixel of filters 1, 3 and 4 depends on the one to its left, so these take a loop."""
    above = np.zeros(lines.shape[1] - 1, np.uint8)
    out = np.empty((len(lines), lines.shape[1] - 1), np.uint8)
    for place, line in enumerate(lines):
        kind, values = int(line[0]), line[1:]
        if kind == 0:
            row = values
        elif kind == 1:
            row = np.cumsum(values.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:
            row = values + above
        elif kind in (3, 4):
            row = _by_pixel(kind, values, above, step)
        else:
            raise PictureError(f"{path}: has a line of an unknown filter")
        out[place] = above = row
    return out


def _by_pixel(kind: int, values: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    row, line, up = [0] * len(values), values.tolist(), above.tolist()
    for place, value in enumerate(line):
        left, corner = (row[place - step], up[place - step]) if place >= step else (0, 0)
        if kind == 3:
            guess = (left + up[place]) // 2
        else:
            estimate = left + up[place] - corner
            apart = (abs(estimate - left), abs(estimate - up[place]), abs(estimate - corner))
            guess = (left, up[place], corner)[apart.index(min(apart))]
        row[place] = (value + guess) & 255
    return np.array(row, np.uint8)


def _colored(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _by_library(path: Path) -> np.ndarray:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        pass
    else:
        try:
            with Image.open(str(path)) as picture:
                _check(path, *picture.size)
                return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise PictureError(f"{path}: cannot be decoded ({error})") from None
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        what = "{}: is no PNG, PPM or PGM of 8 bits, and neither Pillow nor OpenCV is installed to read it"
        raise PictureError(what.format(path)) from None
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise PictureError(f"{path}: cannot be decoded")
    return pixels[:, :, ::-1]
