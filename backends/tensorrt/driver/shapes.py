"""What trtexec is told of the shapes of a network that takes batches of several sizes; nothing where it takes one."""

from typing import Any, Dict, List, Optional

ENDS = ("min", "opt", "max")


def with_profile(manifest: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The inputs whose batch may vary."""
    return [port for port in manifest["inputs"] if port.get("profile")]


def listed(shapes: Dict[str, List[int]]) -> str:
    """Shapes by input, as trtexec reads them: a:1x3x8x8,b:1x4."""
    return ",".join("{}:{}".format(name, "x".join(map(str, shape))) for name, shape in shapes.items())


def build_flags(manifest: Dict[str, Any]) -> List[str]:
    """The optimization profile that an engine is built with."""
    ports = with_profile(manifest)
    return [f"--{end}Shapes={listed({p['name']: p['profile'][end] for p in ports})}" for end in ENDS if ports]


def profile_name(manifest: Dict[str, Any]) -> str:
    """The part of an engine's name that says which batches it takes."""
    ports = with_profile(manifest)
    return "-batch" + "-".join(str(ports[0]["profile"][end][0]) for end in ENDS) if ports else ""


def usual_batch(manifest: Dict[str, Any]) -> Optional[int]:
    """How many samples are timed at once; none where the network takes one size."""
    ports = with_profile(manifest)
    return int(ports[0]["profile"]["opt"][0]) if ports else None


def usual_flags(manifest: Dict[str, Any]) -> List[str]:
    """The shapes at which an engine is timed."""
    ports = with_profile(manifest)
    return [f"--shapes={listed({p['name']: p['profile']['opt'] for p in ports})}"] if ports else []


def sample_flags(manifest: Dict[str, Any], index: int) -> List[str]:
    """The shapes of a golden sample."""
    ports = with_profile(manifest)
    return [f"--shapes={listed({p['name']: p['shapes'][index] for p in ports})}"] if ports else []
