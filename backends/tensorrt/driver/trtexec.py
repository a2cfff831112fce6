"""NVIDIA's trtexec: its version, its options, its log."""

import ctypes
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import List, Sequence, Tuple

from edgec.backends.tensorrt.driver.board import found_program, text_of
from edgec.backends.tensorrt.driver.refusals import PREFLIGHT, Refusal

LOGS = Path("logs")
WHERE_LOGGED = "logs/ holds what trtexec said"


def die_with_parent() -> None:
    """A build that nobody waits for would only take memory from the next one (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Trtexec:
    """NVIDIA's command, with the version and the options that it says it has.

    Versions differ in their options: 8.2 has --workspace, 8.5 both that and --memPoolSize, 10 only the latter.
    """

    def __init__(self) -> None:
        path = os.environ.get("TRTEXEC") or found_program("trtexec", "usr/src/tensorrt/bin")
        if not path or not os.access(path, os.X_OK):
            fix = "install it with 'sudo apt install libnvinfer-bin', or set TRTEXEC to its path"
            raise Refusal(PREFLIGHT, path or "trtexec", "is not there", fix)
        self.path = path
        _, text = self.call("help", ["--help"])
        number = re.search(r"\[TensorRT v(\d+)\]", text)
        if number is None:
            raise Refusal(PREFLIGHT, path, "does not start", f"repair JetPack's TensorRT; {WHERE_LOGGED}")
        n = int(number.group(1))  # 8201 is 8.2.1, and since 10.0 100300 is 10.3.0
        self.version = (n // 1000, n // 100 % 10, n % 100) if n < 10000 else (n // 10000, n // 100 % 100, n % 100)
        self.options = set(re.findall(r"--\w+", text))

    @property
    def shown(self) -> str:
        """The version, as people write it."""
        return ".".join(map(str, self.version))

    def only(self, *flags: str) -> List[str]:
        """Those of the flags that this version has."""
        return [flag for flag in flags if flag.split("=")[0] in self.options]

    def call(self, name: str, arguments: Sequence[str]) -> Tuple[int, str]:
        """Runs it with a log of its own: the exit status, not 0 where it did not say that it passed, and the log."""
        path = LOGS / f"{name}.log"
        with path.open("wb") as log:
            try:
                process = subprocess.Popen(
                    [self.path, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                what = f"cannot be run ({error.strerror})"
                raise Refusal(PREFLIGHT, self.path, what, "repair JetPack's TensorRT") from None
            try:
                status = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        text = text_of(path)
        return (1 if status == 0 and "&&&& PASSED" not in text else status), text


def why(status: int, text: str) -> Tuple[str, str]:
    """What went wrong in trtexec by its log, and the fix."""
    errors = re.findall(r"\[E\] (?:\[TRT\] )?(.*)", text)
    if ran_out_of_memory(status, text):
        fix = "close what else runs (sudo systemctl isolate multi-user.target), or add swap, and run again"
        return "there is not enough memory" + (", and trtexec was killed" if status < 0 else ""), fix
    if re.search(r"No space left|Saving engine to file failed", text):
        return "the disk is full", "free some space and run again"
    if "Failed to parse onnx file" in text:
        named = [line for line in errors if re.search(r"[Ii]mporter|In node|ERROR|Assertion", line)]
        what = f"this TensorRT does not take the model: {(named or errors)[-1][:160]}"
        return what, "emit the bundle for the TensorRT that the board has"
    return (errors[0][:160] if errors else f"trtexec ended with {status}"), WHERE_LOGGED


def ran_out_of_memory(status: int, text: str) -> bool:
    """Whether trtexec says so, or the kernel has killed it, which it does for want of memory."""
    found = re.search(r"out of memory|OutOfMemory|insufficient memory|bad_alloc", text)
    return status == -signal.SIGKILL or found is not None
