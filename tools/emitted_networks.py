"""What is in an output folder, or in one target's folder, ready to run on feeds as the original model takes them.

What a file is says how it runs here: ONNX in onnxruntime, TFLite in LiteRT. A bundle for a Jetson holds ONNX models:
they run in onnxruntime, with what is FP16 on the board rounded to FP16, which says how well they compute, not how fast
the board is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.backends.coral import ports
from edgec.backends.coral.backend import CHECK
from edgec.backends.coral.backend import MODEL as TFLITE
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.tensorrt import byte_tensors
from edgec.backends.tensorrt.bundle import DRIVER, read_manifest
from edgec.backends.tensorrt.models import as_computed
from edgec.frontends.datasets import Inputs, inputs_of
from edgec.frontends.metrics import Run
from edgec.ir.errors import InputError
from edgec.ir.execution import Session, batch_size
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.json_files import read_object
from edgec.ir.sample_axis import as_taken, common_batch, sample_shapes, without_sample_axis
from edgec.passes.framework import input_domain
from edgec.tools.integrity import AGAIN, verify_output, verify_target

ONNX = "model.onnx"


@dataclass(frozen=True)
class Network:
    """A network that was emitted.

    Attributes:
        name: the target, with the precision where it has several models; ``model.onnx`` is what all targets share.
        runtime: what it runs in.
        inputs: what the original model takes.
        batch: how many samples it takes at once.
        run: feeds of the original model to outputs, in float and ONNX's layout.
        whole: outputs that have no sample axis.
    """

    name: str
    runtime: str
    inputs: Inputs
    batch: int
    run: Run
    whole: frozenset[str] = frozenset()


def networks_in(place: Path) -> list[Network]:
    """The networks below an output folder, ``model.onnx`` first, or those of one target's folder.

    Raises:
        InputError: there is none, or a file is not the one that edgec wrote, or cannot be read.
    """
    if not place.is_dir():
        raise InputError(str(place), "there is no such folder", "give an output folder, or a target's folder in it")
    if (place / ONNX).is_file() and (place / "report.json").is_file():
        verify_output(place)
        found = list(_all(place))
    else:
        verify_target(place)
        found = list(_one(place, place.resolve().name))
    if not found:
        what = "holds no network that edgec emitted"
        raise InputError(str(place), what, "give an output folder, or a target's folder in it")
    return found


def _all(place: Path) -> Iterator[Network]:
    yield _onnx(place / ONNX, ONNX)
    for folder in sorted(place.iterdir()):
        if folder.is_dir():
            yield from _one(folder, folder.name)


def _one(folder: Path, name: str) -> Iterator[Network]:
    """A target's networks."""
    if all((folder / file).is_file() for file in DRIVER):
        manifest = read_manifest(folder)
        for model in manifest.models:
            with _told_by(folder / "manifest.json", "is no manifest of a bundle"):
                graph = as_computed(folder, manifest, model)
            yield in_onnxruntime(graph, f"{name}/{Path(model.file).stem.removeprefix('model_')}", optimize=False)
    elif (folder / TFLITE).is_file():
        yield _tflite(folder, name)
    elif (folder / ONNX).is_file():
        yield _onnx(folder / ONNX, name)


@contextmanager
def _told_by(file: Path, what: str) -> Iterator[None]:
    """Within the block what cannot be made of a JSON file's entries is that file's fault."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise InputError(str(file), what, AGAIN) from None


def _onnx(file: Path, name: str) -> Network:
    return in_onnxruntime(load(file), name, optimize=True)


def in_onnxruntime(graph: Graph, name: str, *, optimize: bool) -> Network:
    """A graph by itself, run in onnxruntime."""
    session = Session(graph, optimize=optimize)

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A bundle takes bytes as float32 or int32: TensorRT has no uint8 inputs in all of its versions.
        return session.run(byte_tensors.as_taken(graph, input_domain.enter(graph, feeds)))

    return Network(name, "onnxruntime", inputs_of(graph), batch_size(graph), run, without_sample_axis(graph))


def _tflite(folder: Path, name: str) -> Network:
    described = read_object(folder / CHECK, AGAIN)
    with _told_by(folder / CHECK, "does not say what model.tflite takes"):
        entered, left = ports.read(described["inputs"]), ports.read(described["outputs"])
        folded = {
            entry["name"]: tuple(np.array(entry["folded"][key], np.float64) for key in ("scale", "offset"))
            for entry in described["inputs"]
            if entry["folded"] is not None
        }
        interpreter = Interpreter((folder / TFLITE).read_bytes(), entered, left)
        interpreter.check_ports()

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raw = {key: input_domain.unfolded(x, *folded[key]) if key in folded else x for key, x in feeds.items()}
        return interpreter.run({key: as_taken(x, taken.get(key)) for key, x in raw.items()})

    taken = {port.name: port.shape for port in entered}
    given = [port.shape for port in left]
    shapes = sample_shapes(taken, given)
    inputs = {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    batch = common_batch(list(taken.values()), given)
    whole = frozenset(port.name for port in left if not port.shape or port.shape[0] != batch)
    return Network(name, "LiteRT", inputs, batch, run, whole)
