"""Differences between models, drawn with their intervals."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from i2i_book.figures.style import BLUE, GREY, VERMILLION, WIDTH
from i2i_book.questions import Answer, labels
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM, Comparison
from i2i_lib.results import MEASURES, PAIRED

COLOURS = {"better": BLUE, "worse": VERMILLION}


def draw_effects(
    found: Mapping[str, Sequence[Comparison]],
    *,
    against: bool = True,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """A row of panels for each task, one for each paired measure: differences as dots with their intervals.

    `found`: task -> comparisons in the paired measures, those of each measure in the same order of models. Colours
    follow the interval; a dot is hollow where seeds are too few for a claim. Rows name both models, or only the first
    without `against`. `groups`: task -> sizes of the groups between which a thin line is drawn.
    """
    tasks = list(found) or [""]
    rows = {task: sum(c.measure == "l1" for c in found.get(task, ())) for task in tasks}
    heights = [0.26 * rows[task] + 0.9 for task in tasks]
    panels, size = (len(tasks), len(PAIRED)), (WIDTH, sum(heights))
    figure, axes = plt.subplots(*panels, figsize=size, sharey="row", squeeze=False, height_ratios=heights)
    for line, task in zip(axes, tasks, strict=True):
        for axis, measure in zip(line, PAIRED, strict=True):
            chosen = [c for c in found.get(task, ()) if c.measure == measure]
            for row, c in enumerate(chosen):
                colour = COLOURS.get(c.direction, GREY)
                inside = colour if c.seeds >= SEEDS_OF_A_CLAIM else "white"
                axis.plot([c.low, c.high], [row, row], color=colour)
                axis.plot(c.difference, row, "o", color=colour, markerfacecolor=inside, markersize=4)
            for edge in np.cumsum((groups or {}).get(task, ()))[:-1]:
                axis.axhline(edge - 0.5, color=GREY, linewidth=0.5)
            axis.axvline(0, color="black", linewidth=0.8)
            names = [f"{c.model} \N{MINUS SIGN} {c.against}" if against else c.model for c in chosen]
            axis.set(title=MEASURES[measure].label, yticks=range(len(chosen)), yticklabels=names)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.set_ylim(len(chosen) - 0.5, -0.5)
        line[0].set_ylabel(task.replace(", ", ",\n"))  # a recording has a row for its task and one for its name
    return figure


def draw_answers(answers: Sequence[Answer]) -> Figure:
    """The answers to planned questions as dots with their intervals, in percent of the teacher's mean.

    Colours follow the verdicts. Small dots are the single trainings, a tick the margin of "as good as". The axis
    narrows beyond 5 %, so that small differences can be seen beside large ones.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.4 * len(answers) + 1))
    for row, answer in enumerate(answers):
        c, scale, margin = answer.comparison, 100 / abs(answer.teacher), answer.question.margin
        worse = answer.verdict == "worse"
        colour = (VERMILLION if worse else BLUE) if answer.shown else GREY
        axis.plot([c.low * scale, c.high * scale], [row, row], color=colour)
        axis.plot(c.difference * scale, row, "o", color=colour, markersize=5)
        each = [difference * scale for difference in answer.by_training]
        axis.plot(each, [row + 0.25] * len(each), ".", color=colour, markersize=4, alpha=0.6)
        if margin:
            axis.plot(100 * margin, row, "|", color="black", markersize=12)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xscale("asinh", linear_width=5)
    axis.xaxis.set_major_locator(FixedLocator([-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50]))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}".replace("+0", "0").replace("-", "\N{MINUS SIGN}"))
    axis.xaxis.set_minor_locator(NullLocator())
    named = [label.replace("`", "") for label in labels(answers)]
    axis.set(yticks=range(len(answers)), yticklabels=named, xlabel="difference, % of the teacher's error")
    axis.set_ylim(len(answers) - 0.5, -0.5)
    return figure
