"""Fuse a trained generator into an equivalent network of fewer, larger kernels, for inference only.

What is merged: convolutions that read the same map, the depthwise ones of a block, the 1 x 1 ones that close its
branches, and the reflected borders they share. Tracked norms fold into the convolution before; instance norms cannot,
since they measure every picture, but they make that convolution's bias vanish. The way back up needs no resized map,
and the last convolution paints 2 x 2 pixels at once (see `kernels`).
A ResNet has no branches to merge; the rest is done to it too, so that what is compared with it is not its layout.
"""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.config import GeneratorConfig, ResnetConfig, check_image_size
from i2i_lib.generators import InceptionBlock, InceptionGenerator, ResnetBlock, ResnetGenerator, tapped
from i2i_lib.kernels import doubling, four_at_once, side_by_side
from i2i_lib.layers import pad

LANES = 16  # float32 values in a vector register, by which CPU convolutions round their output channels up


class FusedGenerator(nn.Module):
    """A fused generator: images [N, in_channels, H, W] in [-1, 1] to images.

    Its tensors are not those of the generator; its `config` is, so that MACs can still be counted.
    """

    def __init__(self, generator: InceptionGenerator | ResnetGenerator) -> None:
        super().__init__()
        self.config: GeneratorConfig | ResnetConfig = generator.config
        stem: list[Any] = list(generator.stem)
        self.stem = nn.Sequential(_Layer(_read(stem[0].conv, stem[0].norm), border=3))
        for layer in stem[1:]:
            self.stem.append(_Layer(_read(layer.conv, layer.norm), stride=2, padding=1))
        self.blocks = nn.Sequential()
        for block in generator.blocks:
            if isinstance(block, ResnetBlock):
                self.blocks.append(_ResnetBlock(block))
            elif isinstance(block, InceptionBlock):
                self.blocks.append(nn.Identity() if block.norm is None else _Block(block))
        self.up = nn.Sequential(*(_upsample(layer) for layer in generator.up))
        head = generator.head
        self.head = _Layer(_Weights(*four_at_once(head.weight, head.bias)), border=3, stride=2, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the generator's: the images, and its feature maps for distillation."""
        features = self.features(x)
        return torch.tanh(F.pixel_shuffle(self.head(self.up(features[-1])), 2)), features

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of `forward_features` alone."""
        check_image_size((x.shape[2], x.shape[3]), self.config)
        return tapped(self.stem(x), self.blocks, self.config.taps)


def can_fuse(generator: nn.Module) -> bool:
    """Whether `fuse` takes a generator of this kind: inception and ResNet, not SPADE."""
    return isinstance(generator, InceptionGenerator | ResnetGenerator)


def fuse(generator: InceptionGenerator | ResnetGenerator) -> FusedGenerator:
    """An equal network for inference, up to rounding, on the same device; `generator` is left as it is.

    Raises ValueError in training mode, where norms compute something else and statistics still move.
    """
    if not can_fuse(generator):
        raise ValueError(f"only an inception or ResNet generator can be fused, got {type(generator).__name__}")
    if generator.training:
        raise ValueError(
            "the generator is in training mode, where norms do not compute what is fused: call .eval() first"
        )
    with torch.no_grad():
        return FusedGenerator(generator).requires_grad_(False).eval()


class _Weights(NamedTuple):
    """One convolution and what follows it."""

    weight: Tensor  # [outputs, inputs per group, k, k]
    bias: Tensor | None
    norm: tuple[Tensor, Tensor] | None = None  # scale and shift of an instance norm


def _read(conv: Any, norm: Any) -> _Weights:
    """A convolution with its norm folded in; the weight of a transposed one gets its outputs first, too."""
    weight, bias = conv.weight.detach(), conv.bias
    if isinstance(conv, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    if norm is None:
        return _Weights(weight, bias)
    if isinstance(norm, nn.InstanceNorm2d):
        return _Weights(weight, None, (norm.weight, norm.bias))  # the norm subtracts any constant
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    shift = shift + (bias.double() * scale if bias is not None else 0)
    return _Weights((weight.double() * scale[:, None, None, None]).to(weight.dtype), shift.to(weight.dtype))


def _merge(parts: Sequence[_Weights]) -> _Weights:
    """One convolution with the outputs of all."""
    biases = [p.bias for p in parts if p.bias is not None]
    norms = [p.norm for p in parts if p.norm is not None]
    norm = (torch.cat([n[0] for n in norms]), torch.cat([n[1] for n in norms])) if norms else None
    return _Weights(side_by_side([part.weight for part in parts]), torch.cat(biases) if biases else None, norm)


def _instance_norm(scale: Tensor, shift: Tensor) -> nn.Module:
    # Groups of one channel are the same thing, and several times faster in channels-last on a CPU.
    norm = nn.GroupNorm(len(scale), len(scale))
    norm.weight, norm.bias = nn.Parameter(scale.clone()), nn.Parameter(shift.clone())
    return norm


class _Layer(nn.Module):
    """Border, convolution, norm where it could not be folded, ReLU."""

    def __init__(
        self,
        weights: _Weights,
        *,
        border: int = 0,
        mode: str = "reflect",
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        transposed: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        weight, bias, norm = weights
        outputs, inputs, kernel, _ = weight.shape
        self.border, self.mode, self.relu = border, mode, relu
        options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups, "bias": bias is not None}
        if transposed:
            # With an even kernel the grid exactly doubles; an odd one falls short by a row and a column.
            self.conv: nn.Module = nn.ConvTranspose2d(inputs, outputs, kernel, output_padding=kernel % 2, **options)
            weight = weight.transpose(0, 1)
        else:
            self.conv = nn.Conv2d(inputs * groups, outputs, kernel, **options)
        self.conv.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
        if bias is not None:
            self.conv.bias = nn.Parameter(bias.detach().clone())
        self.norm = _instance_norm(*norm) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(pad(x, self.border, self.mode) if self.border else x)
        if self.norm is not None:
            x = self.norm(x)
        return x.relu_() if self.relu else x


class _Block(nn.Module):
    """An inception block: the first convolutions of all branches, the depthwise ones, the closing ones, their norm.

    All 1 x 1 convolutions that read the trunk are one, those that write it another; between them lie its points.
    """

    def __init__(self, block: InceptionBlock) -> None:
        super().__init__()
        wide: dict[int, Any] = {int(name.removeprefix("k")): branch for name, branch in block.conv.items()}
        deep: list[Any] = list(block.depthwise.values())
        point = wide.pop(1, None)  # a plain branch of 1 x 1, 1 x 1
        points = deep if point is None else [point, *deep]
        kernels = sorted(wide)

        # First convolutions: all of 1 x 1 as one, and those of larger kernels, merged where that is cheaper.
        first = []
        if points:
            first.append(_merge([_read(branch.expand.conv, branch.expand.norm) for branch in points]))
        for kernel in kernels:
            first.append(_read(wide[kernel].expand.conv, wide[kernel].expand.norm))
        runs = _runs(first)
        border = max([1, *kernels]) // 2  # that all share
        self.border = border
        self.expand = nn.ModuleList(_Layer(_merge(run)) for run in runs)
        self.widths = [[len(part.weight) for part in run] for run in runs]
        self.cuts = [border - run[-1].weight.shape[-1] // 2 for run in runs]  # what a run of smaller kernels leaves off

        # Depthwise convolutions as one, past which the plain branch's points are carried.
        self.spatial, self.past = None, 0
        if deep:
            parts = [_read(branch.spatial.conv, branch.spatial.norm) for branch in deep]
            carried = 0 if point is None else len(point.expand.conv.weight)
            if carried and parts[0].norm is None:
                # Only a second ReLU follows, so they may as well go through, unchanged: that saves a copy.
                one = parts[0].weight.new_ones(carried, 1, 1, 1)
                parts.insert(0, _Weights(one, one.new_zeros(carried)))
            else:
                self.past = carried
            merged = _merge(parts)
            self.spatial = _Layer(merged, border=merged.weight.shape[-1] // 2, groups=len(merged.weight))

        # Closing convolutions, in the order of the first. They are summed, so side by side the points are one of 1 x 1.
        closing = []
        if points:
            parts = [_read(branch.project, block.norm) for branch in points]
            closing.append(parts[0]._replace(weight=torch.cat([part.weight for part in parts], 1)))
        for kernel in kernels:
            closing.append(_read(wide[kernel].project, block.norm))
        self.norm = _instance_norm(*closing[0].norm) if closing[0].norm else None
        self.project = nn.ModuleList()
        for i, part in enumerate(closing):
            # The closing norm scales every summand, but its shift is added once.
            once = _Weights(part.weight, part.bias if i == 0 else None)
            self.project.append(_Layer(once, border=part.weight.shape[-1] // 2, relu=False))

    def forward(self, x: Tensor) -> Tensor:  # [N, width, H, W] -> the same
        padded = pad(x, self.border) if self.border else x
        hidden: list[Tensor] = []
        for layer, widths, cut in zip(self.expand, self.widths, self.cuts, strict=True):
            if cut == self.border:
                seen = x
            elif cut:
                seen = padded[:, :, cut:-cut, cut:-cut]
            else:
                seen = padded
            hidden += layer(seen).split(widths, 1)
        if self.spatial is not None:
            points = hidden[0]
            made = self.spatial(points[:, self.past :])
            hidden[0] = torch.cat([points[:, : self.past], made], 1) if self.past else made
        body = self.project[0](hidden[0])
        for layer, part in zip(self.project[1:], hidden[1:], strict=True):
            body = body.add_(layer(part))
        return (body if self.norm is None else self.norm(body)).add_(x)


class _ResnetBlock(nn.Module):
    """A residual block: its convolutions one after another, each with border, norm and activation."""

    def __init__(self, block: ResnetBlock) -> None:
        super().__init__()
        self.body = nn.Sequential()
        first, second = block.body
        for part, relu in ((first, True), (second, False)):
            conv: Any = part.conv
            if not isinstance(conv, nn.Conv2d):  # separable: depthwise, then 1 x 1
                spatial = _read(conv.spatial, conv.norm)
                self.body.append(_Layer(spatial, border=1, groups=len(spatial.weight), relu=False))
                conv = conv.project
            weights = _read(conv, part.norm)
            self.body.append(_Layer(weights, border=weights.weight.shape[-1] // 2, relu=relu))

    def forward(self, x: Tensor) -> Tensor:  # [N, width, H, W] -> the same
        return self.body(x).add_(x)


def _runs(parts: list[_Weights]) -> list[list[_Weights]]:
    """The cheapest way to cut a list of convolutions, kernels ascending, into runs that are merged into one each.

    Merging fills vector registers but makes small kernels large. Measured at the paper's sizes, time goes with
    registers of outputs times taps; a call and what follows it cost about as much as two taps.
    """

    def cost(run: list[_Weights]) -> int:
        return 2 + -(-sum(len(part.weight) for part in run) // LANES) * run[-1].weight.shape[-1] ** 2

    ways = []
    for cuts in product((False, True), repeat=len(parts) - 1):
        edges = [0, *(i for i, cut in enumerate(cuts, start=1) if cut), len(parts)]
        ways.append([parts[a:b] for a, b in pairwise(edges)])
    return min(ways, key=lambda runs: sum(map(cost, runs)))


def _upsample(layer: Any) -> _Layer:
    """Twice the grid, by a transposed convolution in any case."""
    weights = _read(layer.conv, layer.norm)
    if isinstance(layer.conv, nn.ConvTranspose2d):
        return _Layer(weights, stride=2, padding=1, transposed=True)
    weights = weights._replace(weight=doubling(weights.weight))
    return _Layer(weights, border=1, mode="replicate", stride=2, padding=3, transposed=True)
