"""Runs the passes of a plan and holds each to its promise.

After every pass the graph is sorted, cleared of dead code, verified and compared with what it was. A pass that raises,
leaves a broken graph, or changes the outputs although it calls itself exact is stopped there, with a reproducer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.errors import EdgecError, InputError, InternalError, UsageError
from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.unchanged import unchanged
from edgec.passes.framework.cache import RunCache
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.exactness import coarsest, inexact, measured_rounding
from edgec.passes.framework.instruments import Instrument
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.record import Record
from edgec.passes.framework.reference import Outputs, Reference
from edgec.passes.framework.reproducer import write_reproducer
from edgec.passes.framework.settling import settle
from edgec.passes.framework.target import Target

_log = logging.getLogger("edgec.passes")


class PassManager:
    """Runs passes, one after the other.

    Args:
        reference: the original model's answers.
        config: what the passes may use.
        instruments: told before and after each pass.
        repro: the folder for reproducers; ``None`` leaves none.
    """

    def __init__(
        self,
        reference: Reference,
        config: RunConfig | None = None,
        *,
        instruments: Sequence[Instrument] = (),
        repro: Path | None = None,
    ) -> None:
        self.reference = reference
        self.instruments = instruments
        self.repro = repro
        self.config = RunConfig() if config is None else config
        self._cache = RunCache()

    def run(
        self,
        graph: Graph,
        steps: Sequence[Planned],
        target: Target | None = None,
        *,
        behind: Sequence[Planned] = (),
    ) -> list[Record]:
        """Runs ``steps`` on ``graph`` in place.

        Args:
            graph: what is rewritten.
            steps: in order.
            target: the board that they run for; ``None`` where it is for all.
            behind: what will run behind them, for reproducers.

        Raises:
            UsageError, InputError: a pass found the recipe or the data at fault, or a lossy pass its budget exceeded.
            InternalError: a pass broke a promise; the line names the reproducer.
        """
        config = replace(self.config, target=target)
        outputs: Outputs = self.reference.run(graph)
        cost = Cost(graph).as_dict()
        records = []
        for index, item in enumerate(steps):
            before = graph.copy()
            ctx = Context(graph, config, self._cache)
            for instrument in self.instruments:
                instrument.before(item, graph)
            start = time.perf_counter()
            where = item.where
            try:
                outputs = self._step(graph, item, ctx, before, outputs, where)
            except EdgecError as error:
                self._failed(item, graph, error)
                placed = _placed(error, item)
                if isinstance(error, InternalError):
                    raise self._with_reproducer(placed, before, [*steps[index:], *behind], target) from error
                raise placed from error
            except Exception as error:  # any other exception is a bug in the pass: it is named, kept and reproducible
                self._failed(item, graph, error)
                fault = InternalError(where, f"raised {type(error).__name__}: {error}")
                raise self._with_reproducer(fault, before, [*steps[index:], *behind], target) from error
            seconds = time.perf_counter() - start
            after = cost if unchanged(before, graph) else Cost(graph).as_dict()
            sqnr = self.reference.sqnr_db(outputs)
            record = Record(
                item.step.name, item.place, seconds, cost, after, sqnr, tuple(ctx.done), tuple(ctx.left),
                None if target is None else target.name, ctx.curves,
            )  # fmt: skip
            records.append(record)
            _log.info("%s %s: %.2f s, %.1f dB", item.place, item.step.name, seconds, sqnr)
            for instrument in self.instruments:
                instrument.after(item, before, graph, record)
            budget = item.step.budget_db()
            if budget is not None and sqnr < budget:
                raise UsageError(
                    where,
                    f"leaves {sqnr:.1f} dB, below its budget of {budget:g} dB",
                    "compress less, or allow more loss",
                )
            cost = after
        return records

    @contextmanager
    def reproducible(
        self, where: str, graph: Graph, rest: Sequence[Planned], target: Target | None = None
    ) -> Iterator[None]:
        """Within the block a fault of edgec's own leaves a reproducer.

        Args:
            where: who is at work, as an error names it.
            graph: what it is at work on; the reproducer holds it as it is when the block begins.
            rest: what of the recipe the reproducer holds.
            target: the board.

        Raises:
            InternalError: for any exception that edgec did not raise on purpose, but for those of the system.
        """
        before = graph.copy()
        try:
            yield
        except InternalError as error:
            raise self._with_reproducer(error, before, rest, target) from error
        except (EdgecError, OSError, MemoryError):
            raise
        except Exception as error:  # any other exception is a bug: it is named, kept and reproducible
            fault = InternalError(where, f"raised {type(error).__name__}: {error}")
            raise self._with_reproducer(fault, before, rest, target) from error

    def _step(self, graph: Graph, item: Planned, ctx: Context, given: Graph, before: Outputs, where: str) -> Outputs:
        item.step.run(graph, ctx)
        if unchanged(given, graph):
            return before
        settle(graph, where)
        if item.step.changes_inputs():
            # What it was is no measure any more: from here on the network is held to what it computes now.
            self.reference = Reference(graph, seeded_feeds(graph, ctx.seed))
            return self.reference.outputs
        try:
            after = self.reference.run(graph)
        except InputError as error:
            raise InternalError(where, f"left a graph that does not run: {error.what}") from error
        if [t.name for t in graph.outputs] != self.reference.names:
            raise InternalError(where, "changed the names of the model's outputs")
        for output in given.outputs:
            old, new = before[0][output.name].shape, after[0][output.name].shape
            if old != new and all(isinstance(size, int) for size in output.shape or [None]):
                what = f"made output '{output.name}' of shape {list(new)} where it was {list(old)}"
                raise InternalError(where, what)
        if any(not np.isfinite(v).all() for o in after for v in o.values() if v.dtype.kind == "f") and all(
            np.isfinite(v).all() for o in before for v in o.values() if v.dtype.kind == "f"
        ):
            raise InternalError(where, "made outputs that are not finite")
        if item.step.effect == "exact":
            self._check_exact(graph, given, before, after, where)
        return after

    def _check_exact(self, graph: Graph, given: Graph, before: Outputs, after: Outputs, where: str) -> None:
        moved = inexact(
            before,
            after,
            quantized=any(node.op == "QuantizeLinear" for node in graph.nodes),
            epsilon=coarsest(graph),
            rounding=lambda: measured_rounding(given, self.reference.feeds(given), before),
        )
        if moved:
            raise InternalError(where, f"is exact but {max(moved, key=lambda d: d.largest).what}")

    def _failed(self, item: Planned, graph: Graph, error: Exception) -> None:
        for instrument in self.instruments:
            instrument.failed(item, graph, error)

    def _with_reproducer(
        self, error: EdgecError, before: Graph, rest: Sequence[Planned], target: Target | None
    ) -> InternalError:
        if self.repro is None:
            return InternalError(error.where, error.what, error.fix)
        folder = write_reproducer(self.repro, before, rest, self.reference.feeds(before), error, target)
        return InternalError(error.where, error.what, f"the model before it and the rest of the recipe are in {folder}")


def _placed(error: EdgecError, item: Planned) -> EdgecError:
    """A pass says ``factorize: skip``; where that stands in the recipe is known here."""
    name = item.step.name
    if error.where != name and not error.where.startswith(f"{name}: "):
        return error
    return type(error)(item.where + error.where.removeprefix(name), error.what, error.fix)
