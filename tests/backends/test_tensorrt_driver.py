"""The bundle's run.sh from end to end on a made-up board, against a trtexec that computes with onnxruntime."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from bundles import LOGGED, NANO, Bench, bench, network, refused, write_bundle

MEND_MEMORY = "close what else runs (sudo systemctl isolate multi-user.target), or add swap, and run again"
FINER = "emit the bundle with a finer precision"


# -- all is well ------------------------------------------------------------------------------------------------------

SKIP = {"8.2.1": "--buildOnly", "8.5.3": "--buildOnly", "10.3.0": "--skipInference"}
POOL = {"8.2.1": "--workspace=1200", "8.5.3": "--memPoolSize=workspace:1200", "10.3.0": "--memPoolSize=workspace:1200"}


@pytest.mark.parametrize("version", ["8.2.1", "8.5.3", "10.3.0"])
def test_it_builds_checks_and_times(version: str, nano_bundle: Path, orin_bundle: Path, tmp_path: Path) -> None:
    on_nano = version == "8.2.1"
    board = bench(nano_bundle if on_nano else orin_bundle, tmp_path, version)
    status, out, err = board.run()
    assert (status, err) == (0, "")
    report = board.report
    best, milliseconds = ("model_fp16.onnx", 2.0) if on_nano else ("model_int8.onnx", 1.0)
    assert out.splitlines()[-1] == f"best: {best}, {milliseconds:.3f} ms, as best.engine; report.json holds the rest"
    assert report["best"] == report["models"][-1]
    assert [model["file"] for model in report["models"]] == ["model_fp16.onnx", "model_int8.onnx"][
        : 1 if on_nano else 2
    ]
    assert report["best"]["latency"] == {
        "runs": 20, "median_ms": milliseconds, "mean_ms": pytest.approx(milliseconds, abs=1e-3),
        "p95_ms": milliseconds + 0.001, "p99_ms": milliseconds + 0.001, "least_ms": milliseconds - 0.001,
        "most_ms": milliseconds + 0.001,
    }  # fmt: skip
    # What FP16 rounding of the outputs leaves, and rounding of the inputs to 8 bits.
    assert report["models"][0]["check"]["sqnr_db"] > 60
    assert 40 < report["models"][-1]["check"]["sqnr_db"] < (90 if on_nano else 55)
    assert report["trtexec"]["version"] == version
    assert report["board"]["compute_capability"] == ("5.3" if on_nano else "8.7")
    assert report["board"]["l4t"] == ("32.7.1" if on_nano else "36.4.0")
    assert report["board"]["jetpack"] == ("4.6.1 or a later 4.6" if on_nano else "6")
    assert report["board"]["power_mode"] == "MAXN"
    assert report["board"]["gpu_clock"] == {"now_hz": 307_200_000, "most_hz": 921_600_000}
    engine = Path(report["best"]["build"]["engine"])
    assert engine.name.endswith(f"-trt{version}-sm{'53-fp16' if on_nano else '87-int8'}.engine")
    assert (board.folder / "best.engine").resolve() == (board.folder / engine).resolve()

    first, *calls = board.calls()
    assert first == ["--help"]
    builds = [call for call in calls if call[0].startswith("--onnx")]
    precisions = [["--fp16"], ["--int8", "--fp16"]][: len(builds)]
    cache = f"--timingCacheFile=engines/trt{version}-sm{'53' if on_nano else '87'}.cache"
    assert [call[2:] for call in builds] == [[*flags, POOL[version], cache, SKIP[version]] for flags in precisions]
    timed = calls[-1]
    assert {"--iterations=30", "--useCudaGraph", "--noDataTransfers", "--useSpinWait"} <= set(timed)

    # A second time nothing is built, and --rebuild builds all.
    assert board.run()[0] == 0
    assert not [call for call in board.calls() if call[0].startswith("--onnx")]
    assert all(model["build"]["reused"] for model in board.report["models"])


def test_the_faster_one_is_kept(orin: Bench) -> None:
    orin.settings["ms"]["int8"] = 2.5
    status, out, err = orin.run("--rebuild")
    assert (status, err) == (0, "")
    assert (
        "note: model_int8.onnx takes 2.500 ms and model_fp16.onnx 2.000 ms: the faster one is kept" in out.splitlines()
    )
    assert orin.report["best"]["precision"] == "fp16"


def test_what_was_damaged_is_built_anew(nano: Bench) -> None:
    assert nano.run()[0] == 0
    engine = nano.folder / nano.report["best"]["build"]["engine"]
    engine.write_bytes(engine.read_bytes()[:-1])
    assert nano.run()[0] == 0
    assert not nano.report["best"]["build"]["reused"]
    assert nano.run("--rebuild")[0] == 0
    assert not nano.report["best"]["build"]["reused"]


# -- build ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("out of memory", f"there is not enough memory; {MEND_MEMORY}"),
        ("killed", f"there is not enough memory, and trtexec was killed; {MEND_MEMORY}"),
        ("disk full", "the disk is full; free some space and run again"),
        ("nothing written", "its engine was not written whole; free some space and run again"),
    ],
)
def test_a_build_that_fails(nano: Bench, failure: str, reason: str) -> None:
    nano.settings["fail"] = {"*": failure}
    refused(nano, 11, f"model_fp16.onnx: {reason}", f"model_fp32.onnx: {reason}")
    assert not list((nano.folder / "engines").glob("*.engine"))
    # What is left of it is in nobody's way.
    nano.settings["fail"] = {}
    assert nano.run()[0] == 0


@pytest.mark.parametrize(
    ("operator", "quantized", "reason"),
    [
        (
            "HardSwish",
            False,
            "this TensorRT does not take the model: ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:4951 In"
            " function importFallbackPluginImporter: No importer registered for op: HardSwish;"
            " emit the bundle for the TensorRT that the board has",
        ),
        ("Relu", True, f"Error[9]: Networks with QuantizeLayer require hardware with Int8 support; {LOGGED}"),
    ],
)
def test_a_model_that_does_not_parse(tmp_path: Path, operator: str, quantized: bool, reason: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", NANO, fp16=network(quantized, opset=14, operator=operator))
    board = bench(bundle, tmp_path / "board", "8.2.1")
    status, _, err = board.run()
    assert (status, err) == (0, f"run.py: model_fp16.onnx: {reason}\n")
    assert board.report["best"]["file"] == "model_fp32.onnx"


def test_a_smaller_workspace_where_memory_runs_out(nano: Bench) -> None:
    nano.settings["fail"] = {"*": "large workspace"}
    assert nano.run()[::2] == (0, "")
    assert [call[3] for call in nano.calls() if call[0].startswith("--onnx")] == ["--workspace=1200", "--workspace=32"]


def test_a_truncated_engine_is_not_kept(nano: Bench) -> None:
    nano.settings["fail"] = {"*": "disk full, unnoticed"}
    reason = f"its engine does not run (trtexec ended with 1); {LOGGED}"
    refused(nano, 12, f"model_fp16.onnx: {reason}", f"model_fp32.onnx: {reason}")
    nano.settings["fail"] = {}
    assert nano.run()[0] == 0


# -- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "failure", "reason"),
    [
        (12, "nan", "output 'y': holds NaN or infinity in sample 0; something overflows: " + FINER),
        (12, "-inf", "output 'y': holds NaN or infinity in sample 0; something overflows: " + FINER),
        (12, "short", f"output 'y': has 107 values and not 108; {LOGGED}"),
        (12, "no outputs", f"trtexec left no readable outputs; {LOGGED}"),
        (12, "crash", f"its engine does not run (Cuda failure: an illegal memory access was encountered); {LOGGED}"),
        (13, "not timed", f"its engine cannot be timed (Error occurred during inference); {LOGGED}"),
        (13, "few times", f"trtexec wrote 10 times, and more than 20 were asked for; {LOGGED}"),
    ],
)
def test_outputs_and_times_that_are_none(nano: Bench, status: int, failure: str, reason: str) -> None:
    nano.settings["fail"] = {"*": failure}
    refused(nano, status, f"model_fp16.onnx: {reason}", f"model_fp32.onnx: {reason}")


def test_wrong_outputs(orin: Bench) -> None:
    """One model that computes something else is left out; where all do, nothing passes."""
    orin.settings["fail"] = {"int8": "wrong"}
    status, _, err = orin.run()
    assert status == 0
    assert err.startswith("run.py: model_int8.onnx: is too far from the golden outputs: cosine 0.")
    assert err.endswith(f" dB (at least 30); {FINER}\n") and err.count("\n") == 1
    assert orin.report["best"]["file"] == "model_fp16.onnx"
    orin.settings["fail"] = {"*": "wrong"}
    assert orin.run()[0] == 12
    assert [model["status"] for model in orin.report["models"]] == [12, 12, 12]
    assert orin.report["best"] is None


def test_the_model_that_came_furthest_gives_the_status(orin: Bench) -> None:
    orin.settings["fail"] = {"int8": "out of memory", "fp16": "wrong", "fp32": "killed"}
    assert orin.run()[0] == 12
    assert [model["status"] for model in orin.report["models"]] == [12, 11, 11]


# -- latency ----------------------------------------------------------------------------------------------------------


def test_slower_than_asked(nano: Bench) -> None:
    fix = "a higher power mode (nvpmodel) and 'sudo jetson_clocks' may help"
    refused(
        nano, 13, f"model_fp16.onnx: takes 2.000 ms, and 1.5 ms are allowed; {fix}", arguments=("--max-latency", "1.5")
    )
    assert nano.run("--max-latency", "2.5")[0] == 0


# -- interruptions and a full disk ------------------------------------------------------------------------------------


def started(board: Bench, wanted: str) -> subprocess.Popen[str]:
    """run.sh, at work on what ``wanted`` matches."""
    process = subprocess.Popen(
        board.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=board.environment()
    )
    deadline = time.monotonic() + 120
    while not list(board.folder.glob(wanted)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def runs(path: Path) -> bool:
    """Whether any process has ``path`` in its command line."""
    return any(str(path).encode() in _command_line(entry) for entry in Path("/proc").glob("[0-9]*"))


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGKILL, -9, ""),
        (signal.SIGTERM, 143, "run.py: interrupted; engines that are done are kept: start it again to go on\n"),
        (signal.SIGINT, 130, "run.py: interrupted; engines that are done are kept: start it again to go on\n"),
    ],
)
def test_it_goes_on_after_an_interruption(orin: Bench, number: int, status: int, said: str) -> None:
    orin.settings["fail"] = {"int8": "slow"}
    process = started(orin, "engines/*int8*.part")
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, said)
    deadline = time.monotonic() + 60
    while runs(orin.root / "usr/src/tensorrt/bin/trtexec") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(orin.root / "usr/src/tensorrt/bin/trtexec")  # trtexec ends with it
    orin.settings["fail"] = {}
    assert orin.run()[0] == 0
    assert [model["build"]["reused"] for model in orin.report["models"]] == [True, False]


def test_it_outlives_the_terminal_under_nohup(orin: Bench) -> None:
    """A build takes long, and ssh may not last so long."""
    orin.settings["fail"] = {"int8": "slow"}
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started(orin, "engines/*int8*.part")
    finally:
        signal.signal(signal.SIGHUP, before)
    os.kill(process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_full_disk_under_the_report(nano: Bench) -> None:
    (nano.folder / "report.json.part").symlink_to("/dev/full")
    status, _, err = nano.run()
    what = "cannot be read or written (no space left on device); free some space and run again"
    assert (status, err) == (14, f"run.py: this folder: {what}\n")


def test_a_folder_that_cannot_be_written(nano: Bench) -> None:
    (nano.folder / "engines").write_text("")
    status, _, err = nano.run()
    what = "cannot be read or written (file exists); copy the bundle to a folder of your own"
    assert (status, err) == (14, f"run.py: engines: {what}\n")


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--runs", "x"], ["--max-latency", "-1"], ["--fast"]])
def test_usage(nano: Bench, arguments: list[str]) -> None:
    status, _, err = nano.run(*arguments)
    assert status == 2 and err.splitlines()[-1].startswith("run.sh: error: ")


@pytest.mark.parametrize("text", ["0 done; 2 usage", "10 the board", "11 no engine", "12 the outputs", "14 a file"])
def test_help_names_the_exit_statuses(nano: Bench, text: str) -> None:
    status, out, _ = nano.run("--help")
    assert status == 0
    assert text in out


def test_the_oldest_python(nano: Bench, tmp_path: Path) -> None:
    """JetPack 4.6 has Python 3.6, and its locale may be C."""
    oldest = python_of("3.6")
    if oldest is None:
        pytest.skip("python3.6 is not on PATH: what the board's Python takes is only checked by its grammar")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(oldest)
    nano.python = tmp_path / "bin"
    assert nano.run("--help")[0] == 0
    status, out, err = nano.run()
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "best: model_fp16.onnx, 2.000 ms, as best.engine; report.json holds the rest"
    nano.settings["fail"] = {"*": "nan"}
    assert nano.run()[0] == 12
    assert nano.run("--max-latency", "0")[0] == 2


def python_of(version: str) -> str | None:
    """The interpreter of that version, where there is one."""
    try:
        done = subprocess.run(
            [f"python{version}", "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # it is not there, or it only says where it would be
        return None
    return done.stdout.strip()


def test_no_python(nano: Bench, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dirname").symlink_to(str(shutil.which("dirname")))
    done = subprocess.run(
        [str(nano.folder / "run.sh")], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path / "bin")}
    )
    line = "run.sh: python3: is not installed; install it with 'sudo apt install python3'\n"
    assert (done.returncode, done.stderr) == (10, line)


def test_the_report_is_json_that_every_reader_takes(nano: Bench) -> None:
    nano.settings["fail"] = {"*": "nan"}
    nano.run()

    def refuse(name: str) -> Mapping[str, str]:
        raise AssertionError(name)

    json.loads((nano.folder / "report.json").read_text(), parse_constant=refuse)
