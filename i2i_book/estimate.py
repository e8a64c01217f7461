"""An estimate of what a preset's trainings take on a GPU, before there is one.

    python -m i2i_book.estimate PRESET TASK [TFLOPS]

The work of a step and the memory of its tensors are counted on networks without numbers, of the preset's own sizes
(see `i2i_lib.train.memory`), which takes up to a minute for each. Time is this work at a supposed speed of TFLOPS, by
default 50, a fraction of what a recent GPU could do at most: small kernels wait for each other. A GPU also needs memory
for the kernels' own workspace. Students have widths of uniform narrowing, since no teacher has ranked its channels yet.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from i2i_book.chapters import GENERATORS, made_by
from i2i_book.plan import Plan
from i2i_book.presets import FAMILIES, family, load_preset, variants
from i2i_book.runner.notebook import chapter_parameters
from i2i_lib.checkpoint import build
from i2i_lib.commands import one_line_errors
from i2i_lib.config import (
    DiscriminatorConfig,
    MultiscaleDiscriminatorConfig,
    ResnetConfig,
    SpadeResnetConfig,
    cat_spade_teacher,
    cat_teacher,
)
from i2i_lib.data.tiles import Batch
from i2i_lib.macs import generator_macs, nearest_mobile_resnet
from i2i_lib.prune import prune, uniform_scales
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.cyclegan import UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.gaugan import SpadeDistiller, SpadeTrainer
from i2i_lib.train.memory import fake_tensors, peak_memory
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer
from i2i_lib.train.vgg import Vgg19Features

TRAINERS = {
    "pix2pix": (PairedTrainer, PairedDistiller),
    "cyclegan": (UnpairedTrainer, UnpairedDistiller),
    "gaugan": (SpadeTrainer, SpadeDistiller),
}
_Make = Callable[[], tuple[Any, Batch]]  # a trainer and a batch, both without numbers
LABELS = {"cityscapes": 36, "earth-labels": 12}  # channels of an encoded label map


@dataclass(frozen=True, slots=True)
class Work:
    """What one training step takes, forwards, backwards and updates."""

    macs: int  # products of convolutions and matrices, half of what PyTorch's counter of FLOPs says
    peak: int  # bytes of all tensors that live at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one training takes."""

    network: str  # one of `GENERATORS`, or a student's name
    steps: int
    work: Work  # of a step

    def hours(self, tflops: float) -> float:
        """Time at a speed of `tflops`, of which a product and its sum are two."""
        return 2 * self.work.macs * self.steps / (1e12 * tflops) / 3600


def estimates(
    preset: str, task: str, count: Callable[[_Make], Work] | None = None, **changes: Any
) -> Iterator[Estimate]:
    """The estimate of every training of a task, by `count` (see `count_step`), some notebooks' parameters changed.

    Raises ValueError for an unknown preset or task.
    """
    settings = load_preset(preset)
    if task not in FAMILIES:
        raise ValueError(f"unknown task {task!r}: expected one of {', '.join(FAMILIES)}")

    def of(chapter: str, variant: str | None = None) -> dict[str, Any]:
        return chapter_parameters(settings, chapter, task, variant) | changes

    arms, generators = variants(settings, task)
    counter = _Counter(family(settings, task), task, of("01-data"), count or count_step)
    taught = of("02-search-space")
    for name in generators:
        work = counter.teacher(_generator(counter, taught, name), taught)
        steps = Plan(preset, task).steps_together(task) if name == "longer" else taught["steps"]
        yield Estimate(GENERATORS[name], steps, work)
    teacher = _generator(counter, taught, "inception")
    cut = of(made_by("plan", counter.kind))
    for arm in arms:
        own = of("04-distillation", arm)
        work = counter.student(_student(teacher, cut, own), teacher, taught, own)
        yield Estimate(arm, round(own["longer"] * own["steps"]), work)


