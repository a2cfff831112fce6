"""What a run that is killed leaves, so that the next one goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SUFFIX = ".training.pt"


class Checkpoint:
    """A file that holds the state of one training run, by what the run is made of.

    Args:
        folder: where it lies; ``None`` keeps nothing.
        key: a hash of everything that the run depends on: another run finds nothing.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.path = None if folder is None else folder / f"{key[:32]}{SUFFIX}"

    def load(self) -> dict[str, Any] | None:
        """What was saved; ``None`` where there is nothing, or nothing that can be read."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            found = torch.load(self.path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, KeyError):
            return None  # cut off, or not ours: the run begins anew
        return found if isinstance(found, dict) else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces what was saved, whole."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(dict(state), part)
        part.replace(self.path)
