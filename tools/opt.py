"""``edgec-opt``: one textual pipeline on one model, the graph as text on stdout. For authors of passes.

``edgec-opt model.onnx -p "fold,factorize{params=0.1}"``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgec.ir.errors import UsageError
from edgec.tools.guard import guarded
from edgec.tools.options import Parser, add_model_options, add_run_options, instruments_of, pins_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return guarded("edgec-opt", lambda: _run(opt_parser().parse_args(arguments)), traceback="--traceback" in arguments)


def opt_parser() -> Parser:
    """The command's parser."""
    parser = Parser(prog="edgec-opt", description="Runs passes on a model and prints the graph.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the ONNX file")
    parser.add_argument(
        "-p", dest="pipeline", default="", metavar="PIPELINE", help='passes with options: "fold,factorize{params=0.1}"'
    )
    parser.add_argument("--data", type=Path, metavar="RECIPE", help="take the data section of this recipe")
    parser.add_argument("--target", metavar="TARGET", help="the target that passes see")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="save the model too")
    add_model_options(parser)
    add_run_options(parser)
    return parser


def parse_pipeline(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Passes and options from ``fold,factorize{params=0.1, skip=[head*]}``; values are YAML.

    Raises:
        UsageError: a brace is open, an option has no value, or a name is empty; the line shows where.
    """
    import yaml

    steps: list[tuple[str, dict[str, Any]]] = []
    for part in _split(text):
        name, brace, rest = part.partition("{")
        name = name.strip()
        if not name:
            raise UsageError(f"-p '{text}'", "names no pass between two commas", "write fold,factorize{params=0.1}")
        options: dict[str, Any] = {}
        if brace:
            if not rest.rstrip().endswith("}"):
                raise UsageError(f"-p '{text}'", f"'{name}{{' is not closed", "end its options with '}'")
            for item in _split(rest.rstrip()[:-1]):
                key, equals, value = item.partition("=")
                if not equals:
                    raise UsageError(f"-p '{text}'", f"'{item.strip()}' of '{name}' has no value", "write option=value")
                try:
                    options[key.strip()] = yaml.safe_load(value)
                except yaml.YAMLError:
                    raise UsageError(
                        f"-p '{text}'", f"'{value.strip()}' of '{name}' is no value", "write it as in YAML"
                    ) from None
        steps.append((name, options))
    return steps


def _split(text: str) -> list[str]:
    """``text`` at the commas that stand in no bracket."""
    if not text.strip():
        return []
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _run(options: argparse.Namespace) -> int:
    import numpy as np

    from edgec.backends.registry import backend, target
    from edgec.frontends.datasets import open_dataset
    from edgec.frontends.model import open_model
    from edgec.frontends.preprocess import Preprocess
    from edgec.frontends.recipe import load_recipe
    from edgec.ir.execution import seeded_feeds
    from edgec.ir.files import save
    from edgec.ir.printer import print_graph
    from edgec.passes.instruments import Dumps
    from edgec.passes.pipeline import Pipeline, settle
    from edgec.passes.plan import plan
    from edgec.passes.reference import Reference
    from edgec.tools.output import writing

    steps = parse_pipeline(options.pipeline)
    instruments, times = instruments_of(options)
    recipe = load_recipe(options.data) if options.data is not None else None
    section = None if recipe is None else recipe.data
    roles = {r for r in ("calibration", "train") if section is not None and getattr(section, r) is not None}
    planned = plan(steps, source="-p", roles=roles)
    board = target(options.target, "--target") if options.target else None
    graph = open_model(options.model, pins_of(options))
    inputs = {t.name: (tuple(t.shape or ()), np.dtype(t.dtype)) for t in graph.inputs}
    preprocess = Preprocess(section.preprocess) if section is not None and section.preprocess is not None else None
    data = {role: open_dataset(getattr(section, role), preprocess, inputs) for role in sorted(roles)}
    affine = {}
    if preprocess is not None:
        affine[preprocess.spec.input or graph.inputs[0].name] = preprocess.affine()
    for instrument in instruments:
        if isinstance(instrument, Dumps):
            instrument.start(graph)
    pipeline = Pipeline(
        Reference(graph, seeded_feeds(graph)),
        source="-p",
        data=data,
        affine=affine,
        threads=options.threads or 1,
        instruments=instruments,
    )
    pipeline.run(graph, planned.shared)
    if board is not None:
        backend(board.backend).legalize(graph, board)
        settle(graph, f"backend '{board.backend}'")
    pipeline.run(graph, planned.per_target, board)
    print(print_graph(graph), end="")
    if options.output is not None:
        with writing(options.output):
            save(graph, options.output)
    if times is not None:
        times.print(sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
