"""The work of a step, counted without numbers, is that of a step with numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import DISCRIMINATORS, GENERATORS, LABELS, TEACHERS, TRAINERS, batches, distiller, trainer

from i2i_lib.checkpoint import build
from i2i_lib.data.tiles import Batch
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.pix2pix import PairedDistiller
from i2i_lib.train.work import count_step

CONFIG = TrainConfig(steps=4, distill=1.0)


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan", "gaugan"])
def test_counted_work_is_that_of_a_real_step(family):
    channels = LABELS if family == "gaugan" else 3
    configs = [GENERATORS[family], DISCRIMINATORS[family]]
    if family == "cyclegan":
        configs = [configs[0], configs[0], configs[1], configs[1]]

    def make(n: int = 4):
        batch = Batch(torch.zeros(n, channels, 16, 16), torch.zeros(n, 3, 16, 16))
        return TRAINERS[family](*map(build, configs), CONFIG), batch

    real = trainer(family, CONFIG)
    with FlopCounterMode(display=False) as counter:
        real.step(next(batches(family)(0)))
    few, many = count_step(make), count_step(lambda: make(8))
    assert 2 * few.macs == counter.get_total_flops() and many.macs == 2 * few.macs
    # Weights, their gradients and Adam's two moments for each, which the batch does not change; the rest grows with it.
    numbers = sum(p.numel() for config in configs for p in build(config).parameters())
    assert few.peak > 4 * 3 * numbers
    assert 1.2 * few.peak < many.peak < 2 * few.peak


def test_a_student_is_counted_with_its_teacher():
    real = distiller("pix2pix", CONFIG)
    with FlopCounterMode(display=False) as counter:
        real.step(next(batches()(0)))
    configs = [GENERATORS["pix2pix"], TEACHERS["pix2pix"], DISCRIMINATORS["pix2pix"]]
    images = (4, 3, 16, 16)
    counted = count_step(
        lambda: (PairedDistiller(*map(build, configs), CONFIG), Batch(torch.zeros(images), torch.zeros(images)))
    )
    assert 2 * counted.macs == counter.get_total_flops()
