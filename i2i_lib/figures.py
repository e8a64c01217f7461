"""The book's figure style, and the two pictures that several chapters draw. Colours: Okabe and Ito's palette."""

from collections.abc import Mapping

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#7A7A7A",
)
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY)


def style() -> None:
    """Set matplotlib's defaults for every figure of a notebook: readable on a white card in light and dark mode."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "font.size": 11,
            "legend.frameon": False,
        }
    )


def image_grid(rows: Mapping[str, Tensor], *, side: float = 1.1, columns: Mapping[int, str] | None = None) -> Figure:
    """Rows of images with the row's name at the left, pixels shown as they are.

    `rows`: name -> images [N, 3, H, W], uint8 or float in [-1, 1]. `side`: inches per image. `columns`: titles.
    """
    count = len(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows),
        count,
        figsize=(side * count + 0.9, side * len(rows) + (0.3 if columns else 0.1)),
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.04},
        layout="constrained",
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, as_uint8(images), strict=True):
            axis.imshow(image.permute(1, 2, 0).cpu(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for index, title in (columns or {}).items():
        axes[0][index].set_title(title, fontsize=9)
    return figure


def as_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as 0 to 255, rounded; uint8 images as they are."""
    if not images.is_floating_point():
        return images
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()


def outline(axis: Axes, box: Tensor, size: int, colour: str, label: str) -> None:
    """Draw square tiles on a map. `box`: top-left (row, column) [N, 2] in the axis' coordinates; `size`: side."""
    patches = [Rectangle((column, row), size, size) for row, column in box.tolist()]
    axis.add_collection(
        PatchCollection(patches, facecolor=colour, edgecolor=colour, linewidth=0.6, alpha=0.35, label=label)
    )
    axis.plot([], [], "s", color=colour, alpha=0.7, label=label)  # collections of patches have no legend entry
