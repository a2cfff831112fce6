"""The options that edgec's commands share, and the parser that reports a wrong one in a line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgec.ir.errors import UsageError, did_you_mean, printable

if TYPE_CHECKING:
    from edgec.frontends.model import Pin

MODEL_HELP = "an ONNX file, a torch program (.pt2), or module:function that returns a torch module and inputs"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a :class:`UsageError`; options are written whole."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raises the mistake as every other one is raised."""
        _, _, command = self.prog.partition(" ")
        raise UsageError(command, message, f"'{self.prog} --help' explains")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that opens a model."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE",
        help="pin an input's open dimensions, as in image:1x3x224x224, or its value, as in sr=16000",
    )
    parser.add_argument(
        "--cut",
        action="append",
        default=[],
        metavar="NAME",
        help="end the network at this tensor or node, before a head that is to run elsewhere",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs passes: threads, and what watches them."""
    parser.add_argument("--threads", type=_threads, default=0, metavar="N", help="threads (default: all cores)")
    group = parser.add_argument_group("watching the passes")
    group.add_argument("--dump-ir", type=Path, metavar="DIR", help="numbered text and model files after every pass")
    group.add_argument("--print-after", action="append", default=[], metavar="PASS", help="print the graph after PASS")
    group.add_argument("--print-changed", action="store_true", help="print what each pass changed")
    group.add_argument("--time", action="store_true", help="print how long each pass took")


def instruments_of(options: argparse.Namespace) -> tuple[list[Any], Any]:
    """The instruments that the options ask for, and the one that keeps times (or ``None``)."""
    from edgec.passes.framework.instruments import Dumps, PrintAfter, PrintChanged, Times
    from edgec.passes.framework.registry import pass_names
    from edgec.tools.output import writing

    # The report may go to stdout: then what is watched goes to stderr.
    stream = sys.stderr if getattr(options, "json", False) else sys.stdout
    found: list[Any] = []
    for name in options.print_after:
        if name not in pass_names():
            raise unknown_pass(name, "--print-after")
    if options.dump_ir is not None:
        with writing(options.dump_ir, fix="give another folder with --dump-ir"):
            found.append(Dumps(options.dump_ir))
    if options.print_after:
        found.append(PrintAfter(options.print_after, stream))
    if options.print_changed:
        found.append(PrintChanged(stream))
    times = Times() if options.time else None
    return ([*found, times] if times is not None else found), times


def unknown_pass(name: str, where: str) -> UsageError:
    """The error for a pass that is not there."""
    from edgec.passes.framework.registry import pass_names

    near = did_you_mean(name, pass_names())
    return UsageError(where, f"no pass named '{name}'" + near, "'edgec passes' lists them")


def pins_of(options: argparse.Namespace) -> dict[str, Pin]:
    """The shapes and values of ``--input``."""
    from edgec.frontends.model import parse_pins

    return parse_pins(options.input)


def print_notes(source: str, notes: Sequence[str]) -> None:
    """What was decided for the user when the model was opened, on stderr: stdout is for what was asked for."""
    for note in notes:
        print(f"edgec: {printable(source)}: {printable(note)}", file=sys.stderr)


def _threads(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 for all cores, not '{text}'")
    return int(text)
