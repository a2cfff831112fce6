"""What speaks against the data, said before any figure is believed."""

from __future__ import annotations

from edgec.frontends.chance import near_chance
from edgec.frontends.input_statistics import departure
from edgec.ir.graph import Graph
from edgec.passes.framework import input_domain
from edgec.tools.quality import Quality

_ADVICE = "'edgec check MODEL -O RECIPE' tries the usual preprocessings"


def suspicions(original: Graph, quality: Quality) -> list[str]:
    """A metric of the original near chance, and samples unlike those that it was trained on, in sentences.

    Args:
        original: as it was loaded, its BatchNormalization in place.
        quality: of it.
    """
    notes = []
    judge, baseline, probes = quality.metric, quality.baseline, quality.probes
    if judge is not None and baseline is not None:
        known = near_chance(judge.metric, baseline.value())
        if known is not None:
            notes.append(
                f"the original's {judge.name} is {baseline.value():.2f}, near the {known.value:.2f} of chance:"
                f" its preprocessing or its labels are hardly right; {_ADVICE}"
            )
    if probes.source != "noise":
        apart = departure(original, [input_domain.enter(original, feeds) for feeds in probes.feeds])
        if apart is not None and apart.suspicious:
            notes.append(
                f"at '{apart.node}' the samples do not look like what the network was trained on ({apart.words});"
                f" {_ADVICE}"
            )
    return notes
