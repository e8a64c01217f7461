"""Memory of the published trainings on a GPU that is not at hand: `python benchmarks/bench_memory.py OUT`.

A step of each training of the presets `paper` and `paper-gaugan` is taken on tensors without numbers (see
`i2i_lib.train.memory`): with all kept that gradients need, and as the preset sets it. OUT, by default
book/measured/published-memory.txt, is the table; it takes some minutes of a core, on any machine.
"""

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from i2i_book.estimate import Work, estimates
from i2i_lib.files import root
from i2i_lib.train.memory import fake_tensors, peak_memory

PUBLISHED = {"paper": ("maps", "horse2zebra", "zebra2horse", "cityscapes"), "paper-gaugan": ("cityscapes",)}
ALL_KEPT: dict[str, Any] = {"recompute": False, "micro_batch": 0}
GIB = 2**30
LIMIT = 40  # GiB: of a common GPU of data centres


def step_memory(make: Any) -> Work:
    """The memory of a step; its work is not asked for, which would take ten times as long."""
    with fake_tensors():
        trainer, batch = make()
        return Work(0, peak_memory(lambda: trainer.step(batch)))


def rows(preset: str, task: str) -> Iterator[dict[str, Any]]:
    """A row for each training of a task."""
    pairs = zip(estimates(preset, task, step_memory, **ALL_KEPT), estimates(preset, task, step_memory), strict=True)
    for kept, chosen in pairs:
        yield {
            "preset": preset,
            "task": task,
            "network": chosen.network,
            "all kept (GiB)": kept.work.peak / GIB,
            "as set (GiB)": chosen.work.peak / GIB,
        }


def table(lines: list[dict[str, Any]]) -> str:
    """The rows as text, and whether all of them fit."""
    most = max(row["as set (GiB)"] for row in lines)
    return (
        f"{date.today()}, torch {torch.__version__}, counted on tensors without numbers, nothing was run\n"
        f"{pd.DataFrame(lines).to_string(index=False, float_format='{:.1f}'.format)}\n"
        f"largest as set: {most:.1f} GiB, {'within' if most < LIMIT else 'NOT WITHIN'} {LIMIT} GiB\n"
    )


def main(out: Path) -> None:
    """Count all, and write the table."""
    lines = []
    for preset, tasks in PUBLISHED.items():
        for task in tasks:
            for row in rows(preset, task):
                print(row, file=sys.stderr, flush=True)
                lines.append(row)
    out.write_text(table(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "book" / "measured" / "published-memory.txt")
