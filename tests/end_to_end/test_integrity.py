"""`edgec run` on damaged output: refused in one line, whichever bit it is, and never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import ORIN, SHAPE, write_bundle
from refusals import Edgec

from edgec.tools.integrity import verify_output, verify_target

AGAIN = "copy the folder again, or compile again"
RUN = ("-O", "compress.yaml", "--images", "good")


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_file_is_held_to_its_hash(compiled: Path, edgec: Edgec) -> None:
    """A bit in each file, at places drawn at random."""
    out = compiled / "out"
    random = np.random.default_rng(0)
    for name in files(out):
        if name == "manifest.json":
            continue
        bit = int(random.integers(8 * (out / name).stat().st_size))
        flip(out / name, bit)
        line = f"edgec: out/{name}: is not the file that manifest.json lists: one of the two was changed or damaged; "
        assert edgec("run", "out", *RUN) == (3, "", f"{line}{AGAIN}\n")
        target, _, rest = name.partition("/")
        if rest:
            assert edgec("run", f"out/{target}", *RUN) == (3, "", f"{line}{AGAIN}\n")
        flip(out / name, bit)
    assert edgec("run", "out", *RUN)[0] == 0


def test_any_bit_of_a_network(compiled: Path) -> None:
    """Many places of the small file: no bit of it goes unseen."""
    from edgec.ir.errors import InputError

    path = compiled / "out" / "coral-dev-board" / "model.tflite"
    random = np.random.default_rng(1)
    for bit in random.integers(8 * path.stat().st_size, size=100).tolist():
        flip(path, bit)
        with pytest.raises(InputError, match=r"is not the file that manifest.json lists"):
            verify_output(compiled / "out")
        flip(path, bit)
    verify_output(compiled / "out")


@pytest.mark.parametrize("target", ["cpu", "coral-dev-board"])
def test_a_target_that_was_copied_away_has_its_own_hashes(target: str, compiled: Path, edgec: Edgec) -> None:
    shutil.copytree(compiled / "out" / target, compiled / "alone")
    assert edgec("run", "alone", *RUN)[0] == 0
    (model,) = [path for path in (compiled / "alone").iterdir() if path.suffix in (".onnx", ".tflite")]
    flip(model, 8 * (model.stat().st_size // 2))
    line = f"edgec: alone/{model.name}: is not the file that check.json lists: one of the two was changed or damaged; "
    assert edgec("run", "alone", *RUN) == (3, "", f"{line}{AGAIN}\n")


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: text.replace(":", ";", 1),
    "a list": lambda text: "[]",
    "a number": lambda text: "12",
    "null": lambda text: "null",
    "deep": lambda text: "[" * 200_000,
    "deep objects": lambda text: '{"a":' * 200_000,
    "a huge number": lambda text: '{"files": ' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("place", ["out", "alone"])
def test_json_that_is_none(damage: Callable[[str], str], place: str, compiled: Path, edgec: Edgec) -> None:
    shutil.copytree(compiled / "out" / "coral-dev-board", compiled / "alone")
    path = compiled / ("out/manifest.json" if place == "out" else "alone/check.json")
    path.write_text(damage(path.read_text()))
    status, out, err = edgec("run", place, *RUN)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith(f"edgec: {path.relative_to(compiled)}: ")
    assert err.endswith(f"; {AGAIN}\n")
    if place == "out":  # what damages an output is no reason not to replace it
        assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")[0] in (0, 2)


ENTRIES: dict[str, Any] = {
    "null": None, "a list": [], "a number": 7, "text": "abc", "a file that is a number": {"model.onnx": 7},
    "a hash that is none": {"model.onnx": {"sha256": "abc"}}, "a hash of another type": {"model.onnx": {"sha256": []}},
    "a place outside": {"../model.onnx": {"sha256": "0" * 64}}, "no such file": {"gone": {"sha256": "0" * 64}},
    "a folder": {"cpu": {"sha256": "0" * 64}}, "a null in its name": {"a\0b": {"sha256": "0" * 64}},
}  # fmt: skip


@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_a_manifest_of_wrong_types(entries: Any, compiled: Path, edgec: Edgec) -> None:
    (compiled / "out" / "manifest.json").write_text(json.dumps({"files": entries}))
    status, out, err = edgec("run", "out", *RUN)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("edgec: out/") and err.endswith(f"; {AGAIN}\n")


def test_a_manifest_that_is_gone(compiled: Path, edgec: Edgec) -> None:
    (compiled / "out" / "manifest.json").unlink()
    line = f"edgec: out/manifest.json: cannot be read (no such file or directory); {AGAIN}\n"
    assert edgec("run", "out", *RUN) == (3, "", line)


def test_a_file_that_is_gone(compiled: Path, edgec: Edgec) -> None:
    (compiled / "out" / "cpu" / "model.onnx").unlink()
    line = f"edgec: out/cpu/model.onnx: cannot be read, and manifest.json lists it; {AGAIN}\n"
    assert edgec("run", "out", *RUN) == (3, "", line)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 7), ("name", ["x"]), ("onnx_shape", "abc"), ("onnx_shape", [1, 1, 16]), ("onnx_shape", [1, 1, 8, 8]),
        ("onnx_shape", [1e30] * 4), ("permutation", [0, 0, 0, 0]), ("permutation", None), ("permutation", [9, 1, 2, 3]),
        ("dtype", "float99"), ("dtype", {}), ("scale", "abc"), ("scale", []), ("zero_point", "x"), ("zero_point", 1e99),
        ("folded", 7), ("folded", {}), ("folded", {"scale": "x", "offset": []}),
    ],
)  # fmt: skip
def test_a_copied_check_of_wrong_types(key: str, value: Any, compiled: Path, edgec: Edgec) -> None:
    shutil.copytree(compiled / "out" / "coral-dev-board", compiled / "alone")
    path = compiled / "alone" / "check.json"
    described = json.loads(path.read_text())
    described["inputs"][0][key] = value
    path.write_text(json.dumps(described))
    status, out, err = edgec("run", "alone", *RUN)
    assert (status, out, err.count("\n")) == (3, "", 1)
    del described["inputs"][0][key]
    path.write_text(json.dumps(described))
    status, out, err = edgec("run", "alone", *RUN)
    assert (status, out, err.count("\n")) == (3, "", 1)


def test_a_bundle_is_held_to_its_own_hashes(tmp_path: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "jetson-orin-nano", ORIN)
    np.savez(tmp_path / "x.npz", **{"x:0": np.zeros((1, *SHAPE[1:]), np.float32)})
    verify_target(tmp_path / "jetson-orin-nano")
    flip(tmp_path / "jetson-orin-nano" / "model_fp16.onnx", 401)
    status, out, err = edgec("run", "jetson-orin-nano", "--arrays", "x.npz")
    line = "is not the file that manifest.json lists: one of the two was changed or damaged"
    assert (status, out, err) == (3, "", f"edgec: jetson-orin-nano/model_fp16.onnx: {line}; {AGAIN}\n")
