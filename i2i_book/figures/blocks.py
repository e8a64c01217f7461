"""Drawings of networks: an inception block, a SPADE block, where the MACs are."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from i2i_book.figures.style import _LINE, _SMALL, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY
from i2i_lib.config import BlockWidths, GeneratorConfig, ResnetConfig, SpadeBlockWidths
from i2i_lib.macs import Convention, layer_macs, layers


def inception_block(
    axis: Axes,
    width: int,
    block: BlockWidths,
    kernel_sizes: Sequence[int] = (1, 3, 5),
    *,
    of: BlockWidths | None = None,
) -> None:
    """Draw an inception block, its input at the left: a row for every branch, dotted where it is gone.

    `width`: channels of the trunk. `of`: the block before pruning, to say how many of its channels are left.
    """

    box = partial(_box, axis)
    rows = []
    for kind, colour in (("conv", BLUE), ("depthwise", GREEN)):
        widths = zip(kernel_sizes, getattr(block, kind), getattr(of or block, kind), strict=True)
        rows += [(kind, colour, *row) for row in widths]
    last = len(rows) - 1
    middle = -last / 2
    axis.plot([0, 4, 4, 103, 103, 110], [middle, middle, 1, 1, middle, middle], **_LINE)
    axis.text(53, 1.3, "shortcut", _SMALL, color=GREY)
    axis.text(-4, middle, f"input\n{width}", _SMALL)
    axis.text(114, middle, f"output\n{width}", _SMALL)
    for i, (kind, colour, kernel, kept, before) in enumerate(rows):
        size = rf"${kernel} \times {kernel}$"
        if not kept:
            axis.plot([4, 86], [-i, -i], ":", color=GREY, linewidth=1.0, zorder=0)
            text = f"{size} {'plain' if kind == 'conv' else 'depthwise'} branch: removed"
            axis.text(47, -i, text, _SMALL, color=GREY, bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
            continue
        axis.plot([4, 4, 86, 86], [middle, -i, -i, middle], **_LINE)
        outer = size if kind == "conv" else r"$1 \times 1$"
        box(15, -i, f"{outer} conv", colour)
        box(
            31,
            -i,
            f"norm, ReLU\n{kept} channels" if of is None else f"norm, ReLU\n{kept} of {before}",
            colour,
            ranked=True,
        )
        if kind == "depthwise":
            box(48, -i, f"{size}\ndepthwise", colour)
            box(61.5, -i, "norm,\nReLU", colour)
        box(75, -i, f"{outer} conv", colour)
    if any(kept for _, _, _, kept, _ in rows):
        axis.plot([86, 103], [middle, middle], **_LINE)
        box(86, middle, "sum", GREY)
        box(94.5, middle, "norm", GREY)
    box(103, middle, "+", GREY)
    axis.set(xlim=(-8, 118), ylim=(-last - 0.5, 1.6))
    axis.axis("off")


def spade_block(
    axis: Axes,
    inputs: int,
    block: SpadeBlockWidths,
    labels: int,
    kernel_sizes: Sequence[int] = (1, 3, 5),
    *,
    of: SpadeBlockWidths | None = None,
) -> None:
    """Draw an inception-SPADE block: features enter above, labels below; a branch is one box, dotted where it is gone.

    `inputs`, `labels`: channels of the two. `of`: the block before pruning, to say how many of its channels are left.
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
    _branch_rows(axis, 4, low, block.spade, whole.spade, kernel_sizes)
    axis.text(78.5, 3.25, "body", _SMALL, color=GREY)
    axis.text(20.5, low + 3.25, "SPADE", _SMALL, color=GREY)
    _branch_rows(axis, 62, 0, block.body, whole.body, kernel_sizes)
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


def _branch_rows(
    axis: Axes, x: float, middle: float, widths: BlockWidths, whole: BlockWidths, kernel_sizes: Sequence[int]
) -> None:
    rows = [("plain", BLUE, *row) for row in zip(kernel_sizes, widths.conv, whole.conv, strict=True)]
    rows += [("depthwise", GREEN, *row) for row in zip(kernel_sizes, widths.depthwise, whole.depthwise, strict=True)]
    for i, (kind, colour, kernel, kept, before) in enumerate(rows):
        y = middle + (len(rows) - 1) / 2 - i
        text = rf"{kind} ${kernel} \times {kernel}$: "
        if kept:
            axis.plot([x, x, x + 33, x + 33], [middle, y, y, middle], **_LINE)
            _box(
                axis, x + 16.5, y, text + (f"{kept}" if whole == widths else f"{kept} of {before}"), colour, ranked=True
            )
        else:
            axis.plot([x, x + 33], [y, y], ":", color=GREY, linewidth=1.0, zorder=0)
            blank = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            axis.text(x + 16.5, y, text + "removed", _SMALL, color=GREY, bbox=blank)


def _box(axis: Axes, x: float, y: float, text: str, colour: str, *, ranked: bool = False) -> None:
    face = [1 - 0.2 * (1 - part) for part in to_rgb(colour)]  # opaque: lines pass behind
    edge, weight = ("black", 1.8) if ranked else (colour, 0.8)
    frame = {"boxstyle": "round,pad=0.3", "facecolor": face, "edgecolor": edge, "linewidth": weight}
    axis.text(x, y, text, _SMALL, linespacing=1.1, bbox=frame)


def macs_by_part(
    axis: Axes, bars: Mapping[str, tuple[GeneratorConfig | ResnetConfig, int, Convention]], *, share: bool = False
) -> None:
    """Stacked bars of where a generator's MACs go, first on top, each with its total.

    `bars`: label -> (config, side of the picture, convention). `share`: in percent of each bar's own total.
    """
    colours = {"stem": SKY, "blocks": BLUE, "up": ORANGE, "head": PURPLE, "norms": GREY}
    names = {"up": "up-sampling"}
    parts = {label: _parts(*bar) for label, bar in bars.items()}
    longest = max(sum(part.values()) for part in parts.values())
    scale = 1e9 if longest >= 1e9 else 1e6
    unit = "G" if longest >= 1e9 else "M"
    for y, part in enumerate(parts.values()):
        total, left = sum(part.values()), 0.0
        for name, colour in colours.items():
            value = part.get(name, 0) / (total / 100 if share else scale)
            axis.barh(y, value, left=left, color=colour, height=0.66)
            if value > (7 if share else 0.07 * longest / scale):
                text = f"{value:.0f} %" if share else f"{value:.1f}"
                axis.text(left + value / 2, y, text, _SMALL, color="white" if colour == BLUE else "black")
            left += value
        axis.text(left, y, f"  {total / scale:.{1 if total >= scale else 3}f} {unit}", va="center", fontsize=9.5)
    axis.set_yticks(range(len(parts)), list(parts))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, (100 if share else longest / scale) * 1.14)
    axis.set_xlabel("% of the MACs of one picture" if share else f"MACs of one picture ({unit})")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    labels = [names.get(name, name) for name in colours]
    axis.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(colours), handlelength=1)


def _parts(config: GeneratorConfig | ResnetConfig, side: int, convention: Convention) -> dict[str, int]:
    """MACs of the stem, the blocks, the up-sampling and the head, norms apart."""
    parts: dict[str, int] = {}
    for layer in layers(config):
        part = "norms" if layer.kind == "norm" else layer.name.split(".")[0]
        cost = layer_macs(layer, side * side, tracked=config.norm != "instance", convention=convention)
        parts[part] = parts.get(part, 0) + cost
    return parts
