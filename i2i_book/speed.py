"""The one table of times that every page quotes: `speed` in the evaluations of a task, which chapter 5 measures.

Functions take those of one task, one evaluation per seed. A time over several seeds is their mean, and a speed-up the
quotient of two such times, always of two networks that run in the same way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from i2i_lib.results import FUSED, PLAIN, RUNTIME, WAYS, size_text

STUDENT = "gcka"
RIVALS = {"teacher": "its teacher", "original": "the uncompressed ResNet"}
SMALL, LARGE = "64", "256"  # pixels: sizes that every evaluation times
FASTER = 1.05  # times as fast, from which on a text calls it faster

Evaluations = Sequence[Mapping[str, Any]]


def has_speed(evaluations: Evaluations) -> bool:
    """Whether times were measured; old recordings have none."""
    return all(evaluation.get("speed") for evaluation in evaluations)


def milliseconds(evaluations: Evaluations) -> pd.DataFrame:
    """Times of one picture in ms: a row for each size and architecture, smallest size first, a column for each way."""
    rows = pd.DataFrame([row for evaluation in evaluations for row in evaluation["speed"]["rows"]])
    rows["area"], rows["size"] = rows["size"].map(lambda s: s[0] * s[1]), rows["size"].map(size_text)
    rank = {"original": 0, "teacher": 1, STUDENT: 2}
    rows["rank"] = rows.network.map(lambda name: rank.get(name, 3))
    order = rows.sort_values(["area", "rank"], kind="stable")[["size", "network"]].drop_duplicates()
    table = rows.pivot_table("ms", ["size", "network"], "way", "mean").rename_axis(columns=None)
    return table.loc[list(order.itertuples(index=False, name=None)), [way for way in WAYS if way in table]]


def speed_ups(evaluations: Evaluations, student: str = STUDENT) -> pd.DataFrame:
    """How many times as fast as teacher and Original the student is: a row for each size and rival, columns of ways."""
    table = milliseconds(evaluations)
    measured = _measured_as(evaluations, student)
    rows = {
        (size, rival): table.loc[(size, rival)] / table.loc[(size, measured)]
        for size in table.index.unique("size")
        for rival in RIVALS
        if (size, rival) in table.index
    }
    return pd.DataFrame(rows).T


def way_of(ups: pd.DataFrame) -> str:
    """The way of running that a text quotes for large pictures: fused, where the networks can be."""
    return FUSED if FUSED in ups else PLAIN


def quoted_size(table: pd.DataFrame) -> str:
    """The size that texts quote of `milliseconds` or `speed_ups`: the task's own above the small one, or the large."""
    sizes = list(table.index.unique(0))  # in this order
    return next((size for size in sizes[sizes.index(SMALL) + 1 :] if size != LARGE), LARGE)


def _measured_as(evaluations: Evaluations, student: str) -> str:
    """The network whose times are the student's: itself, or the first of its architecture."""
    for row in evaluations[0]["speed"]["rows"]:
        if student == row["network"] or student in row["same"]:
            return row["network"]
    raise KeyError(student)


def shown_speed(evaluations: Evaluations, student: str = STUDENT) -> Styler:
    """`milliseconds` and, below each size's networks, `speed_ups`, with the note that says how it was measured."""
    times, ups = milliseconds(evaluations), speed_ups(evaluations, student)
    lines = {}
    for size in times.index.unique("size"):
        for network, row in times.loc[size].iterrows():
            lines[f"{size} px", f"{network}, ms"] = row.map("{:.1f}".format)
        for rival, row in ups.loc[size].iterrows():
            lines[f"{size} px", f"{student}: times as fast as {rival}"] = row.map("{:.1f}".format)
    return pd.DataFrame(lines).T.style.set_caption(speed_note(evaluations))


def speed_note(evaluations: Evaluations) -> str:
    """How the times were measured, and which networks are the same."""
    speed = evaluations[0]["speed"]
    if speed["device"] == "cpu":
        clock = "on one thread of the CPU, by the thread's own clock, which stands still while another process has it"
    else:
        clock = f"on a GPU ({speed['device']}), by the clock on the wall, each pass waited for"
    same = {row["network"]: row["same"] for row in speed["rows"] if row["same"]}
    alike = [f"{', '.join(others)}: the same network as {name}." for name, others in same.items()]
    note = f"Time of one image {clock}: median of {speed['repeats']} passes in which the networks took turns."
    if len(evaluations) > 1:
        note += f" Mean over {len(evaluations)} seeds."
    if any(row["network"] == "original" for row in speed["rows"]):
        note += " original: the uncompressed ResNet."
    return " ".join([note, *alike])


def speed_sentence(evaluations: Evaluations, student: str = STUDENT) -> str:
    """In words, how fast the student is: at `quoted_size`, fused if it can be, and in small ones in plain PyTorch."""
    ups = speed_ups(evaluations, student)
    size = quoted_size(ups)
    large, small = (_compared(ups.loc[of, way]) for of, way in ((size, way_of(ups)), (SMALL, PLAIN)))
    if way_of(ups) == PLAIN:
        return f"In plain PyTorch, the student at {size} px is {large}; at {SMALL} px, it is {small}."
    return f"At {size} px, fused, the student is {large}; at {SMALL} px in plain PyTorch, it is {small}."


def gains_sentence(evaluations: Evaluations, student: str = STUDENT) -> str:
    """In words, what the student gains at `quoted_size` by being run in other ways than plain PyTorch."""
    table = milliseconds(evaluations)
    size = quoted_size(table)
    times = table.loc[(size, _measured_as(evaluations, student))]
    words = {FUSED: "fused", RUNTIME: "in ONNX Runtime"}
    gains = [f"{words[way]} {times[PLAIN] / times[way]:.1f} times" for way in times.index if way in words]
    return f"At {size} px, it is {' and '.join(gains)} as fast as in plain PyTorch."


def _compared(ups: pd.Series) -> str:
    """In words, how fast the student is beside each rival; a quotient near 1 is not called faster."""
    parts = []
    for rival, up in ups.dropna().items():
        times, name = f"{up:.1f} times as fast", RIVALS[str(rival)]
        parts.append(f"{times} as {name}" if up >= FASTER else f"not faster than {name} ({times})")
    return " and ".join(parts)
