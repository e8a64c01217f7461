"""How fast training is, choice by choice: `python benchmarks/bench_train.py`, about two minutes of a core.

The baseline is a loop that a competent user would write: float32, channels first, PyTorch's default Adam, features
caught by hooks, a DataLoader that decodes files, every loss read at every step; the teacher frozen and under `no_grad`.
Each line changes one thing in it; the last is this library's trainer, which makes all the choices. Networks, batches
and losses are those of chapters 2 (the teacher) and 4 (the student, by GCKA) at the preset's size.

Every number of a table is from one run. The loops take turns, so that whatever else the machine does hits all, and on
a CPU what is measured is the thread's own time, without its waiting for a core; on a GPU, that of the clock. A ratio is
the median over rounds of the baseline's time over that of its neighbour in the same round. Freed memory is kept by the
process, as a process with one loop in it does by itself; among many, some would pay for pages that others gave back.
"""

import argparse
import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from i2i_book.presets import load_preset, preset_parameters
from i2i_book.runner.notebook import notebook_parameters
from i2i_book.runner.provenance import machine
from i2i_book.runs import root
from i2i_lib.checkpoint import build as build_network
from i2i_lib.checkpoint import save_generator, save_plan
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Batch, Task, to_batch
from i2i_lib.layers import init_weights
from i2i_lib.losses import hinge_d, hinge_g, kernel_alignment
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune, random_scales
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.device import set_up
from i2i_lib.train.recipe import Recipe, build

GOAL = 1.5  # times the baseline's images per second, on a CPU
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@dataclass(frozen=True, slots=True)
class Choices:
    """What sets one loop apart from another; the defaults are the baseline's."""

    fused: bool = False
    channels_last: bool = False
    bf16: bool = False
    returned: bool = False  # features returned by the forward pass, not caught by hooks
    teacher_graph: bool = False  # the teacher neither frozen nor under `no_grad`: its graph is recorded, and dropped
    tensors: bool = False  # pictures stay in memory and are augmented as a batch
    summed: bool = False  # losses are summed on the device and read every 50 steps
    deterministic: bool = False
    filled: bool = False  # as PyTorch does by default where kernels must be deterministic


ALONE = {
    "fused Adam": Choices(fused=True),
    "channels last": Choices(channels_last=True),
    "bf16": Choices(bf16=True),
    "bf16 and channels last": Choices(bf16=True, channels_last=True),
    "features returned": Choices(returned=True),
    "teacher's graph recorded": Choices(teacher_graph=True),
    "pictures as tensors": Choices(tensors=True),
    "losses summed on the device": Choices(summed=True),
    "deterministic": Choices(deterministic=True, filled=True),
    "deterministic, memory not filled": Choices(deterministic=True),
}
OF_STUDENTS = ("features returned", "teacher's graph recorded")
BASELINE, LIBRARY, COMPILED = "baseline", "this library", "this library, compiled"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained, a teacher or a student of one, and where its files are."""

    task: Task
    folder: Path  # of the data, the teacher, the plan, and of the training pairs side by side, a file each
    recipe: Recipe

    @property
    def size(self) -> int:
        return self.task.test.size

    def build(self, seed: int, **training: Any) -> tuple[Any, Callable[[int], Iterator[Batch]]]:
        """The library's trainer and batches; the weights are random: only time matters, except in `final_losses`."""
        recipe = replace(self.recipe, seed=seed, training=replace(self.recipe.training, **training))
        trainer, batches, _ = build(recipe, self.folder, self.task, DEVICE)
        return trainer, batches


