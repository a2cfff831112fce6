"""From an image file to a network's input, by the recipe's ``data.preprocess``; Pillow does the decoding.

What is done, in this order: the first frame is decoded; 16-bit gray is brought to 8 bits by
``round(v / 257)``; the EXIF orientation is applied; an alpha channel is dropped, as ``Image.convert("RGB")``
does it, so the colour under transparent pixels stays; CMYK, YCbCr, LAB and palettes become RGB; gray is ITU-R
601 luma; the image is resized in 8 bits, so pixels stay whole numbers, as a camera gives them; then
``x = pixels * scale + offset``.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgec.frontends.recipe_data import PreprocessSpec
from edgec.ir.errors import InputError

MAX_PIXELS = 100_000_000
"""An image of more pixels is refused before it is decoded."""

# The EXIF tag of how the camera was held, and its values for portraits.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
# What Pillow's decoders raise on broken files; found by feeding them files with bytes changed and cut.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, NotImplementedError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class Preprocess:
    """Turns images into inputs of a network.

    Args:
        spec: the recipe's ``data.preprocess``.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self.spec = spec
        self._scale, self._offset = spec.affine()

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """``(scale, offset)``, float64 of shape ``[channels]``: ``x = pixels * scale + offset``."""
        return self._scale, self._offset

    def affine_by_input(self, inputs: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """:meth:`affine` by the name of the input that images feed; empty where its channels are not axis 1."""
        name = self.spec.input or next(iter(inputs), None)
        return {name: self.affine()} if name is not None and self.spec.layout == "nchw" else {}

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """The shape of one input without its sample axis; None for a side that each image decides."""
        height, width = self.spec.size or (None, None)
        if self.spec.layout == "nchw":
            return self.spec.channels, height, width
        return height, width, self.spec.channels

    def raw(self, image: str | Path | np.ndarray) -> np.ndarray:
        """The pixels after colour and resize: uint8 of shape :attr:`sample_shape`.

        Args:
            image: a file, or uint8 pixels of shape [height, width], [height, width, 1 or 3] in RGB order.

        Raises:
            InputError: the file cannot be decoded, has no pixels, or has more than :data:`MAX_PIXELS`.
        """
        if isinstance(image, np.ndarray):
            picture = _from_array(image)
            return self._pixels(picture)
        path = Path(image)
        with warnings.catch_warnings():
            # Broken metadata and large sizes are Pillow's warnings; the sizes are checked below.
            warnings.simplefilter("ignore")
            try:
                if path.is_fifo():  # opening one would wait for a writer
                    raise InputError(str(path), "is a pipe, not an image", "take it out of the folder")
                with Image.open(path, formats=_FORMATS) as picture:
                    _check_size(path, picture)
                    return self._pixels(_eight_bits(path, picture))
            except _DECODING_ERRORS as error:
                raise InputError(str(path), *_why(error)) from error

    def __call__(self, image: str | Path | np.ndarray) -> np.ndarray:
        """The network's input without its sample axis: float32, shape :attr:`sample_shape`."""
        return self.normalize(self.raw(image))

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """``pixels * scale + offset`` per channel, float32; any number of leading sample axes."""
        scale, offset = self._per_channel()
        return (pixels * scale + offset).astype(np.float32)

    def _per_channel(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (-1, 1, 1) if self.spec.layout == "nchw" else (1, 1, -1)
        return self._scale.reshape(shape), self._offset.reshape(shape)

    def _pixels(self, picture: Image.Image) -> np.ndarray:
        picture = picture.convert("L" if self.spec.color == "gray" else "RGB")
        if self.spec.size is not None:
            picture = _fit(picture, self.spec.size, self.spec.fit, _FILTERS[self.spec.resize])
        pixels = np.asarray(picture, np.uint8)
        if self.spec.color == "gray":
            pixels = pixels[:, :, np.newaxis]
        elif self.spec.color == "bgr":
            pixels = pixels[:, :, ::-1]
        if self.spec.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright, without decoding it.

    Raises:
        InputError: it is no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
    except _DECODING_ERRORS as error:
        raise InputError(str(path), *_why(error)) from error
    return (width, height) if turned else (height, width)


def _why(error: BaseException) -> tuple[str, str]:
    if isinstance(error, InputError):
        return error.what, error.fix
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels", "scale it down before it is used here"
    if isinstance(error, FileNotFoundError):
        return "there is no such file", "leave the folder as it is while edgec runs"
    if isinstance(error, PermissionError):
        return f"cannot be read ({error.strerror})", "check its permissions"
    if isinstance(error, UnidentifiedImageError):
        reason = "its content is of no known format, or it has no pixels"
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be decoded as an image ({reason})", "replace it or take it out of the folder"


def _check_size(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(
            str(path),
            f"has {width * height:,} pixels, more than {MAX_PIXELS:,}",
            "scale it down before it is used here",
        )


def _eight_bits(path: Path, picture: Image.Image) -> Image.Image:
    """The decoded image, upright, in a mode that converts to L and RGB without a surprise."""
    wide = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    if picture.mode in ("I", "F") and not wide:
        raise InputError(
            str(path),
            f"has 32-bit pixels (mode {picture.mode}), whose range is not known",
            "save it with 8 or 16 bits",
        )
    upright = ImageOps.exif_transpose(picture)
    if wide:
        values = np.asarray(upright).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if upright.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "RGBa", "RGBX"):
        return upright.convert("RGB")
    return upright


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise InputError(
            "pixels",
            f"{pixels.dtype} of shape {list(pixels.shape)} is no image",
            "pass uint8 of shape [height, width] or [height, width, 3]",
        )
    if pixels.size == 0:
        raise InputError("pixels", f"has no pixels (shape {list(pixels.shape)})")
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _fit(picture: Image.Image, size: tuple[int, int], fit: str, resample: Image.Resampling) -> Image.Image:
    height, width = size
    if picture.size == (width, height):
        return picture
    if fit == "stretch":
        return picture.resize((width, height), resample)
    if fit == "crop":
        ratio = max(height / picture.height, width / picture.width)
        # The part of the image that stays, in its own pixels: no image in between, however thin this one is.
        left = max(picture.width - width / ratio, 0) / 2
        top = max(picture.height - height / ratio, 0) / 2
        box = left, top, picture.width - left, picture.height - top
        return picture.resize((width, height), resample, box=box)
    ratio = min(height / picture.height, width / picture.width)
    inner_width = min(max(round(picture.width * ratio), 1), width)
    inner_height = min(max(round(picture.height * ratio), 1), height)
    canvas = Image.new(picture.mode, (width, height))
    inner = picture.resize((inner_width, inner_height), resample)
    canvas.paste(inner, ((width - inner_width) // 2, (height - inner_height) // 2))
    return canvas
