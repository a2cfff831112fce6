"""What run.sh refuses before it builds anything: another board or TensorRT, too little memory, a changed file."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from bundles import LOGGED, Bench, bench, refused


def test_no_trtexec(nano: Bench) -> None:
    (nano.root / "usr/src/tensorrt/bin/trtexec").unlink()
    fix = "install it with 'sudo apt install libnvinfer-bin', or set TRTEXEC to its path"
    refused(nano, 10, f"trtexec: is not there; {fix}")


def test_a_trtexec_that_does_not_start(nano: Bench) -> None:
    path = nano.root / "usr/src/tensorrt/bin/trtexec"
    nano.program("usr/src/tensorrt/bin/trtexec", "echo 'libnvinfer.so.8: cannot open shared object file'; exit 127")
    refused(nano, 10, f"{path}: does not start; repair JetPack's TensorRT; {LOGGED}")
    path.write_text("#!/nowhere\n")
    refused(nano, 10, f"{path}: cannot be run (No such file or directory); repair JetPack's TensorRT")


def test_another_board(orin: Bench) -> None:
    orin.put("proc/device-tree/compatible", "nvidia,p3450-0000\0nvidia,tegra210\0")
    orin.put("proc/device-tree/model", "NVIDIA Jetson Nano Developer Kit\0")
    refused(
        orin,
        10,
        "NVIDIA Jetson Nano Developer Kit: has compute capability 5.3, and the bundle is for Jetson Orin Nano (8.7);"
        " emit a bundle for this board",
    )


def test_no_board_that_is_known(nano: Bench) -> None:
    nano.put("proc/device-tree/compatible", "raspberrypi,4\0")
    nano.program("usr/bin/nvidia-smi", "exit 9")
    refused(
        nano,
        10,
        "NVIDIA Jetson Nano Developer Kit: the compute capability of its GPU cannot be found;"
        " run this on the board, with NVIDIA's driver",
    )


def test_another_tensorrt(nano_bundle: Path, tmp_path: Path) -> None:
    board = bench(nano_bundle, tmp_path, "8.5.3")
    path = board.root / "usr/src/tensorrt/bin/trtexec"
    refused(
        board,
        10,
        f"{path}: is of TensorRT 8.5.3, and the bundle is for at least 8.2 and below 8.3;"
        " emit a bundle for that version, or install another JetPack",
    )


def test_too_little_memory(nano: Bench) -> None:
    nano.memory(free_mib=400, swap_mib=100)
    lines = [
        f"model_{name}.onnx: needs 600 MiB by estimate, and 500 MiB are free, swap included;"
        " close what else runs, add swap, or use --ignore-memory"
        for name in ("fp16", "fp32")
    ]
    refused(nano, 10, *lines)
    assert nano.calls() == [["--help"]]
    assert nano.run("--ignore-memory")[0] == 0
    nano.memory(free_mib=400, swap_mib=200)
    assert nano.run()[0] == 0


def test_a_changed_file(nano: Bench) -> None:
    golden = nano.folder / "golden/output0.0.bin"
    data = golden.read_bytes()
    golden.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    what = "was changed: it is not what manifest.json lists; copy the bundle again"
    refused(nano, 10, f"golden/output0.0.bin: {what}")
    golden.unlink()
    refused(nano, 10, "golden/output0.0.bin: is missing; copy the bundle again")
    assert nano.calls() == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "files": 3}', "\0"])
def test_no_manifest(nano: Bench, text: str) -> None:
    (nano.folder / "manifest.json").write_text(text)
    refused(nano, 10, "manifest.json: is not there or cannot be read; copy the bundle again")


def test_a_manifest_of_another_format(nano: Bench) -> None:
    (nano.folder / "manifest.json").write_text('{"format": 2, "files": {}}')
    what = "is of a format that this run.py does not know; copy the bundle again"
    refused(nano, 10, f"manifest.json: {what}")


def test_two_at_once(nano: Bench) -> None:
    (nano.folder / "engines").mkdir()
    with (nano.folder / "engines/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = nano.run()
    assert (status, err) == (10, "run.py: this folder: another run.sh is at work in it; wait for its end\n")


def test_a_desktop_card(orin_bundle: Path, tmp_path: Path) -> None:
    """Without a Tegra in the device tree the driver is asked; the memory is the card's."""
    board = bench(orin_bundle, tmp_path, "8.5.3")
    for name in ("model", "compatible"):
        (board.root / "proc/device-tree" / name).unlink()
    board.program("usr/bin/nvidia-smi", "echo '8.7, 8192, 500, NVIDIA Something'")
    refused(
        board,
        10,
        *(
            f"model_{name}.onnx: needs 600 MiB by estimate, and 500 MiB are free, swap included;"
            " close what else runs, add swap, or use --ignore-memory"
            for name in ("fp16", "int8", "fp32")
        ),
    )
    assert board.report["board"]["model"] == "NVIDIA Something"
