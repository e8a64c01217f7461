"""What an evaluation found: one row per model, gathered from every `eval.json` into one table.

`python -m i2i_lib.results collect OUT EVAL...` rebuilds the table; it is never appended to.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from i2i_lib.files import atomic_write, record_file, write_json


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One model of one task and seed, measured on the test tiles by one protocol. None: not applicable to it."""

    task: str
    seed: int
    model: str  # "floor", "look-up", "teacher", "original" or the name of a student's arm
    protocol: str  # the id under which alone numbers may be compared
    images: int
    blocks: int  # independent geographic units among them
    l1: float | None  # mean absolute distance to the truth, images in [-1, 1]
    ssim: float | None
    feature_distance: float | None
    kd: float  # kernel distance to the truth, x 1000
    kd_low: float  # its 95 % interval over blocks
    kd_high: float
    fd: float  # Frechet distance to the truth
    miou: float | None = None  # how well labels are read back from the pictures, where sources are labels
    macs_paper: int | None = None
    macs_exact: int | None = None
    params: int | None = None
    latency_ms: float | None = None  # median, batch of 1
    latency_p95_ms: float | None = None
    peak_memory_mib: float | None = None
    steps: int | None = None
    train_seconds: float | None = None
    weights: str | None = None  # SHA-256 of the model's tensors
    data: str | None = None  # SHA-256 of the tiles


def written(measure: str) -> str:
    """How a measure or a price is written in tables and sentences: "l1" as "L1", "feature_distance" with a space."""
    names = {"l1": "L1", "ssim": "SSIM", "fd": "FD", "miou": "mIoU"}
    names |= {"kd": "KD x 1000", "kd_low": "95 % low", "kd_high": "95 % high"}
    names |= {"macs_exact": "MACs, exact", "macs_paper": "MACs, paper", "params": "parameters"}
    names |= {"latency_ms": "ms", "latency_p95_ms": "ms (p95)", "peak_memory_mib": "MiB"}
    names |= {"train_seconds": "training (s)"}
    return names.get(measure, measure.replace("_", " "))


def headed(measure: str) -> str:
    """The head of a measure's column, with an arrow to its better end: "L1 ↓"."""
    better = {"ssim": "↑", "miou": "↑", "kd_low": "", "kd_high": ""}
    return f"{written(measure)} {better.get(measure, '↓')}".strip()


def save_evaluation(
    path: Path, results: Sequence[EvalResult], per_image: dict[str, dict[str, list[float]]], **facts: Any
) -> None:
    """Write `eval.json`: the rows, and the per-image values {measure: {model: [N]}} that paired tests need."""
    write_json(path, {"format": 1, "results": [asdict(r) for r in results], "per_image": per_image, **facts})


def load_evaluation(path: Path) -> dict[str, Any]:
    """Read `eval.json`. Raises ValueError naming the file if it is not one."""
    try:
        content = json.loads(Path(path).read_text())
        rows = [EvalResult(**row) for row in content["results"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not an evaluation ({error}): delete it and evaluate again") from error
    return content | {"results": rows}


def load_evaluations(table: Path) -> dict[str, list[dict[str, Any]]]:
    """The evaluations behind the rows of `results.jsonl`, by task and in order of seed: what `claims` compares."""
    path = Path(table)
    rows = sorted({(row["task"], row["seed"]) for row in map(json.loads, path.read_text().splitlines())})
    found: dict[str, list[dict[str, Any]]] = {}
    for task, seed in rows:
        evaluation = record_file("read", path.parent / task / f"seed{seed}" / "eval.json")
        found.setdefault(task, []).append(load_evaluation(evaluation))
    return found


def collect(paths: Iterable[Path]) -> str:
    """Every row of the given evaluations as JSON lines, sorted by task, seed and model."""
    rows = [asdict(row) for path in paths for row in load_evaluation(path)["results"]]
    rows.sort(key=lambda row: (row["task"], row["seed"], row["model"]))
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def load_table(path: Path) -> pd.DataFrame:
    """`results.jsonl` as a table, one row per task, seed and model.

    Raises ValueError if the rows of a task were measured by more than one protocol: such numbers do not compare.
    """
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    table = pd.DataFrame(rows, columns=[field.name for field in fields(EvalResult)])
    for task, protocols in table.groupby("task").protocol.unique().items():
        if len(protocols) > 1:
            raise ValueError(f"{path}: task {task} was measured by {len(protocols)} protocols: {', '.join(protocols)}")
    return table


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or arguments[0] != "collect":
        sys.exit("usage: python -m i2i_lib.results collect OUT EVAL...")
    atomic_write(Path(arguments[1]), collect(map(Path, arguments[2:])).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
