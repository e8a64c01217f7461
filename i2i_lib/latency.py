"""Latency as a cost to prune by: each layer timed once over a grid of widths, then looked up."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from i2i_lib.config import BlockWidths, GeneratorConfig
from i2i_lib.generators import InceptionGenerator
from i2i_lib.macs import check_image_size

Use = tuple[str, int, int]  # an entry of the table, the width it reads, the width it writes (a branch: has inside)


@dataclass(frozen=True, slots=True)
class WidthGrid:
    """Milliseconds of one layer: a row for each input width, a column for each output (or hidden) width."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def at(self, inputs: int, outputs: int) -> float:
        """Linear between measured widths along either axis; ValueError outside them."""
        return _between(self.inputs, [_between(self.outputs, row, outputs) for row in self.ms], inputs)


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """A cost for `prune`: the sum of a generator's layer times, in milliseconds a batch.

    It never grows when a width shrinks, which the search needs and raw times, with their noise and their jumps at
    favoured widths, do not offer. What layers share (caches, overlapping launches) is left out: time the student too.
    """

    grids: dict[str, WidthGrid]
    image_size: tuple[int, int]
    batch_size: int
    where: str  # device, threads and version: elsewhere the times mean nothing
    unit: str = "ms"

    def __call__(self, config: GeneratorConfig) -> float:
        return sum(self.grids[name].at(inputs, outputs) for name, inputs, outputs in _uses(config))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LatencyTable":
        """The inverse of `dataclasses.asdict`, through JSON."""
        grids = {
            name: WidthGrid(tuple(g["inputs"]), tuple(g["outputs"]), tuple(map(tuple, g["ms"])))
            for name, g in values["grids"].items()
        }
        return cls(**values | {"grids": grids, "image_size": tuple(values["image_size"])})


def measure_latency(
    teacher: GeneratorConfig,
    image_size: int | tuple[int, int],
    *,
    device: str = "cpu",
    batch_size: int = 1,
    points: int = 5,
    repeats: int = 5,
) -> LatencyTable:
    """Time every kind of layer at `points` widths from 1 to the teacher's: seconds at 64 pixels, a minute at 256.

    A time is the median of `repeats` forward passes, then made monotone: never below that of narrower layers.
    """
    height, width = check_image_size(image_size, teacher)
    if points < 2 or repeats < 1:
        raise ValueError(f"expected at least 2 points and 1 repeat, got {points} and {repeats}")
    shares = [i / (points - 1) for i in range(points)]
    times: dict[str, dict[tuple[int, int], float]] = {}
    with torch.no_grad():
        for a, b in product(shares, shares):
            probe = InceptionGenerator(_scaled(teacher, a, b)).to(device).eval()
            for (name, inputs, outputs), layer, shrink in _layers(probe):
                measured = times.setdefault(name, {})
                if (inputs, outputs) not in measured:
                    x = torch.randn(batch_size, inputs, height // shrink, width // shrink, device=device)
                    measured[inputs, outputs] = _milliseconds(layer, x, repeats)
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    where = f"{hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return LatencyTable({name: _monotone(t) for name, t in times.items()}, (height, width), batch_size, where)


def _uses(config: GeneratorConfig) -> Iterator[Use]:
    """The entries that a generator adds up."""
    first, second, trunk = config.stem
    yield "stem.0", config.in_channels, first
    yield "stem.1", first, second
    yield "stem.2", second, trunk
    for block in config.blocks:
        for kind, widths in (("conv", block.conv), ("depthwise", block.depthwise)):
            yield from ((f"{kind}.k{k}", trunk, c) for k, c in zip(config.kernel_sizes, widths, strict=True) if c)
        if any(block.conv) or any(block.depthwise):
            yield "closing", trunk, trunk
    yield "up.0", trunk, config.up[0]
    yield "up.1", config.up[0], config.up[1]
    yield "head", config.up[1], config.out_channels


def _layers(probe: InceptionGenerator) -> Iterator[tuple[Use, Callable[[Tensor], Tensor], int]]:
    """Each entry with what computes it and how much smaller than the image its input is; blocks are alike."""
    shrinks = {"stem.0": 1, "stem.1": 1, "stem.2": 2, "up.1": 2, "head": 1}
    for use in dict.fromkeys(_uses(probe.config)):
        name = use[0]
        if name == "closing":
            layer: Callable[[Tensor], Tensor] = probe.get_submodule("blocks.0.norm")
        elif name.startswith(("conv", "depthwise")):
            layer = _added(probe.get_submodule(f"blocks.0.{name}"))
        else:
            layer = probe.get_submodule(name)
        yield use, layer, shrinks.get(name, 4)


def _added(branch: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: x + branch(x)  # a branch costs its place in the sum, too


def _scaled(config: GeneratorConfig, a: float, b: float) -> GeneratorConfig:
    """The config at the share `a` of one width and `b` of the next: over all shares, a layer meets every pair."""

    def scale(width: int, share: float) -> int:
        return round(1 + (max(width, 1) - 1) * share)

    first, second, trunk = config.stem
    # A width of 0 in one block still needs an entry if another block has that branch.
    conv, depthwise = (
        tuple(scale(max(widths), b) for widths in zip(*(getattr(block, kind) for block in config.blocks), strict=True))
        for kind in ("conv", "depthwise")
    )
    return replace(
        config,
        stem=(scale(first, a), scale(second, b), scale(trunk, a)),
        blocks=(BlockWidths(conv, depthwise),) * 3,
        up=(scale(config.up[0], b), scale(config.up[1], a)),
    )


def _monotone(times: dict[tuple[int, int], float]) -> WidthGrid:
    """Raise each time to the largest among narrower layers. A pair that does not occur counts as no time at all."""
    inputs, outputs = (tuple(sorted(set(widths))) for widths in zip(*times, strict=True))
    ms = torch.tensor([[times.get((i, o), 0.0) for o in outputs] for i in inputs], dtype=torch.float64)
    return WidthGrid(inputs, outputs, tuple(map(tuple, ms.cummax(0).values.cummax(1).values.tolist())))


def _between(widths: Sequence[int], values: Sequence[float], width: int) -> float:
    if not widths[0] <= width <= widths[-1]:
        raise ValueError(f"the latency table holds widths from {widths[0]} to {widths[-1]}, not {width}: measure anew")
    i = bisect_left(widths, width)
    if widths[i] == width:
        return values[i]
    share = (width - widths[i - 1]) / (widths[i] - widths[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


def _milliseconds(layer: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):  # two to warm up
        started = time.perf_counter()
        layer(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        times.append(1e3 * (time.perf_counter() - started))
    return median(times[2:])
