"""Multiply-accumulates and parameters, in closed form on the widths.

Two conventions, because published budgets are in one and every other tool in the other. "paper" is the authors'
counter: transposed convolutions are charged at their output size (four times the textbook at stride 2), and norms
without running statistics one MAC an element, while tracked ones are free (they fold into the convolution before).
"exact" is the textbook: the products that convolutions compute, half of what `torch.utils.flop_counter` reports.
Biases, activations, padding and resizing count for nothing in either.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from i2i_lib.config import (
    BlockWidths,
    Config,
    GeneratorConfig,
    ResnetConfig,
    SpadeConfig,
    SpadeResnetConfig,
    check_choice,
    check_image_size,
    mobile_resnet,
)

Convention = Literal["paper", "exact"]


class Layer(NamedTuple):
    """A convolution or norm, named as in the network's state dict."""

    name: str
    kind: Literal["conv", "transposed", "norm"]
    inputs: int
    outputs: int
    kernel: int
    shrink: int  # image size over output size
    groups: int = 1
    bias: bool = True  # of a norm: a scale and a shift


def layers(config: Config) -> Iterator[Layer]:
    """Every layer with a cost or parameters, in the order of the forward pass."""
    if isinstance(config, SpadeConfig | SpadeResnetConfig):
        yield from _spade_layers(config)
        return
    up: Literal["conv", "transposed"] = "transposed" if config.upsample == "transpose" else "conv"
    bias = config.norm == "instance"
    widths = (config.in_channels, *config.stem)
    for i, (kernel, shrink) in enumerate([(7, 1), (3, 2), (3, 4)]):
        yield Layer(f"stem.{i}.conv", "conv", widths[i], widths[i + 1], kernel, shrink, bias=bias)
        yield Layer(f"stem.{i}.norm", "norm", widths[i + 1], widths[i + 1], 1, shrink)
    width = widths[-1]
    if isinstance(config, GeneratorConfig):
        for i, block in enumerate(config.blocks):
            yield from _branches(f"blocks.{i}", width, block, width, config.kernel_sizes, 4, bias=bias)
            if block.any_branch:
                yield Layer(f"blocks.{i}.norm", "norm", width, width, 1, 4)
    else:
        for i in range(config.n_blocks):
            yield from _resnet_block(f"blocks.{i}", width, config.separable, bias=bias)
    widths = (width, *config.up)
    for i, shrink in enumerate([2, 1]):
        yield Layer(f"up.{i}.conv", up, widths[i], widths[i + 1], 3, shrink, bias=bias)
        yield Layer(f"up.{i}.norm", "norm", widths[i + 1], widths[i + 1], 1, shrink)
    yield Layer("head", "conv", widths[-1], config.out_channels, 7, 1)


def _branches(
    name: str,
    inputs: int,
    hidden: BlockWidths,
    outputs: int,
    kernel_sizes: tuple[int, ...],
    shrink: int,
    *,
    bias: bool = True,
    spatial_affine: bool = True,
) -> Iterator[Layer]:
    for kind, kernel, c in hidden.branches(kernel_sizes):
        branch = f"{name}.{kind}.k{kernel}"
        outer = kernel if kind == "conv" else 1
        yield Layer(f"{branch}.expand.conv", "conv", inputs, c, outer, shrink, bias=bias)
        yield Layer(f"{branch}.expand.norm", "norm", c, c, 1, shrink)
        if kind == "depthwise":
            yield Layer(f"{branch}.spatial.conv", "conv", c, c, kernel, shrink, groups=c, bias=bias)
            yield Layer(f"{branch}.spatial.norm", "norm", c, c, 1, shrink, bias=spatial_affine)
        yield Layer(f"{branch}.project", "conv", c, outputs, outer, shrink, bias=bias)


def _resnet_block(name: str, width: int, separable: bool, *, bias: bool) -> Iterator[Layer]:
    for i in range(2):
        if separable:
            yield Layer(f"{name}.body.{i}.conv.spatial", "conv", width, width, 3, 4, groups=width, bias=bias)
            yield Layer(f"{name}.body.{i}.conv.norm", "norm", width, width, 1, 4)
            yield Layer(f"{name}.body.{i}.conv.project", "conv", width, width, 1, 4, bias=bias)
        else:
            yield Layer(f"{name}.body.{i}.conv", "conv", width, width, 3, 4, bias=bias)
        yield Layer(f"{name}.body.{i}.norm", "norm", width, width, 1, 4)


