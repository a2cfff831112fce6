"""What the pages under docs/ say of keys, options and files is what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgec.frontends.recipe import parse_recipe
from edgec.frontends.recipe_schema import recipe_schema
from edgec.passes.framework.planner import plan
from edgec.passes.framework.registry import GROUP, pass_class
from edgec.tools.catalogue import schema as full_schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OWN_PASSES = sorted(e.name for e in entry_points(group=GROUP) if e.dist is not None and e.dist.name == "edgec")
SECTIONS = {
    "": "The top",
    "DataSection": "data",
    "PreprocessSpec": "data.preprocess",
    "DataSpec": "A data set",
    "EvalSpec": "data.eval",
    "Require": "require",
    "ResultsSpec": "results",
}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading '## {heading}'"
    return found[1]


def table(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text by the names, in backquotes, in their first cell."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *rest = (cell.strip() for cell in line.strip("|").split(" | "))
            for name in re.findall(r"`([^`]+)`", first):
                rows[name] = rest
    return rows


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_the_recipe_is_explained(name: str) -> None:
    schema = recipe_schema()
    properties = (schema["$defs"][name] if name else schema)["properties"]
    rows = table(section(page("recipe.md"), SECTIONS[name]))
    if name == "EvalSpec":  # its second table is of metrics
        rows = {key: row for key, row in rows.items() if key in properties}
    assert set(rows) == set(properties)
    for key, entry in properties.items():
        default = entry.get("default")
        if isinstance(default, list):
            default = default[0] if len(default) == 1 else default
        if default is not None:
            assert rows[key][0].strip("`") == (default if isinstance(default, str) else f"{default:g}"), key


def test_every_metric_is_explained() -> None:
    rows = table(section(page("recipe.md"), "data.eval"))
    pattern = recipe_schema()["$defs"]["EvalSpec"]["properties"]["metric"]["pattern"]
    for name in (*re.findall(r"\w+(?=\|)", pattern), "python:module:function"):
        assert name in rows


@pytest.mark.parametrize(
    ("name", "index"),
    [(n, i) for n in ("recipe.md", "writing-a-pass.md") for i in range(len(blocks(page(n), "yaml")))],
)
def test_the_recipes_shown_are_recipes(name: str, index: int) -> None:
    recipe = parse_recipe(blocks(page(name), "yaml")[index])
    roles = [role for role in ("calibration", "train", "eval") if getattr(recipe.data, role) is not None]
    plan([(step.name, step.options) for step in recipe.passes], roles=roles or ["calibration"])


def test_the_schema_knows_what_the_pages_show() -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(full_schema())
    for name in ("recipe.md", "writing-a-pass.md"):
        for text in blocks(page(name), "yaml"):
            validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize("name", OWN_PASSES)
def test_every_pass_has_a_page_with_its_options(name: str) -> None:
    text = page(f"passes/{name}.md")
    assert text.startswith(f"# {name}\n")
    fields = {field.name: field for field in dataclasses.fields(pass_class(name))}
    rows = table(section(text, "Options")) if fields else {}
    assert set(rows) == set(fields)
    for option, field in fields.items():
        shown, meaning = rows[option][0].strip("`"), rows[option][1]
        assert meaning
        if field.default not in (dataclasses.MISSING, None, ()):  # what these stand for is said in words
            expected = field.default if isinstance(field.default, str) else json.dumps(field.default)
            assert shown == expected, option
        else:
            assert shown


def test_the_index_names_every_page() -> None:
    text = page("index.md")
    for path in (*DOCS.glob("*.md"), *DOCS.glob("passes/*.md")):
        name = path.relative_to(DOCS).as_posix()
        assert name == "index.md" or f"({name})" in text, name


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT).as_posix() for p in DOCS.rglob("*.md")))
def test_links_lead_somewhere(path: str) -> None:
    file = ROOT / path
    for link in re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (file.parent / link).exists(), link


def test_the_plugin_shown_is_the_plugin_that_is_installed() -> None:
    text = page("writing-a-pass.md")
    plugin = ROOT / "tests" / "plugin"
    assert blocks(text, "python") == [(plugin / "edgec_test_plugin.py").read_text(encoding="utf-8")]
    assert blocks(text, "toml") == [(plugin / "pyproject.toml").read_text(encoding="utf-8")]


def test_the_plugin_shown_runs(tmp_path: Path) -> None:
    """As it stands on the page, without being installed."""
    program = blocks(page("writing-a-pass.md"), "python")[0] + (
        "\n\nimport edgec.ir.graph as g\n"
        "graph = g.Graph(opset=17)\n"
        "x = g.Variable('x', np.float32, [1, 2])\n"
        "graph.inputs = [x]\n"
        "y = graph.op('Relu', [x], name='relu')\n"
        "y.shape, y.dtype, y.name = [1, 2], np.dtype(np.float32), 'y'\n"
        "graph.outputs = [y]\n"
        "ctx = Context(graph)\n"
        "ScaleOutputs(factor=3.0).run(graph, ctx)\n"
        "print([node.op for node in graph.nodes], graph.outputs[0].name, ctx.done)\n"
    )
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run([sys.executable, "page.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "['Relu', 'Mul'] y [Remark(node='y', what='multiplied by 3', figures={})]\n"


def keys_of(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def test_every_key_of_the_report_is_explained(report: dict[str, Any]) -> None:
    text = page("output.md")
    rows = table(section(text, "report.json"))
    for part in (
        report, report["baseline"], report["compressed"], report["passes"][0], *report["targets"].values(),
        report["targets"]["cpu"]["cost"],
    ):  # fmt: skip
        assert keys_of(part) <= set(rows)


def test_every_status_is_explained() -> None:
    text = section(page("output.md"), "Exit statuses")
    listed = {number for line in text.splitlines() for number in re.findall(r"^\| ([\d, ]+) \|", line)}
    assert {int(n) for row in listed for n in row.split(",")} == {0, 1, 2, 3, 4, 70, 129, 130, 141, 143}


@pytest.mark.parametrize("number", range(len(blocks(page("python.md"), "python"))))
def test_the_programs_for_python_run(number: int, tmp_path: Path) -> None:
    """As they stand on the page, each by itself, beside a network."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3))
    torch.onnx.export(network, (torch.zeros(1, 3, 16, 16),), tmp_path / "network.onnx", dynamo=False)
    program = blocks(page("python.md"), "python")[number]
    assert len([line for line in program.splitlines() if line.strip()]) <= 25
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if number == 0:
        assert (tmp_path / "coral" / "model.tflite").is_file()
    if number == 1:
        assert done.stdout.split()[-1] == "True"
    if number == 2:
        assert "INFO:edgec.passes:passes[0] fold" in done.stderr


def test_every_method_is_in_the_glossary() -> None:
    terms = " ".join(re.findall(r"^\| ([^|]*) \|", page("glossary.md"), re.MULTILINE)).lower()
    others = {"entropy calibration", "least-squares reconstruction", "feature distillation", "spatial svd",
              "preprocessing folding", "batchnormalization folding", "frequency analysis", "dct"}  # fmt: skip
    for name in OWN_PASSES:
        for method in pass_class(name).methods:
            assert method.lower() in others or all(word in terms for word in method.lower().split()), method
