"""Weights as the official code stores them."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

DATA = Path(__file__).parent / "golden"


def official(name: str = "student_batch") -> dict[str, torch.Tensor]:
    """A recorded state dict of the official code."""
    return golden(name)[0]


def golden(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Recorded weights of the official code, an input, and the outputs that it computed."""
    values = load_file(DATA / f"{name}.safetensors")
    weights = {key.removeprefix("weights/"): v for key, v in values.items() if key.startswith("weights/")}
    return weights, values["input/0"].float(), [v for key, v in sorted(values.items()) if key.startswith("output/")]


def official_resnet() -> dict[str, torch.Tensor]:
    """Names and shapes of an instance-norm ResNet of three blocks, two channels wide."""
    shapes = {"model.1": (2, 3, 7, 7), "model.4": (4, 2, 3, 3), "model.7": (8, 4, 3, 3)}
    shapes |= {f"model.{10 + i}.conv_block.{j}": (8, 8, 3, 3) for i in range(3) for j in (1, 5)}
    shapes |= {"model.13": (8, 4, 3, 3), "model.16": (4, 2, 3, 3), "model.20": (3, 2, 7, 7)}
    state = {f"{name}.weight": torch.rand(shape) for name, shape in shapes.items()}
    transposed = ("model.13", "model.16")
    return state | {f"{name}.bias": torch.rand(s[1] if name in transposed else s[0]) for name, s in shapes.items()}


def tracked_resnet() -> dict[str, torch.Tensor]:
    """The same with statistics in its norms, and no scales."""
    state = official_resnet()
    widths = {"model.2": 2, "model.5": 4, "model.8": 8, "model.14": 4, "model.17": 2}
    widths |= {f"model.{10 + i}.conv_block.{j}": 8 for i in range(3) for j in (2, 6)}
    for norm, width in widths.items():
        state |= {f"{norm}.running_mean": torch.rand(width), f"{norm}.running_var": torch.rand(width)}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(3)
    return state


class Residual(nn.Module):
    def __init__(self, conv_block):
        super().__init__()
        self.conv_block = conv_block

    def forward(self, x):
        return x + self.conv_block(x)


def widely_used_resnet(norm, *, dropout, separable=None, base=4, n_blocks=3):
    """The pix2pix/CycleGAN code's generator, laid out and numbered as there, written down a second time.

    `separable` is the norm inside depthwise-separable blocks, an instance norm in the official code whatever `norm` is.
    """
    bias = norm == "instance"

    def norm_of(c):
        return nn.InstanceNorm2d(c) if bias else nn.BatchNorm2d(c)  # theirs has no scale and shift

    def conv(i, o, k, stride=1, padding=0):
        return nn.Conv2d(i, o, k, stride, padding, bias=bias)

    def block_conv(c):
        if separable is None:
            return conv(c, c, 3)
        net = nn.Module()
        bias_inside = separable is nn.InstanceNorm2d
        spatial = nn.Conv2d(c, c, 3, groups=c, bias=bias_inside)
        net.conv = nn.Sequential(spatial, separable(c), nn.Conv2d(c, c, 1, bias=bias_inside))
        net.forward = lambda x: net.conv(x)  # type: ignore[method-assign]
        return net

    def block(c):
        first = [nn.ReflectionPad2d(1), block_conv(c), norm_of(c), nn.ReLU()]
        return Residual(
            nn.Sequential(*first, *[nn.Dropout(0.5)] * dropout, nn.ReflectionPad2d(1), block_conv(c), norm_of(c))
        )

    def up(i, o):
        return [nn.ConvTranspose2d(i, o, 3, 2, 1, output_padding=1, bias=bias), norm_of(o), nn.ReLU()]

    b = base
    net = nn.Module()
    net.model = nn.Sequential(
        *(nn.ReflectionPad2d(3), conv(3, b, 7), norm_of(b), nn.ReLU()),
        *(conv(b, 2 * b, 3, 2, 1), norm_of(2 * b), nn.ReLU(), conv(2 * b, 4 * b, 3, 2, 1), norm_of(4 * b), nn.ReLU()),
        *(block(4 * b) for _ in range(n_blocks)),
        *(*up(4 * b, 2 * b), *up(2 * b, b)),
        *(nn.ReflectionPad2d(3), nn.Conv2d(b, 3, 7), nn.Tanh()),
    )
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    return net.eval()
