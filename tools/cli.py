"""The ``edgec`` command. Nothing heavy is imported before the arguments are known: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgec import __version__
from edgec.ir.errors import EdgecError

_EPILOG = """\
other commands:
  edgec inspect MODEL     the network, layer by layer, with its cost
  edgec passes [NAME]     what passes there are; the options of one
  edgec targets [NAME]    what targets there are; the profile of one
  edgec schema            the recipe's JSON Schema, for editors
  edgec completion SHELL  a completion script for bash, zsh or tcsh

exit status: 0 done; 1 done, but a requirement is not met; 2 usage or recipe; 3 model or data; 4 a backend could not
emit; 70 a fault of edgec's own
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Errors are one line on stderr."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    commands: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
        "inspect": (_inspect_parser, _inspect),
        "passes": (_passes_parser, _passes),
        "targets": (_targets_parser, _targets),
        "schema": (_schema_parser, _schema),
        "completion": (_completion_parser, _completion),
    }
    name = arguments[0] if arguments else ""
    if name in commands and not (name not in ("completion",) and Path(name).is_file()):
        make, run = commands[name]
        options = make().parse_args(arguments[1:])
    else:
        run, options = _compile, compile_parser().parse_args(arguments)
    return guarded("edgec", lambda: run(options), traceback=getattr(options, "traceback", False))


def guarded(program: str, run: Callable[[], int], *, traceback: bool) -> int:
    """Runs ``run``, turning what it raises into one line on stderr and the right exit status."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return run()
    except EdgecError as error:
        if traceback:
            raise
        for line in str(error).splitlines():
            print(f"{program}: {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as error:
        print(f"{program}: interrupted; the earlier output is as it was", file=sys.stderr)
        return 143 if error.args == ("SIGTERM",) else 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except MemoryError:
        print(f"{program}: not enough memory; close other programs, or calibrate with fewer samples", file=sys.stderr)
        return 70
    except Exception as error:  # a bug of edgec's own: it is named, and --traceback shows the rest
        if traceback:
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{program}: a fault of edgec's own ({what}); run again with --traceback and report it", file=sys.stderr)
        return 70


def _terminated(number: int, frame: Any) -> NoReturn:
    # As Ctrl-C: the blocks that remove temporary files run.
    raise KeyboardInterrupt("SIGTERM")


# -- edgec MODEL -O RECIPE --------------------------------------------------------------------------------------------


def compile_parser() -> argparse.ArgumentParser:
    """The parser of ``edgec MODEL -O RECIPE``."""
    parser = argparse.ArgumentParser(
        prog="edgec",
        description="Compiles a trained network for small devices, as a recipe says.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="the ONNX file")
    parser.add_argument("-O", dest="recipe", type=Path, required=True, metavar="RECIPE", help="the recipe, a YAML file")
    parser.add_argument("-o", dest="output", type=Path, metavar="DIR", help="output folder (default: build/<model>)")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="put the report on stdout")
    parser.add_argument("--no-timing", action="store_true", help="do not measure latency and memory")
    add_watch_options(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--version", action="version", version=f"edgec {__version__}")
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that opens a model."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE",
        help="pin an input's open dimensions, as in image:1x3x224x224",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """The options that watch the pipeline."""
    group = parser.add_argument_group("watching the passes")
    group.add_argument("--dump-ir", type=Path, metavar="DIR", help="numbered text and model files after every pass")
    group.add_argument("--print-after", action="append", default=[], metavar="PASS", help="print the graph after PASS")
    group.add_argument("--print-changed", action="store_true", help="print what each pass changed")
    group.add_argument("--time", action="store_true", help="print how long each pass took")


def instruments_of(options: argparse.Namespace) -> tuple[list[Any], Any]:
    """The instruments that the options ask for, and the one that keeps times (or ``None``)."""
    from edgec.ir.errors import UsageError, did_you_mean
    from edgec.passes.instruments import Dumps, PrintAfter, PrintChanged, Times
    from edgec.passes.registry import pass_names
    from edgec.tools.output import writing

    # The report may go to stdout: then what is watched goes to stderr.
    stream = sys.stderr if getattr(options, "json", False) else sys.stdout
    found: list[Any] = []
    for name in options.print_after:
        if name not in pass_names():
            what = f"no pass named '{name}'.{did_you_mean(name, pass_names())}"
            raise UsageError("--print-after", what, "'edgec passes' lists them")
    if options.dump_ir is not None:
        with writing(options.dump_ir):
            found.append(Dumps(options.dump_ir))
    if options.print_after:
        found.append(PrintAfter(options.print_after, stream))
    if options.print_changed:
        found.append(PrintChanged(stream))
    times = Times() if options.time else None
    return ([*found, times] if times is not None else found), times


def pins_of(options: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """The shapes of ``--input``."""
    from edgec.frontends.model import parse_pin

    return dict(parse_pin(text) for text in options.input)


def _compile(options: argparse.Namespace) -> int:
    from edgec.tools.compile import Job, compile_model
    from edgec.tools.progress import Progress

    instruments, times = instruments_of(options)
    with Progress(quiet=options.quiet) as progress:
        job = Job(
            model=options.model,
            recipe=options.recipe,
            output=options.output,
            pins=pins_of(options),
            threads=options.threads,
            instruments=instruments,
            timing=not options.no_timing,
            progress=progress,
        )
        report = compile_model(job)
    if times is not None:
        times.print(sys.stderr)
    if options.json:
        import json

        print(json.dumps(report, indent=2))
    else:
        from edgec.tools.summary import print_summary

        print_summary(report, job.place)
    return 0 if all(entry["met"] for entry in report["require"].values()) else 1


# -- the other commands -----------------------------------------------------------------------------------------------


def _inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgec inspect", description="Prints a network layer by layer with its cost.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the ONNX file")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="JSON in the place of the table")
    parser.add_argument("--ir", action="store_true", help="the graph as text in the place of the table")
    return parser


def _inspect(options: argparse.Namespace) -> int:
    from edgec.tools.inspect import inspect

    inspect(options.model, pins_of(options), as_json=options.json, as_text=options.ir)
    return 0


def _passes_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgec passes", description="Lists the passes, or the options of one.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a pass")
    return parser


def _passes(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_pass, print_passes

    if options.name:
        print_pass(options.name)
    else:
        print_passes()
    return 0


def _targets_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgec targets", description="Lists the targets, or the profile of one.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a target")
    return parser


def _targets(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_target, print_targets

    if options.name:
        print_target(options.name)
    else:
        print_targets()
    return 0


def _schema_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="edgec schema", description="Prints the recipe's JSON Schema.")


def _schema(options: argparse.Namespace) -> int:
    from edgec.tools.catalogue import print_schema

    print_schema()
    return 0


def _completion_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgec completion", description="Prints a shell's completion script.")
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def _completion(options: argparse.Namespace) -> int:
    import shtab

    parser = compile_parser()
    for action in parser._actions:
        if action.dest == "model" or action.dest == "recipe":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in ("output", "dump_ir"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
