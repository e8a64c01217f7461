"""The few parts that generators and discriminators share."""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.config import Norm


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A norm with a trained scale and shift: batch norms track statistics, instance norm keeps none."""
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.SyncBatchNorm(channels)


class ReflectConv(nn.Conv2d):
    """A convolution of odd kernel size that keeps the grid, its border reflected."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, bias=bias, groups=groups)
        self.border = (kernel // 2,) * 4

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_pad(input, self.border) if any(self.border) else input)


def _pad(x: Tensor, border: tuple[int, ...]) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        # Left to itself, autocast pads in float32 on a CPU and converts every feature map there and back.
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, border, mode="reflect")
    return F.pad(x, border, mode="reflect")


def with_norm_relu(conv: nn.Module, channels: int, norm: Norm) -> nn.Sequential:
    """Convolution, norm, ReLU."""
    return nn.Sequential(OrderedDict(conv=conv, norm=norm_layer(norm, channels), relu=nn.ReLU(inplace=True)))


def init_weights(
    module: nn.Module, *, seed: int, gain: float = 0.02, norm_start: Literal["one", "normal"] = "one"
) -> None:
    """Draw fresh weights in place: convolutions from N(0, `gain`), biases and shifts 0, norm scales 1.

    The official code draws batch-norm scales from N(1, `gain`) instead (and leaves instance norm's at 1):
    `norm_start="normal"`. Pruning ranks these scales, and after a short training such a start still decides the
    ranking; from 1, whatever tells two channels apart was learned.

    The same `seed` gives the same weights on every device. Running statistics are reset.
    """
    if norm_start not in ("one", "normal"):
        raise ValueError(f"norm_start is 'one' or 'normal', got {norm_start!r}")
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, mean: float) -> Tensor:
        return torch.empty(like.shape).normal_(mean, gain, generator=generator)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                part.weight.copy_(draw(part.weight, 0.0))
            elif isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
                part.reset_running_stats()
                part.weight.copy_(draw(part.weight, 1.0) if norm_start == "normal" else torch.ones(part.weight.shape))
            elif isinstance(part, nn.InstanceNorm2d):
                part.weight.fill_(1.0)
            else:
                continue
            if part.bias is not None:
                part.bias.zero_()
