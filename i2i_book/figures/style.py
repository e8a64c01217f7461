"""The book's figure style, and what several chapters show. Colours: Okabe and Ito's palette."""

import inspect
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from textwrap import dedent
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Image, Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image as Picture
from torch import Tensor

from i2i_lib.data.pictures import to_image
from i2i_lib.metrics.pairs import quantise

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7A7A7A")
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = COLOURS
# One colour and one marker a model, in every chapter.
LOOKS = {
    "teacher": (BLUE, "s"),
    "teacher-longer": (BLUE, "D"),
    "original": (GREY, "D"),
    "gcka": (VERMILLION, "o"),
    "none": (GREEN, "^"),
    "mse": (PURPLE, "v"),
    "inherited": (ORANGE, "P"),
    "inherited-none": (SKY, "X"),
}
# Models that are not listed take these in their order, never the colours of teacher and main student.
OTHERS = (ORANGE, GREEN, SKY, PURPLE, GREY)
# A figure's width in inches, that of the page's column: text of 8.5 points or more is then at least 11 pixels high.
WIDTH = 7


def style() -> None:
    """Set matplotlib's defaults for every figure of a notebook: a vector drawing without a background.

    In dark mode the page turns black into white and keeps the hues. What holds photographs is for `image_grid`,
    `image_row` or `on_white`.
    """
    if get_ipython():
        set_matplotlib_formats("svg", metadata={"Date": None})
    mpl.rcParams.update(
        {
            "axes.facecolor": "none",
            "axes.titlesize": 10,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.hspace": 0.08,  # a title is nearer to its own panel than to the one above
            "figure.facecolor": "none",
            "font.size": 10,
            "savefig.dpi": 200,  # of what is no vector
            "svg.hashsalt": "i2i",  # the same figure is the same file
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
    colour, marker = LOOKS.get(model, (OTHERS[place % 5], "<>dph*"[place % 6]))
    return {"color": colour, "marker": marker}


def source_code(*functions: Callable[..., Any]) -> Markdown:
    """The source of functions, as the library has it."""
    return Markdown("\n".join(f"```python\n{dedent(inspect.getsource(function))}```" for function in functions))


def image_grid(rows: Mapping[str, Tensor]) -> HTML:
    """Rows of images with the row's name beside them, pixels shown as they are.

    `rows`: name -> images [N, 3, H, W], uint8 or float in [-1, 1].
    """
    lines = []
    for name, images in rows.items():
        picture = _mosaic(images, len(images), f"{len(images)} images: {name}")
        lines.append(f'<span>{escape(name)}</span><div style="--count: {len(images)}">{picture}</div>')
    return HTML(f'<div class="image-rows">{"".join(lines)}</div>')


def image_row(images: Mapping[str, Tensor]) -> HTML:
    """Images side by side, each below its name: name -> image [3, H, W], uint8 or float in [-1, 1]."""
    shown = [f"<div><span>{escape(name)}</span>{_mosaic(image[None], 1, name)}</div>" for name, image in images.items()]
    return HTML(f'<div class="image-row">{"".join(shown)}</div>')


def on_white(figure: Figure) -> Image:
    """A figure with photographs as pixels on white, which dark mode leaves as they are; the figure is closed.

    Keeps the smaller of two files: JPEG where a photograph fills the figure, PNG where colours are flat.
    """
    files = []
    for kind, how in (("jpeg", {"quality": 95, "subsampling": 0}), ("png", {"optimize": True})):
        file = BytesIO()
        figure.savefig(file, format=kind, facecolor="white", bbox_inches="tight", pil_kwargs=how)
        files.append(file.getvalue())
    plt.close(figure)
    return Image(min(files, key=len))


def divider(layers: Mapping[str, Tensor]) -> HTML:
    """The same images by several models, a mosaic for each name; in the book a divider moves over one image of any two.

    `layers`: name -> images [N, 3, H, W], uint8 or float in [-1, 1]. Elsewhere they stand one below the other.
    """
    columns, count = 4, max(map(len, layers.values()))
    shown = [_mosaic(images, columns, f"{len(images)} images: {name}", name) for name, images in layers.items()]
    tiles = f'data-count="{count}" data-columns="{columns}"'
    return HTML(f'<div class="compare" {tiles}>{"".join(shown)}</div>')


def _mosaic(images: Tensor, columns: int, alt: str, name: str = "") -> str:
    """The element of one JPEG file with all `images` [N, 3, H, W], so many side by side."""
    pictures = [to_image(image) for image in quantise(images)]
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    mosaic = Picture.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        mosaic.paste(picture, (column * width, row * height))
    file = BytesIO()
    mosaic.save(file, "JPEG", quality=92, subsampling=0)
    named = f' data-name="{escape(name)}"' if name else ""
    data = b64encode(file.getvalue()).decode()
    return f'<img{named} alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'


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
    has the same mark in every panel and legend.
    """
    for name in order:
        style = {**look(name, order), "linestyle": "", "alpha": 0.8, "label": name}
        if name not in points:
            axis.plot([], [], **style)
            continue
        macs, quality = points[name]
        axis.plot([value / 1e6 for value in macs], quality, **style)
    axis.set(xscale="log", xlabel="MACs of one image (millions)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
