"""The board: what it is, its memory, its power mode and clocks, by the files that the kernel and JetPack keep."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Optional

ROOT = Path(os.environ.get("EDGEC_BOARD_ROOT", "/"))  # where the board's files are; another place in tests
# By the chip's name in the device tree, and by the release of L4T.
COMPUTE_CAPABILITY = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
JETPACK = {"32.6": "4.6", "32.7": "4.6.1 or a later 4.6", "35": "5", "36": "6", "38": "7", "39": "7"}
MIB = 1 << 20


def text_of(path: Path) -> str:
    """A small file's text, without the zeros that end strings in the device tree; empty where there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def found_program(name: str, *folders: str) -> Optional[str]:
    """A program in one of the board's folders, or on PATH."""
    places = [str(ROOT / folder / name) for folder in folders]
    return next((path for path in places if os.access(path, os.X_OK)), None) or shutil.which(name)


def said_by(name: str, *arguments: str) -> str:
    """What a program prints; empty where it is not there or fails."""
    program = found_program(name, "usr/sbin", "usr/bin")
    if program is None:
        return ""
    try:
        said = subprocess.check_output([program, *arguments], stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.decode("utf-8", "replace")


def memory() -> Dict[str, int]:
    """Bytes by /proc/meminfo: on a Jetson the GPU has no memory of its own."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text_of(ROOT / "proc/meminfo"), re.MULTILINE))
    keys = (("total", "MemTotal"), ("free", "MemAvailable"), ("swap_total", "SwapTotal"), ("swap_free", "SwapFree"))
    return {key: 1024 * int(found.get(name, 0)) for key, name in keys}


def clock(now: Path, most: Path, unit_hz: int) -> Optional[Dict[str, int]]:
    """A clock of the kernel's, now and at most, in Hz."""
    values = text_of(now), text_of(most)
    if not all(value.isdigit() for value in values):
        return None
    return {"now_hz": unit_hz * int(values[0]), "most_hz": unit_hz * int(values[1])}


def look_at_board() -> Dict[str, Any]:
    """All that says on what the figures were measured."""
    release = re.search(r"R(\d+) .*REVISION: (\d+)([.\d]*)", text_of(ROOT / "etc/nv_tegra_release"))
    major, minor, patch = release.groups() if release else ("", "", "")
    chips = re.findall(r"tegra\d+", text_of(ROOT / "proc/device-tree/compatible"))
    capability = next((COMPUTE_CAPABILITY[chip] for chip in chips if chip in COMPUTE_CAPABILITY), None)
    model, own, amounts = text_of(ROOT / "proc/device-tree/model"), False, memory()
    if capability is None:
        wanted = "--query-gpu=compute_cap,memory.total,memory.free,name"
        lines = said_by("nvidia-smi", wanted, "--format=csv,noheader,nounits").splitlines()
        card = [field.strip() for field in lines[0].split(",")] if lines else []
        if len(card) == 4 and re.match(r"\d+\.\d+$", card[0]):
            capability, model = card[0], model or card[3]
            if card[1].isdigit() and card[2].isdigit():  # a card with memory of its own, where swap is no help
                own, amounts = True, {"total": int(card[1]) * MIB, "free": int(card[2]) * MIB, "swap_free": 0}
    mode = re.search(r"NV Power Mode: *(\S+)", said_by("nvpmodel", "-q"))
    gpus = [path for path in (ROOT / "sys/class/devfreq").glob("*") if re.search(r"gpu|g[mpva]\w\db", path.name)]
    cpu = ROOT / "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        "model": model or None,
        "l4t": f"{major}.{minor}{patch}" if release else None,
        "jetpack": JETPACK.get(f"{major}.{minor}", JETPACK.get(major)),
        "compute_capability": capability,
        "gpu_has_own_memory": own,
        "memory_bytes": amounts,
        "power_mode": mode.group(1) if mode else None,
        "gpu_clock": clock(gpus[0] / "cur_freq", gpus[0] / "max_freq", 1) if gpus else None,
        "cpu_clock": clock(cpu / "scaling_cur_freq", cpu / "cpuinfo_max_freq", 1000),
    }
