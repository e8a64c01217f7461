"""The work of a step, counted without numbers, is that of a step with numbers; time follows from it."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import DISCRIMINATORS, GENERATORS, TEACHERS, batches, distiller, trainer

from i2i_book import estimate
from i2i_book.estimate import Work, count_step, estimates
from i2i_lib.checkpoint import build
from i2i_lib.data.tiles import Batch
from i2i_lib.train import adversarial, distill
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer

CONFIG = TrainConfig(steps=4, distill=1.0)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Passes that are counted are a GPU's, which nobody rewrites."""
    for module in (adversarial, distill):
        monkeypatch.setattr(module, "on_cpu", lambda network: False)


def flops(trainer: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        trainer.step(next(batches()(0)))
    return counter.get_total_flops()


def test_counted_work_is_that_of_a_real_step(as_on_a_gpu):
    configs: list[Any] = [GENERATORS["pix2pix"], DISCRIMINATORS["pix2pix"]]

    def make(n: int = 4) -> tuple[Any, Batch]:
        batch = Batch(torch.zeros(n, 3, 16, 16), torch.zeros(n, 3, 16, 16))
        return PairedTrainer(build(configs[0]), build(configs[1]), CONFIG), batch

    few, many = count_step(make), count_step(lambda: make(8))
    assert 2 * few.macs == flops(trainer("pix2pix", CONFIG))
    # Weights, their gradients and Adam's two moments for each, which the batch does not change; the rest grows with it.
    numbers = sum(p.numel() for config in configs for p in build(config).parameters())
    assert few.peak > 4 * 3 * numbers and few.peak < many.peak < 2 * few.peak


def test_a_student_is_counted_with_its_teacher(as_on_a_gpu):
    configs: list[Any] = [GENERATORS["pix2pix"], TEACHERS["pix2pix"], DISCRIMINATORS["pix2pix"]]
    images = (4, 3, 16, 16)

    def make() -> tuple[Any, Batch]:
        student, teacher, discriminator = map(build, configs)
        batch = Batch(torch.zeros(images), torch.zeros(images))
        return PairedDistiller(student, teacher, discriminator, CONFIG), batch

    counted = count_step(make)
    assert 2 * counted.macs == flops(distiller("pix2pix", CONFIG))


def test_a_preset_is_estimated_by_its_own_numbers(monkeypatch):
    """Its steps, sizes and students; each kind of step is counted once."""
    asked = []

    def counted(make: Any) -> Work:
        trainer, batch = make()
        asked.append((type(trainer).__name__, batch.source.shape[0], batch.source.shape[-1]))
        return Work(500 * 10**9, 2**30)

    monkeypatch.setattr(estimate, "count_step", counted)
    rows = {row.network: row for row in estimates("gpu", "openmoji")}
    settings = estimate.load_preset("gpu")
    assert list(rows) == ["teacher", "original", *settings["arms"]]
    assert rows["teacher"].steps == settings["notebooks"]["02-search-space"]["steps"]
    assert rows["gcka"].steps == settings["notebooks"]["04-distillation"]["steps"]
    assert rows["gcka"].hours(50) == pytest.approx(rows["gcka"].steps * 1e12 / 50e12 / 3600)
    kinds = 3  # of students: alignment, squared error, nothing
    assert asked == [("PairedTrainer", 16, 128)] * 2 + [("PairedDistiller", 16, 128)] * kinds
