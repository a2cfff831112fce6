"""Networks quantized with 1 to 32 calibration images, judged on others: no effort may be worse than a cheaper one.

    python tests/bench/bench_few_images.py [--networks classifier vgg resnet capsule efficientnet]
        [--images 1 2 4 8 16 32] [--seeds 3] [--options '{effort: fast}' '{}' '{effort: max}'] [--target cpu]

Each seed draws other calibration images from the same pool; all are judged on 32 of which none is in the pool (for
EfficientNet-Lite0 crops of other photographs). The first option is what the others are compared with. The digits'
networks are trained in a minute each, the first time.

Prints the mean SQNR in dB over the seeds and the least difference; exit status 1 where an option is worse than the
first by more than 0.3 dB on the mean over the seeds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import capsule, digits, efficientnet_lite0, photos

from edgec.backends.protocol import legalize
from edgec.backends.registry import backend, target
from edgec.frontends.model import open_model
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model

POOL, JUDGED = 96, 32
NOISE_DB = 0.3
Network = tuple[Graph, np.ndarray, np.ndarray]
TRAINED = Path(tempfile.gettempdir()) / "edgec-digits"


def classifier(_: Path) -> Network:
    """Three convolutions of seeded weights, on noise."""
    graph = model(
        "a = Conv <pads = [1,1,1,1]> (x, w1)\nr = Relu (a)\nb = Conv <pads = [1,1,1,1], strides = [2,2]> (r, w2)\n"
        "s = Relu (b)\nc = Conv <pads = [1,1,1,1], strides = [2,2]> (s, w3)\nt = Relu (c)\np = GlobalAveragePool (t)\n"
        "f = Flatten (p)\ny = Gemm <transB = 1> (f, w4)",
        "(float[1,3,32,32] x) => (float[1,10] y)",
        "float[16,3,3,3] w1, float[32,16,3,3] w2, float[64,32,3,3] w3, float[10,64] w4",
    )
    pictures = np.random.default_rng(0).normal(size=(POOL + JUDGED, 3, 32, 32)).astype(np.float32)
    return graph, pictures[:POOL], pictures[POOL:]


def digit_network(kind: digits.Kind) -> Callable[[Path], Network]:
    def made(_: Path) -> Network:
        trained = digits.trained(digits.Settings(kind), TRAINED)
        seen, held_out = (np.load(path)[digits.INPUT] for path in (trained.calibration, trained.held_out))
        return open_model(trained.model), seen[:POOL], held_out[:JUDGED]

    return made


def autoencoder(_: Path) -> Network:
    capsule.render()
    held_out, _ = capsule.held_out()
    return open_model(capsule.MODEL), capsule.calibration(POOL), held_out[:: len(held_out) // JUDGED][:JUDGED]


def efficientnet(folder: Path) -> Network:
    efficientnet_lite0.export(folder / "efficientnet.onnx", batch_norm=True)
    seen, others = (
        np.concatenate([efficientnet_lite0.feed(crop)[efficientnet_lite0.INPUT] for crop in crops])
        for crops in (photos.calibration_crops(POOL), photos.held_out_crops(JUDGED))
    )
    return open_model(folder / "efficientnet.onnx"), seen, others


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "classifier": classifier,
    "vgg": digit_network("vgg"),
    "resnet": digit_network("resnet"),
    "capsule": autoencoder,
    "efficientnet": efficientnet,
}


def fed(graph: Graph, pictures: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{graph.inputs[0].name: picture[None]} for picture in pictures]


def measured(network: Network, options: str, images: int, seed: int, board: str) -> float:
    """SQNR in dB on the judged pictures, quantized with some images of the pool."""
    original, pool, judged = network
    graph, device = original.copy(), target(board)
    Fold().run(graph, Context(graph))
    legalize(graph, backend(device.backend), device)
    graph.sort()
    graph.remove_dead()
    drawn = pool[np.random.default_rng(seed).permutation(len(pool))[:images]]
    ctx = Context(graph, RunConfig(target=device, data={"calibration": Samples(fed(original, drawn))}, seed=seed))
    Quantize(**(yaml.safe_load(options) or {})).run(graph, ctx)
    graph.sort()
    sessions = Session(original), Session(graph)
    wanted, found = (stacked([session.run(one) for one in fed(original, judged)]) for session in sessions)
    return sqnr_db(wanted, found)


def rows(arguments: argparse.Namespace, folder: Path) -> Iterator[bool]:
    """Whether no option is worse than the first, by network and number of images."""
    for name in arguments.networks:
        network = NETWORKS[name](folder)
        for images in arguments.images:
            found = {
                options: np.array(
                    [measured(network, options, images, seed, arguments.target) for seed in range(arguments.seeds)]
                )
                for options in arguments.options
            }
            first = found[arguments.options[0]]
            shown = "  ".join(
                f"{options}: {one.mean():.1f} ({(one - first).min():+.1f})" for options, one in found.items()
            )
            print(f"{name:12} {images:2} images  {shown}", flush=True)
            yield all((one - first).mean() >= -NOISE_DB for one in found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Quantize with few calibration images.")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--images", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", nargs="+", default=["{effort: fast}", "{}"])
    parser.add_argument("--target", default="cpu")
    arguments = parser.parse_args()
    with threadpool_limits(limits=1), tempfile.TemporaryDirectory() as folder:
        return 0 if all(list(rows(arguments, Path(folder)))) else 1


if __name__ == "__main__":
    sys.exit(main())
