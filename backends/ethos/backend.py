"""The ethos backend: the same TFLite file as for Coral, and what Vela makes of it for the NPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from edgec.backends.coral.backend import CHECK, MODEL, CoralBackend, write
from edgec.backends.ethos import vela
from edgec.backends.profiles import validated
from edgec.backends.protocol import ALONE, Beside, Emitted, Feeds
from edgec.ir.graph import Graph
from edgec.passes.framework.target import Count, Target

# Operators that stay on the CPU, so many of which a note names.
_NAMED = 3


@dataclass(frozen=True)
class _Options:
    """What stands under ``options`` in the file of a target of this backend.

    Attributes:
        accelerator, system_config, memory_mode: as Vela calls them.
        sram_bytes: of the on-chip memory that the NPU works in, to say whether the network fits it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    accelerator: str
    system_config: str
    memory_mode: str
    sram_bytes: Count | None = None


class EthosBackend(CoralBackend):
    """Boards with an Ethos-U, by TFLite and Vela."""

    name: ClassVar[str] = "ethos"

    def missing(self) -> list[str]:
        """What this machine lacks to do everything, a sentence each."""
        return vela.missing()

    def emit(
        self, graph: Graph, target: Target, folder: Path, probes: Sequence[Feeds], beside: Beside = ALONE
    ) -> Emitted:
        """Writes model.tflite and check.json, and model_vela.tflite where Vela is installed.

        What is measured is model.tflite in LiteRT, on this machine: the NPU computes the same integers by Arm's
        account, and was not run.

        Raises:
            EmitError: an operator cannot be lowered, the file does not compute what the graph computes, or Vela fails.
        """
        options = validated(_Options, target.options, f"target '{target.name}': options")
        written = write(graph, target, folder, probes, beside)
        compiled = vela.compile_file(folder, options.accelerator, options.system_config, options.memory_mode)
        report, notes, files = dict(written.report), list(written.notes), list(written.files)
        fits: bool | None = None
        if compiled is not None:
            named = [{"operator": kind, "tensor": tensor, "why": why} for kind, tensor, why in compiled.on_cpu]
            report["vela"] = {**compiled.figures, "on_cpu": named}
            files.append(compiled.file)
            notes += _notes(compiled, written.report["operators"])
            if options.sram_bytes is not None:
                fits = compiled.figures["sram_kib"] * 1024 <= options.sram_bytes
        report["notes"] = notes
        (folder / CHECK).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return Emitted(files, MODEL, written.sqnr_db, fits, notes, report)


def _notes(compiled: vela.Compiled, operators: dict[str, int]) -> list[str]:
    figures = compiled.figures
    device = f"{figures['accelerator']} ({figures['system']}) at {figures['clock_mhz']:.0f} MHz"
    estimate = (
        f"Vela's estimate, not a measurement: {figures['inference_ms']:.3g} ms an inference on {device},"
        f" {figures['sram_kib']:.0f} KiB of SRAM."
    )
    total, left = sum(operators.values()), figures["cpu_operators"]
    if not left:
        return [estimate, f"All {total} operators run on the NPU."]
    named = "; ".join(f"{kind} that computes '{tensor}' ({why})" for kind, tensor, why in compiled.on_cpu[:_NAMED])
    more = f", and {len(compiled.on_cpu) - _NAMED} more" if len(compiled.on_cpu) > _NAMED else ""
    advice = ""
    if operators.get("DEQUANTIZE", 0) or operators.get("QUANTIZE", 0):
        advice = " What is computed in float stays on the CPU: quantize all of the network, or cut it before that."
    return [estimate, f"{left} of {total} operators stay on the CPU: {named}{more}.{advice}"]
