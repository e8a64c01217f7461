"""Tables and figures that both pruning chapters show: the threshold, the search, the widths, rival rankings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from i2i_book.figures.style import BLUE, GREY, LOOKS, ORANGE, PURPLE, WIDTH
from i2i_book.wording import span_of
from i2i_lib.config import BlockWidths, PrunableConfig
from i2i_lib.counts import short_count
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.prune import Prunable, prune, random_scales, uniform_scales
from i2i_lib.threshold import ChannelPlan, Scales

STUDENT = LOOKS["gcka"][0]  # its colour in every chapter
RANDOM = 20  # random rankings, beside which the norm scales' own is shown
SAMPLED = 150  # thresholds, at most, by which the curve of the cost is drawn
Kinds = Mapping[str, Sequence[str]]  # a kind of layer -> the prunable layers of that kind


def size_table(teacher: PrunableConfig, plan: ChannelPlan, budget: float, image_size: int) -> Styler:
    """Cost and parameters of teacher and student, and the budget in exact MACs; one count of MACs where both agree."""
    exact, paper = (generator_macs(teacher, image_size, convention) for convention in ("exact", "paper"))
    sizes = pd.DataFrame(
        {
            "teacher": [exact, paper, generator_params(teacher)],
            "budget": [budget, np.nan, np.nan],
            "student": [plan.cost, plan.macs, generator_params(plan.config)],
        },
        index=["MACs", "MACs, paper", "parameters"],
    )
    if (exact, plan.cost) == (paper, plan.macs):
        sizes = sizes.drop(index="MACs, paper")
    sizes["times fewer"] = sizes["teacher"] / sizes["student"]
    table = sizes.style
    table.format(short_count, na_rep="")
    table.format("{:.1f}", subset="times fewer")
    return table


def channel_table(scales: Scales, plan: ChannelPlan, kinds: Kinds) -> pd.DataFrame:
    """One row for each channel that can go: its `kind`, its norm `scale`, whether it is `kept`."""
    rows = []
    for kind, members in kinds.items():
        for layer in members:
            kept = set(plan.keep[layer])
            rows += [(kind, scale, channel in kept) for channel, scale in enumerate(scales[layer])]
    return pd.DataFrame(rows, columns=["kind", "scale", "kept"])


def threshold_facts(channels: pd.DataFrame, threshold: float | None) -> dict[str, str]:
    """The threshold, the channels on either side, and how many scales crowd around it."""
    if threshold is None:
        return {"Threshold": "none, because the budget covers the whole teacher"}
    above = channels.scale > threshold
    near = (channels.scale - threshold).abs() < 0.001
    return {
        "Threshold": f"{threshold:.5f}",
        "Channels kept": f"{channels.kept.sum():,} of {len(channels):,} ({100 * channels.kept.mean():.0f} %)",
        "Kept although below it": f"{(channels.kept & ~above).sum()}",
        "Removed although above it": f"{(~channels.kept & above).sum()}",
        "Scales within 0.001 of it": f"{100 * near.mean():.0f} %",
    }


def draw_threshold(channels: pd.DataFrame, threshold: float | None) -> Figure:
    """Norm scales of all channels as a histogram; below it one row of dots for each kind of layer."""
    kinds = list(channels.kind.unique())
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(WIDTH, 3.4 + 0.24 * len(kinds)), sharex=True, height_ratios=[1, 0.18 * len(kinds)]
    )
    scales, kept = channels.scale.to_numpy(), channels.kept.to_numpy()
    width = np.ptp(scales) / 60
    # An edge just above the threshold: no bar crosses it, and the scale that gave it is on the removed side.
    edge = scales.min() if threshold is None else np.nextafter(threshold, np.inf)
    first, last = np.floor((scales.min() - edge) / width), np.ceil((scales.max() - edge) / width)
    bins, labels = edge + width * np.arange(first, last + 1), ["student keeps", "removed"]
    top.hist([scales[kept], scales[~kept]], bins=bins, stacked=True, color=[STUDENT, GREY], label=labels)
    top.set(ylabel="channels")
    top.legend(fontsize=9)
    rows = channels.kind.map(kinds.index).to_numpy()
    heights = rows + np.random.default_rng(0).uniform(-0.3, 0.3, len(rows))
    for which, colour in ((~kept, GREY), (kept, STUDENT)):
        bottom.plot(scales[which], heights[which], ".", color=colour, markersize=4, alpha=0.6, rasterized=True)
    right_of_axis = bottom.get_yaxis_transform()
    for y, (_, own) in enumerate(channels.groupby("kind", sort=False)):
        text = f"{own.kept.sum()} of {len(own)}"
        bottom.text(1.01, y, text, va="center", fontsize=9, transform=right_of_axis)
    if threshold is not None:
        for axis in (top, bottom):
            axis.axvline(threshold, color=PURPLE, linewidth=1.5)
    bottom.set_yticks(range(len(kinds)), kinds, fontsize=9.5)
    bottom.invert_yaxis()
    bottom.grid(axis="y", visible=False)
    bottom.set(xlabel=r"norm scale $|\gamma|$")
    return figure


def sampled_thresholds(channels: pd.DataFrame) -> np.ndarray:
    """At most `SAMPLED` of the distinct scales, ascending, spread evenly over their order."""
    thresholds = np.unique(channels.scale)
    return thresholds[np.linspace(0, len(thresholds) - 1, min(len(thresholds), SAMPLED)).astype(int)]


def cost_table(configs: Sequence[PrunableConfig], image_size: int) -> pd.DataFrame:
    """Exact and paper MACs and parameters, one row a network."""
    return pd.DataFrame(
        {
            "exact": [generator_macs(config, image_size, "exact") for config in configs],
            "paper": [generator_macs(config, image_size, "paper") for config in configs],
            "parameters": [generator_params(config) for config in configs],
        }
    )


def evaluated_costs(teacher: Prunable, budget: float, image_size: int, min_width: int | None = None) -> list[int]:
    """The exact MACs of every student that the binary search tries, in order."""
    evaluated = []

    def noted_cost(student: PrunableConfig) -> int:
        evaluated.append(generator_macs(student, image_size, "exact"))
        return evaluated[-1]

    prune(teacher, budget, image_size=image_size, min_width=min_width, cost=noted_cost)
    return evaluated


def search_facts(
    channels: pd.DataFrame, evaluated: Sequence[float], plan: ChannelPlan, budget: float, seconds: float
) -> dict[str, str]:
    """Facts about one search: its length, and the rest of the budget. `seconds`: of the teacher's training."""
    return {
        "Different thresholds": f"{channels.scale.nunique() + 1:,}",
        "Evaluations of the cost": f"{len(evaluated)}",
        "Budget left": f"{100 * (1 - plan.cost / budget):.2f} %",
        "Training of the teacher": span_of(seconds),
    }


