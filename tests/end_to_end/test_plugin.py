"""A pass that a package outside the repository brings: `tests/plugin`, which must be installed."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgec.backends import registry as backends
from edgec.passes.framework import plugins

Edgec = Callable[..., tuple[int, str, str]]
RECIPE = "passes: [fold, scale-outputs: {factor: 3}]\ntargets: [cpu, coral-dev-board]\n"
RUN = ("model.onnx", "-O", "plugin.yaml", "-q", "--no-timing", "-o", "out")


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(str(path)).run(None, feeds)[0]
    return found


def test_it_is_installed_as_a_package_of_its_own() -> None:
    (entry,) = importlib.metadata.entry_points(group="edgec.passes", name="scale-outputs")
    assert entry.dist is not None
    assert entry.dist.name == "edgec-test-plugin", "install it: pip install --no-deps -e tests/plugin"


def test_it_runs_in_a_recipe(job: Path, edgec: Edgec) -> None:
    (job / "plugin.yaml").write_text(RECIPE)
    status, out, err = edgec(*RUN, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [entry["name"] for entry in report["passes"]] == ["fold", "scale-outputs"]
    assert report["passes"][1]["did"] == [{"node": "reconstruction", "what": "multiplied by 3"}]
    feeds = {"image": np.random.default_rng(0).random((1, 1, 16, 16), np.float32)}
    for name in ("out/model.onnx", "out/cpu/model.onnx"):
        np.testing.assert_allclose(outputs(job / name, feeds), 3 * outputs(job / "model.onnx", feeds), rtol=1e-5)
    assert [info.name for info in onnx.load(job / "out" / "model.onnx").graph.output] == ["reconstruction"]


def test_it_runs_in_edgec_opt(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgec.tools.opt import main

    assert main(["model.onnx", "-p", "fold,scale-outputs{factor=3}", "-o", "scaled.onnx"]) == 0
    assert "reconstruction.factor" in capsys.readouterr().out
    feeds = {"image": np.random.default_rng(0).random((1, 1, 16, 16), np.float32)}
    np.testing.assert_allclose(outputs(job / "scaled.onnx", feeds), 3 * outputs(job / "model.onnx", feeds), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("{factor: 0}", "factor: input should be greater than 0; 'edgec passes scale-outputs' explains"),
        ("{faktor: 1}", "has no option 'faktor'. Did you mean 'factor'? It takes factor"),
    ],
)
def test_its_options_are_checked(job: Path, edgec: Edgec, options: str, line: str) -> None:
    (job / "plugin.yaml").write_text(RECIPE.replace("{factor: 3}", options))
    status, _, err = edgec(*RUN)
    assert (status, err) == (2, f"edgec: plugin.yaml: line 1: passes[1] 'scale-outputs': {line}\n")
    assert not (job / "out").exists()


def test_it_is_listed(edgec: Edgec) -> None:
    assert "scale-outputs lossy  Multiplies every output by ``factor``." in edgec("passes")[1]


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a package that registers what its ``entry_points.txt`` says."""

    def install(entries: str) -> None:
        folder = tmp_path / "site" / "strange-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entries)
        (tmp_path / "site" / "strange.py").write_text("class NoPass:\n    pass\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    registries = (plugins.registered, backends._profiles, backends._target)
    for registry in registries:
        registry.cache_clear()
    yield install
    monkeypatch.undo()
    for registry in registries:
        registry.cache_clear()


@pytest.mark.parametrize(
    ("entries", "arguments", "line"),
    [
        (
            "[edgec.passes]\nfold = strange:NoPass\n",
            ("passes",),
            "pass 'fold': is registered twice, by 'strange' (strange:NoPass) and 'edgec' (edgec.passes.fold.fold:Fold)"
            "; uninstall one of them",
        ),
        (
            "[edgec.passes]\nodd = strange:NoPass\n",
            ("passes", "odd"),
            "pass 'odd': of 'strange' is no subclass of edgec.passes.framework.base.Pass",
        ),
        (
            "[edgec.passes]\nodd = strange:Gone\n",
            ("passes", "odd"),
            "pass 'odd': of 'strange' cannot be imported (module 'strange' has no attribute 'Gone'); "
            "install that package again",
        ),
        (
            "[edgec.passes]\nodd = nowhere_at_all:Gone\n",
            ("passes", "odd"),
            "pass 'odd': of 'strange' cannot be imported (No module named 'nowhere_at_all'); "
            "install that package again",
        ),
        (
            "[edgec.backends]\ncpu = strange:NoPass\n",
            ("targets",),
            "backend 'cpu': is registered twice, by 'strange' (strange:NoPass) and 'edgec' "
            "(edgec.backends.cpu.backend:CpuBackend); uninstall one of them",
        ),
    ],
)
def test_what_a_strange_package_registers(
    edgec: Edgec, strange: Callable[[str], None], entries: str, arguments: tuple[str, ...], line: str
) -> None:
    strange(entries)
    assert edgec(*arguments) == (2, "", f"edgec: {line}\n")


BROKEN = """
from dataclasses import dataclass
from edgec.passes.framework.base import Pass

@dataclass(frozen=True)
class Breaks(Pass):
    name, effect = "breaks", "exact"

    def run(self, graph, ctx):
        {statement}
"""


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("raise ZeroDivisionError('by nothing')", "raised ZeroDivisionError: by nothing"),
        ("graph.nodes[0].op = 'Nonsense'", "left a broken graph: "),
        ("graph.nodes[-1].op = 'Tanh'", "is exact but moved output 'reconstruction' by "),
    ],
)
def test_a_pass_that_breaks_its_promise(
    job: Path, edgec: Edgec, strange: Callable[[str], None], statement: str, what: str
) -> None:
    strange("[edgec.passes]\nbreaks = broken:Breaks\n")
    (job / "site" / "broken.py").write_text(BROKEN.format(statement=statement))
    sys.modules.pop("broken", None)
    (job / "plugin.yaml").write_text("passes: [fold, breaks]\ntargets: [cpu]\n")
    status, out, err = edgec(*RUN)
    assert (status, out) == (70, "")
    assert err.startswith(f"edgec: plugin.yaml: line 1: passes[1] 'breaks': {what}")
    assert len(err.splitlines()) == 1
    folder = Path(err.rstrip().rsplit(" are in ", 1)[1])
    assert folder.is_relative_to("repro")
    assert not (job / "out").exists()
    # What is left there makes the failure happen again.
    again = edgec(str(folder / "model.onnx"), "-O", str(folder / "compress.yaml"), "-q", "--no-timing")
    assert again[0] == 70
    assert f"compress.yaml: line 7: passes[0] 'breaks': {what}" in again[2]


