"""The few parts that generators and discriminators share."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from i2i_lib.config import Norm, check_choice


def norm_layer(norm: Norm, channels: int, *, affine: bool = True) -> nn.Module:
    """A norm, by default with a trained scale and shift: batch norms track statistics, instance norm keeps none."""
    if norm == "instance":
        return InstanceNorm(channels, affine=affine)
    return (nn.BatchNorm2d if norm == "batch" else nn.SyncBatchNorm)(channels, affine=affine)


class InstanceNorm(nn.InstanceNorm2d):
    """PyTorch's, with the right gradients for a batch of one picture as well.

    On a CPU, PyTorch 2.15 reads the gradient of one picture as if it lay channels first, and convolutions give it
    channels last.
    """

    def forward(self, input: Tensor) -> Tensor:
        normed = super().forward(input)
        # Gradients of views are laid out as their tensors are.
        return normed.flatten().view(normed.shape) if len(input) == 1 and normed.requires_grad else normed


class ReflectConv(nn.Conv2d):
    """A convolution of odd kernel size that keeps the grid, its border reflected."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, bias=bias, groups=groups)
        self.border = kernel // 2

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(pad(input, self.border) if self.border else input)


def pad(x: Tensor, border: int, mode: str = "reflect") -> Tensor:
    """The map with a border on every side, as `torch.nn.functional.pad` fills it, in the type that the map has."""
    if torch.is_autocast_enabled(x.device.type):
        # Left to itself, autocast pads in float32 on a CPU and converts every feature map there and back.
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, (border,) * 4, mode=mode)
    return F.pad(x, (border,) * 4, mode=mode)


def sequence(**parts: nn.Module) -> nn.Sequential:
    """The parts one after another, under their names."""
    return nn.Sequential(OrderedDict(parts))


def with_norm_relu(conv: nn.Module, channels: int, norm: Norm, *, affine: bool = True) -> nn.Sequential:
    """Convolution, norm, ReLU."""
    return sequence(conv=conv, norm=norm_layer(norm, channels, affine=affine), relu=nn.ReLU(inplace=True))


def init_weights(
    module: nn.Module,
    *,
    seed: int,
    gain: float = 0.02,
    norm_start: Literal["one", "normal"] = "one",
    scheme: Literal["normal", "xavier"] = "normal",
) -> None:
    """Draw fresh weights in place: convolutions from N(0, `gain`), biases and shifts 0, norm scales 1.

    The official code draws batch-norm scales from N(1, `gain`) instead (and leaves instance norm's at 1):
    `norm_start="normal"`. Pruning ranks these scales, and after a short training such a start still decides the
    ranking; from 1, any difference between two channels was learned.

    GauGAN's `scheme="xavier"` (Glorot & Bengio 2010) divides the spread of a convolution's weights by the root of the
    mean of what one of its inputs feeds and one of its outputs reads.

    The same `seed` gives the same weights on every device. Running statistics are reset, spectral norms estimated anew.
    """
    check_choice("norm_start", norm_start, ("one", "normal"))
    check_choice("scheme", scheme, ("normal", "xavier"))
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, mean: float, spread: float = gain) -> Tensor:
        return torch.empty(like.shape).normal_(mean, spread, generator=generator)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                weight = part.weight
                fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
                weight = draw(weight, 0.0, gain * (2 / fans) ** 0.5 if scheme == "xavier" else gain)
                if is_parametrized(part):
                    _init_spectral(part, weight, draw)
                else:
                    part.weight.copy_(weight)
            elif isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
                part.reset_running_stats()
                if part.affine and norm_start == "normal":
                    part.weight.copy_(draw(part.weight, 1.0))
                elif part.affine:
                    part.weight.fill_(1.0)
            elif isinstance(part, nn.InstanceNorm2d) and part.affine:
                part.weight.fill_(1.0)
            else:
                continue
            if part.bias is not None:
                part.bias.zero_()


def _init_spectral(conv: nn.Module, weight: Tensor, draw: Callable[[Tensor, float], Tensor]) -> None:
    """Set the weight under a spectral norm, and its singular vectors, which a forward pass in training refines."""
    parametrization: Any = conv.get_submodule("parametrizations.weight")
    parametrization.original.copy_(weight)
    spectral = parametrization[0]
    for vector in spectral.buffers():
        vector.copy_(F.normalize(draw(vector, 0.0), dim=0))
    training = spectral.training
    spectral.train()
    for _ in range(15):  # as many as at its construction
        spectral(parametrization.original)
    spectral.train(training)
