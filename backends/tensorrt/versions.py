"""What a version of TensorRT takes, and what a board can compute: the rules that an emitted model must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import ConfigDict, Field

from edgec.backends.profiles import validated
from edgec.backends.tensorrt.bundle import Board, Versions
from edgec.backends.tensorrt.shape_profiles import OPTION, profiles_of
from edgec.passes.framework.target import Target

Version = tuple[int, ...]
# From here on a network can say the type of every tensor itself, and 11 has no other way.
_TYPED: Version = (10,)


@dataclass(frozen=True)
class Rules:
    """What one TensorRT on one board takes.

    Attributes:
        version: of TensorRT.
        board: what people call the board.
        opset: the newest that the parser reads.
        ir_version: the newest of the file format.
        operators: those that the parser knows.
        int8: whether the GPU multiplies 8-bit integers.
        profiled: inputs whose first dimension the recipe gave an optimization profile for.
        fewest_channels: with fewer a convolution is faster in FP16; NVIDIA's own quantizer draws the line at 16.
    """

    version: Version
    board: str
    opset: int
    ir_version: int
    operators: frozenset[str]
    int8: bool
    fewest_channels: int
    profiled: frozenset[str] = frozenset()

    @property
    def tensorrt(self) -> str:
        """The version, as people write it."""
        return "TensorRT " + ".".join(map(str, self.version))

    @property
    def typed(self) -> bool:
        """Whether the file itself may say what runs in which precision."""
        return self.version >= _TYPED


_Dotted = Annotated[str, Field(strict=True, pattern=r"^\d+(\.\d+)*$")]


@dataclass(frozen=True)
class _Range:
    """The versions of TensorRT that a board may have: from ``least`` on, and ``below`` that."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    least: _Dotted | None = None
    below: _Dotted | None = None


@dataclass(frozen=True)
class _Options:
    """What stands under ``options`` in the file of a target of this backend."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    tensorrt: _Range
    opset: Annotated[int, Field(strict=True, ge=7)]
    compute_capability: _Dotted | None = None


@dataclass(frozen=True)
class Profile:
    """What a target's YAML says to this backend.

    Attributes:
        board: what the bundle may run on.
        opset: what models are emitted in, where no operator needs a newer one.
        weak, typed: the rules for the oldest TensorRT below 10, and from 10 on; ``None`` where the board has none.
    """

    board: Board
    opset: int
    weak: Rules | None
    typed: Rules | None

    @property
    def oldest(self) -> Rules:
        """The rules that all of its models keep."""
        found = self.weak or self.typed
        assert found is not None, "a profile names at least one version"
        return found


def profile_of(target: Target) -> Profile:
    """The profile of a target whose backend is ``tensorrt``."""
    own = {key: value for key, value in target.options.items() if key != OPTION}
    options = validated(_Options, own, f"target '{target.name}': options")
    versions = Versions(options.tensorrt.least, options.tensorrt.below)
    board = Board(target.name, target.title, options.compute_capability, target.memory_bytes, versions)
    least = numbers(versions.least or "8.2")
    weak = rules(least, target) if least < _TYPED else None
    reaches = versions.below is None or numbers(versions.below) > _TYPED
    typed = rules(max(least, _TYPED), target) if reaches else None
    return Profile(board, options.opset, weak, typed)


def rules(version: Version, target: Target) -> Rules:
    """The rules of one TensorRT version on the board of ``target``."""
    operators: set[str] = set()
    opset = ir_version = 0
    for name, entry in _series().items():
        if opset and numbers(name) > version:
            break
        operators |= set(entry["adds"])
        opset, ir_version = entry["opset"], entry["ir_version"]
    scheme = target.scheme
    fewest = 1 if scheme is None else scheme.fewest_channels
    profiled = frozenset(profiles_of(target))
    return Rules(version, target.title, opset, ir_version, frozenset(operators), scheme is not None, fewest, profiled)


def numbers(version: str) -> Version:
    """``8.2`` as (8, 2)."""
    return tuple(int(part) for part in version.split("."))


@lru_cache(maxsize=1)
def _series() -> Mapping[str, Mapping[str, Any]]:
    text = (files("edgec.backends.tensorrt") / "versions.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return dict(sorted(found.items(), key=lambda item: numbers(item[0])))
