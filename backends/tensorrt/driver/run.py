"""Builds, checks and times the network in this folder on the board that it was emitted for.

Start it with ./run.sh. It wants Python 3.6 and JetPack, nothing else. It looks at the board, builds an engine of each
model in manifest.json, compares what they compute with the golden outputs, times them, and keeps the fastest one that
passes. report.json holds all that was found. An engine that is done is kept: start it again after an interruption.

exit status: 0 done; 2 usage; 10 the board, TensorRT, memory or the bundle's files are not what is needed; 11 no engine
could be built; 12 the outputs are not the golden ones; 13 the engine could not be timed, or is slower than asked;
14 a file could not be written; 129, 130, 143 interrupted
"""

import argparse
import errno
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional

from edgec.backends.tensorrt.driver.board import look_at_board
from edgec.backends.tensorrt.driver.engines import ENGINES, build
from edgec.backends.tensorrt.driver.files import forget, read_manifest, write_json
from edgec.backends.tensorrt.driver.golden import check
from edgec.backends.tensorrt.driver.preflight import check_memory, preflight, within
from edgec.backends.tensorrt.driver.refusals import LATENCY, PREFLIGHT, WRITING, Refusal
from edgec.backends.tensorrt.driver.timing import measure
from edgec.backends.tensorrt.driver.trtexec import LOGS, Trtexec


class Stopped(Exception):
    """A signal came; the argument is its number."""


def stop(number: int, frame: Any) -> None:
    """Turns a signal into :class:`Stopped`, so that trtexec is ended too."""
    raise Stopped(number)


