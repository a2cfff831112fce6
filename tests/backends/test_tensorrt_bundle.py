"""What a bundle holds, and that its driver is one file that the board's Python 3.6 takes."""

from __future__ import annotations

import ast
import json
import math
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import NANO, ORIN, write_bundle

from edgec.backends.tensorrt.bundle import MANIFEST, Manifest, Versions, read_manifest, write_driver
from edgec.backends.tensorrt.driver import golden
from edgec.backends.tensorrt.driver.board import text_of
from edgec.backends.tensorrt.driver.golden import Likeness, exported, numbers
from edgec.backends.tensorrt.driver.preflight import in_words, within
from edgec.backends.tensorrt.driver_text import driver_text
from edgec.ir.errors import EdgecError, EmitError, InputError, InternalError
from edgec.ir.execution import sqnr_db
from edgec.ir.hashing import sha256

# Of the standard library, what the driver uses is in Python 3.6; what came later, by name.
NEWER = {"dataclasses", "capture_output", "text", "removeprefix", "removesuffix", "missing_ok", "prod", "time_ns"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "jetson-nano", NANO)


@pytest.fixture(scope="module")
def driver() -> ast.Module:
    return ast.parse(driver_text(), feature_version=(3, 6))


def test_the_driver_imports_the_standard_library_only(driver: ast.Module) -> None:
    imported = {alias.name for node in ast.walk(driver) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(driver) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    assert "json" in imported


def test_the_driver_uses_nothing_newer_than_its_python(driver: ast.Module) -> None:
    used = {node.attr for node in ast.walk(driver) if isinstance(node, ast.Attribute)}
    used |= {str(node.arg) for node in ast.walk(driver) if isinstance(node, ast.keyword)}
    used |= {alias.name for node in ast.walk(driver) if isinstance(node, ast.Import) for alias in node.names}
    assert not used & NEWER
    assert "Popen" in used


def test_no_name_of_the_driver_hides_another(driver: ast.Module) -> None:
    """The sources are joined in one namespace."""
    names = [node.name for node in driver.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [
        target.id
        for node in driver.body
        if isinstance(node, ast.Assign)
        for target in ast.walk(node.targets[0])
        if isinstance(target, ast.Name)
    ]
    imported = [
        alias.name for node in driver.body if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    assert len(names) == len(set(names)) and not set(names) & set(imported)


def test_the_folder(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {MANIFEST}
    assert manifest["files"]["run.py"] == sha256(folder / "run.py")
    assert (folder / "run.sh").stat().st_mode & 0o111 == 0o111
    assert manifest["board"]["tensorrt"] == {"least": "8.2", "below": "8.3"}
    assert manifest["models"][0]["tolerance"] == {"cosine": 0.999, "sqnr_db": 30.0}
    assert [model["fallback"] for model in manifest["models"]] == [False, True]


def test_the_manifest_round_trips(folder: Path) -> None:
    found = read_manifest(folder)
    assert found.board == NANO
    assert Manifest.from_json(found.to_json({})) == found


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2}', "\x00"])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == f"{tmp_path / MANIFEST}: is no manifest of a bundle; emit the bundle again"


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    line = f"{tmp_path / MANIFEST}: cannot be read (no such file or directory); emit the bundle again"
    assert str(caught.value) == line


def refused(folder: Path, manifest: Manifest, kind: type[EdgecError], line: str) -> None:
    with pytest.raises(kind) as caught:
        write_driver(folder, manifest)
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["a,b", "a'b", 'a"b', "a\\b", "a\nb"])
def test_names_that_trtexec_does_not_take(folder: Path, name: str) -> None:
    manifest = read_manifest(folder)
    what = "has a name that cannot be given to trtexec (a comma, quote, backslash or control character)"
    shown = name.encode("unicode_escape").decode() if "\n" in name else name
    changed = replace(manifest, inputs=[replace(manifest.inputs[0], name=name)])
    refused(folder, changed, EmitError, f"jetson-nano: input '{shown}': {what}; rename it in the model")


def test_dtypes_that_trtexec_has_not(folder: Path) -> None:
    manifest = read_manifest(folder)
    changed = replace(manifest, outputs=[replace(manifest.outputs[0], dtype="float64")])
    refused(folder, changed, EmitError, "jetson-nano: output 'y': is float64, which trtexec has not; cast it")


def test_golden_files_that_do_not_fit(folder: Path) -> None:
    manifest = read_manifest(folder)
    place = folder / manifest.outputs[0].golden[0]
    changed = replace(manifest, outputs=[replace(manifest.outputs[0], shape=(1, 3, 6, 7))])
    refused(folder, changed, InternalError, f"{place}: holds 432 bytes, and output 'y' has 504")
    changed = replace(manifest, outputs=[replace(manifest.outputs[0], golden=("golden/none.bin",))])
    refused(folder, changed, InternalError, f"{folder / 'golden/none.bin'}: is missing from the bundle")
    changed = replace(manifest, outputs=[replace(manifest.outputs[0], golden=manifest.outputs[0].golden * 2)])
    line = "jetson-nano: its inputs and outputs have not equally many golden samples, at least one"
    refused(folder, changed, InternalError, line)


# -- the driver's parts -----------------------------------------------------------------------------------------------


def test_likeness_is_what_edgec_measures() -> None:
    """SQNR as the tolerances were measured, over outputs of unlike power and over samples."""
    random = np.random.default_rng(0)
    exact = {"a": random.standard_normal((3, 40)), "b": 1e3 * random.standard_normal((3, 7))}
    noisy = {name: x * (1 + 0.01 * random.standard_normal(x.shape)) for name, x in exact.items()}
    sums = {name: Likeness() for name in exact}
    for name, likeness in sums.items():
        for x, y in zip(exact[name], noisy[name], strict=True):
            likeness.add(x.tolist(), y.tolist())
    assert golden.sqnr_db(list(sums.values())) == pytest.approx(sqnr_db(exact, noisy), abs=1e-9)
    for name, likeness in sums.items():
        x, y = exact[name].ravel(), noisy[name].ravel()
        assert likeness.cosine == pytest.approx(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))


def test_likeness_of_zeros() -> None:
    silent, equal, wrong = Likeness(), Likeness(), Likeness()
    silent.add([0.0, 0.0], [0.0, 0.0])
    equal.add([1.0, 2.0], [1.0, 2.0])
    wrong.add([0.0, 0.0], [0.0, 1.0])
    assert (silent.cosine, wrong.cosine) == (1.0, 0.0)
    assert equal.cosine == pytest.approx(1.0)
    assert golden.sqnr_db([silent, equal]) == math.inf
    assert golden.sqnr_db([wrong]) < -1000


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int64", "int8", "uint8", "bool"])
def test_golden_files_are_read(tmp_path: Path, dtype: str) -> None:
    values = np.array([0, 1, 1, 0, 1]).astype(dtype) if dtype == "bool" else np.array([0, 1, 3, 100]).astype(dtype)
    values.tofile(tmp_path / "x.bin")
    assert list(numbers(tmp_path / "x.bin", dtype)) == [float(value) for value in values]


def test_outputs_that_c_wrote(tmp_path: Path) -> None:
    """As ostream prints numbers, among them some that JSON has not."""
    (tmp_path / "out.json").write_text(
        '[\n  { "name" : "nan"\n  , "dimensions" : "1x4"\n  , "values" : [ nan, -nan, inf, -inf ]\n  }\n]\n'
    )
    ((name, values),) = exported(tmp_path / "out.json").items()
    assert name == "nan"
    assert list(map(math.isnan, values)) == [True, True, False, False]
    assert values[2:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("version", "inside"),
    [((8, 1, 9), False), ((8, 2, 0), True), ((8, 2, 5), True), ((8, 3, 0), False), ((10, 3, 0), False)],
)
def test_versions(version: tuple[int, ...], inside: bool) -> None:
    assert within(version, {"least": "8.2", "below": "8.3"}) == inside
    assert within(version, {})
    assert within(version, {"below": "10.4"})


def test_versions_in_words() -> None:
    assert in_words({"least": "8.5", "below": "11"}) == "at least 8.5 and below 11"
    assert in_words({"least": "8.5"}) == "at least 8.5"


def test_open_ranges_are_left_out() -> None:
    board = replace(ORIN, tensorrt=Versions(least="8.5"))
    manifest = Manifest("net", board, [], [], [])
    assert manifest.to_json({})["board"]["tensorrt"] == {"least": "8.5"}


def test_device_tree_strings_end_in_zeros(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(struct.pack("4s", b"abc"))
    assert (text_of(tmp_path / "model"), text_of(tmp_path / "none")) == ("abc", "")
