"""Results of evaluations: one row per model, gathered from every `eval.json` into one table.

`python -m i2i_lib.results collect OUT EVAL...` rebuilds the table; it is never appended to.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from i2i_lib.files import atomic_write, record_file, write_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One model of one task and seed, measured on the test tiles by one protocol. None: does not apply to it."""

    task: str
    seed: int
    model: str  # "floor", "look-up", "teacher", "original" or the name of a student's arm
    protocol: str  # numbers compare only within one id
    images: int
    blocks: int  # independent units among them: drawings, regions or pictures
    l1: float | None  # mean absolute distance to the target, images in [-1, 1]
    ssim: float | None
    feature_distance: float | None
    kd: float  # kernel distance to the targets, x 1000
    kd_low: float | None  # its 95 % interval over blocks; None for fewer than 5
    kd_high: float | None
    fd: float  # Fréchet distance to the targets
    miou: float | None = None  # of labels read back from the pictures, where sources are labels
    macs_paper: int | None = None
    macs_exact: int | None = None
    params: int | None = None
    peak_memory_mib: float | None = None
    steps: int | None = None
    train_seconds: float | None = None
    weights: str | None = None  # SHA-256 of the model's tensors
    data: str | None = None  # SHA-256 of the tiles


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the results as tables show it."""

    name: str  # the field of `EvalResult`
    label: str
    better: Literal["less", "more"] | None
    digits: int  # behind the point

    @property
    def heading(self) -> str:
        """The label with an arrow towards the better end: "L1 ↓"."""
        arrow = {"less": " ↓", "more": " ↑", None: ""}[self.better]
        return self.label + arrow

    def text(self, value: float) -> str:
        """The value with the measure's digits, thousands separated."""
        return f"{value:,.{self.digits}f}"


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("l1", "L1", "less", 3),
        Measure("ssim", "SSIM", "more", 3),
        Measure("feature_distance", "feature distance", "less", 3),
        Measure("miou", "mIoU", "more", 3),
        Measure("kd", "KD x 1000", "less", 1),
        Measure("kd_low", "95 % low", None, 1),
        Measure("kd_high", "95 % high", None, 1),
        Measure("fd", "FD", "less", 1),
        Measure("macs_exact", "MACs, exact", "less", 0),
        Measure("macs_paper", "MACs, paper", "less", 0),
        Measure("params", "parameters", "less", 0),
        Measure("peak_memory_mib", "MiB", "less", 1),
        Measure("steps", "steps", None, 0),
        Measure("train_seconds", "training (s)", "less", 0),
    )
}
PAIRED = ("l1", "ssim", "feature_distance")  # have a value for each picture whose target is known
QUALITY = (*PAIRED, "miou", "kd", "fd")
PRICES = ("macs_exact", "macs_paper", "params", "peak_memory_mib", "steps")
# Ways of running a network, as the table `speed` of an evaluation names them.
PLAIN, FUSED, RUNTIME = WAYS = ("PyTorch", "PyTorch, fused", "ONNX Runtime")
# Columns of format 1 that are no longer read: times on the wall, of one architecture as many as it had students.
RETIRED = ("latency_ms", "latency_p95_ms")


def size_text(shape: Sequence[int]) -> str:
    """A size [height, width] as it is written: the side of a square, or "height x width"."""
    return f"{shape[0]}" if shape[0] == shape[1] else f"{shape[0]} x {shape[1]}"


def save_evaluation(
    path: Path, results: Sequence[EvalResult], per_image: dict[str, dict[str, list[float]]], **facts: Any
) -> None:
    """Write `eval.json`: the rows, and the values per image {measure: {model: [N]}}, with 6 digits behind the point.

    `facts` are written beside them, such as `speed`, the table of `i2i_lib.export.speed`.
    """
    rounded = {
        measure: {model: [round(value, 6) for value in values] for model, values in models.items()}
        for measure, models in per_image.items()
    }
    write_json(path, {"format": 2, "results": [asdict(row) for row in results], "per_image": rounded, **facts})


def load_evaluation(path: Path) -> dict[str, Any]:
    """Read `eval.json`. Raises ValueError naming the file if it is not one."""
    try:
        content = json.loads(Path(path).read_text())
        rows = [{name: row[name] for name in row if name not in RETIRED} for row in content["results"]]
        results = [EvalResult(**row) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not an evaluation ({error}): delete it and evaluate again") from error
    return content | {"results": results}


def load_evaluations(table: Path) -> dict[str, list[dict[str, Any]]]:
    """The evaluations behind the rows of `results.jsonl`, by task and in order of seed."""
    path = Path(table)
    rows = sorted({(row["task"], row["seed"]) for row in map(json.loads, path.read_text().splitlines())})
    found: dict[str, list[dict[str, Any]]] = {}
    for task, seed in rows:
        evaluation = record_file("read", path.parent / task / f"seed{seed}" / "eval.json")
        found.setdefault(task, []).append(load_evaluation(evaluation))
    return found


def row_of(evaluation: Mapping[str, Any], model: str) -> EvalResult | None:
    """The row of a model in an evaluation, None if it was not evaluated."""
    return next((row for row in evaluation["results"] if row.model == model), None)


def collect(paths: Iterable[Path]) -> str:
    """Every row of the given evaluations, as it was written, as JSON lines sorted by task, seed and model."""
    rows = []
    for path in paths:
        load_evaluation(path)  # raises where it is none
        rows += json.loads(Path(path).read_text())["results"]
    rows.sort(key=lambda row: (row["task"], row["seed"], row["model"]))
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def load_table(path: Path) -> "pd.DataFrame":
    """`results.jsonl` as a table, one row per task, seed and model.

    Raises ValueError if the rows of a task do not compare: several protocols, or several sets of tiles.
    """
    import pandas as pd  # imported here: the rows themselves need no tables

    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    table = pd.DataFrame(rows, columns=[field.name for field in fields(EvalResult)])
    for column, what in (("protocol", "protocols"), ("data", "sets of tiles")):
        for task, found in table.groupby("task")[column].unique().items():
            if len(found) > 1:
                listed = ", ".join(map(str, found))
                raise ValueError(f"{path}: task {task} was measured with {len(found)} {what}: {listed}")
    return table


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or arguments[0] != "collect":
        sys.exit("usage: python -m i2i_lib.results collect OUT EVAL...")
    atomic_write(Path(arguments[1]), collect(map(Path, arguments[2:])).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
