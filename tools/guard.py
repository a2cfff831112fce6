"""What a command leaves when something goes wrong: one line on stderr and the exit status that says of what kind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from edgec.ir.errors import EdgecError

_INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def guarded(program: str, run: Callable[[], int], *, traceback: bool = False) -> int:
    """Runs ``run``; turns what it raises into one line that begins with ``program``, and into the exit status.

    Args:
        traceback: let errors through, so that the interpreter shows where they come from.
    """
    try:
        with _terminated_as_interrupted():
            status = run()
            sys.stdout.flush()
            return status
    except EdgecError as error:
        if traceback:
            raise
        for line in str(error).splitlines():
            print(f"{program}: {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as error:
        print(f"{program}: interrupted; the earlier output is as it was", file=sys.stderr)
        return _INTERRUPTED[error.args[0] if error.args else "SIGINT"]
    except BrokenPipeError:
        _forget_stdout()
        return 141
    except MemoryError:
        print(f"{program}: not enough memory; close other programs, or calibrate with fewer samples", file=sys.stderr)
        return 70
    except Exception as error:  # a bug of edgec's own: it is named, and --traceback shows the rest
        if traceback:
            raise
        if isinstance(error, OSError) and error.strerror:
            # What the system refused is not edgec's fault, wherever it came up.
            if error.filename is None:
                _forget_stdout()
            place = error.filename or "standard output"
            print(f"{program}: {place}: cannot be read or written ({error.strerror.lower()})", file=sys.stderr)
            return 3
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{program}: a fault of edgec's own ({what}); run again with --traceback and report it", file=sys.stderr)
        return 70


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP are as Ctrl-C: the blocks that remove temporary files run."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    # A signal that is ignored (nohup) stays so.
    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget_stdout() -> None:
    """Nobody takes what is still buffered: the interpreter must not trip over it when it ends."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