def draw_search(
    thresholds: np.ndarray, costs: pd.DataFrame, evaluated: Sequence[float], budget: float, threshold: float | None
) -> Figure:
    """Left: relative cost against the threshold. Right: the costs that the binary search evaluated, in order.

    `costs`: a `cost_table` of the teacher and of the student at each of `thresholds`. `evaluated`: exact MACs.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharey=True, width_ratios=[3, 2])
    agree = costs.exact.equals(costs.paper)
    for convention, colour, line in (("exact", BLUE, "-"), ("paper", ORANGE, "--"))[: 1 if agree else 2]:
        percent = 100 * costs[convention] / costs[convention][0]
        left.step(thresholds, percent[1:], line, where="post", color=colour, label="MACs" if agree else convention)
    if threshold is not None:
        left.axvline(threshold, color=PURPLE, linewidth=1.5, label="threshold")
    number, macs = np.arange(1, len(evaluated) + 1), np.array(evaluated)
    for which, marker, label in ((macs <= budget, "o", "fits"), (macs > budget, "x", "over budget")):
        right.plot(number[which], 100 * macs[which] / costs.exact[0], marker, color=BLUE, label=label)
    for axis in (left, right):
        axis.axhline(100 * budget / costs.exact[0], color="black", linestyle="--", linewidth=1, label="budget")
        axis.legend(fontsize=9)
    left.set(yscale="log", xlabel=r"threshold on $|\gamma|$", ylabel="cost, % of teacher")
    left.locator_params(axis="x", nbins=5)
    left.yaxis.set_major_formatter("{x:g}")
    right.set(xlabel="evaluation")
    return figure


def branch_widths(blocks: Sequence[BlockWidths]) -> np.ndarray:
    """Hidden widths [blocks, branches]: the plain branches by kernel, then the depthwise ones."""
    return np.array([[*block.conv, *block.depthwise] for block in blocks])


def narrowed_bars(axis: Axes, before: Mapping[str, int], after: Sequence[int]) -> None:
    """Bars of the student's widths `after`, in front of the teacher's, with both numbers. `before`: name -> width."""
    for y, (was, width) in enumerate(zip(before.values(), after, strict=True)):
        axis.barh(y, was, color=GREY, alpha=0.35, height=0.7)
        axis.barh(y, width, color=STUDENT, height=0.7)
        axis.text(was, y, f" {width} of {was}", va="center", fontsize=8.5)
    axis.set_yticks(range(len(before)), list(before), fontsize=9.5)
    axis.set(xlabel="channels", xlim=(0, 1.7 * max(before.values())), ylim=(len(before) - 0.5, -0.5))
    axis.grid(axis="y", visible=False)


def kept_branches(
    axis: Axes, kept: np.ndarray, before: np.ndarray, rows: Sequence[str], kernel_sizes: Sequence[int]
) -> None:
    """Table [blocks, branches] of the hidden channels that stay; the darker, the larger the share."""
    share = kept / np.maximum(before, 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), count in np.ndenumerate(kept):
        text = f"{count}/{before[y, x]}" if count else "-"
        colour = "white" if share[y, x] > 0.6 else "black"
        axis.text(x, y, text, ha="center", va="center", fontsize=8.5, color=colour)
    ticks = []
    for kind in ("plain", "depthwise"):
        ticks += [rf"${kernel}{{\times}}{kernel}$" for kernel in kernel_sizes]
        middle = len(ticks) - len(kernel_sizes) // 2 - 1
        ticks[middle] += f"\n{kind}"
    axis.set_xticks(range(len(ticks)), ticks, fontsize=8.5)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def draw_family(
    costs: pd.DataFrame, plan: ChannelPlan, curves: Mapping[str, tuple[str, Sequence[float]]], ylabel: str
) -> Figure:
    """All students of one teacher against their relative cost: parameters at the left, `curves` at the right.

    `costs`: a `cost_table` from the teacher to the floor. `curves`: label -> (colour, one value for each row of it).
    """
    relative, own = 100 * costs.exact / costs.exact[0], 100 * plan.cost / costs.exact[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    left.loglog(relative, costs.parameters, color=GREY)
    left.plot(own, generator_params(plan.config), "o", color=STUDENT, label="this student")
    left.plot(relative.iloc[-1], costs.parameters.iloc[-1], "s", color=PURPLE, label="floor")
    left.set(xlabel="MACs, % of the teacher", ylabel="parameters")
    for label, (colour, values) in curves.items():
        right.semilogx(relative, values, color=colour, label=label)
    right.axvline(own, color="black", linestyle="--", linewidth=1)
    right.set(xlabel="MACs, % of the teacher", ylabel=ylabel, ylim=(0, 103))
    for axis in (left, right):
        axis.legend(loc="lower left", bbox_to_anchor=(-0.05, 1), ncols=3, fontsize=9, handlelength=1, columnspacing=1)
        axis.xaxis.set_major_formatter("{x:g}")
    return figure


def rival_plans(
    teacher: Prunable, budget: float, image_size: int, min_width: int | None = None
) -> dict[str, ChannelPlan]:
    """Plans of the same budget by uniform narrowing and by `RANDOM` random rankings."""
    rankings = {"uniform": uniform_scales(teacher)}
    rankings |= {f"random {i}": random_scales(teacher, i) for i in range(RANDOM)}
    return {
        name: prune(teacher, budget, image_size=image_size, min_width=min_width, cost="exact", scales=scales)
        for name, scales in rankings.items()
    }


def variations(
    teacher: Prunable,
    image_size: int,
    asked: Mapping[str, Mapping[str, Any]],
    widths: Callable[[Any], Mapping[str, Any]],
) -> Styler:
    """A row for each search of `asked` (name -> arguments of `prune`): its student, or why there is none.

    `widths`: the columns to show of a student's config.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, arguments in asked.items():
        try:
            plan = prune(teacher, image_size=image_size, **arguments)
        except ValueError as error:
            rows[name] = {"threshold": str(error)}
            continue
        sizes = {"MACs": generator_macs(plan.config, image_size, "exact"), "MACs, paper": plan.macs}
        if sizes["MACs"] == sizes["MACs, paper"]:
            del sizes["MACs, paper"]
        sizes |= {"parameters": generator_params(plan.config)}
        counts = {name: short_count(size) for name, size in sizes.items()}
        rows[name] = {"threshold": plan.threshold, **counts, **widths(plan.config)}
    table = pd.DataFrame(rows).T.style
    table.format(precision=3, na_rep="")
    return table


