"""Speed of training, choice by choice: `python benchmarks/bench_train.py`, about two minutes of a core.

The baseline is a loop that a competent user would write: float32, channels first, PyTorch's default Adam, a DataLoader
that decodes files, every loss read at every step; the teacher frozen and under `no_grad`. Each line changes one thing
in it; the last two are this library's trainer, which makes all the choices, in this processor's faster arithmetic and
in float32. Networks, batches and losses are those that a preset sets for the teacher and the student (by GCKA) of
`earth`.

Every number of a table is from one run. The loops take turns, so that whatever else the machine does hits all, and on
a CPU what is measured is the thread's own time, without its waiting for a core; on a GPU, that of the clock. A ratio is
the median over rounds of the baseline's time over that of its neighbour in the same round. Freed memory is kept by the
process, as a process with one loop in it does by itself; among many, some would pay for pages that others gave back.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_image
from torchvision.transforms.v2 import Compose, RandomCrop, RandomHorizontalFlip

from i2i_book.presets import load_preset
from i2i_book.runner.notebook import chapter_parameters
from i2i_book.runner.provenance import machine
from i2i_lib.checkpoint import build as build_network
from i2i_lib.checkpoint import load_generator, load_info, save_generator, save_plan
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
from i2i_lib.train.precision import settle
from i2i_lib.train.recipe import Recipe, build

GOAL = 1.5  # times the baseline's images per second, on a CPU
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BASELINE, LIBRARY = "baseline", "this library"
LIBRARY_FLOAT32 = "this library, float32"  # as it trains where bfloat16 costs more than it gains
DETERMINISTIC = "deterministic, memory not filled"
# What sets a loop apart from the baseline; "and" joins two choices.
CHOICES = (
    "fused Adam",
    "channels last",
    "bf16",
    "bf16 and channels last",
    "pictures as tensors",  # they stay in memory and are augmented as a batch
    "losses summed on the device",  # and read every 50 steps
    DETERMINISTIC,
)
TEACHER_GRAPH = "teacher's graph recorded"  # of students: the teacher is neither frozen nor under `no_grad`


@dataclass(frozen=True, slots=True)
class Setting:
    """A training, of a teacher or a student of one, and the place of its files."""

    task: Task
    folder: Path  # of the data, the teacher, the plan, and of the training pairs side by side, a file each
    recipe: Recipe

    def build(self, seed: int) -> tuple[Any, Any]:
        """The library's trainer and batches."""
        return build(replace(self.recipe, seed=seed), self.folder, self.task, DEVICE)[:2]

    def in_float32(self) -> "Setting":
        training = replace(self.recipe.training, precision="fp32")
        return replace(self, recipe=replace(self.recipe, training=training))


