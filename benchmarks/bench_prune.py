"""Time to prune the paper's teachers: `pytest benchmarks/bench_prune.py`."""

import pytest
import torch
from torch import nn

from i2i_lib.config import cat_spade_teacher, cat_teacher
from i2i_lib.generators import InceptionGenerator
from i2i_lib.prune import prune
from i2i_lib.spade import InceptionSpadeGenerator
from i2i_lib.students import start_student


def with_scales(net):
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1, 0.1, generator=generator)
    return net


@pytest.fixture(scope="module")
def teacher():
    return with_scales(InceptionGenerator(cat_teacher()))


@pytest.mark.parametrize("cost", ["paper", "exact"])
def test_search(benchmark, teacher, cost):
    """From the norm scales in memory to the plan, for the budget of Horse to Zebra. The goal is under 10 ms."""
    plan = benchmark(prune, teacher, 2_600_000_000, image_size=256, cost=cost)
    assert 0.99 * 2_600_000_000 < plan.cost <= 2_600_000_000


def test_search_spade(benchmark):
    """The same for GauGAN, whose teacher has three times as many norms. The goal is under 50 ms."""
    net = with_scales(InceptionSpadeGenerator(cat_spade_teacher()))
    plan = benchmark(prune, net, 5_600_000_000, image_size=(256, 512))
    assert 0.9 * 5_600_000_000 < plan.cost <= 5_600_000_000


@pytest.mark.parametrize("start", ["random", "inherited"])
def test_student(benchmark, teacher, start):
    """Building the student that the plan describes."""
    plan = prune(teacher, 2_600_000_000, image_size=256)
    benchmark(start_student, teacher, plan, start, seed=0)
