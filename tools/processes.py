"""Whether this process leaves the output: of several that torchrun has started, only the first one does."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether no other process does the same work and leaves it (torchrun's variables, ``torch.distributed.run``)."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"
