"""docs/extending.md: each package there is installed as a user's would be, and its command run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BODIES = {
    "A pass": "(float[1,3,16,16] x) => (float[1,3,16,16] y) { y = Relu (x) }",
    "A pass on an onnx-graphsurgeon graph": "(float[1,4] x) => (float[1,4] y) { i = Identity (x) y = Relu (i) }",
    "A pipeline over a DataLoader": "(float[1,3,16,16] x) => (float[1,3,16,16] y) { a = Relu (x) y = Add (a, x) }",
    "An operator for Coral": "(int32[1,4,8] x, int32[1,4,8] k) => (int32[1,4,8] y) { y = BitwiseXor (x, k) }",
}
COMMANDS = {"edgec": "edgec.tools.cli", "edgec-opt": "edgec.tools.opt"}
Run = Callable[[str], subprocess.CompletedProcess[str]]


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def files(text: str) -> dict[str, str]:
    """The files that a section shows, by their names."""
    blocks = re.findall(r"^`([\w/.-]+)`[^\n]*:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Installs what a section shows, and runs its command in a folder with a model."""

    def of(title: str) -> subprocess.CompletedProcess[str]:
        text = section(title)
        for name, content in files(text).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        for package in {Path(name).parts[0] for name in files(text) if "/" in name}:
            (tmp_path / package / "__init__.py").touch()
        entry_points = re.search(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if entry_points is not None:
            [(group, entries)] = tomllib.loads(entry_points[1])["project"]["entry-points"].items()
            info = tmp_path / "ours-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()))
        if title in BODIES:
            proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> net {BODIES[title]}')
            onnx.save(proto, tmp_path / "model.onnx")
        (tmp_path / "coral.yaml").write_text("passes: [fold]\ntargets: [coral-dev-board]\n")
        command = re.search(r"^    (edgec.*)$", text, re.MULTILINE)
        if command is None:
            return python(tmp_path, "pipeline.py")
        name, *arguments = command[1].replace('"', "").split()
        return python(tmp_path, "-m", COMMANDS[name], *arguments)

    return of


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_pass(run: Run, tmp_path: Path) -> None:
    out = run("A pass").stdout
    assert "Clip" in out and "Relu" not in out
    python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_our_pass.py")


def test_a_pass_on_a_graphsurgeon_graph(run: Run) -> None:
    assert "Identity" not in run("A pass on an onnx-graphsurgeon graph").stdout


def test_a_pipeline(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the example reads a DataLoader")
    out = run("A pipeline over a DataLoader").stdout
    assert re.fullmatch(r"\d+ dB on \d+ samples that nothing was fitted to\n", out)
    assert (tmp_path / "smaller.onnx").is_file()


def test_a_target(run: Run) -> None:
    out = run("A target").stdout
    assert out.startswith("our-camera: Our camera, i.MX 8M Plus, backend coral\n  memory: 2,147,483,648 bytes\n")
    assert "activations int8, asymmetric" in out


def test_an_operator_for_coral(run: Run, tmp_path: Path) -> None:
    run("An operator for Coral")
    folder = tmp_path / "build" / "model" / "coral-dev-board"
    check = json.loads((folder / "check.json").read_text())
    assert check["operators"] == {"BITWISE_XOR": 1}
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"))
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    feeds = {"x": random.integers(0, 99, (1, 4, 8), np.int32), "k": random.integers(0, 99, (1, 4, 8), np.int32)}
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], feeds[entry["name"]].reshape(entry["shape"]))
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(got.reshape(1, 4, 8), feeds["x"] ^ feeds["k"])


def test_a_calibrator(run: Run, tmp_path: Path) -> None:
    assert "output | three-sigma, default" in run("A calibrator").stdout
    (tmp_path / "try.py").write_text(
        "import numpy as np\n"
        "from our_calibrator import three_sigma\n"
        "from edgec.backends.registry import target\n"
        "from edgec.passes.quantize.quantize import Quantize\n"
        "from edgec.testing import Samples, model, run_pass\n"
        "graph = model('y = Conv (x, w)', '(float[1,4,8,8] x) => (float[1,2,8,8] y)', 'float[2,4,1,1] w')\n"
        "random = np.random.default_rng(0)\n"
        "feeds = [{'x': random.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(64)]\n"
        "data = {'calibration': Samples(feeds)}\n"
        "run_pass(Quantize(calibrator='three-sigma', effort='fast'), graph, data=data, target=target('cpu'))\n"
        "[scale] = [c.values for c in graph.constants() if c.name.startswith('x') and 'scale' in c.name]\n"
        "print(float(scale) * 255)\n"
    )
    width = float(python(tmp_path, "try.py").stdout)
    assert width == pytest.approx(6, rel=0.1)  # of a normal distribution whose extremes are 8 apart


@pytest.mark.parametrize("title", re.findall(r"^## (A.*)$", PAGE, re.MULTILINE))
def test_each_is_a_few_lines(title: str) -> None:
    for content in files(section(title)).values():
        assert len(content.splitlines()) <= 25
