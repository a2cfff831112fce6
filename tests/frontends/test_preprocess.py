"""From image files to pixels and inputs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgec.frontends import preprocess as module
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import PreprocessSpec
from edgec.ir.errors import InputError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def raw(image: Path | np.ndarray, **spec: object) -> np.ndarray:
    return Preprocess(PreprocessSpec.model_validate(spec)).raw(image)


def test_colors_and_layouts(save_image) -> None:
    path = save_image("x.png", RGB)
    assert np.array_equal(raw(path), RGB.transpose(2, 0, 1))
    assert np.array_equal(raw(path, layout="nhwc"), RGB)
    assert np.array_equal(raw(path, color="bgr"), RGB.transpose(2, 0, 1)[::-1])
    gray = raw(path, color="gray")
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    assert (gray.shape, gray.dtype) == ((1, 2, 3), np.uint8)
    assert np.array_equal(gray[0], luma)
    assert raw(path, color="gray", layout="nhwc").shape == (2, 3, 1)
    assert np.array_equal(raw(RGB), raw(path))


def test_the_input_is_the_affine_map_of_the_pixels(save_image) -> None:
    path = save_image("x.png", RGB)
    spec = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    for layout, axis in [("nchw", (3, 1, 1)), ("nhwc", (1, 1, 3))]:
        preprocess = Preprocess(PreprocessSpec.model_validate({**spec, "layout": layout}))
        pixels, x = preprocess.raw(path), preprocess(path)
        mean, std = (np.reshape(spec[key], axis) for key in ("mean", "std"))
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, (pixels / 255 - mean) / std, rtol=1e-6, atol=1e-7)
        scale, offset = (values.reshape(axis) for values in preprocess.affine())
        np.testing.assert_allclose(x, pixels * scale + offset, rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-4, 1), st.floats(-2, 2), st.floats(0.05, 5))
def test_the_inverse_map_restores_whole_pixels(scale: float, mean: float, std: float) -> None:
    spec = PreprocessSpec.model_validate({"scale": scale, "mean": mean * scale * 255, "std": std, "color": "gray"})
    preprocess = Preprocess(spec)
    pixels = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    factor, offset = preprocess.affine()
    restored = (preprocess.normalize(pixels) - offset) / factor
    assert np.abs(restored - pixels).max() < 1e-3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(save_image, orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # What a camera would have stored, so that the given orientation turns it back.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image("x.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(raw(path, color="gray")[0], upright)


def test_alpha_is_dropped_and_the_colour_under_it_stays(save_image) -> None:
    alpha = np.array([[0, 128, 255]] * 2, np.uint8)[:, :, np.newaxis]
    path = save_image("x.png", np.concatenate([RGB, alpha], axis=2))
    assert np.array_equal(raw(path, layout="nhwc"), RGB)
    gray_alpha = np.concatenate([RGB[:, :, :1], alpha], axis=2)
    assert np.array_equal(raw(save_image("la.png", gray_alpha), color="gray")[0], RGB[:, :, 0])


def test_sixteen_bits_become_eight(save_image) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    for name in ("x.png", "x.tif"):
        assert raw(save_image(name, values), color="gray").ravel().tolist() == [0, 0, 1, 1, 128, 255]
    assert raw(save_image("x.png", values)).shape == (3, 1, 6)


def test_sixteen_bits_are_turned_upright_too(save_image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save_image("x.png", np.array([[0, 257 * 7]], np.uint16), exif=exif)
    assert raw(path, color="gray")[0].tolist() == [[0.0], [7.0]]


def test_palettes_cmyk_and_one_bit(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB)
    picture.quantize(6).save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(raw(tmp_path / "palette.png", layout="nhwc"), RGB)
    picture.convert("CMYK").save(tmp_path / "x.tif")
    assert np.array_equal(raw(tmp_path / "x.tif", layout="nhwc"), RGB)
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bits.png")
    assert raw(tmp_path / "bits.png", color="gray").ravel().tolist() == [0, 255]


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (50, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert raw(tmp_path / "x.gif", color="gray").ravel().tolist() == [50] * 4


def test_stretch_resizes_as_pillow_does_and_keeps_whole_numbers() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (13, 17), np.uint8)
    filters = {
        "bilinear": "BILINEAR",
        "nearest": "NEAREST",
        "bicubic": "BICUBIC",
        "area": "BOX",
        "lanczos": "LANCZOS",
    }
    for name, filter_ in filters.items():
        got = raw(picture, color="gray", size=[5, 6], resize=name)
        assert np.array_equal(got[0], Image.fromarray(picture).resize((6, 5), Image.Resampling[filter_]))
        assert np.array_equal(got, np.round(got))


def test_crop_keeps_the_centre() -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = np.arange(16).reshape(4, 4)
    assert np.array_equal(raw(wide, color="gray", size=[4, 4], fit="crop")[0], wide[:, 4:8])
    assert np.array_equal(raw(wide.T.copy(), color="gray", size=[4, 4], fit="crop")[0], wide[:, 4:8].T)
    halved = raw(np.repeat(np.repeat(wide, 2, 0), 2, 1), color="gray", size=[4, 4], fit="crop", resize="area")
    assert np.array_equal(halved[0], wide[:, 4:8])


def test_pad_keeps_all_of_it_in_the_middle() -> None:
    wide = np.full((2, 8), 9, np.uint8)
    got = raw(wide, color="gray", size=[8, 8], fit="pad")[0]
    assert got.sum() == 2 * 8 * 9
    assert (got[3:5] == 9).all()
    assert raw(np.full((1, 5000), 9, np.uint8), color="gray", size=[8, 8], fit="pad").max() == 9


def test_a_sliver_is_cropped_without_being_blown_up() -> None:
    got = raw(np.full((1, 60000), 3, np.uint8), color="gray", size=[512, 512], fit="crop")
    assert got.shape == (1, 512, 512) and (got == 3).all()


def _png_that_claims(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + head, b"IDAT" + zlib.compress(bytes(100))):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.png",
            b"no image",
            "x.png: cannot be decoded as an image (its content is of no known format, or it has no pixels);"
            " replace it or take it out of the folder",
        ),
        (
            "x.png",
            b"",
            "x.png: cannot be decoded as an image (its content is of no known format, or it has no pixels);"
            " replace it or take it out of the folder",
        ),
        (
            "x.png",
            _png_that_claims(20_000, 20_000),
            "x.png: has more than 100,000,000 pixels; scale it down before it is used here",
        ),
        (
            "x.png",
            _png_that_claims(12_000, 10_000),
            "x.png: has 120,000,000 pixels, more than 100,000,000; scale it down before it is used here",
        ),
        (
            "x.pgm",
            b"P5 0 4 255\n",
            "x.pgm: cannot be decoded as an image (its content is of no known format, or it has no pixels);"
            " replace it or take it out of the folder",
        ),
        (
            "x.eps",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "x.eps: cannot be decoded as an image (its content is of no known format, or it has no pixels);"
            " replace it or take it out of the folder",
        ),
    ],
)
def test_files_that_are_refused(here: Path, name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        raw(Path(name))
    assert str(caught.value) == message


def test_a_truncated_image_names_its_file(here: Path, save_image) -> None:
    path = save_image("good/003.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError) as caught:
        raw(Path("good/003.png"))
    assert str(caught.value) == (
        "good/003.png: cannot be decoded as an image (image file is truncated); replace it or take it out of the folder"
    )


def test_a_file_that_went_away(here: Path) -> None:
    with pytest.raises(InputError) as caught:
        raw(Path("gone.png"))
    assert str(caught.value) == "gone.png: there is no such file; leave the folder as it is while edgec runs"


def test_pixels_without_a_range_are_refused(here: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save("x.tif")
    with pytest.raises(InputError) as caught:
        raw(Path("x.tif"))
    assert str(caught.value) == (
        "x.tif: has 32-bit pixels (mode F), whose range is not known; save it with 8 or 16 bits"
    )


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.zeros((2, 2), np.float32),
            "pixels: float32 of shape [2, 2] is no image; pass uint8 of shape [height, width] or [height, width, 3]",
        ),
        (
            np.zeros((2, 2, 4), np.uint8),
            "pixels: uint8 of shape [2, 2, 4] is no image; pass uint8 of shape [height, width] or [height, width, 3]",
        ),
        (np.zeros((0, 2), np.uint8), "pixels: has no pixels (shape [0, 2])"),
    ],
)
def test_arrays_that_are_no_image(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError) as caught:
        raw(pixels)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "WEBP"])
def test_whatever_a_broken_file_holds_it_is_an_input_error(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(7)
    path = tmp_path / f"x.{kind.lower()}"
    Image.fromarray(generator.integers(0, 256, (24, 20, 3), np.uint8)).save(path, kind)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    outcomes = set()
    for _ in range(150):
        broken = content.copy()
        at = generator.integers(0, min(len(broken), 120), 3)
        broken[at] = generator.integers(0, 256, 3)
        path.write_bytes(broken.tobytes()[: generator.integers(len(broken) // 2, len(broken) + 1)])
        try:
            outcomes.add(raw(path, size=[4, 4]).shape)
        except InputError as error:
            outcomes.add("refused")
            assert str(error).startswith(f"{path}: ")
    assert outcomes <= {"refused", (3, 4, 4)} and "refused" in outcomes


def test_pillow_s_own_warnings_do_not_reach_the_terminal(here: Path, recwarn: pytest.WarningsRecorder) -> None:
    Path("x.png").write_bytes(_png_that_claims(12_000, 8_000))
    assert module.MAX_PIXELS > 12_000 * 8_000
    with pytest.raises(InputError, match=r"^x.png: cannot be decoded as an image"):
        raw(Path("x.png"))
    assert len(recwarn) == 0