def settings(preset: str, folder: Path) -> dict[str, Setting]:
    """The teacher and the student that a preset trains for `earth`; the teacher that distils has random weights."""
    chapters = ("01-data", "02-search-space", "03-pruning", "04-distillation")
    data, first, cut, second = (chapter_parameters(load_preset(preset), name, "earth") for name in chapters)
    asked = {name: data[name] for name in ("image_size", "crop", "validation", "scale")}
    task = load_task("earth", **asked)
    save_task(task, folder / "data")
    for i, pair in enumerate(torch.cat([task.train.source, task.train.target], 3)[:500]):
        Image.fromarray(pair.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")

    config = replace(cat_teacher(first["base"], first["blocks"], first["norm"]), upsample=first["upsample"])
    teacher = build_network(config)
    init_weights(teacher, seed=0)
    save_generator(teacher, folder / "teacher")
    size = task.test.size
    budget = cut["share"] * generator_macs(config, size, "exact")
    plan = prune(teacher, budget, image_size=size, cost="exact", scales=random_scales(teacher, 0))
    save_plan(plan, folder / "plan", provenance={"teacher": load_info(folder / "teacher")["sha256"]})
    discriminator = DiscriminatorConfig(
        6, first["disc_base"], first["disc_layers"], first["disc_norm"] or first["norm"]
    )

    def setting(given: dict[str, Any], generator: Any, teacher: str | None) -> Setting:
        chosen: dict[str, Any] = {field.name: given[field.name] for field in fields(TrainConfig) if field.name in given}
        precision = settle(given["precision"], folder / "recipe.json", folder / "precision.json", DEVICE)
        training = TrainConfig(**{**chosen, "decay_from": 1.0, "precision": precision})
        recipe = Recipe("data", generator, discriminator, training, given["batch_size"], teacher=teacher)
        return Setting(task, folder, recipe)

    return {"teacher": setting(first, config, None), "student": setting(second, "plan", "teacher")}


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """The usual data set of pix2pix: a file is decoded, cut in half, cropped, mirrored and scaled, one at a time."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths = sorted(folder.glob("*.png"))
        self.augment = Compose([RandomCrop(size), RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = decode_image(str(self.paths[index]))
        halves = self.augment(torch.cat(pixels.split(pixels.shape[1], 2)))  # [6, size, size]
        source, target = (halves.float() / 127.5 - 1).chunk(2)
        return source, target


def decoded(setting: Setting, seed: int) -> Iterator[Batch]:
    """Batches of a DataLoader: in workers where there is a GPU to feed, else in the one thread that there is."""
    shuffled = torch.Generator().manual_seed(seed)
    workers: dict[str, Any] = {"num_workers": 4, "persistent_workers": True, "pin_memory": True} if CUDA else {}
    pairs = Pairs(setting.folder, setting.task.crop)
    loader = DataLoader(pairs, setting.recipe.batch_size, shuffle=True, drop_last=True, generator=shuffled, **workers)
    while True:
        for source, target in loader:
            yield Batch(source.to(DEVICE, non_blocking=True), target.to(DEVICE, non_blocking=True))


class UsualLoop:
    """pix2pix, or a student's distillation, as it is usually written, but for the `choices`."""

    def __init__(self, setting: Setting, choices: str = BASELINE, seed: int = 0) -> None:
        self.choices, self.training = choices.split(" and "), setting.recipe.training
        trainer, batches = setting.build(seed)
        self.generator, self.discriminator = trainer.generator, trainer.discriminator
        home = setting.recipe.teacher
        self.teacher: Any = load_generator(setting.folder / home).to(DEVICE).eval() if home else None
        layout = torch.channels_last if "channels last" in self.choices else torch.contiguous_format
        for net in filter(None, (self.generator, self.discriminator, self.teacher)):
            net.to(memory_format=layout)
        if self.teacher:
            self.teacher.requires_grad_(TEACHER_GRAPH in self.choices)
        fused = "fused Adam" in self.choices or None
        self.opt_g, self.opt_d = (
            torch.optim.Adam(net.parameters(), self.training.lr, (0.5, 0.999), fused=fused)
            for net in (self.generator, self.discriminator)
        )
        average = get_ema_multi_avg_fn(self.training.average)
        self.average = AveragedModel(self.generator, multi_avg_fn=average) if self.training.average else None
        self.batches = batches(0) if "pictures as tensors" in self.choices else decoded(setting, seed)
        self.sums: dict[str, Any] = {}
        self.count = 0

    def step(self) -> None:
        batch = next(self.batches)
        source, target = batch.source, batch.target
        cast = torch.autocast(DEVICE.type, torch.bfloat16) if "bf16" in self.choices else nullcontext()
        with cast:
            wanted = ()
            if self.teacher:
                with torch.set_grad_enabled(TEACHER_GRAPH in self.choices):
                    _, wanted = self.teacher(source, features=True)
            fake, features = self.generator(source, features=True)
            fake = fake.float()
            self.discriminator.requires_grad_(True)
            real_scores = self.discriminator(torch.cat([source, target], 1))
            loss_d = hinge_d(real_scores, self.discriminator(torch.cat([source, fake.detach()], 1)))
        self.opt_d.zero_grad()
        loss_d.backward()
        self.opt_d.step()
        self.discriminator.requires_grad_(False)
        with cast:
            gan = hinge_g(self.discriminator(torch.cat([source, fake], 1)))
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
        if "losses summed on the device" in self.choices:
            losses = self.sums = {name: self.sums.get(name, 0.0) + loss for name, loss in losses.items()}
            if self.count % 50:
                return
        self.sums = {}
        for loss in losses.values():
            float(loss)

    def result(self) -> nn.Module:
        """The averaged generator with batch-norm statistics of its own, gathered as the library gathers them."""
        latest = self.average.module if self.average else self.generator
        update_bn((next(self.batches).source for _ in range(20)), latest)
        return latest.eval()


class LibraryLoop:
    """The library's own trainer, batches and running sums of losses."""

    def __init__(self, setting: Setting, seed: int = 0) -> None:
        self.trainer, self.source = setting.build(seed)
        self.batches = self.source(0)
        self.sums: dict[str, Tensor] = {}

    def step(self) -> None:
        losses = self.trainer.step(next(self.batches))
        self.sums = {name: self.sums[name] + loss for name, loss in losses.items()} if self.sums else losses

    def result(self) -> nn.Module:
        return self.trainer.result(self.source, 20)


def be_deterministic(name: str) -> None:
    """As `set_up` leaves it for the library's loop, or as the loop's choice is."""
    torch.use_deterministic_algorithms(name == DETERMINISTIC or (name in (LIBRARY, LIBRARY_FLOAT32) and not CUDA))
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def seconds(call: Callable[[], Any]) -> float:
    """The thread's own time on a CPU, the clock's on a GPU."""
    if not CUDA:
        started = time.thread_time()
        call()
        return time.thread_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(what: str, setting: Setting, rounds: int) -> None:
    """Print the table of one training."""
    names = [BASELINE, *CHOICES, *([TEACHER_GRAPH] if setting.recipe.teacher else [])]
    loops: dict[str, Any] = {name: UsualLoop(setting, name) for name in names}
    loops[LIBRARY] = LibraryLoop(setting)
    loops[LIBRARY_FLOAT32] = LibraryLoop(setting.in_float32())
    times: dict[str, list[float]] = {name: [] for name in loops}
    steps = 20 if CUDA else 1
    for i in range(rounds + 1):  # the first warms up
        for name, loop in loops.items():
            be_deterministic(name)
            spent = seconds(lambda loop=loop: [loop.step() for _ in range(steps)])
            if i:
                times[name].append(spent / steps)

    table = pd.DataFrame({"ms a step": {name: 1e3 * median(spent) for name, spent in times.items()}})
    table["images/s"] = 1e3 * setting.recipe.batch_size / table["ms a step"]
    ratios = {name: [b / t for b, t in zip(times[BASELINE], spent, strict=True)] for name, spent in times.items()}
    table["speed-up"] = [median(values) for values in ratios.values()]
    quartiles = [quantiles(values, n=4) for values in ratios.values()]
    table["its quartiles"] = [f"{q[0]:.2f} to {q[2]:.2f}" for q in quartiles]
    size = setting.task.crop
    print(f"\n{what}, batches of {setting.recipe.batch_size} at {size} px, {rounds} rounds of {steps}")
    print(table.to_string(float_format="{:.2f}".format))
    ratio = median(ratios[LIBRARY])
    reached = "reached" if ratio >= GOAL else "missed"
    print(f"goal: {GOAL} times the baseline's images per second, {reached} with {ratio:.2f}", flush=True)


def final_losses(setting: Setting, steps: int, seeds: int = 3) -> None:
    """Train baseline and library from each seed; the L1 distance of their results on test tiles, in [-1, 1] units."""
    training = replace(setting.recipe.training, steps=steps)
    setting = replace(setting, recipe=replace(setting.recipe, training=training))
    batch = to_batch(setting.task.test, slice(0, 200))
    found: dict[str, list[float]] = {BASELINE: [], LIBRARY: []}
    for seed in range(seeds):
        for name, values in found.items():
            be_deterministic(name)
            loop = LibraryLoop(setting, seed) if name == LIBRARY else UsualLoop(setting, seed=seed)
            for _ in range(steps):
                loop.step()
            with torch.no_grad():
                image = loop.result()(batch.source.to(DEVICE)).float().cpu()
            values.append(nn.functional.l1_loss(image, batch.target).item())
            print(f"{name}, seed {seed}: test L1 {values[-1]:.4f} after {steps} steps", flush=True)
    apart = mean(found[LIBRARY]) - mean(found[BASELINE])
    spread = mean(stdev(values) for values in found.values())
    verdict = "within" if abs(apart) <= spread else "outside"
    print(f"library minus baseline, mean of {seeds} seeds: {apart:+.4f}, {verdict} one deviation, {spread:.4f}")


def memory(setting: Setting, steps: int) -> None:
    """Train with the library; how much the process has grown since the first tenth of the steps."""
    be_deterministic(LIBRARY)
    loop, marks, tenth = LibraryLoop(setting), [], max(steps // 10, 1)
    for i in range(1, steps + 1):
        loop.step()
        if i % tenth == 0:
            kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the largest so far
            marks.append(torch.cuda.max_memory_allocated() / 2**20 if CUDA else kib / 2**10)
            print(f"step {i:,}: {marks[-1]:.0f} MiB", flush=True)
    print(f"peak memory grew by {max(marks) - marks[0]:.1f} MiB from step {tenth:,} to step {steps:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="cpu", help="whose sizes and loss weights")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=["teacher", "student"])
    parser.add_argument("--losses", type=int, metavar="STEPS", help="instead: do both train equally well? 3 seeds")
    parser.add_argument("--memory", type=int, metavar="STEPS", help="instead: does the process grow?")
    given = parser.parse_args()
    set_up(1)
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
                measure(what, setting, given.rounds)


if __name__ == "__main__":
    main()
