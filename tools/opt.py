"""``edgec-opt``: one textual pipeline on one model, the graph as text on stdout. For authors of passes.

``edgec-opt model.onnx -p "fold,factorize{params=0.1}"``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
    from edgec.passes.framework.legalization import planned
    from edgec.passes.framework.pass_manager import PassManager
    from edgec.passes.framework.pipeline_text import parse_pipeline
    from edgec.passes.framework.planner import facts_of, plan
    from edgec.tools.output import writing
    from edgec.tools.quality import freeze

    steps = parse_pipeline(options.pipeline)
    instruments, times = instruments_of(options)
    recipe = load_recipe(options.data) if options.data is not None else None
    section = None if recipe is None else recipe.data
    roles = {r for r in ("calibration", "train") if section is not None and getattr(section, r) is not None}
    passes = plan(steps, source="-p", roles=roles)
    board = target(options.target, "--target") if options.target else None
    source = source_of(options.model)
    with opened(source) as path:
        notes: list[str] = []
        graph = open_model(path, pins_of(options), options.cut, notes=notes)
    print_notes(source.name, notes)
    passes = plan(steps, source="-p", roles=roles, facts=facts_of(graph))
    inputs = inputs_of(graph)
    preprocess = Preprocess(section.preprocess) if section is not None and section.preprocess is not None else None
    data = {role: open_dataset(getattr(section, role), preprocess, inputs) for role in sorted(roles)}
    for instrument in instruments:
        instrument.start(graph)
    pipeline = PassManager(
        freeze(graph, seeded_feeds(graph), source.name),
        RunConfig(
            data=data,
            affine={} if preprocess is None else preprocess.affine_by_input(inputs),
            threads=options.threads or 1,
        ),
        instruments=instruments,
    )
    pipeline.run(graph, passes.shared)
    if board is not None:
        emitter = backend(board.backend)
        pipeline.run(graph, planned(emitter.legalization(board), emitter.name), board)
    pipeline.run(graph, passes.per_target, board)
    print(print_graph(graph), end="")
    if options.output is not None:
        with writing(options.output, fix="give another file with -o"):
            save(graph, options.output)
    if times is not None:
        times.print(sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