def count_step(make: _Make) -> Work:
    """The work of a step of the trainer that `make` returns, with a batch for it, both without numbers."""
    with fake_tensors():
        trainer, batch = make()
        with FlopCounterMode(display=False) as counter:
            peak = peak_memory(lambda: trainer.step(batch))  # of two steps
    return Work(counter.get_total_flops() // 4, peak)


class _Counter:
    """Counts steps on the batches of a task; those that take the same only once."""

    def __init__(self, kind: str, task: str, data: dict[str, Any], count: Callable[[_Make], Work]) -> None:
        self.kind, self.count = kind, count
        self.labels = LABELS.get(task, 0)
        side = min(data["crop"] or data["image_size"], data["image_size"])
        self.shape = (side, 2 * side if task == "cityscapes" and kind == "gaugan" else side)
        self._known: dict[Any, Work] = {}

    def teacher(self, config: Any, given: dict[str, Any]) -> Work:
        judge = self._judge(given)
        configs = [config, config, judge, judge] if self.kind == "cyclegan" else [config, judge]
        return self._count(TRAINERS[self.kind][0], configs, given, [])

    def student(self, config: Any, teacher: Any, taught: dict[str, Any], own: dict[str, Any]) -> Work:
        return self._count(TRAINERS[self.kind][1], [config, teacher, self._judge(taught)], own, [own["index"]])

    def _judge(self, given: dict[str, Any]) -> Any:
        if self.kind == "gaugan":
            return MultiscaleDiscriminatorConfig(self.labels + 3, given["disc_base"], given["disc_layers"])
        channels, norm = 6 if self.kind == "pix2pix" else 3, given["disc_norm"] or given["norm"]
        return DiscriminatorConfig(channels, given["disc_base"], given["disc_layers"], norm)

    def _count(self, trainer: Any, configs: list[Any], given: dict[str, Any], index: list[str]) -> Work:
        precision = "bf16" if given["precision"] == "auto" else given["precision"]
        saving = {name: given[name] for name in ("recompute", "micro_batch")}
        training = TrainConfig(given["steps"], precision=precision, shard=given.get("shard", 0), **saving)
        n, channels = given["batch_size"], self.labels if self.kind == "gaugan" else 3
        seen = self.kind == "gaugan" and given["perceptual"] == "vgg19"
        key = trainer, *configs, training, n, seen, *index

        def make() -> tuple[Any, Batch]:
            options = {"perceptual": Vgg19Features(None)} if seen else {}
            batch = Batch(torch.zeros(n, channels, *self.shape), torch.zeros(n, 3, *self.shape))
            return trainer(*map(build, configs), training, *index, **options), batch

        if key not in self._known:
            self._known[key] = self.count(make)
        return self._known[key]


def _generator(counter: _Counter, given: dict[str, Any], name: str) -> Any:
    if counter.kind == "gaugan":
        labelled = (given["base"], counter.labels, given["upsamplings"], given["norm"], given["label_width"])
        return SpadeResnetConfig(*labelled) if name == "resnet" else cat_spade_teacher(*labelled)
    if name != "resnet":
        return replace(cat_teacher(given["base"], given["blocks"], given["norm"]), upsample=given["upsample"])
    return ResnetConfig(given["base"], given["blocks"], given["norm"], upsample=given["upsample"])


def _student(teacher: Any, cut: dict[str, Any], own: dict[str, Any]) -> Any:
    """A teacher narrowed alike to chapter 3's budget, times the student's own, or another network of that cost."""
    network, side = build(teacher), cut["image_size"]
    ranking, all_of_it = uniform_scales(network), generator_macs(teacher, side, "exact")
    options: dict[str, Any] = {"image_size": side, "min_width": own["min_width"] or cut.get("min_width") or None}
    if not own["budget"]:  # the least: one scale for all
        level = {name: [0.0] * len(scales) for name, scales in ranking.items()}
        return prune(network, all_of_it - 1, cost="exact", scales=level, **options).config
    if cut["paper_budget"]:
        student = prune(network, own["budget"] * 1e9 * cut["paper_budget"], scales=ranking, **options).config
    else:
        most = own["budget"] * cut["share"] * all_of_it
        student = prune(network, most, cost="exact", scales=ranking, **options).config
    if own["network"] == "mobile":
        return nearest_mobile_resnet(teacher, generator_macs(student, side, "exact"), side)
    return student


@one_line_errors
def main(preset: str, task: str, tflops: str = "50") -> int:
    """Print the estimates."""
    speed, total = float(tflops), 0.0
    print(f"An estimate by counted work, at a supposed {speed:g} TFLOP/s; nothing was timed.")
    print(f"{'network':16}{'steps':>10}{'TFLOP a step':>15}{'hours':>8}{'tensors (GiB)':>15}")
    for row in estimates(preset, task):
        hours = row.hours(speed)
        total += hours
        work, memory = 2 * row.work.macs / 1e12, row.work.peak / 2**30
        print(f"{row.network:16}{row.steps:>10,}{work:>15.2f}{hours:>8.2f}{memory:>15.1f}", flush=True)
    print(f"{'all, in turn':16}{'':>25}{total:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
