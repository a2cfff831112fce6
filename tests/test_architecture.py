"""Imports point one way, and only where they are wanted."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("ir", "passes", "frontends", "backends", "tools")
# What each folder may import besides itself: tools -> backends -> passes -> ir, tools -> frontends -> ir.
ALLOWED = {
    "ir": set(),
    "passes": {"ir"},
    "frontends": {"ir"},
    "backends": {"passes", "ir"},
    "tools": {"backends", "passes", "frontends", "ir"},
}
TORCH_FOLDERS = ("ir/torch_module", "passes/train/engine")
TORCH_PACKAGES = tuple(f"edgec.{folder.replace('/', '.')}." for folder in TORCH_FOLDERS)
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


def imports(nodes: list[ast.stmt] | ast.AST) -> Iterator[str]:
    """The modules that some code imports, with what is taken from a package as a part of the name."""
    for item in nodes if isinstance(nodes, list) else [nodes]:
        for node in ast.walk(item):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The import statements that run when a module is imported: not those in functions or for type checkers."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.dump(statement.test):
            yield from at_import_time([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try | ast.With | ast.ClassDef):
            yield from at_import_time(statement.body)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_there_are_modules_to_look_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FOLDERS)
    found = set(imports(ast.parse("import a.b\ndef f():\n    from edgec.ir import graph\n")))
    assert found == {"a.b", "edgec.ir.graph"}


def test_every_package_is_installed() -> None:
    """What an editable installation finds by itself a built one has only where pyproject.toml names it."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")}
    wanted = {f"edgec.{'.'.join(folder.parts)}": folder.as_posix() for folder in folders} | {"edgec": "edgec"}
    wanted |= {
        ".".join(path.parent.relative_to(ROOT).parts): path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "edgec").rglob("__init__.py")
    }
    assert sorted(setup["packages"]) == sorted(wanted)
    assert setup["package-dir"] == wanted


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_arrows_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    used = {name.split(".")[1] for name in imports(parsed(path)) if name.startswith("edgec.")}
    assert used & set(FOLDERS) <= {folder} | ALLOWED[folder]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_only_what_serves_its_users_imports_graphsurgeon(path: Path) -> None:
    used = any(name.split(".")[0] == "onnx_graphsurgeon" for name in imports(parsed(path)))
    homes = ("ir/interop.py", "passes/framework/graphsurgeon_pass.py")
    assert used == (path.relative_to(ROOT).as_posix() in homes)


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    first = set(imports(list(at_import_time(parsed(path).body))))
    heavy = {"torch", "tensorly", "matplotlib"}
    # A folder that is all torch imports it as it likes; what is outside imports that folder where it is used.
    if path.parent.relative_to(ROOT).as_posix() in TORCH_FOLDERS:
        heavy.remove("torch")
    else:
        assert not [name for name in first if name.startswith(TORCH_PACKAGES)]
    assert {name.split(".")[0] for name in first}.isdisjoint(heavy)


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_module_hides_a_package_or_says_nothing_by_its_name(path: Path) -> None:
    assert path.stem not in {"onnx", "torch", "tensorrt", "utils", "helpers", "misc"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edgec.tools.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    heavy = {"onnx", "numpy", "onnxruntime", "torch", "tensorly", "pydantic", "scipy", "ai_edge_litert", "matplotlib"}
    assert loaded.isdisjoint(heavy)
    assert "usage: edgec" in done.stdout


def test_no_module_needs_itself_to_be_imported() -> None:
    """No circles among files, inside of packages either."""
    import networkx

    modules = {
        "edgec." + path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
        for path in MODULES
    }
    arrows = networkx.DiGraph()
    for name, path in modules.items():
        for used in imports(list(at_import_time(parsed(path).body))):
            target = used if used in modules else used.rpartition(".")[0]
            if target in modules and target != name:
                arrows.add_edge(name, target)
    assert arrows.number_of_edges() > 1000
    assert [sorted(circle) for circle in networkx.strongly_connected_components(arrows) if len(circle) > 1] == []
