"""The bundle's run.py: the sources in ``driver`` in one file, because one file is what travels well."""

from __future__ import annotations

import ast
from importlib.resources import files

SOURCES = "edgec.backends.tensorrt.driver"
# Each stands behind what it uses.
_ORDER = ("refusals", "board", "files", "trtexec", "shapes", "engines", "preflight", "golden", "timing", "run")


def driver_text() -> str:
    """The sources' statements in order under one docstring and one set of imports; each docstring heads its part."""
    imports: dict[str, set[str]] = {}
    parts = []
    for name in _ORDER:
        text = (files(SOURCES) / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(text)
        first = 1  # behind the docstring
        while isinstance(statement := tree.body[first], ast.Import | ast.ImportFrom):
            module = statement.module or "" if isinstance(statement, ast.ImportFrom) else ""
            if not module.startswith(SOURCES):
                imports.setdefault(module, set()).update(alias.name for alias in statement.names)
            first += 1
        heading = (ast.get_docstring(tree) or "").split("\n\n")[0]
        end = tree.body[first - 1].end_lineno or 0
        parts.append("# " + heading + "\n\n" + "\n".join(text.splitlines()[end:]).strip("\n"))
        docstring = ast.get_source_segment(text, tree.body[0])
    head = [*(f"import {name}" for name in sorted(imports.pop("")))]
    head += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(imports.items())]
    return "\n\n".join([str(docstring), "\n".join(head), *(f"\n{part}" for part in parts)]) + "\n"
