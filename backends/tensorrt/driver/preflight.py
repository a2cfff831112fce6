"""Whether the bundle is for this board, its TensorRT and its memory."""

from typing import Any, Dict, Tuple

from edgec.backends.tensorrt.driver.board import MIB
from edgec.backends.tensorrt.driver.refusals import PREFLIGHT, Refusal
from edgec.backends.tensorrt.driver.trtexec import Trtexec


def within(version: Tuple[int, ...], versions: Dict[str, str]) -> bool:
    """Whether a version lies in a range of the manifest's; an end that is not named is open."""
    least, below = ([int(part) for part in versions.get(end, "").split(".") if part] for end in ("least", "below"))
    return list(version) >= least and (not below or list(version) < below)


def in_words(versions: Dict[str, str]) -> str:
    """A range in words."""
    words = (("least", "at least"), ("below", "below"))
    return " and ".join(f"{word} {versions[end]}" for end, word in words if end in versions)


def preflight(wanted: Dict[str, Any], board: Dict[str, Any], tool: Trtexec) -> None:
    """Refuses a board or a TensorRT that the bundle is not for."""
    here, capability = board["model"] or "this machine", board["compute_capability"]
    if capability is None:
        what = "the compute capability of its GPU cannot be found"
        raise Refusal(PREFLIGHT, here, what, "run this on the board, with NVIDIA's driver")
    if wanted["compute_capability"] not in (None, capability):
        meant = f"{wanted['title']} ({wanted['compute_capability']})"
        what = f"has compute capability {capability}, and the bundle is for {meant}"
        raise Refusal(PREFLIGHT, here, what, "emit a bundle for this board")
    if not within(tool.version, wanted["tensorrt"]):
        what = f"is of TensorRT {tool.shown}, and the bundle is for {in_words(wanted['tensorrt'])}"
        raise Refusal(PREFLIGHT, tool.path, what, "emit a bundle for that version, or install another JetPack")


def check_memory(model: Dict[str, Any], amounts: Dict[str, int]) -> None:
    """Refuses a model whose estimate is more than what is free, swap included: the kernel would kill the build."""
    room = amounts["free"] + amounts["swap_free"]
    if model["memory_bytes"] > room:
        what = f"needs {model['memory_bytes'] // MIB} MiB by estimate, and {room // MIB} MiB are free, swap included"
        raise Refusal(PREFLIGHT, model["file"], what, "close what else runs, add swap, or use --ignore-memory")