def _spade_layers(config: SpadeConfig | SpadeResnetConfig) -> Iterator[Layer]:
    labels, widths = config.label_channels, config.widths
    yield Layer("stem.conv", "conv", labels, widths[0], 3, 2**config.upsamplings)
    if isinstance(config, SpadeConfig):
        yield Layer("stem.norm", "norm", widths[0], widths[0], 1, 2**config.upsamplings)
    for i, (stage, shrink) in enumerate(config.stages.items()):
        name, inputs, outputs = f"blocks.{stage}", widths[i], widths[i + 1]
        if isinstance(config, SpadeConfig):
            block, kernels = config.blocks[i], config.kernel_sizes
            if block.body.any_branch:
                yield Layer(f"{name}.norm", "norm", inputs, inputs, 1, shrink, bias=False)
                yield from _branches(f"{name}.spade", labels, block.spade, 2 * inputs, kernels, shrink)
                yield from _branches(f"{name}.body", inputs, block.body, outputs, kernels, shrink, spatial_affine=False)
            if inputs != outputs:
                yield Layer(f"{name}.shortcut.norm", "norm", inputs, inputs, 1, shrink)
                yield Layer(f"{name}.shortcut.conv", "conv", inputs, outputs, 1, shrink, bias=False)
            continue
        middle = min(inputs, outputs)
        parts = [("body.0", inputs, middle, 3), ("body.1", middle, outputs, 3)]
        if inputs != outputs:
            parts.append(("shortcut", inputs, outputs, 1))
        for part, reads, writes, kernel in parts:
            spade = f"{name}.{part}.spade"
            yield Layer(f"{spade}.norm", "norm", reads, reads, 1, shrink, bias=False)
            yield Layer(f"{spade}.shared", "conv", labels, config.hidden, 3, shrink)
            yield Layer(f"{spade}.scale_shift", "conv", config.hidden, 2 * reads, 3, shrink)
            yield Layer(f"{name}.{part}.conv", "conv", reads, writes, kernel, shrink, bias=part != "shortcut")
    yield Layer("head", "conv", widths[-1], config.out_channels, 3, 1)


def layer_macs(layer: Layer, pixels: int, *, tracked: bool, convention: Convention = "paper") -> int:
    """MACs of one layer for an image of `pixels` pixels; `tracked` if norms keep running statistics."""
    elements = pixels // layer.shrink**2 * layer.outputs
    if layer.kind == "norm":
        return elements if convention == "paper" and not tracked else 0
    if layer.kind == "transposed" and convention == "exact":
        elements //= 4
    return elements * (layer.inputs // layer.groups) * layer.kernel**2


def generator_macs(config: Config, image_size: int | tuple[int, int], convention: Convention = "paper") -> int:
    """MACs of one image of `image_size` through the generator.

    `image_size` is a side, or height and width, for which `check_image_size` holds.
    """
    check_choice("convention", convention, get_args(Convention))
    height, width = check_image_size(image_size, config)
    tracked = config.norm != "instance"
    return sum(layer_macs(x, height * width, tracked=tracked, convention=convention) for x in layers(config))


def generator_params(config: Config) -> int:
    """Trained parameters: weights, biases, norm scales and shifts."""
    count = 0
    for layer in layers(config):
        if layer.kind == "norm":
            count += 2 * layer.outputs * layer.bias
        else:
            count += layer.outputs * (layer.inputs // layer.groups * layer.kernel**2 + layer.bias)
    return count


def nearest_mobile_resnet(like: Config, macs: float, image_size: int | tuple[int, int]) -> ResnetConfig:
    """The mobile ResNet of nine blocks whose exact MACs are nearest to `macs`: the students of later papers.

    Its norm, its way up and its channels in and out are those of `like`. Raises ValueError if `like` reads labels.
    """
    if isinstance(like, SpadeConfig | SpadeResnetConfig):
        raise ValueError("a mobile ResNet does not read labels, as this generator does")
    same = {name: getattr(like, name) for name in ("upsample", "in_channels", "out_channels")}

    def of(base: int) -> ResnetConfig:
        return replace(mobile_resnet(base, norm=like.norm), **same)

    def off(base: int) -> float:
        return abs(macs - generator_macs(of(base), image_size, "exact"))

    base = 1
    while off(base + 1) < off(base):  # a wider one costs more, so that there is one nearest
        base += 1
    return of(base)
