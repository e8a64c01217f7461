"""One global threshold on norm scales, from widths and scales alone: plain data, no tensors, no torch."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from i2i_lib.config import PrunableConfig, is_branch
from i2i_lib.macs import generator_macs

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


def plan_channels(
    config: PrunableConfig,
    scales: Scales,
    budget: float,
    *,
    image_size: int | tuple[int, int],
    min_width: int | None = None,
    cost: Cost = "paper",
    fill: bool = False,
) -> ChannelPlan:
    """Plan of the widest student within `budget`, of a teacher's config and the scales of its channels.

    The arguments, the rule and the errors are those of `prune.prune`, which reads both from the teacher.
    """
    if {k: len(v) for k, v in scales.items()} != config.ranked_widths:
        raise ValueError("`scales` must name the teacher's prunable layers, with a scale for each of their channels")
    for name, layer in scales.items():
        if not all(0 <= s < float("inf") for s in layer):
            raise ValueError(f"norm scales of {name} are negative or not finite: the teacher's training diverged")
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
            f"a budget of {_shown(budget)} {unit} is below the floor of {_shown(costs[index - 1])} that"
            f" min_width={min_width} leaves at image size {image_size}: raise the budget or lower min_width"
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


def _shown(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"


def _largest(scales: Sequence[float], count: int) -> Channels:
    return tuple(sorted(sorted(range(len(scales)), key=lambda i: -scales[i])[:count]))
