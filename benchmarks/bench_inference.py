"""Time of one picture: `python benchmarks/bench_inference.py`, about two minutes of a core.

ResNet-9 (the paper's "Original"), a narrow ResNet-9, the teacher, a student of the paper's smallest budget, and that
student fused, at 256 x 256 on one thread of a CPU, in PyTorch and in ONNX Runtime. Weights are random, since only time
matters here.

Every number of a table is from one run. The networks take turns, so that whatever else the machine does hits all, and
what is measured is the thread's own time, without its waiting for a core; medians. Each network runs in the memory
layout that suits it better. Freed memory is kept by the process, as the allocators recommended for inference do:
otherwise every network spends a tenth of its time on pages that it gave back a moment ago.
"""

import argparse
import os
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from i2i_book.runner.provenance import machine
from i2i_lib.checkpoint import build, save_generator
from i2i_lib.config import Norm, ResnetConfig, cat_teacher
from i2i_lib.export.onnx import export_onnx, session
from i2i_lib.fuse import fuse
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune
from i2i_lib.train.device import set_up

BUDGET = 2_600_000_000  # of Horse to Zebra, by the paper's count
SIZE = 256
ORT = ", ONNX Runtime"
GOAL = 0.6  # of the MACs ratio that the fused student's speed-up should reach at a batch of 1


def networks(norm: Norm) -> dict[str, Any]:
    """Name -> network in eval mode."""
    teacher = InceptionGenerator(cat_teacher(norm=norm))
    generator = torch.Generator().manual_seed(0)
    for part in teacher.modules():
        if isinstance(part, nn.InstanceNorm2d | nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.1, generator=generator)
    student = build(prune(teacher, BUDGET, image_size=SIZE).config).eval()
    nets = {
        "ResNet-9": ResnetGenerator(ResnetConfig(norm=norm)),
        "ResNet-9, base 16": ResnetGenerator(ResnetConfig(16, norm=norm)),
    }
    nets |= {"teacher": teacher, "student": student, "student, fused": fuse(student)}
    return {name: net.eval() for name, net in nets.items()}


def in_onnx_runtime(nets: dict[str, Any]) -> dict[str, InferenceSession]:
    """The student as it is exported, and ResNet-9 as PyTorch's own exporter writes it."""
    with TemporaryDirectory() as folder:
        save_generator(nets["student"], Path(folder) / "student")
        student = session(export_onnx(Path(folder) / "student").path)
        file = Path(folder) / "resnet.onnx"
        options = {"verbose": False, "external_data": False, "dynamic_shapes": {"x": {0: torch.export.Dim.DYNAMIC}}}
        torch.onnx.export(nets["ResNet-9"], (torch.zeros(2, 3, SIZE, SIZE),), file, dynamo=True, **options)
        return {"ResNet-9": session(file), "student": student}


def seconds(call: Callable[[], Any]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def in_better_layout(net: nn.Module, images: Tensor) -> tuple[Callable[[], Tensor], str]:
    """The forward pass in whichever layout is faster, and that layout's name."""
    trials = {}
    for layout, name in ((torch.contiguous_format, "NCHW"), (torch.channels_last, "NHWC")):
        net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        x = images[:1].to(memory_format=layout)
        net(x)  # the first call prepares
        trials[layout, name] = seconds(partial(net, x))
    layout, name = min(trials, key=lambda key: trials[key])
    net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    x = images.to(memory_format=layout)
    return lambda: net(x), name


def measure(norm: Norm, batch: int, rounds: int) -> None:
    """Print the table of one norm and batch size."""
    nets, images = networks(norm), torch.rand(batch, 3, SIZE, SIZE) * 2 - 1
    calls: dict[str, Callable[[], Any]] = {}
    layouts = {}
    for name, net in nets.items():
        calls[name], layouts[name] = in_better_layout(net, images)
    for name, running in in_onnx_runtime(nets).items():
        calls[f"{name}{ORT}"] = partial(running.run, None, {running.get_inputs()[0].name: images.numpy()})
        layouts[f"{name}{ORT}"] = "its own"
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            large = name in ("ResNet-9", "teacher", f"ResNet-9{ORT}")
            times[name] += [seconds(call) for _ in range(1 if large or batch > 1 else 3)]

    macs = {name: generator_macs(nets[name.removesuffix(ORT)].config, SIZE, "exact") for name in calls}
    table = pd.DataFrame({"layout": layouts, "G MACs": {n: m / 1e9 for n, m in macs.items()}})
    table["ms"] = [1e3 * median(times[name]) for name in calls]
    table["least ms"] = [1e3 * min(times[name]) for name in calls]
    # Each runtime's ResNet-9 is the measure of that runtime's networks.
    yardstick = [median(times["ResNet-9" + ORT * name.endswith(ORT)]) for name in calls]
    table["speed-up"] = [1e3 * t for t in yardstick] / table["ms"]
    table["MACs ratio"] = table["G MACs"]["ResNet-9"] / table["G MACs"]
    table["share of it"] = table["speed-up"] / table["MACs ratio"]
    print(f"\n{norm} norm, batch of {batch}, {rounds} rounds\n{table.to_string(float_format='{:.2f}'.format)}")
    if batch == 1:
        for name in ("student, fused", f"student{ORT}"):
            share = float(table["share of it"].to_dict()[name])
            verdict = "reached" if share >= GOAL else "missed"
            print(f"goal, {name}: {GOAL:.0%} of the MACs ratio, {verdict} with {share:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--norm", nargs="+", choices=["instance", "batch"], default=["instance"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    given = parser.parse_args()
    set_up(1)
    print(
        f"{date.today()}, {machine()['cpu']}, {SIZE} x {SIZE}, one thread, float32, torch {torch.__version__},"
        f" thread time, load {os.getloadavg()[0]:.1f}"
    )
    with torch.inference_mode():
        for norm in given.norm:
            for batch in given.batch:
                measure(norm, batch, rounds=5 if batch == 1 else 1)


if __name__ == "__main__":
    main()
