"""Work on layers that do not depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edgec.passes.framework.context import Context

T = TypeVar("T")
U = TypeVar("U")


def in_parallel(work: Callable[[T], U], items: Sequence[T], ctx: Context, what: str) -> list[U]:
    """Results in the order of ``items``, the same on any number of threads: BLAS gets one thread in each."""
    from threadpoolctl import threadpool_limits

    results: list[U] = []
    with threadpool_limits(limits=1):
        if ctx.threads > 1 and len(items) > 1:
            with ThreadPoolExecutor(max_workers=ctx.threads) as pool:
                results = list(_counted(pool.map(work, items), len(items), ctx, what))
        else:
            results = list(_counted(map(work, items), len(items), ctx, what))
    return results


def _counted(results: Iterable[U], total: int, ctx: Context, what: str) -> Iterable[U]:
    for done, result in enumerate(results, 1):
        ctx.progress(done, total, what)
        yield result
