"""The figure of the table of times."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from i2i_book.figures.style import WIDTH, look


def draw_speed(times: pd.DataFrame) -> Figure:
    """A panel for each size: bars of the time of one picture, grouped by the way of running, a colour for a network.

    `times`: as `i2i_book.speed.milliseconds` makes it.
    """
    sizes = list(times.index.unique("size"))
    figure, axes = plt.subplots(len(sizes), 1, figsize=(WIDTH, 2.8 * len(sizes)), squeeze=False)
    for axis, size in zip(axes[:, 0], sizes, strict=True):
        own = times.loc[size]
        height, order = 0.8 / len(own), [str(name) for name in own.index]
        for i, (network, row) in enumerate(own.iterrows()):
            places = [way + (i - (len(own) - 1) / 2) * height for way in range(len(row))]
            bars = axis.barh(places, row, 0.9 * height, color=look(str(network), order)["color"], label=network)
            axis.bar_label(bars, fmt="{:.1f}", padding=2, fontsize=8.5)
        axis.set_title(f"{size} px", loc="left")
        axis.set(xlabel="ms", xlim=(0, 1.2 * own.max(axis=None)))
        axis.set_yticks(range(len(own.columns)), list(own.columns))
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
    axes[0][0].legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
