"""``edgec-opt``: one textual pipeline on one model, the graph as text on stdout. For authors of passes.

``edgec-opt model.onnx -p "fold,factorize{params=0.1}"``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgec.ir.errors import UsageError
from edgec.tools.guard import guarded
from edgec.tools.options import (
    MODEL_HELP,
    Parser,
    add_model_options,
    add_run_options,
    instruments_of,
    pins_of,
    print_notes,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return guarded(
        "edgec-opt",
        lambda: _run(opt_parser().parse_args(arguments)),
        traceback="--traceback" in arguments,
        last=argv is None,
    )


def opt_parser() -> Parser:
    """The command's parser."""
    parser = Parser(prog="edgec-opt", description="Runs passes on a model and prints the graph.")
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
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
    """Passes and options from ``fold,factorize{params=0.1, skip=[head*]}``; values are JSON or YAML.

    Raises:
        UsageError: a bracket or a quote is open, an option has no value, or a name is empty; the line says which.
    """
    steps: list[tuple[str, dict[str, Any]]] = []
    for part in _split(text, text):
        name, brace, rest = (piece.strip() for piece in part.partition("{"))
        if not name:
            raise _mistake(text, "a pass has no name", "write fold,factorize{params=0.1}")
        if brace and not rest.endswith("}"):
            raise _mistake(text, f"'{part.strip()}' goes on behind '}}'", "put a comma between passes")
        options: dict[str, Any] = {}
        for item in _split(rest[:-1], text) if brace else ():
            key, equals, value = (piece.strip() for piece in item.partition("="))
            if not key or not equals or not value:
                raise _mistake(text, f"'{item.strip()}' of '{name}' is no option", "write option=value")
            if key in options:
                raise _mistake(text, f"'{key}' of '{name}' is given twice", "give each option once")
            options[key] = _value(value, key, name, text)
        steps.append((name, options))
    return steps


def _mistake(text: str, what: str, mend: str) -> UsageError:
    return UsageError(f"-p '{text}'", what, mend)


def _value(value: str, key: str, name: str, text: str) -> Any:
    import yaml

    try:
        return json.loads(value)
    except ValueError:
        pass  # most of YAML is no JSON: [head*] and 'text' among it
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise _mistake(text, f"'{key}' of '{name}' is no value: {value}", "write it as in a recipe") from None


def _split(part: str, text: str) -> list[str]:
    """``part`` at the commas that stand in no bracket and no quotes; nothing from nothing."""
    pieces, start, quote = [], 0, ""
    closing: list[str] = []
    letters = iter(enumerate(part))
    for place, letter in letters:
        if quote:
            if letter == "\\" and quote == '"':
                next(letters, None)
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "{[":
            closing.append("}" if letter == "{" else "]")
        elif letter in "}]":
            if not closing or closing.pop() != letter:
                raise _mistake(text, f"'{letter}' closes nothing", "write fold,factorize{params=0.1}")
        elif letter == "," and not closing:
            pieces.append(part[start:place])
            start = place + 1
    if closing or quote:
        raise _mistake(text, f"{quote or closing[-1]} is missing", "close what was opened")
    return [*pieces, part[start:]] if part.strip() else []


def _run(options: argparse.Namespace) -> int:
    from edgec.backends.registry import backend, target
    from edgec.frontends.datasets import inputs_of, open_dataset
    from edgec.frontends.model import open_model
    from edgec.frontends.preprocess import Preprocess
    from edgec.frontends.recipe import load_recipe
    from edgec.frontends.sources import opened, source_of
    from edgec.ir.execution import seeded_feeds
    from edgec.ir.files import save
    from edgec.ir.printer import print_graph
    from edgec.passes.framework.context import RunConfig
    from edgec.passes.framework.pipeline import Pipeline
    from edgec.passes.framework.planner import facts_of, plan
    from edgec.tools.output import writing
    from edgec.tools.quality import freeze

    steps = parse_pipeline(options.pipeline)
    instruments, times = instruments_of(options)
    recipe = load_recipe(options.data) if options.data is not None else None
    section = None if recipe is None else recipe.data
    roles = {r for r in ("calibration", "train") if section is not None and getattr(section, r) is not None}
    planned = plan(steps, source="-p", roles=roles)
    board = target(options.target, "--target") if options.target else None
    source = source_of(options.model)
    with opened(source) as path:
        notes: list[str] = []
        graph = open_model(path, pins_of(options), options.cut, notes=notes)
    print_notes(source.name, notes)
    planned = plan(steps, source="-p", roles=roles, facts=facts_of(graph))
    inputs = inputs_of(graph)
    preprocess = Preprocess(section.preprocess) if section is not None and section.preprocess is not None else None
    data = {role: open_dataset(getattr(section, role), preprocess, inputs) for role in sorted(roles)}
    for instrument in instruments:
        instrument.start(graph)
    pipeline = Pipeline(
        freeze(graph, seeded_feeds(graph), source.name),
        RunConfig(
            data=data,
            affine={} if preprocess is None else preprocess.affine_by_input(inputs),
            threads=options.threads or 1,
        ),
        instruments=instruments,
    )
    pipeline.run(graph, planned.shared)
    if board is not None:
        emitter = backend(board.backend)
        pipeline.legalize(graph, lambda given: emitter.legalize(given, board), f"backend '{emitter.name}'")
    pipeline.run(graph, planned.per_target, board)
    print(print_graph(graph), end="")
    if options.output is not None:
        with writing(options.output, mend="give another file with -o"):
            save(graph, options.output)
    if times is not None:
        times.print(sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
