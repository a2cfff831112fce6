"""Train the capsule autoencoder on sound capsules and export it to ONNX. Needs the extra `edgec[torch]`.

    python examples/capsule/train.py [--data DIR] [--out FILE] [--epochs N] [--threads N]

A convolutional autoencoder learns to repaint sound capsules through a narrow bottleneck; what it cannot
repaint is taken for a flaw. The score of an image is its mean squared reconstruction error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).parent
SIZE = 128
BATCH = 16
SEED = 0
LEARNING_RATE = 2e-3
# Decoupled from the gradient, so this large: what the loss does not hold up is gone by the end, and kernels of
# hundreds of channels are left with few directions. That is what a factorization can take away.
WEIGHT_DECAY = 2.0
FROZEN_FROM = 0.9  # of the epochs: the last ones run BatchNorm on the statistics that it will be exported with
FLAWS = ("crack", "faulty_imprint", "poke", "scratch", "squeeze")


def load_folder(folder: Path) -> np.ndarray:
    """Images of a folder in name order as float32 (n, 1, SIZE, SIZE), 0 to 1: the recipe's `preprocess`."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no .png; run {HERE / 'render.py'} first")
    return np.stack([load_image(path) for path in paths])


def load_image(path: Path) -> np.ndarray:
    """One image as float32 (1, SIZE, SIZE), 0 to 1."""
    with Image.open(path) as image:
        gray = image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(gray, np.float32)[None] / np.float32(255)


def _down(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _same(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def build_autoencoder(latent: int = 32) -> nn.Sequential:
    """(n, 1, 128, 128) to the same shape, through a bottleneck of (n, latent, 4, 4)."""
    encoder = [
        *_down(1, 16),  # 64
        *_down(16, 32),  # 32
        *_down(32, 64),  # 16
        *_down(64, 128),  # 8
        *_same(128, 256),
        *_same(256, 256, stride=2),  # 4
        *_same(256, 512),
        nn.Conv2d(512, latent, 1),
    ]
    decoder = [
        *_same(latent, 512),
        *_same(512, 256),
        *_up(256, 128),  # 8
        *_up(128, 64),  # 16
        *_up(64, 48),  # 32
        *_up(48, 32),  # 64
        nn.ConvTranspose2d(32, 1, 4, 2, 1),  # 128
        nn.Sigmoid(),
    ]
    return nn.Sequential(*encoder, *decoder)


def train(model: nn.Module, images: np.ndarray, epochs: int) -> None:
    """AdamW on the mean squared error, one-cycle learning rate, BatchNorm frozen at the end."""
    order = torch.Generator().manual_seed(SEED)
    data = torch.from_numpy(images)
    steps = -(-len(data) // BATCH)
    kernels = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * steps, pct_start=0.1)
    model.train()
    for epoch in range(1, epochs + 1):
        if epoch > FROZEN_FROM * epochs:
            model.eval()
        total = 0.0
        for batch in data[torch.randperm(len(data), generator=order)].split(BATCH):
            loss = nn.functional.mse_loss(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if epoch % 10 == 0 or epoch == epochs:
            print(f"epoch {epoch}: mean squared error {total / len(data):.6f}", flush=True)


@torch.no_grad()  # type: ignore[untyped-decorator]
def anomaly_scores(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Mean squared reconstruction error of each image, shape (n,)."""
    model.eval()
    batches = torch.from_numpy(images).split(BATCH)
    return np.concatenate([(model(batch) - batch).square().mean(dim=(1, 2, 3)).numpy() for batch in batches])


def auroc(ok: np.ndarray, ng: np.ndarray) -> float:
    """Area under the ROC curve: how often a flawed image scores above a sound one; ties count half."""
    difference = ng[:, None] - ok[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def export(model: nn.Module, path: Path) -> None:
    """Write ONNX with BatchNorm as it stands: PRESERVE keeps the exporter from folding it; edgec does."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, SIZE, SIZE),),
        str(path),
        input_names=["image"],
        output_names=["reconstruction"],
        opset_version=17,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the capsule autoencoder and export it to ONNX.")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="data set in MVTec AD's layout")
    parser.add_argument("--out", type=Path, default=HERE / "autoencoder.onnx")
    parser.add_argument("--epochs", type=int, default=170)
    parser.add_argument("--threads", type=int, default=2, help="weights vary with it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    try:
        good = load_folder(options.data / "train/good")
        ok = load_folder(options.data / "test/good")
        ng = {flaw: load_folder(options.data / "test" / flaw) for flaw in FLAWS}
    except OSError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 3

    model = build_autoencoder()
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, {len(good)} images", flush=True)
    began = time.monotonic()
    train(model, good, options.epochs)
    print(f"trained in {time.monotonic() - began:.0f} s")

    ok_scores = anomaly_scores(model, ok)
    ng_scores = {flaw: anomaly_scores(model, images) for flaw, images in ng.items()}
    print(f"score of sound capsules: {ok_scores.mean():.6f} ± {ok_scores.std():.6f}")
    for flaw, scores in ng_scores.items():
        print(f"  {flaw}: {scores.mean():.6f}, AUROC {auroc(ok_scores, scores):.4f}")
    print(f"AUROC {auroc(ok_scores, np.concatenate(list(ng_scores.values()))):.4f}")
    export(model, options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
