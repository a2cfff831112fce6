"""The recipe's ``data``: which samples there are, and how an image becomes a network's input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, WithJsonSchema

from edgec.frontends.image_files import IMAGE_SUFFIXES, first_image
from edgec.frontends.recipe_values import (
    Count,
    Fault,
    FilePath,
    FolderPaths,
    Function,
    Numbers,
    Section,
    Text,
    fault,
    one_of,
    read_choice,
    read_count,
    read_function,
    read_path,
    shown,
)
from edgec.frontends.recipe_yaml import Loc

CHANNELS = {"gray": 1, "rgb": 3, "bgr": 3}
METRICS = ("auroc", "top1", "mae", "sqnr")
HIGHER_IS_BETTER = {"auroc": True, "top1": True, "mae": False, "sqnr": True}
MAX_SIDE = 16_384


def _read_size(value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        height, width = map(read_count, value)
        if max(height, width) > MAX_SIDE:
            raise fault(f"is larger than {MAX_SIDE} pixels a side", "write [height, width] of the network's input")
        return height, width
    fix = f"write [{value}, {value}]" if isinstance(value, int) and not isinstance(value, bool) else ""
    raise fault(f"must be [height, width], not {shown(value)}", fix)


_SIZE_SCHEMA = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1, "maximum": MAX_SIDE},
    "minItems": 2,
    "maxItems": 2,
}


Size = Annotated[tuple[int, int], BeforeValidator(_read_size), WithJsonSchema(_SIZE_SCHEMA)]


_TRAINED = "write what the network was trained with"


class PreprocessSpec(Section):
    """How an image file becomes an input: ``x = (pixels * scale - mean) / std`` with pixels of 0 to 255."""

    size: Size | None = Field(
        default=None, description="[height, width] to resize to; left out, images are taken at their own size"
    )
    color: Annotated[Literal["gray", "rgb", "bgr"], one_of("gray", "rgb", "bgr")] = Field(
        default="rgb", description="the channels and their order"
    )
    scale: Numbers = Field(default=(1.0,), description="multiplies the pixels; one number, or one for each channel")
    mean: Numbers = Field(default=(0.0,), description="taken away after scale; one number, or one for each channel")
    std: Numbers = Field(default=(1.0,), description="divides after mean; one number, or one for each channel")
    resize: Annotated[
        Literal["bilinear", "nearest", "bicubic", "area", "lanczos"],
        one_of("bilinear", "nearest", "bicubic", "area", "lanczos"),
    ] = Field(
        default="bilinear",
        description="the filter, Pillow's; all but nearest are antialiased when they shrink",
    )
    fit: Annotated[Literal["stretch", "crop", "pad"], one_of("stretch", "crop", "pad")] = Field(
        default="stretch",
        description="stretch to size, cover it and crop the centre, or pad with black around the image",
    )
    layout: Annotated[Literal["nchw", "nhwc"], one_of("nchw", "nhwc")] = Field(
        default="nchw", description="the order of the input's axes"
    )
    input: Text | None = Field(default=None, description="the model's input that images feed; by default its only one")

    @classmethod
    def faults_of_keys(cls, raw: Mapping[str, Any]) -> Iterable[Fault]:
        for key in ("fit", "resize"):
            if key in raw and "size" not in raw:
                yield (key,), "has no use without size", "add size: [height, width]"

    def faults_of_values(self) -> Iterator[Fault]:
        for key, values in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                fix = "write one number" if self.channels == 1 else f"write 1 or {self.channels}"
                yield (key,), f"holds {len(values)} numbers and color: {self.color} has {self.channels}", fix
        if any(value == 0 for value in self.scale):
            yield ("scale",), "must not be 0", "write 1/255 for pixels from 0 to 1"
        if any(value <= 0 for value in self.std):
            yield ("std",), "must be greater than 0", "write 1 to leave the pixels undivided"
        elif all(len(values) in (1, self.channels) for values in (self.scale, self.mean, self.std)):
            scale, offset = self.affine()
            if max(np.abs(255 * scale).max(), np.abs(offset).max()) > np.finfo(np.float32).max / 2:
                yield (), "scale, mean and std make values that no float32 holds", _TRAINED

    @property
    def channels(self) -> int:
        """How many channels ``color`` has."""
        return CHANNELS[self.color]

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """The whole normalization as one affine map of the pixels, a channel each.

        Returns:
            ``(scale, offset)``, float64 of shape ``[channels]``, with ``x = pixels * scale + offset``.
        """
        scale, mean, std = (
            np.broadcast_to(np.asarray(values, np.float64), self.channels)
            for values in (self.scale, self.mean, self.std)
        )
        return scale / std, -mean / std


def _read_labels(value: object, info: ValidationInfo) -> object:
    return value if value == "folders" else read_path(value, info)


_LABELS = BeforeValidator(_read_labels, json_schema_input_type=FilePath)


class DataSpec(Section):
    """A data set: exactly one of ``images``, ``arrays`` and ``python``."""

    images: FolderPaths | None = Field(default=None, description="a folder of images, or several; read by preprocess")
    arrays: FilePath | None = Field(
        default=None,
        description="an .npz with arrays named for the model's inputs (and 'labels'), or an .npy",
    )
    python: Function | None = Field(default=None, description="module:function that returns the samples")
    samples: Count | None = Field(default=None, description="at most so many, chosen evenly over the sorted samples")
    labels: Annotated[Literal["folders"] | Path, _LABELS] | None = Field(
        default=None,
        description="for images: 'folders' (each subfolder is a class), or a .csv or .json of file and label",
    )
    _where: str = PrivateAttr("")
    _folder: Path = PrivateAttr(Path())

    @property
    def where(self) -> str:
        """The file, line and place of this data set, for messages."""
        return self._where

    @property
    def folder(self) -> Path:
        """The recipe's folder, where Python modules are looked for."""
        return self._folder

    def located(self, where: str, folder: Path) -> None:
        """Tells the data set where it was written."""
        self._where, self._folder = where, folder

    @classmethod
    def not_a_mapping(cls, value: object) -> Fault:
        what = "is empty" if value is None else f"must be a mapping, not {shown(value)}"
        fix = f"write {{images: {value}}}" if isinstance(value, str) else "write {images: FOLDER}"
        return (), what, fix

    @classmethod
    def faults_of_keys(cls, raw: Mapping[str, Any]) -> Iterator[Fault]:
        given = [key for key in ("images", "arrays", "python") if key in raw]
        if not given:
            yield (), "names no samples", "add one of images, arrays and python"
        if len(given) > 1:
            yield (given[1],), f"stands beside {given[0]}", "keep one of them"
        if "labels" in raw and "images" not in raw:
            yield ("labels",), "goes with images only", "put an array named 'labels' into the .npz"

    def faults_of_values(self) -> Iterator[Fault]:
        if self.arrays is not None and self.arrays.suffix not in (".npz", ".npy"):
            yield ("arrays",), f"'{self.arrays.name}' is neither .npz nor .npy", "save it with numpy.savez"
        if isinstance(self.labels, Path) and self.labels.suffix not in (".csv", ".json"):
            yield (
                ("labels",),
                f"'{self.labels.name}' is neither .csv nor .json",
                "write 'folders' or such a file",
            )

    def missing(self) -> Iterator[Fault]:
        """What it names and is not there, found without reading any file."""
        for folder in self.images or ():
            if wrong := missing_folder(folder):
                yield ("images",), *wrong
        for key, path in (("arrays", self.arrays), ("labels", self.labels)):
            if isinstance(path, Path) and not path.is_file():
                what = "is a folder" if path.is_dir() else "there is no such file"
                yield (key,), f"'{path}': {what}", "correct the path; it is relative to the recipe"


