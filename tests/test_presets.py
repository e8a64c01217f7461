"""Presets for a GPU or for days, rehearsed at toy size: their networks, budgets, precision and losses fit together."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune, start_student
from i2i_lib.runner import notebook_parameters
from i2i_lib.runs import load_preset, preset_parameters, root
from i2i_lib.train import PairedDistiller, PairedTrainer, TrainConfig, set_up


def parameters(preset: str, chapter: str) -> dict[str, Any]:
    known = notebook_parameters(root() / "notebooks" / f"{chapter}.ipynb")
    given = preset_parameters(load_preset(preset), chapter, "earth")
    return {name: default for name, (_, default) in known.items()} | given


@pytest.mark.parametrize("preset", ["gpu", "paper"])
def test_a_full_width_preset_trains_prunes_and_distils(preset):
    """A step each of chapters 2 and 4 on two pictures of 32 pixels; chapter 3 at the preset's own size."""
    data, first, cut, second = (
        parameters(preset, chapter) for chapter in ("01-data", "02-search-space", "03-pruning", "04-distillation")
    )
    assert cut["image_size"] == data["image_size"], "the budget is counted for the pictures that are translated"
    config = replace(cat_teacher(first["base"], first["blocks"], first["norm"]), upsample=first["upsample"])
    teacher, judge = InceptionGenerator(config), PatchDiscriminator(DiscriminatorConfig(6, first["disc_base"]))
    for network in (teacher, judge):
        init_weights(network, seed=0, norm_start="normal")

    def training(given: dict[str, Any], distill: float = 0.0) -> TrainConfig:
        chosen = {name: given[name] for name in ("steps", "lr", "recon", "average", "precision")}
        return TrainConfig(**chosen, distill=distill)

    source = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(source, -source)
    losses = PairedTrainer(teacher, judge, training(first)).step(batch)

    budget = cut["share"] * generator_macs(config, cut["image_size"], "exact")
    plan = prune(teacher, budget, image_size=cut["image_size"], cost="exact")
    assert 0.9 * budget < plan.cost <= budget
    student = start_student(teacher, plan, seed=1000)
    losses |= PairedDistiller(student, teacher, judge, training(second, second["distill"])).step(batch)
    assert all(loss.isfinite() for loss in losses.values()) and losses["distill"] > 0


def test_a_gpu_preset_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setenv("I2I_GPU", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"this preset needs 1 GPU, and PyTorch .* sees none: choose PRESET=cpu"):
        set_up(0, "bf16")


@pytest.fixture
def backends():
    """PyTorch's two backends with TF32 allowed, as they were when the test is over."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield matmul, cudnn
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_keeps_its_digits_on_a_gpu(backends, monkeypatch, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert set_up(0, precision).type == "cuda"
    assert not any(backend.allow_tf32 for backend in backends)
