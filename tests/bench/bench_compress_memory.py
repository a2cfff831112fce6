"""Time and memory of compressing EfficientNet-Lite0 with 64 calibration images, then with 640.

    python tests/bench/bench_compress_memory.py [--passes "[fold, factorize: {params: 0.8}]"]

Runs the ``edgec`` command in a process of its own, on two threads, with crops of photographs that packages ship. The
goals: under 60 seconds and 2 GB with 64 images; with ten times the images the same memory, to within a tenth. Exit
status 1 where one is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import efficientnet_lite0, photos

IMAGES = 64
# Linux counts what a process held before it became another program into ru_maxrss, so the command reads its own peak.
COMMAND = """
import sys
from pathlib import Path
from edgec.tools.cli import main
status = main()
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""
MOST_SECONDS, MOST_BYTES, MOST_GROWTH = 60.0, 2e9, 1.1


def run(folder: Path, images: int, passes: str) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of one compilation."""
    crops = photos.calibration_crops(images)
    feeds = np.concatenate([efficientnet_lite0.feed(crop)[efficientnet_lite0.INPUT] for crop in crops])
    np.savez(folder / f"{images}.npz", **{efficientnet_lite0.INPUT: feeds})
    recipe = folder / f"{images}.yaml"
    recipe.write_text(f"data: {{calibration: {{arrays: {images}.npz}}}}\npasses: {passes}\n", encoding="utf-8")
    command = [sys.executable, "-c", COMMAND, str(folder / "model.onnx"), "-O", str(recipe)]
    command += ["-o", str(folder / f"out{images}"), "--threads", "2", "--no-timing", "--quiet"]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return time.perf_counter() - start, 1024 * int(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description="time and memory of compressing EfficientNet-Lite0.")
    parser.add_argument("--passes", default="[fold, factorize: {params: 0.8}]", help="the recipe's passes")
    parser.add_argument("--skip-large", action="store_true", help="only the 64 images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        efficientnet_lite0.export(folder / "model.onnx", batch_norm=True)
        seconds, peak = run(folder, IMAGES, arguments.passes)
        print(f"{IMAGES} images: {seconds:.1f} s, {peak / 1e6:.0f} MB", flush=True)
        met = seconds < MOST_SECONDS and peak < MOST_BYTES
        if not arguments.skip_large:
            longer, larger = run(folder, 10 * IMAGES, arguments.passes)
            print(f"{10 * IMAGES} images: {longer:.1f} s, {larger / 1e6:.0f} MB, {larger / peak:.3f} times as much")
            met &= larger <= MOST_GROWTH * peak
    print(
        f"goals (under {MOST_SECONDS:g} s and {MOST_BYTES / 1e9:g} GB, the same memory): {'met' if met else 'NOT MET'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