def missing_folder(folder: Path) -> tuple[str, str] | None:
    """What is wrong with a folder of images, and the fix; None where it holds one."""
    fix = "correct the path; it is relative to the recipe"
    if not folder.exists():
        return f"'{folder}': there is no such folder", fix
    if not folder.is_dir():
        return f"'{folder}': is a file, not a folder of images", "name the folder that it lies in"
    try:
        found = first_image(folder)
    except OSError as error:
        return f"'{folder}': cannot be read ({error.strerror})", "check its permissions"
    if found is None:
        return f"'{folder}': holds no image", f"put images into it ({', '.join(IMAGE_SUFFIXES)})"
    return None


def _read_metric(value: object) -> str:
    if isinstance(value, str) and value.startswith("python:"):
        return "python:" + read_function(value.removeprefix("python:"))
    return read_choice(value, (*METRICS, "python:module:function"))


def _read_class(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return {"images": [read_path(value, info)]}
    if isinstance(value, list):
        return {"images": value}
    return value


_FOLDERS_OR_SET = BeforeValidator(_read_class, json_schema_input_type=FolderPaths | DataSpec)
METRIC_PATTERN = r"^(" + "|".join(METRICS) + r"|python:[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"


class EvalSpec(DataSpec):
    """What the network is judged by: a metric, and a data set or the two classes ``ok`` and ``ng``."""

    ok: Annotated[DataSpec, _FOLDERS_OR_SET] | None = Field(
        default=None, description="the samples without a defect: folders of images, or a data set"
    )
    ng: Annotated[DataSpec, _FOLDERS_OR_SET] | None = Field(
        default=None, description="the samples with a defect: folders of images, or a data set"
    )
    metric: Annotated[
        str, BeforeValidator(_read_metric), WithJsonSchema({"type": "string", "pattern": METRIC_PATTERN})
    ] = Field(description="auroc, top1, mae, sqnr, or python:module:function")
    output: Text | None = Field(default=None, description="the model's output that is judged; its first by default")

    @classmethod
    def not_a_mapping(cls, value: object) -> Fault:
        what = "is empty" if value is None else f"must be a mapping, not {shown(value)}"
        return (), what, "write {ok: FOLDER, ng: FOLDER, metric: auroc}"

    @classmethod
    def faults_of_keys(cls, raw: Mapping[str, Any]) -> Iterator[Fault]:
        classes = [key for key in ("ok", "ng") if key in raw]
        single = [key for key in ("images", "arrays", "python") if key in raw]
        metric = raw.get("metric")
        if classes and single:
            yield (single[0],), "stands beside ok and ng", "name the samples by one or the other"
        elif len(classes) == 1:
            other = "ng" if classes == ["ok"] else "ok"
            yield (), f"'{classes[0]}' is there without '{other}'", f"add {other}"
        elif not classes and metric != "auroc":
            yield from super().faults_of_keys(raw)
        if classes and "labels" in raw:
            yield ("labels",), "has no use beside ok and ng", "take it out"
        if classes and metric in ("top1", "mae", "sqnr"):
            yield (
                ("metric",),
                f"'{metric}' is measured on one data set, not on ok and ng",
                "write images: FOLDER",
            )
        if not classes and metric == "auroc":
            yield (
                ("metric",),
                "'auroc' needs the classes ok and ng",
                "write {ok: FOLDER, ng: FOLDER, metric: auroc}",
            )
        if "images" in raw and metric == "top1" and "labels" not in raw:
            yield ("metric",), "'top1' needs labels", "add labels: folders, or a .csv of file and label"
        if classes and "samples" in raw and any(isinstance(raw.get(key), Mapping) for key in classes):
            yield (
                ("samples",),
                "stands beside a class that is a data set of its own",
                "write it inside ok and ng",
            )

    def faults_of_values(self) -> Iterator[Fault]:
        yield from super().faults_of_values()
        if self.ok and self.ng:
            for folder in self.ng.images or ():
                if folder in (self.ok.images or ()):
                    yield ("ng",), f"'{folder}' is named under ok too", "keep it in one class"

    def classes(self) -> tuple[DataSpec, DataSpec] | None:
        """The ok and the ng samples, ``samples`` handed down to each; None where there is one data set."""
        if self.ok is None or self.ng is None:
            return None
        if self.samples is None:
            return self.ok, self.ng
        limited = []
        for spec in (self.ok, self.ng):
            copy = spec.model_copy(update={"samples": self.samples})
            copy.located(spec.where, spec.folder)
            limited.append(copy)
        return limited[0], limited[1]


class DataSection(Section):
    """The data that passes and the judgement draw on."""

    preprocess: PreprocessSpec | None = Field(default=None, description="how an image becomes an input")
    calibration: DataSpec | None = Field(default=None, description="the samples that ranges are measured on")
    train: DataSpec | None = Field(default=None, description="the samples that a network is tuned on")
    eval: EvalSpec | None = Field(default=None, description="what the network is judged by, before and after")

    def faults_of_values(self) -> Iterator[Fault]:
        if self.preprocess is None:
            for loc, spec in self.sets():
                if spec.images:
                    fix = "add data.preprocess with the size, color and scale that the network was trained with"
                    yield loc, "reads images, and the recipe has no data.preprocess", fix
                    return

    def sets(self) -> Iterator[tuple[Loc, DataSpec]]:
        """Every data set with its place inside ``data``."""
        for key, spec in (("calibration", self.calibration), ("train", self.train)):
            if spec is not None:
                yield (key,), spec
        if self.eval is not None:
            if self.eval.ok is not None and self.eval.ng is not None:
                yield ("eval", "ok"), self.eval.ok
                yield ("eval", "ng"), self.eval.ng
            else:
                yield ("eval",), self.eval
