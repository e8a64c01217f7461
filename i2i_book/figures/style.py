"""The book's figure style, and what several chapters show. Colours: Okabe and Ito's palette."""

import inspect
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from textwrap import dedent
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import HTML, Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from i2i_lib.metrics.pairs import quantise

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7A7A7A")
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = COLOURS
# One colour and one marker a model, in every chapter; models that are not listed take what is left, in their order.
LOOKS = {
    "teacher": (BLUE, "s"),
    "original": (GREY, "D"),
    "gcka": (VERMILLION, "o"),
    "none": (GREEN, "^"),
    "mse": (PURPLE, "v"),
    "inherited": (ORANGE, "P"),
    "inherited-none": (SKY, "X"),
}


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


def facts(values: Mapping[str, str]) -> Markdown:
    """Numbers of this run as a list, one line each."""
    return Markdown("\n".join(f"- {name}: **{value}**" for name, value in values.items()))


def answer(text: str) -> Markdown:
    """What an exercise finds, in a fold below it."""
    return folded_text("Answer", text, "answer")


def folded_text(summary: str, text: str, kind: str = "more") -> Markdown:
    """Markdown behind a line that opens it."""
    return Markdown(f'<details class="{kind}"><summary>{escape(summary)}</summary>\n\n{text}\n\n</details>')


def folded(summary: str, table: Any) -> HTML:
    """A table (of pandas, or styled by it) behind a line that opens it."""
    return HTML(f'<details class="more"><summary>{escape(summary)}</summary>{table.to_html()}</details>')


def look(model: str, order: Sequence[str] = ()) -> dict[str, str]:
    """Colour and marker of a model; one that `LOOKS` does not have is told by its place in `order`."""
    place = list(order).index(model) if model in order else 0
    colour, marker = LOOKS.get(model, (COLOURS[place % 7], "<>dph*"[place % 6]))
    return {"color": colour, "marker": marker}


def source_code(*functions: Callable[..., Any]) -> Markdown:
    """The source of functions, as the library has it."""
    return Markdown("\n".join(f"```python\n{dedent(inspect.getsource(function))}```" for function in functions))


def image_grid(rows: Mapping[str, Tensor], *, side: float = 1.1) -> Figure:
    """Rows of images with the row's name at the left, pixels shown as they are.

    `rows`: name -> images [N, 3, H, W], uint8 or float in [-1, 1]. `side`: inches per image.
    """
    count = len(next(iter(rows.values())))
    size, gaps = (side * count + 0.9, side * len(rows) + 0.1), {"wspace": 0.04, "hspace": 0.04}
    figure, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False, gridspec_kw=gaps, layout="constrained")
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, quantise(images), strict=True):
            axis.imshow(image.permute(1, 2, 0).cpu(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def divider(layers: Mapping[str, Tensor]) -> HTML:
    """Pictures of the same places, as one mosaic for each name; in the book a divider moves over one place of any two.

    `layers`: name -> images [N, 3, H, W], uint8 or float in [-1, 1]. Elsewhere they stand one below the other.
    """
    shown, count, columns = [], 0, 4
    for name, images in layers.items():
        file = BytesIO()
        count = len(images)
        mosaic = make_grid(quantise(images).cpu(), nrow=columns, padding=0).permute(1, 2, 0).numpy()
        Image.fromarray(mosaic).save(file, "JPEG", quality=92, subsampling=0)
        data = b64encode(file.getvalue()).decode()
        alt = escape(f"{len(images)} places: {name}")
        shown.append(f'<img data-name="{escape(name)}" alt="{alt}" src="data:image/jpeg;base64,{data}">')
    tiles = f'data-count="{count}" data-columns="{columns}"'
    return HTML(f'<div class="compare" {tiles}>{"".join(shown)}</div>')


def scrubber(frames: Mapping[int, bytes], what: str) -> HTML:
    """Snapshots of a training, step -> WebP file; in the book a slider moves through them, the last one first.

    `what` they show, for those who do not see them. Elsewhere they stand one below the other.
    """
    shown = []
    for step, frame in frames.items():
        alt, data = escape(f"{what}, after {step:,} steps"), b64encode(frame).decode()
        shown.append(f'<img data-step="{step}" alt="{alt}" src="data:image/webp;base64,{data}">')
    return HTML(f'<div class="scrubber">{"".join(shown)}</div>')


def quality_against_price(
    axis: Axes, points: Mapping[str, tuple[Sequence[float], Sequence[float]]], order: Sequence[str]
) -> None:
    """Mark each model at its MACs (horizontal, logarithmic, in millions) and its quality, one mark for each seed.

    `points`: model -> (exact MACs of one picture, values of a measure). `order`: all models of the figure, so that one
    has the same mark in every panel and legend. Models of one price, within a tenth, stand side by side around it.
    """
    macs = {name: sum(values) / len(values) / 1e6 for name, (values, _) in points.items()}
    for name in order:
        style = {**look(name, order), "linestyle": "", "alpha": 0.8, "label": name}
        if name not in points:
            axis.plot([], [], **style)
            continue
        level = [other for other in order if other in macs and abs(macs[other] / macs[name] - 1) < 0.1]
        beside = 1.07 ** (level.index(name) - (len(level) - 1) / 2)
        quality = points[name][1]
        axis.plot([macs[name] * beside] * len(quality), quality, **style)
    axis.set(xscale="log", xlabel="MACs of one image (millions)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