def kept_shares(plans: Mapping[str, ChannelPlan], scales: Scales, kinds: Kinds) -> pd.DataFrame:
    """Percent of the channels that each plan keeps: a row for each kind of layer, a column for each plan."""
    shares = {}
    for name, plan in plans.items():
        kept = [sum(len(plan.keep[layer]) for layer in members) for members in kinds.values()]
        whole = [sum(len(scales[layer]) for layer in members) for members in kinds.values()]
        shares[name] = 100 * np.array(kept) / np.array(whole)
    return pd.DataFrame(shares, index=list(kinds))


def draw_rankings(ranked: pd.Series, uniform: pd.Series, random: pd.DataFrame) -> Figure:
    """Percent of channels kept in each kind of layer: by norm scales, evenly, and the range of random rankings."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1 + 0.25 * len(ranked)))
    y = np.arange(len(ranked))
    label = f"random (range of {random.shape[1]})"
    axis.hlines(y, random.min(axis=1), random.max(axis=1), color=GREY, alpha=0.5, linewidth=7, label=label)
    axis.plot(uniform, y, "D", color=ORANGE, markersize=6, label="uniform")
    axis.plot(ranked, y, "o", color=STUDENT, markersize=7, label="norm scales")
    axis.set_yticks(y, list(ranked.index), fontsize=9.5)
    axis.invert_yaxis()
    axis.set(xlabel="% of channels kept", xlim=(-2, 102))
    axis.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def chance_facts(ranked: pd.Series, random: pd.DataFrame) -> dict[str, str]:
    """Distance of a plan's shares from the mean of random ones, beside the distances among these."""
    average = random.mean(axis=1)
    outside = (ranked < random.min(axis=1)) | (ranked > random.max(axis=1))
    largest = (ranked - average).abs().idxmax()
    row = str(largest).replace(r" \times ", "&nbsp;&times;&nbsp;").replace("$", "")
    own = (ranked - average).abs().mean()
    others = [(random[i] - random.drop(columns=i).mean(axis=1)).abs().mean() for i in random]
    spread, points = f"{min(others):.1f} to {max(others):.1f}", "percentage points apart"
    return {
        "Kinds of layer whose share no random ranking gives": f"{outside.sum()} of {len(ranked)}",
        "Largest difference": f"{row}, {ranked[largest]:.0f} % against {average[largest]:.0f} % on average",
        "Shares kept, plan against the mean of the random students": f"{own:.1f} {points}",
        "Shares kept, a random student against the mean of the others": f"{spread} {points}",
        "So the plan's widths are": "not those of chance" if own > max(others) else "such as chance gives, too",
    }
