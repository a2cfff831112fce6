"""The ``edgec`` command. Nothing heavy is imported before the arguments are known: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec import __version__
from edgec.ir.errors import UsageError, did_you_mean
from edgec.tools.guard import guarded
from edgec.tools.options import MODEL_HELP, Parser, add_model_options, add_run_options, instruments_of, pins_of


@dataclass(frozen=True)
class Command:
    """A command besides the main one.

    Attributes:
        usage: its arguments, as the overview shows them.
        help: what it does.
        describe: gives a parser its arguments.
        run: does it, and returns the exit status.
    """

    usage: str
    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["completion"] and arguments[1:2] in (["--answer"], ["--answer-line"]):
        return guarded("edgec", lambda: _answer(arguments[1:]))
    return guarded("edgec", lambda: _run(arguments), traceback="--traceback" in arguments, last=argv is None)


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in COMMANDS:  # a model of such a name is written ./inspect
        return COMMANDS[name].run(command_parser(name).parse_args(arguments[1:]))
    near = did_you_mean(name, list(COMMANDS)) if name.isalpha() and not Path(name).exists() else ""
    if near:
        raise UsageError("", f"no command and no file is named '{name}'{near}", "'edgec --help' lists the commands")
    return _compile(compile_parser().parse_args(arguments))


def command_parser(name: str) -> Parser:
    """The parser of one of :data:`COMMANDS`."""
    command = COMMANDS[name]
    parser = Parser(prog=f"edgec {name}", description=f"{command.help[0].upper()}{command.help[1:]}.")
    command.describe(parser)
    return parser


# -- edgec MODEL -O RECIPE --------------------------------------------------------------------------------------------


def compile_parser() -> Parser:
    """The parser of ``edgec MODEL -O RECIPE``."""
    listed = "\n".join(f"  edgec {f'{n} {c.usage}':18} {c.help}" for n, c in COMMANDS.items())
    parser = Parser(
        prog="edgec",
        usage="edgec MODEL -O RECIPE [-o DIR] [options]",
        description="Compiles a trained network for small devices, as a recipe says.",
        epilog=f"""\
other commands:
{listed}

exit status: 0 done; 1 done, but a requirement is not met; 2 usage or recipe;
3 model or data; 4 a backend could not emit; 70 a fault of edgec's own
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-O", dest="recipe", type=Path, required=True, metavar="RECIPE", help="the recipe, a YAML file")
    parser.add_argument("-o", dest="output", type=Path, metavar="DIR", help="output folder (default: build/<model>)")
    parser.add_argument("--json", action="store_true", help="put the report on stdout")
    parser.add_argument("--no-timing", action="store_true", help="do not measure latency and memory")
    parser.add_argument("--build", action="store_true", help="build TensorRT engines here too, where there is a GPU")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--version", action="version", version=f"edgec {__version__}")
    return parser


def _compile(options: argparse.Namespace) -> int:
    from edgec.frontends.sources import source_of
    from edgec.tools.compile import Job, compile_model
    from edgec.tools.processes import is_first
    from edgec.tools.progress import Progress

    instruments, times = instruments_of(options)
    with Progress(quiet=options.quiet or not is_first()) as progress:
        job = Job(
            model=source_of(options.model),
            recipe=options.recipe,
            output=options.output,
            pins=pins_of(options),
            cuts=options.cut,
            threads=options.threads,
            instruments=instruments,
            timing=not options.no_timing,
            build=options.build,
            traceback=options.traceback,
            progress=progress,
        )
        report = compile_model(job)
    from edgec.tools.failed_targets import exit_status, failure_lines

    if not is_first():
        return 0
    if times is not None:
        times.print(sys.stderr)
    if options.json:
        import json

        print(json.dumps(report, indent=2))
    else:
        from edgec.tools.summary import print_summary

        print_summary(report, job.place)
    for line in failure_lines(report["targets"]):
        print(f"edgec: {line}", file=sys.stderr)
    return exit_status(report)


# -- the other commands -----------------------------------------------------------------------------------------------


