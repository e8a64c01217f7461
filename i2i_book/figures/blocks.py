"""Drawings of networks: an inception block, a SPADE block, where the MACs are."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType

from i2i_book.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY
from i2i_lib.config import BlockWidths, GeneratorConfig, ResnetConfig, SpadeBlockWidths
from i2i_lib.counts import short_count
from i2i_lib.macs import Convention, layer_macs, layers

_SMALL: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.5}
_LINE: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "zorder": 0}


def inception_block(
    axis: Axes, width: int, block: BlockWidths, kernel_sizes: Sequence[int], *, of: BlockWidths | None = None
) -> None:
    """Draw an inception block, its input at the left: a row for every branch, dotted where it is gone.

    `width`: channels of the trunk. `of`: the block before pruning, to show how many of its channels are left.
    """
    rows = _branches(block, of or block, kernel_sizes)
    last = len(rows) - 1
    middle = -last / 2
    axis.plot([0, 4, 4, 103, 103, 110], [middle, middle, 1, 1, middle, middle], **_LINE)
    axis.text(53, 1.3, "shortcut", _SMALL, color=GREY)
    axis.text(-4, middle, f"input\n{width}", _SMALL)
    axis.text(114, middle, f"output\n{width}", _SMALL)
    for i, branch in enumerate(rows):
        if not branch.kept:
            _removed(axis, 4, 86, -i, f"{branch.size} {branch.kind} branch: removed")
            continue
        axis.plot([4, 4, 86, 86], [middle, -i, -i, middle], **_LINE)
        outer = branch.size if branch.kind == "plain" else r"$1 \times 1$"
        kept = f"{branch.kept} channels" if of is None else branch.left
        _box(axis, 15, -i, f"{outer} conv", branch.colour)
        _box(axis, 31, -i, f"norm, ReLU\n{kept}", branch.colour, ranked=True)
        if branch.kind == "depthwise":
            _box(axis, 48, -i, f"{branch.size}\ndepthwise", branch.colour)
            _box(axis, 61.5, -i, "norm,\nReLU", branch.colour)
        _box(axis, 75, -i, f"{outer} conv", branch.colour)
    if any(branch.kept for branch in rows):
        axis.plot([86, 103], [middle, middle], **_LINE)
        _box(axis, 86, middle, "sum", GREY)
        _box(axis, 94.5, middle, "norm", GREY)
    _box(axis, 103, middle, "+", GREY)
    axis.set(xlim=(-8, 118), ylim=(-last - 0.5, 1.6))
    axis.axis("off")


def spade_block(
    axis: Axes,
    inputs: int,
    block: SpadeBlockWidths,
    labels: int,
    kernel_sizes: Sequence[int],
    *,
    of: SpadeBlockWidths | None = None,
) -> None:
    """Draw an inception-SPADE block: features enter above, labels below; a branch is one box, dotted where it is gone.

    `inputs`, `labels`: channels of the two. `of`: the block before pruning, to show how many of its channels are left.
    """
    box, whole, low = partial(_box, axis), of or block, -4.7
    turn = inputs != block.outputs
    axis.plot([0, 4, 4, 105, 105, 109], [0, 0, 4.3, 4.3, 0, 0], **_LINE)
    if turn:
        box(46, 4.3, "norm", GREY)
        box(59, 4.3, r"$1 \times 1$ conv", GREY)
    axis.text(81 if turn else 54, 4.7, "shortcut", _SMALL, color=GREY)
    axis.text(-4, 0, f"features\n{inputs}", _SMALL)
    axis.text(114, 0, f"output\n{block.outputs}", _SMALL)
    axis.text(-4, low, f"labels\n{labels}", _SMALL)
    axis.text(78.5, 3.25, "body", _SMALL, color=GREY)
    axis.text(20.5, low + 3.25, "SPADE", _SMALL, color=GREY)
    for x, middle, part, before in ((4, low, block.spade, whole.spade), (62, 0, block.body, whole.body)):
        rows = _branches(part, before, kernel_sizes)
        for i, branch in enumerate(rows):
            y = middle + (len(rows) - 1) / 2 - i
            if branch.kept:
                axis.plot([x, x, x + 33, x + 33], [middle, y, y, middle], **_LINE)
                box(x + 16.5, y, f"{branch.kind} {branch.size}: {branch.left}", branch.colour, ranked=True)
            else:
                _removed(axis, x, x + 33, y, f"{branch.kind} {branch.size}: removed")
    if any(block.body.conv + block.body.depthwise):
        axis.plot([4, 62], [0, 0], **_LINE)
        axis.plot([95, 105], [0, 0], **_LINE)
        box(14, 0, "norm", GREY)
        box(56.5, 0, "ReLU", GREY)
        box(98, 0, "sum", GREY)
    if any(block.spade.conv + block.spade.depthwise):
        axis.plot([0, 4], [low, low], **_LINE)
        axis.plot([37, 44, 44], [low, low, 0], **_LINE)
        box(44, low, f"sum:\n{inputs} scales,\n{inputs} shifts", ORANGE)
        box(44, 0, r"$\times$ (1 + scale)" + "\n+ shift", ORANGE)
    box(105, 0, "+", GREY)
    axis.set(xlim=(-9, 119), ylim=(low - 3, 5.1))
    axis.axis("off")


class _Branch(NamedTuple):
    kind: str  # plain or depthwise
    colour: str
    size: str  # its kernel
    kept: int  # hidden channels
    left: str  # the same in words, "3 of 5" after pruning


def _branches(widths: BlockWidths, before: BlockWidths, kernel_sizes: Sequence[int]) -> list[_Branch]:
    branches = []
    for kind, colour, kept, had in (
        ("plain", BLUE, widths.conv, before.conv),
        ("depthwise", GREEN, widths.depthwise, before.depthwise),
    ):
        for kernel, width, whole in zip(kernel_sizes, kept, had, strict=True):
            left = f"{width}" if widths == before else f"{width} of {whole}"
            branches.append(_Branch(kind, colour, rf"${kernel} \times {kernel}$", width, left))
    return branches


def _removed(axis: Axes, start: float, end: float, y: float, text: str) -> None:
    axis.plot([start, end], [y, y], ":", color=GREY, linewidth=1.0, zorder=0)
    axis.text((start + end) / 2, y + 0.06, text, _SMALL | {"va": "bottom"}, color=GREY)


def _box(axis: Axes, x: float, y: float, text: str, colour: str, *, ranked: bool = False) -> None:
    face = [1 - 0.2 * (1 - part) for part in to_rgb(colour)]  # opaque: lines pass behind
    edge, weight = ("black", 1.8) if ranked else (colour, 0.8)
    frame = {"boxstyle": "round,pad=0.3", "facecolor": face, "edgecolor": edge, "linewidth": weight}
    axis.text(x, y, text, _SMALL, linespacing=1.1, bbox=frame)


def part_costs(config: GeneratorConfig | ResnetConfig, side: int, convention: Convention) -> dict[str, int]:
    """MACs of a picture of `side` pixels in stem, blocks, up-sampling, head, and norms apart."""
    names = {"stem": "stem", "blocks": "blocks", "up": "up-sampling", "head": "head"}
    costs = dict.fromkeys([*names.values(), "norms"], 0)
    for layer in layers(config):
        part = "norms" if layer.kind == "norm" else names[layer.name.split(".")[0]]
        costs[part] += layer_macs(layer, side * side, tracked=config.norm != "instance", convention=convention)
    return costs


def macs_by_part(
    axis: Axes, bars: Mapping[str, tuple[GeneratorConfig | ResnetConfig, int, Convention]], *, share: bool = False
) -> None:
    """Stacked bars of `part_costs`, whose arguments each label of `bars` has. `share`: as in `stacked_bars`."""
    colours = {"stem": SKY, "blocks": BLUE, "up-sampling": ORANGE, "head": PURPLE, "norms": GREY}
    stacked_bars(axis, {label: part_costs(*network) for label, network in bars.items()}, colours, share=share)


def stacked_bars(
    axis: Axes, bars: Mapping[str, Mapping[str, int]], colours: Mapping[str, ColorType], *, share: bool = False
) -> None:
    """Bars of MACs, first on top, each divided into parts, with its total at the right.

    `bars`: label -> part -> MACs. `colours`: of the parts, in their order; the legend leaves out those that cost
    nothing in any bar. `share`: in percent of each bar's own total.
    """
    colours = {part: colour for part, colour in colours.items() if any(parts[part] for parts in bars.values())}
    longest = max(sum(parts.values()) for parts in bars.values())
    scale, unit = (1e9, "G") if longest >= 1e9 else (1e6, "M")
    for y, parts in enumerate(bars.values()):
        total, left = sum(parts.values()), 0.0
        for part, colour in colours.items():
            value = parts[part] / (total / 100 if share else scale)
            axis.barh(y, value, left=left, color=colour, height=0.66)
            if value > (5 if share else 0.07 * longest / scale):
                dark = np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) < 0.45
                text = f"{value:.0f} %" if share else f"{value:.1f}"
                axis.text(left + value / 2, y, text, _SMALL, color="white" if dark else "black")
            left += value
        axis.text(left, y, f"  {short_count(total)}", va="center", fontsize=9.5)
    axis.set_yticks(range(len(bars)), list(bars))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, (100 if share else longest / scale) * 1.14)
    axis.set_xlabel("% of the MACs of one image" if share else f"MACs of one image ({unit})")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": min(len(colours), 5)}
    axis.legend(handles, list(colours), **above, fontsize=9, handlelength=0.9, columnspacing=1, handletextpad=0.5)
