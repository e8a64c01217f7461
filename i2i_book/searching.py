"""The search for a threshold as a textbook would write it: build the network of every threshold, run it, and count.

Chapter 3 sets it beside `i2i_lib.prune`, which computes the cost from the widths alone.
"""

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from i2i_lib.config import BlockWidths, GeneratorConfig
from i2i_lib.generators import InceptionGenerator
from i2i_lib.prune import ChannelPlan, norm_scales
from i2i_lib.students import inherit


class Search(NamedTuple):
    """What a search by building found and took."""

    config: GeneratorConfig  # the widest student within the budget
    macs: int  # of it, as counted on the running network
    thresholds: int  # tried
    seconds: float  # of the process


def search_by_building(teacher: InceptionGenerator, budget: float, side: int, least: int) -> Search:
    """Bisect the sorted norm scales like `prune`, but build and run a network at each of them.

    `budget` is in exact MACs of a square picture of `side` pixels; layers outside the blocks keep `least` channels.
    """
    scales, start = norm_scales(teacher), time.process_time()
    thresholds = [-1.0, *sorted({scale for layer in scales.values() for scale in layer})]
    low, high, tried = 0, len(thresholds), 0
    best = None  # the widest so far that fits
    while low < high:
        middle = (low + high) // 2
        student = _build(teacher, _kept_above(thresholds[middle], scales, least))
        macs, tried = _count_by_hooks(student, side), tried + 1
        if macs <= budget:
            high, best = middle, (student.config, macs)
        else:
            low = middle + 1
    if best is None:
        raise ValueError(f"no threshold leaves a network of at most {budget:,.0f} MACs: raise the budget")
    return Search(*best, tried, time.process_time() - start)


def _kept_above(threshold: float, scales: Mapping[str, Sequence[float]], least: int) -> dict[str, tuple[int, ...]]:
    keep = {}
    for layer, own in scales.items():
        floor = 0 if layer.startswith("blocks") else min(least, len(own))
        count = max(floor, sum(scale > threshold for scale in own))
        keep[layer] = tuple(sorted(sorted(range(len(own)), key=lambda i: -own[i])[:count]))
    return keep


def _build(teacher: InceptionGenerator, keep: Mapping[str, tuple[int, ...]]) -> InceptionGenerator:
    """The narrower network with the weights that stay, made of a copy of the teacher."""
    config, wide = teacher.config, {layer: len(channels) for layer, channels in keep.items()}

    def widths(part: str) -> tuple[int, ...]:
        return tuple(width for layer, width in wide.items() if layer.startswith(part))

    numbers = range(len(config.blocks))
    blocks = tuple(BlockWidths(widths(f"blocks.{i}.conv."), widths(f"blocks.{i}.depthwise.")) for i in numbers)
    narrow = replace(config, stem=widths("stem"), blocks=blocks, up=widths("up"))
    return inherit(deepcopy(teacher), ChannelPlan(dict(keep), narrow, threshold=None, cost=0, macs=0))


def _count_by_hooks(network: InceptionGenerator, side: int) -> int:
    """Products that the convolutions of a network compute for one picture, by a hook on every layer."""
    counts = []

    def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        products = layer.in_channels // layer.groups * prod(layer.kernel_size)
        transposed = isinstance(layer, nn.ConvTranspose2d)
        if transposed:
            products = layer.out_channels // layer.groups * prod(layer.kernel_size)
        counts.append((inputs[0] if transposed else output).numel() * products)

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, network.config.in_channels, side, side, device=device))
    for handle in handles:
        handle.remove()
    return sum(counts)
