"""One-step pruning: from a teacher's norm scales to the widths of a student (paper, section 3.2).

The ranked norms are those after the stem's and the up-sampling convolutions, and the first in each branch of a block.
Their channels can go without changing the shape of anything but the next layer.

Inception-SPADE generators rank the stem's norm and the branches', SPADE's included (supplement S1). Between blocks no
norm could be ranked: these widths follow the stem's, all in the teacher's ratios.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from i2i_lib.config import PrunableConfig, is_branch
from i2i_lib.generators import InceptionGenerator
from i2i_lib.macs import generator_macs
from i2i_lib.spade import InceptionSpadeGenerator

Prunable = InceptionGenerator | InceptionSpadeGenerator
Cost = Literal["paper", "exact"] | Callable[[Any], float]
Scales = Mapping[str, Sequence[float]]
Channels = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """The channels of its teacher that a student keeps, and what it then costs."""

    keep: Mapping[str, Channels]  # prunable layer -> kept channels, ascending
    config: PrunableConfig  # the widths that `keep` implies
    threshold: float | None  # scales above it stay, and of the others those that `fill` added; None if all do
    cost: float  # in the unit of the budget
    macs: int  # by the paper's count, whatever the budget was in


def norm_scales(teacher: Prunable) -> dict[str, list[float]]:
    """|scale| of every channel that can go, by prunable layer, in the order of the forward pass."""
    if not isinstance(teacher, Prunable):
        raise ValueError(f"only an inception generator can be pruned, got {type(teacher).__name__}")
    scales = {}
    for name in teacher.config.ranked_widths:
        norm = teacher.get_submodule(f"{name}.expand.norm" if is_branch(name) else f"{name}.norm")
        scales[name] = norm.get_parameter("weight").detach().abs().double().tolist()
    return scales


def uniform_scales(teacher: Prunable) -> dict[str, list[float]]:
    """Scales by which `prune` narrows every layer by the same share: the baseline that ranks nothing."""
    return {name: [1 - i / len(s) for i in range(len(s))] for name, s in norm_scales(teacher).items()}


def trunk_scales(teacher: Prunable) -> dict[str, list[float]]:
    """Scales by which `prune` keeps the trunk whole and narrows every other layer by the same share.

    A wide trunk with thin blocks, made by hand: the baseline for a ranking that leads to such a student.
    """
    scales = uniform_scales(teacher)
    trunk = max(name for name in scales if name.startswith("stem"))  # the stem's last layer is as wide as the trunk
    return scales | {trunk: [2.0] * len(scales[trunk])}


def random_scales(teacher: Prunable, seed: int) -> dict[str, list[float]]:
    """Scales by which `prune` keeps channels at random: the baseline for the ranking."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(len(s), generator=generator, dtype=torch.float64).tolist()
        for name, s in norm_scales(teacher).items()
    }


def prune(
    teacher: Prunable,
    budget: float,
    *,
    image_size: int | tuple[int, int],
    min_width: int | None = None,
    cost: Cost = "paper",
    scales: Scales | None = None,
    fill: bool = False,
) -> ChannelPlan:
    """The widest student within `budget` that one global threshold on the scales can give. Changes nothing.

    A channel stays if its scale is above the threshold. Layers outside the blocks keep at least their `min_width`
    largest (the lower index of equals), by default a quarter of the base width, and never more than they have; a
    branch inside a block may vanish. Cost falls as the threshold rises, so a binary search over the scales finds the
    exact answer, with no network built on the way. A SPADE teacher's `min_width` bounds its narrowest stage; its stem
    keeps a multiple of its own ratio to that (16, or 32 with 7 upsamplings).

    Args:
        budget: in MACs by the convention `cost`, or in whatever a callable `cost` returns.
        image_size: a side, or height and width, in pixels, as `config.check_image_size` takes them.
        cost: a convention of `macs`, or a function of a config that does not grow when a width shrinks.
        scales: ranks channels by these instead of the teacher's own, with the same names and lengths.
        fill: then also keeps, one by one from the largest scale down, the channels below the threshold that still fit.
            A single channel between the blocks may cost several per cent of a small student; students that are to
            differ in the ranking alone need the same cost.

    Raises ValueError where even the narrowest student is over the budget. A budget above the teacher's own cost keeps
    everything, with the threshold None.
    """
    own = norm_scales(teacher)
    config = teacher.config
    scales = own if scales is None else scales
    if {k: len(v) for k, v in scales.items()} != {k: len(v) for k, v in own.items()}:
        raise ValueError("`scales` must name the teacher's prunable layers, with a scale for each of their channels")
    for name, layer in scales.items():
        if not all(0 <= s < float("inf") for s in layer):
            raise ValueError(f"norm scales of {name} are not finite and positive: the teacher's training diverged")
    if min_width is None:
        min_width = max(config.base // 4, 1)
    if min_width < 1:
        raise ValueError(f"min_width is at least 1, got {min_width}")
    floor = config.stem_floor(min_width)
    floors = {name: 0 if is_branch(name) else min(floor, len(layer)) for name, layer in scales.items()}

    measure: Callable[[PrunableConfig], float]
    if callable(cost):
        measure, unit = cost, "units of the given cost"
    else:
        measure = partial(generator_macs, image_size=image_size, convention=cost)
        unit = f"MACs ({cost} convention)"

    ascending = {name: sorted(layer) for name, layer in scales.items()}
    thresholds = [-1.0, *sorted({s for layer in scales.values() for s in layer})]  # the first keeps everything

    def widths_at(threshold: float) -> dict[str, int]:
        widths = {}
        for name, layer in ascending.items():
            above = len(layer) - bisect_right(layer, threshold)
            widths[name] = max(above, floors[name])
        return widths

    costs: dict[int, float] = {}

    def fits(index: int) -> bool:
        costs[index] = measure(config.narrowed(widths_at(thresholds[index])))
        return costs[index] <= budget

    index = bisect_left(range(len(thresholds)), True, key=fits)
    if index == len(thresholds):
        raise ValueError(
            f"a budget of {budget:,} {unit} is below the floor of {costs[index - 1]:,} that min_width={min_width}"
            f" leaves at image size {image_size}: raise the budget or lower min_width"
        )
    widths, spent = widths_at(thresholds[index]), costs[index]
    if fill:
        widths = _filled(widths, scales, lambda wider: measure(config.narrowed(wider)) <= budget)
        spent = measure(config.narrowed(widths))
    student = config.narrowed(widths)
    widths = student.ranked_widths
    keep = {name: _largest(layer, widths.get(name, 0)) for name, layer in scales.items()}
    threshold = thresholds[index] if index else None
    return ChannelPlan(keep, student, threshold, spent, generator_macs(student, image_size))


def _filled(widths: dict[str, int], scales: Scales, fits: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Widths with every further channel that fits, in the order of the scales; the first layer of equals goes first.

    A layer is passed over from the first of its channels on that does not fit.
    """
    waiting = sorted(
        (-scale, number, name)
        for number, (name, layer) in enumerate(scales.items())
        for scale in sorted(layer, reverse=True)[widths[name] :]
    )
    full: set[str] = set()
    for _, _, name in waiting:
        if name not in full:
            wider = widths | {name: widths[name] + 1}
            if fits(wider):
                widths = wider
            else:
                full.add(name)
    return widths


def _largest(scales: Sequence[float], count: int) -> Channels:
    return tuple(sorted(sorted(range(len(scales)), key=lambda i: -scales[i])[:count]))