def _describe_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    add_model_options(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON in the place of the table")
    shape.add_argument("--ir", action="store_true", help="the graph as text in the place of the table")
    parser.add_argument("--groups", action="store_true", help="the channels that can only be removed together")
    parser.add_argument("--sensitivity", action="store_true", help="what 8 bits cost each layer; wants -O")
    parser.add_argument("-O", dest="recipe", type=Path, metavar="RECIPE", help="with --sensitivity: for its data")
    parser.add_argument("--target", metavar="TARGET", help="with --sensitivity: whose 8 bits (default: the recipe's)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="with --sensitivity: draw it into .svg, .png or .pdf")


def _inspect(options: argparse.Namespace) -> int:
    from edgec.frontends.sources import source_of
    from edgec.ir.errors import UsageError

    if options.sensitivity:
        return _inspect_sensitivity(options)
    for option in ("recipe", "target", "plot"):
        if getattr(options, option) is not None:
            name = {"recipe": "-O"}.get(option, f"--{option}")
            what = f"argument {name}: goes with --sensitivity only"
            raise UsageError("inspect", what, "'edgec inspect --help' explains")
    if options.groups:
        from edgec.tools.channel_table import inspect_groups

        if options.ir:
            what = "argument --ir: not allowed with argument --groups"
            raise UsageError("inspect", what, "'edgec inspect --help' explains")
        inspect_groups(source_of(options.model), pins_of(options), options.cut, as_json=options.json)
        return 0
    from edgec.tools.inspect import inspect

    inspect(source_of(options.model), pins_of(options), options.cut, as_json=options.json, as_text=options.ir)
    return 0


def _inspect_sensitivity(options: argparse.Namespace) -> int:
    from edgec.frontends.sources import source_of
    from edgec.ir.errors import UsageError
    from edgec.tools.sensitivity import FORMATS, SensitivityJob, inspect_sensitivity

    explained = "'edgec inspect --help' explains"
    for name in ("groups", "ir"):
        if getattr(options, name):
            raise UsageError("inspect", f"argument --{name}: not allowed with argument --sensitivity", explained)
    if options.recipe is None:
        raise UsageError("inspect", "--sensitivity wants calibration data", "name a recipe that has some with -O")
    if options.plot is not None and options.plot.suffix not in FORMATS:
        what = f"argument --plot: '{options.plot.name}' is none of {', '.join(FORMATS)}"
        raise UsageError("inspect", what, explained)
    job = SensitivityJob(
        source_of(options.model), options.recipe, options.target, pins_of(options), options.cut, options.plot
    )
    inspect_sensitivity(job, as_json=options.json)
    return 0


def _describe_simplify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--no-check", action="store_true", help="do not run both networks and compare them")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE",
        help="pin open dimensions, as in image:1x3x224x224, or a value, as in sr=16000; open ones stay open without",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")


def _simplify(options: argparse.Namespace) -> int:
    from edgec.frontends.sources import source_of
    from edgec.tools.simplify import SimplifyJob, simplify

    simplify(SimplifyJob(source_of(options.model), options.output, pins_of(options), not options.no_check))
    return 0


def _describe_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-O", dest="recipe", type=Path, required=True, metavar="RECIPE", help="for its data")
    parser.add_argument("--json", action="store_true", help="JSON in the place of the table")
    add_model_options(parser)


def _check(options: argparse.Namespace) -> int:
    from edgec.frontends.sources import source_of
    from edgec.tools.check import CheckJob, as_json, check, exit_status, print_check

    report = check(CheckJob(source_of(options.model), options.recipe, pins_of(options), options.cut))
    if options.json:
        print(as_json(report))
    else:
        print_check(report)
    return exit_status(report)


def _describe_run(parser: argparse.ArgumentParser) -> None:
    what = "an output folder, or a target's folder in one; or a model, as edgec takes it"
    parser.add_argument("place", type=Path, metavar="DIR", help=what)
    parser.add_argument("-O", dest="recipe", type=Path, metavar="RECIPE", help="for preprocessing, metric and samples")
    add_model_options(parser)
    samples = parser.add_mutually_exclusive_group()
    samples.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR", help="run on these, not on data.eval"
    )
    samples.add_argument("--arrays", type=Path, metavar="FILE", help="run on an .npz or .npy, not on data.eval")
    parser.add_argument("--labels", metavar="FILE", help="the images' labels: 'folders', or a .csv or .json")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write what is said of each image there, as a table")
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="write every output to this .npz")
    parser.add_argument("--json", action="store_true", help="JSON in the place of the table")


def _run_emitted(options: argparse.Namespace) -> int:
    from edgec.tools.run import RunJob, as_json, print_run, run_emitted

    job = RunJob(
        options.place, options.recipe, options.images, options.arrays, options.labels, options.outputs,
        pins_of(options), options.cut, options.csv,
    )  # fmt: skip
    report = run_emitted(job)
    if options.json:
        print(as_json(report))
    else:
        print_run(report)
    return 0


def _describe_passes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="PASS", help="the one to explain")


def _passes(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_pass, print_passes

    if options.name:
        print_pass(options.name)
    else:
        print_passes()
    return 0


def _describe_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="TARGET", help="the one to explain")


def _targets(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_target, print_targets

    if options.name:
        print_target(options.name)
    else:
        print_targets()
    return 0


def _describe_schema(parser: argparse.ArgumentParser) -> None:
    """It takes no arguments."""


def _schema(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_schema

    print_schema()
    return 0


def _describe_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "tcsh", "zsh"], help="its first lines say how to use it")


def _completion(options: argparse.Namespace) -> int:
    from edgec.tools.completion import SCRIPTS

    print(SCRIPTS[options.shell], end="")
    return 0


def _answer(arguments: list[str]) -> int:
    """``--answer PROGRAM WORD...``, or ``--answer-line`` with the words in the variable that tcsh sets."""
    from edgec.tools.completion import answers, paths

    line = arguments[0] == "--answer-line"
    words = os.environ.get("COMMAND_LINE", "").split(" ") if line else arguments[1:]
    program, *rest = [word for word in words[:-1] if word] + words[-1:]
    if Path(program).name == "edgec-opt":
        from edgec.tools.opt import opt_parser

        found = answers(rest or [""], {}, opt_parser())
    else:
        found = answers(rest or [""], {name: command_parser(name) for name in COMMANDS}, compile_parser())
    for answer in found:
        print(*(paths(answer, rest[-1]) if line and answer.startswith(":") else [answer]), sep="\n")
    return 0


COMMANDS = {
    "inspect": Command("MODEL", "prints a network layer by layer with its cost", _describe_inspect, _inspect),
    "simplify": Command("MODEL", "folds what can be computed, into an ONNX file", _describe_simplify, _simplify),
    "check": Command("MODEL", "tries the usual preprocessings on your data", _describe_check, _check),
    "run": Command("DIR", "runs what was emitted on your data", _describe_run, _run_emitted),
    "passes": Command("[PASS]", "lists the passes, or the options of one", _describe_passes, _passes),
    "targets": Command("[TARGET]", "lists the targets, or the profile of one", _describe_targets, _targets),
    "schema": Command("", "prints the recipe's JSON Schema, for editors", _describe_schema, _schema),
    "completion": Command("SHELL", "prints a completion script for a shell", _describe_completion, _completion),
}


if __name__ == "__main__":
    raise SystemExit(main())
