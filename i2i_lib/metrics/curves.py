"""How fast a training learns, from its loss log."""

from collections.abc import Mapping, Sequence
from itertools import pairwise


def steps_to_reach(
    log: Sequence[Mapping[str, float]], level: float, *, loss: str = "recon", weight: float = 1.0
) -> float | None:
    """The training step at which a loss, divided by its `weight`, first falls to `level`; None if it never does.

    `log` holds the rows of `losses.jsonl`, each the mean of every loss over the steps since the row before. Such a mean
    stands for the middle of its steps, and between two middles the curve is a straight line. Raises ValueError for an
    empty log or one without that loss.
    """
    if not log or any(loss not in row for row in log):
        raise ValueError(f"expected a log with {loss!r} in every row, got {list(log[0]) if log else 'no row'}")
    ends = [0.0, *(row["step"] for row in log)]
    points = [((a + b) / 2, row[loss] / weight) for (a, b), row in zip(pairwise(ends), log, strict=True)]
    if points[0][1] <= level:
        return points[0][0]
    for (step, value), (later, lower) in pairwise(points):
        if lower <= level:
            return step + (later - step) * (value - level) / (value - lower)
    return None