def say(text: str, stream: Optional[IO[str]] = None) -> None:
    """A line for the user, in ASCII: a board's locale may know nothing else."""
    line = text.encode("ascii", "backslashreplace").decode("ascii")
    print(f"run.py: {line}" if stream else line, file=stream or sys.stdout, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    about, statuses = (__doc__ or "").split("exit status: ")
    made = argparse.ArgumentParser(
        prog="run.sh",
        description=about,
        epilog="exit status: " + statuses,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--runs", type=positive(int), default=1000, metavar="N", help="inferences to time (default: 1000)"
    )
    made.add_argument("--max-latency", type=positive(float), metavar="MS", help="fail where the median takes longer")
    made.add_argument("--rebuild", action="store_true", help="build engines anew that are already there")
    made.add_argument("--ignore-memory", action="store_true", help="build even where too little memory is free")
    return made


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A type for argparse: a number above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError(text)
        return value

    return number


def alone(lock: IO[str]) -> None:
    """Refuses to run beside another one in the same folder: they would take each other's time and memory."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(PREFLIGHT, "this folder", "another run.sh is at work in it", "wait for its end") from None


def link(place: Path, target: str) -> None:
    """Makes ``place`` a link to ``target``, whatever was there."""
    part = Path(f"{place}.part")
    forget(part)
    part.symlink_to(target)
    part.replace(place)


def attempt(
    tool: Trtexec, manifest: Dict[str, Any], board: Dict[str, Any], model: Dict[str, Any], options: argparse.Namespace
) -> Dict[str, Any]:
    """Builds, checks and times one model: what was found, with ``error`` where it does not pass."""
    file = model["file"]
    found: Dict[str, Any] = {"file": file, "precision": model["precision"], "status": 0, "error": None}
    try:
        if not options.ignore_memory:
            check_memory(model, board["memory_bytes"])
        say(f"{file}: building; on a small board this takes minutes")
        found["build"] = build(tool, manifest, board, model, options.rebuild)
        engine = Path(found["build"]["engine"])
        say(f"{file}: comparing with the golden outputs")
        found["check"] = check(tool, manifest, model, engine)
        say(f"{file}: timing")
        took = found["latency"] = measure(tool, manifest, model, engine, options.runs)
        at_once = f"{took['batch']} samples at once: " if "batch" in took else ""
        say(f"{file}: {at_once}median {took['median_ms']:.3f} ms, 99 % of the runs within {took['p99_ms']:.3f} ms")
    except Refusal as error:
        found.update(status=error.status, error=error.as_json())
        say(str(error), sys.stderr)
    return found


def try_all(
    tool: Trtexec, manifest: Dict[str, Any], board: Dict[str, Any], options: argparse.Namespace
) -> List[Dict[str, Any]]:
    """What was found of each model; the fallback is only tried where no other one passes."""
    usable = [model for model in manifest["models"] if within(tool.version, model.get("tensorrt", {}))]
    if not usable:
        what = f"lists no model for TensorRT {tool.shown}"
        raise Refusal(PREFLIGHT, "manifest.json", what, "emit the bundle for the TensorRT that the board has")
    tried: List[Dict[str, Any]] = []
    for fallback in (False, True):
        if not any(found["status"] == 0 for found in tried):
            chosen = [model for model in usable if bool(model.get("fallback")) == fallback]
            tried += [attempt(tool, manifest, board, model, options) for model in chosen]
    return tried


def run(options: argparse.Namespace, report: Dict[str, Any]) -> int:
    """The whole of it; ``report`` is filled as it goes. Returns the exit status."""
    manifest = read_manifest()
    report.update(edgec=manifest["edgec"], model=manifest["model"], target=manifest["board"]["name"])
    board = report["board"] = look_at_board()
    tool = Trtexec()
    report["trtexec"] = {"path": tool.path, "version": tool.shown}
    preflight(manifest["board"], board, tool)
    say(f"{board['model']}, compute capability {board['compute_capability']}, TensorRT {tool.shown}")
    clock = board["gpu_clock"]
    if clock and clock["now_hz"] < clock["most_hz"]:
        report["notes"].append("the GPU's clock is not at its highest: 'sudo jetson_clocks' makes times repeatable")
    tried = report["models"] = try_all(tool, manifest, board, options)
    passed = sorted((found for found in tried if found["status"] == 0), key=lambda found: found["latency"]["median_ms"])
    if not passed:
        return int(max(found["status"] for found in tried))  # of the one that came furthest
    best = report["best"] = passed[0]
    link(Path("best.engine"), best["build"]["engine"])
    median = best["latency"]["median_ms"]
    for other in passed[1:]:
        times = f"{other['latency']['median_ms']:.3f} ms and {best['file']} {median:.3f} ms"
        report["notes"].append(f"{other['file']} takes {times}: the faster one is kept")
    for note in report["notes"]:
        say(f"note: {note}")
    if options.max_latency is not None and median > options.max_latency:
        what = f"takes {median:.3f} ms, and {options.max_latency:g} ms are allowed"
        raise Refusal(LATENCY, best["file"], what, "a higher power mode (nvpmodel) and 'sudo jetson_clocks' may help")
    say(f"best: {best['file']}, {median:.3f} ms, as best.engine; report.json holds the rest")
    return 0


def main() -> int:
    """Runs it all, says what is wrong in one line, and leaves the report."""
    options = parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's is to stay so
            signal.signal(number, stop)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report: Dict[str, Any] = {"format": 1, "started": started, "best": None, "models": [], "notes": [], "error": None}
    try:
        os.chdir(str(Path(__file__).resolve().parent))
        for folder in (ENGINES, LOGS):
            folder.mkdir(exist_ok=True)
        with (ENGINES / ".lock").open("w") as lock:
            alone(lock)
            try:
                report["status"] = run(options, report)
            except Refusal as error:
                report.update(status=error.status, error=error.as_json())
                say(str(error), sys.stderr)
            write_json(Path("report.json"), report)
            return int(report["status"])
    except Refusal as error:
        say(str(error), sys.stderr)
        return error.status
    except Stopped as signalled:
        say("interrupted; engines that are done are kept: start it again to go on", sys.stderr)
        return 128 + int(signalled.args[0])
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"cannot be read or written ({(error.strerror or 'unknown reason').lower()})"
        fix = "free some space and run again" if full else "copy the bundle to a folder of your own"
        say(str(Refusal(WRITING, str(error.filename or "this folder"), what, fix)), sys.stderr)
        return WRITING


if __name__ == "__main__":
    sys.exit(main())