def settings(preset: str, folder: Path) -> dict[str, Setting]:
    """The teacher and the student that a preset trains for `earth`."""
    chapters = {}
    for name in ("01-data", "02-search-space", "03-pruning", "04-distillation"):
        known = notebook_parameters(root() / "notebooks" / f"{name}.ipynb")
        defaults = {key: default for key, (_, default) in known.items()}
        chapters[name] = defaults | preset_parameters(load_preset(preset), name, "earth")
    data, first, cut, second = chapters.values()
    task = load_task("earth", image_size=data["image_size"], scale=data["scale"])
    save_task(task, folder / "data")
    for i, pair in enumerate(torch.cat([task.train.source, task.train.target], 3)[:500]):
        Image.fromarray(pair.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")

    config = replace(cat_teacher(first["base"], first["blocks"], first["norm"]), upsample=first["upsample"])
    budget = cut["share"] * generator_macs(config, task.test.size, "exact")
    teacher = build_network(config)
    init_weights(teacher, seed=0)
    save_generator(teacher, folder / "teacher")
    scales = random_scales(teacher, 0)
    save_plan(prune(teacher, budget, image_size=task.test.size, cost="exact", scales=scales), folder / "plan")
    judge = DiscriminatorConfig(6, first["disc_base"], first["disc_layers"], first["disc_norm"] or first["norm"])

    def recipe(given: dict[str, Any], generator: Any, teacher: str | None) -> Recipe:
        chosen: dict[str, Any] = {f.name: given[f.name] for f in fields(TrainConfig) if f.name in given}
        chosen["decay_from"] = 1.0
        return Recipe("data", generator, judge, TrainConfig(**chosen), given["batch_size"], teacher=teacher)

    return {
        "teacher": Setting(task, folder, recipe(first, config, None)),
        "student": Setting(task, folder, recipe(second, "plan", "teacher")),
    }


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """The usual data set of pix2pix: a file is decoded, cut in half, cropped, mirrored and scaled, one at a time."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.glob("*.png")), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.array(Image.open(self.paths[index]).convert("RGB"))).permute(2, 0, 1)
        side = pixels.shape[1]
        top, left = torch.randint(side - self.size + 1, (2,)).tolist()
        mirrored = bool(torch.rand(()) < 0.5)
        halves = (half[:, top : top + self.size, left : left + self.size] for half in pixels.split(side, 2))
        source, target = (half.flip(2) if mirrored else half for half in halves)
        return source.float() / 127.5 - 1, target.float() / 127.5 - 1


def decoded(setting: Setting, seed: int) -> Iterator[Batch]:
    """Batches of a DataLoader: in workers where there is a GPU to feed, else in the one thread that there is."""
    shuffled = torch.Generator().manual_seed(seed)
    workers: dict[str, Any] = {"num_workers": 4, "persistent_workers": True, "pin_memory": True} if CUDA else {}
    pairs = Pairs(setting.folder, setting.size)
    batch_size = setting.recipe.batch_size
    loader = DataLoader(pairs, batch_size, shuffle=True, drop_last=True, generator=shuffled, **workers)
    while True:
        for source, target in loader:
            yield Batch(source.to(DEVICE, non_blocking=True), target.to(DEVICE, non_blocking=True))


class UsualLoop:
    """pix2pix, or a student's distillation, as it is usually written; `choices` change one thing or another."""

    def __init__(self, setting: Setting, choices: Choices, seed: int = 0) -> None:
        self.choices, self.training = choices, setting.recipe.training
        trainer, batches = setting.build(seed)
        self.generator, self.judge = trainer.generator, trainer.discriminator
        self.teacher = getattr(trainer, "teacher", None)
        layout = torch.channels_last if choices.channels_last else torch.contiguous_format
        for net in filter(None, (self.generator, self.judge, self.teacher)):
            net.to(memory_format=layout)
        if self.teacher:
            self.teacher.requires_grad_(choices.teacher_graph)
        self.caught: dict[nn.Module, list[Tensor]] = {}
        if self.teacher and not choices.returned:
            for net in (self.generator, self.teacher):
                self._catch(net)
        self.opt_g, self.opt_d = (
            torch.optim.Adam(net.parameters(), self.training.lr, (0.5, 0.999), fused=choices.fused or None)
            for net in (self.generator, self.judge)
        )
        average = get_ema_multi_avg_fn(self.training.average)
        self.average = AveragedModel(self.generator, multi_avg_fn=average) if self.training.average else None
        self.batches = batches(0) if choices.tensors else decoded(setting, seed)
        self.sums: dict[str, Any] = {}
        self.read: dict[str, float] = {}
        self.count = 0

    def _catch(self, net: Any) -> None:
        caught = self.caught[net] = []
        for tap in (net.stem, *(net.blocks[i - 1] for i in net.config.taps)):
            tap.register_forward_hook(lambda module, given, made: caught.append(made))

    def _draw(self, net: Any, source: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.choices.returned:
            image, features = net.forward_features(source)
            return image, list(features)
        if net not in self.caught:
            return net(source), []
        self.caught[net].clear()
        return net(source), list(self.caught[net])

    def step(self) -> None:
        c = self.choices
        batch = next(self.batches)
        source, target = batch.source, batch.target
        cast = torch.autocast(DEVICE.type, torch.bfloat16) if c.bf16 else nullcontext()
        with cast:
            wanted = []
            if self.teacher:
                with torch.set_grad_enabled(c.teacher_graph):
                    wanted = self._draw(self.teacher, source)[1]
            fake, features = self._draw(self.generator, source)
            fake = fake.float()
            self.judge.requires_grad_(True)
            loss_d = hinge_d(
                self.judge(torch.cat([source, target], 1)), self.judge(torch.cat([source, fake.detach()], 1))
            )
        self.opt_d.zero_grad()
        loss_d.backward()
        self.opt_d.step()
        self.judge.requires_grad_(False)
        with cast:
            gan = hinge_g(self.judge(torch.cat([source, fake], 1)))
        losses = {"gan": gan, "recon": self.training.recon * nn.functional.l1_loss(fake, target)}
        if self.teacher:
            alike = [kernel_alignment(f, w.detach()) for f, w in zip(features, wanted, strict=True)]
            losses["distill"] = self.training.distill * torch.stack([1 - value for value in alike]).sum()
        self.opt_g.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.opt_g.step()
        if self.average:
            self.average.update_parameters(self.generator)
        self.count += 1
        self._report({"d": loss_d.detach()} | {name: loss.detach() for name, loss in losses.items()})

    def _report(self, losses: dict[str, Tensor]) -> None:
        if self.choices.summed:
            self.sums = {name: self.sums.get(name, 0.0) + loss for name, loss in losses.items()}
        if self.count % 50 == 0 or not self.choices.summed:
            self.read = {name: float(loss) for name, loss in (self.sums or losses).items()}
            self.sums = {}

    def result(self) -> nn.Module:
        """The averaged generator with batch-norm statistics of its own, gathered as the library gathers them."""
        latest = self.average.module if self.average else self.generator
        torch.optim.swa_utils.update_bn((next(self.batches).source for _ in range(20)), latest)
        return latest.eval()


class LibraryLoop:
    """The library's own trainer, batches and running sums of losses."""

    def __init__(self, setting: Setting, *, compiled: bool = False, seed: int = 0) -> None:
        self.trainer, self.source = setting.build(seed, compiled=compiled)
        self.batches = self.source(0)
        self.sums: dict[str, Tensor] = {}

    def step(self) -> None:
        losses = self.trainer.step(next(self.batches))
        self.sums = {name: self.sums[name] + loss for name, loss in losses.items()} if self.sums else losses

    def result(self) -> nn.Module:
        return self.trainer.result(self.source, 20)


def deterministic(on: bool, filled: bool) -> None:
    torch.use_deterministic_algorithms(on)
    torch.utils.deterministic.fill_uninitialized_memory = filled  # pyright: ignore[reportAttributeAccessIssue]


def seconds(call: Callable[[], Any]) -> float:
    """The thread's own time on a CPU, the clock's on a GPU."""
    if CUDA:
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.thread_time()
    call()
    return time.thread_time() - started


def peaks() -> dict[str, float]:
    """MACs a second of a matrix product in each precision, and bytes a second of a copy (read and written)."""
    n = 8192 if CUDA else 1024
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=DEVICE).to(dtype) for _ in range(2))
        torch.mm(a, b)
        found[name] = n**3 / min(seconds(lambda a=a, b=b: torch.mm(a, b)) for _ in range(7))
    data = torch.zeros(2**28 if CUDA else 2**25, device=DEVICE)
    copy = torch.empty_like(data)
    found["copy"] = 2 * data.nbytes / min(seconds(lambda: copy.copy_(data)) for _ in range(7))
    return found