IMPORTS = {
    "syntax": ("def (", "SyntaxError: invalid syntax (fails.py, line 1)"),
    "name": ("nonsense", "NameError: name 'nonsense' is not defined"),
    "module": ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
    "assertion": ("assert False", "AssertionError"),
    "exit": ("raise SystemExit('no licence')", "SystemExit: no licence"),
}


@pytest.mark.parametrize(("source", "why"), IMPORTS.values(), ids=IMPORTS)
def test_a_package_that_fails_to_import(
    job: Path, edgec: Edgec, strange: Callable[[str], None], source: str, why: str
) -> None:
    strange("[edgec.passes]\nodd = fails:Odd\n\n[edgec.backends]\nodd = fails:Odd\n")
    (job / "site" / "fails.py").write_text(source)
    sys.modules.pop("fails", None)
    line = f"of 'strange' cannot be imported ({why})"
    warned = {
        kind: f"edgec: warning: {kind} 'odd': {line}; install that package again; it is left out"
        for kind in ("pass", "backend")
    }
    status, out, err = edgec("schema")
    assert (status, sorted(err.splitlines())) == (0, sorted(warned.values()))
    schema = json.loads(out)
    assert '"odd"' not in out and "fold" in out and schema["title"] == "edgec recipe"
    backends._profiles.cache_clear()
    status, out, err = edgec("passes")
    assert (status, err) == (0, "")
    assert f"odd           ?      {line}" in out.splitlines()
    status, out, err = edgec("targets")
    assert (status, err.splitlines()) == (0, [warned["backend"]])
    assert any(row.startswith("cpu ") for row in out.splitlines())
    backends._profiles.cache_clear()
    (job / "plain.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    status, _, err = edgec("model.onnx", "-O", "plain.yaml", "-q", "--no-timing", "-o", "out")
    assert (status, err.splitlines()) == (0, [warned["backend"]])
    (job / "odd.yaml").write_text("passes: [fold, odd]\ntargets: [cpu]\n")
    status, _, err = edgec("model.onnx", "-O", "odd.yaml", "-q", "--no-timing", "-o", "not")
    refused = f"edgec: odd.yaml: line 1: passes[1] 'odd': {line}; install that package again"
    assert (status, err.splitlines()[-1]) == (2, refused)
    assert not (job / "not").exists()


UNFIT = """
from dataclasses import dataclass
from typing import ClassVar
from edgec.passes.framework.base import Pass

class Thing:
    pass

@dataclass(frozen=True)
class Odd(Pass):
    name: ClassVar[str] = "odd"
    effect: ClassVar[str] = "{effect}"
    option: {option} = None

    def run(self, graph, ctx):
        pass
"""


@pytest.mark.parametrize(
    ("effect", "option", "what"),
    [
        ("exact", "Thing", "has options of no known type (PydanticSchemaGenerationError: Unable to generate"),
        ("perhaps", "int", "does not say whether it is exact or lossy; install that package again"),
    ],
)
def test_a_pass_whose_class_is_unfit(
    job: Path, edgec: Edgec, strange: Callable[[str], None], effect: str, option: str, what: str
) -> None:
    strange("[edgec.passes]\nodd = unfit:Odd\n")
    (job / "site" / "unfit.py").write_text(UNFIT.format(effect=effect, option=option))
    sys.modules.pop("unfit", None)
    status, out, err = edgec("schema")
    assert status == 0 and '"odd"' not in out and "fold" in out
    assert err.startswith(f"edgec: warning: pass 'odd': of 'strange' {what}") and err.count("\n") == 1
    (job / "odd.yaml").write_text("passes: [odd]\ntargets: [cpu]\n")
    status, _, err = edgec("model.onnx", "-O", "odd.yaml", "-q", "--no-timing")
    assert status == 2 and err.count("\n") == 1
    assert err.startswith(f"edgec: odd.yaml: line 1: passes[0] 'odd': of 'strange' {what}")


def test_one_broken_package_does_not_hide_the_others(edgec: Edgec, strange: Callable[[str], None]) -> None:
    strange("[edgec.passes]\nodd = nowhere_at_all:Gone\n")
    status, out, _ = edgec("passes")
    assert status == 0
    assert "odd           ?      of 'strange' cannot be imported (No module named 'nowhere_at_all')" in out.splitlines()
    assert any(line.startswith("fold ") for line in out.splitlines())
