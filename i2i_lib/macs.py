"""Multiply-accumulates and parameters, in closed form on the widths.

Two conventions, because published budgets are in one and every other tool in the other. "paper" is the authors'
counter: transposed convolutions are charged at their output size (four times the textbook at stride 2), and norms
without running statistics one MAC an element, while tracked ones are free (they fold into the convolution before).
"exact" is the textbook: the products that convolutions compute, half of what `torch.utils.flop_counter` reports.
Biases, activations, padding and resizing count for nothing in either.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from i2i_lib.config import BlockWidths, GeneratorConfig, ResnetConfig

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


def layers(config: GeneratorConfig | ResnetConfig) -> Iterator[Layer]:
    """Every layer with a cost or parameters, in the order of the forward pass."""
    up: Literal["conv", "transposed"] = "transposed" if config.upsample == "transpose" else "conv"
    widths = (config.in_channels, *config.stem)
    for i, (kernel, shrink) in enumerate([(7, 1), (3, 2), (3, 4)]):
        yield Layer(f"stem.{i}.conv", "conv", widths[i], widths[i + 1], kernel, shrink)
        yield Layer(f"stem.{i}.norm", "norm", widths[i + 1], widths[i + 1], 1, shrink)
    if isinstance(config, GeneratorConfig):
        for i, block in enumerate(config.blocks):
            yield from _inception_block(f"blocks.{i}", widths[-1], block, config.kernel_sizes)
    else:
        for i in range(config.n_blocks):
            yield from _resnet_block(f"blocks.{i}", widths[-1], config.separable)
    widths = (widths[-1], *config.up)
    for i, shrink in enumerate([2, 1]):
        yield Layer(f"up.{i}.conv", up, widths[i], widths[i + 1], 3, shrink)
        yield Layer(f"up.{i}.norm", "norm", widths[i + 1], widths[i + 1], 1, shrink)
    yield Layer("head", "conv", widths[-1], config.out_channels, 7, 1)


def _inception_block(name: str, width: int, hidden: BlockWidths, kernel_sizes: tuple[int, ...]) -> Iterator[Layer]:
    for kernel, c in zip(kernel_sizes, hidden.conv, strict=True):
        if c:
            branch = f"{name}.conv.k{kernel}"
            yield Layer(f"{branch}.expand.conv", "conv", width, c, kernel, 4)
            yield Layer(f"{branch}.expand.norm", "norm", c, c, 1, 4)
            yield Layer(f"{branch}.project", "conv", c, width, kernel, 4)
    for kernel, c in zip(kernel_sizes, hidden.depthwise, strict=True):
        if c:
            branch = f"{name}.depthwise.k{kernel}"
            yield Layer(f"{branch}.expand.conv", "conv", width, c, 1, 4)
            yield Layer(f"{branch}.expand.norm", "norm", c, c, 1, 4)
            yield Layer(f"{branch}.spatial.conv", "conv", c, c, kernel, 4, groups=c)
            yield Layer(f"{branch}.spatial.norm", "norm", c, c, 1, 4)
            yield Layer(f"{branch}.project", "conv", c, width, 1, 4)
    if any(hidden.conv) or any(hidden.depthwise):
        yield Layer(f"{name}.norm", "norm", width, width, 1, 4)


def _resnet_block(name: str, width: int, separable: bool) -> Iterator[Layer]:
    for i in range(2):
        if separable:
            yield Layer(f"{name}.body.{i}.conv.spatial", "conv", width, width, 3, 4, groups=width)
            yield Layer(f"{name}.body.{i}.conv.norm", "norm", width, width, 1, 4)
            yield Layer(f"{name}.body.{i}.conv.project", "conv", width, width, 1, 4)
        else:
            yield Layer(f"{name}.body.{i}.conv", "conv", width, width, 3, 4)
        yield Layer(f"{name}.body.{i}.norm", "norm", width, width, 1, 4)


def layer_macs(layer: Layer, pixels: int, *, tracked: bool, convention: Convention = "paper") -> int:
    """MACs of one layer for an image of `pixels` pixels; `tracked` says whether norms keep running statistics."""
    elements = pixels // layer.shrink**2 * layer.outputs
    if layer.kind == "norm":
        return elements if convention == "paper" and not tracked else 0
    if layer.kind == "transposed" and convention == "exact":
        elements //= 4
    return elements * (layer.inputs // layer.groups) * layer.kernel**2


def generator_macs(
    config: GeneratorConfig | ResnetConfig, image_size: int | tuple[int, int], convention: Convention = "paper"
) -> int:
    """MACs of one image of `image_size` (a side, or height and width: multiples of 4) through the generator."""
    if convention not in ("paper", "exact"):
        raise ValueError(f"convention is 'paper' or 'exact', got {convention!r}")
    height, width = check_image_size(image_size)
    tracked = config.norm != "instance"
    return sum(layer_macs(x, height * width, tracked=tracked, convention=convention) for x in layers(config))


def generator_params(config: GeneratorConfig | ResnetConfig) -> int:
    """Trained parameters: weights, norm scales and shifts, and the biases that instance norm comes with."""
    count = 0
    for layer in layers(config):
        if layer.kind == "norm":
            count += 2 * layer.outputs
        else:
            count += layer.inputs // layer.groups * layer.outputs * layer.kernel**2
            if config.norm == "instance" or layer.name == "head":
                count += layer.outputs
    return count


def check_image_size(image_size: int | tuple[int, int], multiple: int = 4) -> tuple[int, int]:
    """Height and width, or a ValueError where a down-sampled grid would not fit them."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise ValueError(f"image sizes are positive multiples of {multiple}, got {height} x {width}")
    return height, width
