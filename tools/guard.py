"""What a command leaves when something goes wrong: one line on stderr and the exit status that says of what kind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from edgec.ir.errors import EdgecError, error_line, printable

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guarded(program: str, run: Callable[[], int], *, traceback: bool = False, last: bool = False) -> int:
    """Runs ``run``; turns what it raises into one line that begins with ``program``, and into the exit status.

    Args:
        traceback: let errors through, so that the interpreter shows where they come from.
        last: the process ends behind this; once it is interrupted, further signals are ignored.
    """
    _open_streams()
    received: list[signal.Signals] = []
    try:
        with _interruptible(received), _said(program):
            status = run()
            sys.stdout.flush()
            return status
    except EdgecError as error:
        if traceback:
            raise
        for line in str(error).splitlines():
            _say(f"{program}: {line}")
        return error.exit_status
    except KeyboardInterrupt:
        return _interrupted(program, received, last)
    except BrokenPipeError:
        _forget_stdout()
        return 141
    except MemoryError:
        _say(f"{program}: not enough memory; close other programs, or calibrate with fewer samples")
        return 70
    except Exception as error:  # a bug of edgec's own: it is named, and --traceback shows the rest
        if received:  # a library that was being loaded turned the interrupt into an error of its own
            return _interrupted(program, received, last)
        if traceback:
            raise
        if isinstance(error, OSError) and error.strerror:
            # What the system refused is not edgec's fault, wherever it came up.
            if error.filename is None:
                _forget_stdout()
            place = str(error.filename or "standard output")
            _say(f"{program}: {error_line(place, f'cannot be read or written ({error.strerror.lower()})')}")
            return 3
        what = printable(f"{type(error).__name__}: {error}".splitlines()[0])
        _say(f"{program}: a fault of edgec's own ({what}); run again with --traceback and report it")
        return 70


@contextmanager
def _said(program: str) -> Iterator[None]:
    """Within the block what is left out of installed packages is said in a line, once; other warnings stay theirs."""
    from edgec.passes.framework.plugins import LeftOut

    known: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOut)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, LeftOut):
                show(message, category, *place, **more)
            elif str(message) not in known:
                known.add(str(message))
                _say(f"{program}: warning: {message}")

        warnings.showwarning = say
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block Ctrl-C, SIGTERM and SIGHUP are ignored: what is being tidied up is tidied up."""
    if threading.current_thread() is not threading.main_thread():  # only there Python handles signals
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}
    # One that another language's code handles cannot be put back.
    ours = {number: handler for number, handler in before.items() if handler is not None}
    for number in ours:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _interrupted(program: str, received: list[signal.Signals], last: bool) -> int:
    if last:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)
    _say(f"{program}: interrupted; the earlier output is as it was")
    return 128 + (received[0] if received else signal.SIGINT)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the exit status says it too, where nobody takes the line
        print(line, file=sys.stderr, flush=True)


@contextmanager
def _interruptible(received: list[signal.Signals]) -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP are as Ctrl-C: the blocks that remove temporary files run."""

    def stop(number: int, frame: Any) -> NoReturn:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    # A signal that is ignored (nohup) stays so.
    ours = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_streams() -> None:
    """Opens what the caller closed on nothing, so that no file of the run takes its number; keeps every character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """Nobody takes what is still buffered: the interpreter must not trip over it when it ends."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
