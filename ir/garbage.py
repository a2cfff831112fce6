"""Keeping the garbage collector out of work that makes no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection inside, and what was made inside counts as old afterwards.

    Of a graph being built nothing is garbage, yet the collector would go through the growing whole again and again:
    on a model of 20,000 nodes that takes longer than to build it. What becomes garbage later is found as ever, by the
    collections of the oldest generation.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            # Frozen and thawed, objects land in the oldest generation without being walked.
            gc.freeze()
            gc.unfreeze()
        gc.enable()
