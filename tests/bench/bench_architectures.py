"""Torch's own exporters on twenty families of vision networks, compiled for every target, in float and in int8.

    python tests/bench/bench_architectures.py [--only NAME ...] [--markdown FILE]

Each network is exported twice, by torch's graph capture (``dynamo``) and by TorchScript, and compiled for cpu, the
Coral Dev Board, Jetson Nano and Jetson Orin Nano. A cell is the SQNR of the emitted file to the original in
onnxruntime, in dB, on samples that nothing was calibrated on ("=" where nothing differs); a refusal is its exit status,
and its line is printed below. Exit status 1 where a run ends in a fault of edgec's own (70).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGETS = ("cpu", "coral-dev-board", "jetson-nano", "jetson-orin-nano")
EXPORTERS = ("dynamo", "torchscript")
PASSES = {"float": "[fold]", "int8": "[fold, quantize: {effort: fast}]"}
SAMPLES = 48


def exported(name: str, exporter: str, path: Path) -> dict[str, np.ndarray]:
    """Writes the ONNX file; returns samples for its inputs."""
    import torch
    from networks.architectures import settled

    module, inputs = settled(name)
    names = [f"x{place}" for place in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            torch.onnx.export(module, inputs, path, dynamo=True, input_names=names, external_data=False, verbose=False)
        else:
            torch.onnx.export(module, inputs, path, dynamo=False, input_names=names, opset_version=17)
    random = np.random.default_rng(1)
    return {
        key: random.random((SAMPLES, *x.shape[1:]), np.float32) for key, x in zip(names, inputs, strict=True)
    }  # fmt: skip


def compiled(model: Path, samples: dict[str, np.ndarray], kind: str) -> tuple[int, dict[str, Any], list[str]]:
    """Exit status, the report's targets, and the lines on stderr."""
    np.savez(model.parent / "data.npz", **samples)
    recipe = model.parent / "compress.yaml"
    recipe.write_text(
        f"data: {{calibration: {{arrays: data.npz}}}}\npasses: {PASSES[kind]}\ntargets: [{', '.join(TARGETS)}]\n"
    )
    command = [sys.executable, "-m", "edgec.tools.cli", str(model), "-O", str(recipe), "-o", str(model.parent / "out")]
    run = subprocess.run([*command, "-q", "--no-timing", "--json"], capture_output=True, text=True, check=False)
    targets = json.loads(run.stdout)["targets"] if run.stdout.startswith("{") else {}
    lines = [line for line in run.stderr.splitlines() if line.startswith("edgec: ")]
    return run.returncode, targets, lines


def cell(status: int, entry: dict[str, Any] | None) -> str:
    if entry is None:
        return f"exit {status}"
    if "error" in entry:
        return f"exit {entry['exit_status']}"
    return "=" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f}"


def main() -> int:
    from networks.architectures import ARCHITECTURES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    columns = [f"{kind} {target}" for kind in PASSES for target in TARGETS]
    table = [f"| network | exporter | {' | '.join(columns)} |", f"|{'---|' * (2 + len(columns))}"]
    print(*table, sep="\n", flush=True)
    refusals, faults = list[str](), 0
    for name in options.only:
        for exporter in EXPORTERS:
            cells = []
            with tempfile.TemporaryDirectory() as scratch:
                model = Path(scratch) / "model.onnx"
                try:
                    samples = exported(name, exporter, model)
                except RuntimeError as error:  # torch's own exporter does not take the network
                    print(
                        f"| {name} | {exporter} | not exported by torch: {str(error).splitlines()[0][:80]} |",
                        flush=True,
                    )
                    continue
                for kind in PASSES:
                    status, targets, lines = compiled(model, samples, kind)
                    cells += [cell(status, targets.get(target)) for target in TARGETS]
                    refusals += [f"{name}, {exporter}, {kind}: {line.removeprefix('edgec: ')}" for line in lines]
                    faults += status == 70
            table.append(f"| {name} | {exporter} | {' | '.join(cells)} |")
            print(table[-1], flush=True)
    unique = list(dict.fromkeys(refusals))
    print(*unique, f"{faults} faults of edgec's own", sep="\n")
    if options.markdown is not None:
        options.markdown.write_text("\n".join([*table, "", *(f"- {line}" for line in unique)]) + "\n")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
