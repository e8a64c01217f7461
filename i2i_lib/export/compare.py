"""A student in every format: size, difference from PyTorch, distance to targets and time, side by side."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from i2i_lib.checkpoint import load_generator
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import encode
from i2i_lib.export.onnx import Precision, export_onnx, session
from i2i_lib.export.programs import export_pt2, export_pte, run_pt2, run_pte
from i2i_lib.export.speed import time_in_turn
from i2i_lib.metrics.pairs import l1, quantise

ONNX: dict[str, Precision] = {"ONNX fp32": "fp32", "ONNX fp16": "fp16", "ONNX int8": "int8"}
MOST = 48  # test pictures


def compare_formats(student: Path, data: Path) -> list[dict[str, Any]]:
    """Export the student saved at `student` in every format, for test pictures of the task saved at `data`.

    No file stays. Each row, of plain JSON: `format`, `bytes` of the file (None for PyTorch itself), `l1_to_pytorch`,
    the mean over `pictures` test pictures, `l1_to_target` where the task has pairs, and `ms` of one picture on one
    thread, by `time_in_turn`. ExecuTorch is left out where its package is not installed.
    """
    generator, task = load_generator(student), load_saved_task(data)
    sources = task.test.source[:MOST]
    targets = task.test.target[:MOST] if task.test.paired else None
    pictures = encode(sources, task.test.classes).split(1)
    with TemporaryDirectory() as folder:
        ways = _ways(student, data, Path(folder), pictures[0].shape[-2:])
    runs: dict[str, Callable[[Tensor], Tensor]] = {"PyTorch": generator} | {
        name: run for name, (run, _) in ways.items()
    }
    times = time_in_turn({name: lambda run=run: run(pictures[0]) for name, run in runs.items()})
    with torch.no_grad():
        made = {name: quantise(torch.cat([run(picture) for picture in pictures])) for name, run in runs.items()}
    rows = []
    for name in runs:
        row: dict[str, Any] = {"format": name, "bytes": ways[name][1] if name in ways else None, "ms": times[name]}
        row |= {"pictures": len(pictures), "l1_to_pytorch": l1(made[name], made["PyTorch"]).mean().item()}
        if targets is not None:
            row["l1_to_target"] = l1(made[name], targets).mean().item()
        rows.append(row)
    return rows


def about_int8(rows: list[dict[str, Any]]) -> str:
    """What int8 costs and gains against fp32 in the same runtime, in a sentence."""
    full, small = (next(row for row in rows if row["format"] == f"ONNX {kind}") for kind in ("fp32", "int8"))
    lost = f"its pictures are {small['l1_to_pytorch']:.4f} from PyTorch's in L1"
    if "l1_to_target" in small:
        lost += f", and {small['l1_to_target']:.4f} from the targets, where fp32's are {full['l1_to_target']:.4f}"
    times = f"{small['ms']:.2f} ms in place of {full['ms']:.2f}"
    if small["ms"] > 0.95 * full["ms"]:  # times of one machine scatter by a few percent
        return f"int8 is no faster on this processor, {times}, and {lost}: take fp32 here."
    return f"int8 is {full['ms'] / small['ms']:.1f} times as fast on this processor, {times}; {lost}."


def _ways(
    student: Path, data: Path, folder: Path, size: tuple[int, ...]
) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """Each format as a function of a picture, and the bytes of its file."""
    found: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {}
    for name, precision in ONNX.items():
        file = export_onnx(student, folder / f"{precision}.onnx", precision=precision, calibrate=data)
        running = session(file.path)
        found[name] = (
            lambda picture, running=running: torch.from_numpy(running.run(None, {"source": picture.numpy()})[0]),
            file.size,
        )
    program = export_pt2(student, folder / "student.pt2")
    found["torch.export"] = run_pt2(program.path.read_bytes()), program.size
    if find_spec("executorch") and size[0] == size[1]:
        program = export_pte(student, folder / "student.pte", size=size[0])
        found["ExecuTorch"] = run_pte(program.path.read_bytes()), program.size
    return found