def work(setting: Setting) -> tuple[float, float]:
    """MACs of one picture's step, and the floats that its layers must at least read and write.

    A generator that learns costs its forward pass three times, a frozen teacher once. The discriminator judges two
    pictures and learns from them, and then a third, from which only the picture does: 3 + 3 + 2.
    """
    trainer, _ = setting.build(0)
    generator, judge, teacher = trainer.generator, trainer.discriminator, getattr(trainer, "teacher", None)
    picture = torch.zeros(1, 3, setting.size, setting.size, device=DEVICE)
    pair = torch.cat([picture, picture], 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        judge.eval()(pair)
    macs = 3 * generator_macs(generator.config, setting.size, "exact") + 8 * counted.get_total_flops() / 2
    floats = 3 * moved(generator, picture) + 8 * moved(judge, pair)
    if teacher:
        macs += generator_macs(teacher.config, setting.size, "exact")
        floats += moved(teacher, picture)
    return macs, floats


def moved(net: nn.Module, x: Tensor) -> int:
    """Elements that the layers of a forward pass read and write, if each were one kernel and none were joined."""
    total = 0

    def count(layer: nn.Module, given: Any, made: Tensor) -> None:
        nonlocal total
        total += given[0].numel() + made.numel()

    handles = [layer.register_forward_hook(count) for layer in net.modules() if not list(layer.children())]
    with torch.no_grad():
        net.eval()(x)
    for handle in handles:
        handle.remove()
    return total


def measure(what: str, setting: Setting, rounds: int, *, compiled: bool) -> None:
    """Print the table of one training."""
    loops: dict[str, Any] = {BASELINE: UsualLoop(setting, Choices())}
    chosen = {name: c for name, c in ALONE.items() if setting.recipe.teacher or name not in OF_STUDENTS}
    loops |= {name: UsualLoop(setting, choices) for name, choices in chosen.items()}
    loops[LIBRARY] = LibraryLoop(setting)
    if compiled:
        loops[COMPILED] = LibraryLoop(setting, compiled=True)
    modes = {name: (c.deterministic, c.filled) for name, c in chosen.items()} | {BASELINE: (False, False)}
    times: dict[str, list[float]] = {name: [] for name in loops}
    steps = 20 if CUDA else 1
    for i in range(rounds + 1):  # the first warms up
        for name, loop in loops.items():
            deterministic(*modes.get(name, (not CUDA, False)))  # as `set_up` leaves it for the library's loops
            spent = seconds(lambda loop=loop: [loop.step() for _ in range(steps)])
            if i:
                times[name].append(spent / steps)
    deterministic(False, False)

    table = pd.DataFrame({"ms a step": {name: 1e3 * median(spent) for name, spent in times.items()}})
    table["images/s"] = 1e3 * setting.recipe.batch_size / table["ms a step"]
    shares = {name: [b / t for b, t in zip(times[BASELINE], spent, strict=True)] for name, spent in times.items()}
    table["speed-up"] = [median(ratios) for ratios in shares.values()]
    quartiles = [quantiles(ratios, n=4) for ratios in shares.values()]
    table["its quartiles"] = [f"{q[0]:.2f} to {q[2]:.2f}" for q in quartiles]
    print(f"\n{what}, batches of {setting.recipe.batch_size} at {setting.size} px, {rounds} rounds of {steps}")
    print(table.to_string(float_format="{:.2f}".format))
    reached = "reached" if median(shares[LIBRARY]) >= GOAL else "missed"
    print(f"goal: {GOAL} times the baseline's images per second, {reached} with {median(shares[LIBRARY]):.2f}")

    macs, floats = work(setting)
    best = peaks()
    for name, precision in ((BASELINE, "fp32"), (LIBRARY, setting.recipe.training.precision)):
        rate = float(table["images/s"].to_dict()[name])
        size = 4 if precision == "fp32" else 2
        print(
            f"{name}: {macs / 1e6:.0f} M MACs a picture, {rate * macs / 1e9:.1f} G a second,"
            f" {rate * macs / best[precision]:.0%} of a matrix product's {best[precision] / 1e9:.1f} G in {precision};"
            f" {floats / 1e6:.1f} M values moved a picture, {rate * floats * size / best['copy']:.0%} of a copy's"
            f" {best['copy'] / 1e9:.1f} GB/s",
            flush=True,
        )


def final_losses(setting: Setting, steps: int, seeds: int = 3) -> None:
    """Train baseline and library from each seed; the L1 distance of their results on test tiles, in [-1, 1] units."""
    training = replace(setting.recipe.training, steps=steps)
    setting = replace(setting, recipe=replace(setting.recipe, training=training))
    batch = to_batch(setting.task.test, slice(0, 200))
    made: dict[str, Callable[[int], Any]] = {
        BASELINE: lambda seed: UsualLoop(setting, Choices(), seed),
        LIBRARY: lambda seed: LibraryLoop(setting, seed=seed),
    }
    found: dict[str, list[float]] = {name: [] for name in made}
    for seed in range(seeds):
        for name, make in made.items():
            deterministic(name == LIBRARY and not CUDA, False)
            loop = make(seed)
            for _ in range(steps):
                loop.step()
            with torch.no_grad():
                image = loop.result()(batch.source.to(DEVICE)).float().cpu()
            found[name].append(nn.functional.l1_loss(image, batch.target).item())
            print(f"{name}, seed {seed}: test L1 {found[name][-1]:.4f} after {steps} steps", flush=True)
    apart = mean(found[LIBRARY]) - mean(found[BASELINE])
    spread = mean(stdev(values) for values in found.values())
    verdict = "within" if abs(apart) <= spread else "outside"
    print(
        f"library minus baseline, mean of {seeds} seeds: {apart:+.4f}, {verdict} one deviation of seeds, {spread:.4f}"
    )


def memory(setting: Setting, steps: int) -> None:
    """Train with the library; how much the process has grown since the first tenth of the steps."""
    deterministic(not CUDA, False)
    loop, marks = LibraryLoop(setting), []
    for i in range(1, steps + 1):
        loop.step()
        if i % max(steps // 10, 1) == 0:
            used = torch.cuda.max_memory_allocated() / 2**20 if CUDA else _resident()
            marks.append(used)
            print(f"step {i:,}: {used:.0f} MiB", flush=True)
    print(f"peak memory grew by {max(marks) - marks[0]:.1f} MiB from step {max(steps // 10, 1):,} to step {steps:,}")


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # the largest so far, in KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="cpu", help="whose sizes and loss weights")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=["teacher", "student"])
    parser.add_argument("--compile", action="store_true", help="also compiled networks: minutes more")
    parser.add_argument("--losses", type=int, metavar="STEPS", help="instead: do both train equally well? 3 seeds")
    parser.add_argument("--memory", type=int, metavar="STEPS", help="instead: does the process grow?")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):  # another C library than glibc
        for option in (-1, -3):  # when to give memory back: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            ctypes.CDLL(None).mallopt(option, 2**30)
    if CUDA:
        set_up(1, "fp32")
    where = torch.cuda.get_device_name() if CUDA else f"one thread of {machine()['cpu']}"
    clock = "the clock's" if CUDA else "the thread's own"
    print(f"{date.today()}, {where}, torch {torch.__version__}, preset {given.preset}, {clock} time,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f}")
    with TemporaryDirectory() as files:
        for what, setting in settings(given.preset, Path(files)).items():
            if given.only not in (None, what):
                continue
            if given.losses:
                final_losses(setting, given.losses)
            elif given.memory:
                memory(setting, given.memory)
            else:
                measure(what, setting, given.rounds, compiled=given.compile)


if __name__ == "__main__":
    main()
