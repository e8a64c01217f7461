"""Presets for a GPU or for days, rehearsed at toy size: their networks, budgets, precision and losses fit together."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from toys import tiles

from i2i_book.presets import load_preset
from i2i_book.runner.notebook import chapter_parameters
from i2i_lib.checkpoint import load_info, save_discriminator, save_generator, save_plan
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.recipe import Recipe, build


def parameters(preset: str, chapter: str, task: str = "earth") -> dict[str, Any]:
    return chapter_parameters(load_preset(preset), chapter, task)


@pytest.mark.parametrize("preset", ["gpu", "gpu-256", "paper"])
def test_a_full_width_preset_trains_prunes_and_distils(preset, tmp_path):
    """A step each of chapters 2 and 4 on two pictures of 32 pixels; chapter 3 at the preset's own size."""
    data, first, cut, second = (
        parameters(preset, chapter) for chapter in ("01-data", "02-search-space", "03-pruning", "04-distillation")
    )
    assert cut["image_size"] == data["image_size"], "the budget is counted for the pictures that are translated"
    two = tiles(n=2, size=32)
    task = Task("toy", "pix2pix", two, two, {})
    save_task(task, tmp_path / "data")

    def trained(given: dict[str, Any], generator: Any, discriminator: Any, **settings: Any) -> tuple[Any, Any]:
        chosen = {f.name: given[f.name] for f in fields(TrainConfig) if f.name in given}
        if chosen["precision"] == "auto":
            chosen["precision"] = "bf16"
        recipe = Recipe("data", generator, discriminator, TrainConfig(**chosen), 2, **settings)
        trainer, batches, _ = build(recipe, tmp_path, task, torch.device("cpu"))
        return trainer, trainer.step(next(batches(0)))

    config = replace(cat_teacher(first["base"], first["blocks"], first["norm"]), upsample=first["upsample"])
    discriminator = DiscriminatorConfig(
        6, first["disc_base"], first["disc_layers"], first["disc_norm"] or first["norm"]
    )
    # Norm scales that differ, as after a training.
    trainer, losses = trained(first, config, discriminator, start="noisy")
    save_generator(trainer.generator, tmp_path / "teacher")
    save_discriminator(trainer.discriminator, tmp_path / "teacher-discriminator")

    count = "paper" if cut["paper_budget"] else "exact"
    budget = 1e9 * cut["paper_budget"] or cut["share"] * generator_macs(config, cut["image_size"], "exact")
    plan = prune(trainer.generator, budget, image_size=cut["image_size"], cost=count)
    assert 0.9 * budget < plan.cost <= budget
    save_plan(plan, tmp_path / "plan", provenance={"teacher": load_info(tmp_path / "teacher")["sha256"]})
    _, distilled = trained(second, "plan", "teacher-discriminator", teacher="teacher", distillation=second["index"])
    assert all(loss.isfinite() for loss in [*losses.values(), *distilled.values()]) and distilled["distill"] > 0


# Of the authors' training scripts: what a teacher is told, and what a student is.
UNPAIRED = {"disc_base": 64, "cycle": 10, "identity": 0.5}, {"recon": 5}
PUBLISHED = {
    "maps": ({"norm": "batch", "disc_base": 128, "recon": 10}, {"recon": 100}),
    "cityscapes": ({"norm": "batch", "disc_base": 128, "recon": 100}, {"recon": 100}),
    "horse2zebra": ({"norm": "instance", **UNPAIRED[0]}, UNPAIRED[1]),
    "zebra2horse": ({"norm": "batch", **UNPAIRED[0]}, UNPAIRED[1]),
    "cityscapes, GauGAN": (
        {"norm": "batch", "disc_base": 64, "disc_layers": 4, "matching": 10, "upsamplings": 6, "label_width": 128},
        {},
    ),
}
# Epochs of constant and of falling learning rate, pictures, batches of teacher and student, budget (G, of 256 x 256).
LENGTHS = {
    "maps": (500, 1000, 1096, (32, 80), 4.6),
    "cityscapes": (500, 750, 2975, (32, 80), 5.6),
    "horse2zebra": (500, 500, 1334, (32, 80), 2.6),
    "zebra2horse": (500, 500, 1334, (32, 80), 2.6),
    "cityscapes, GauGAN": (100, 100, 2975, (16, 16), 30 / 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_paper_preset_is_what_was_published_for_each_task(name):
    task, _, gaugan = name.partition(", ")
    preset, pruning = ("paper-gaugan", "03-pruning-gaugan") if gaugan else ("paper", "03-pruning")
    constant, falling, pictures, batches, budget = LENGTHS[name]
    for chapter, wanted, batch in zip(("02-search-space", "04-distillation"), PUBLISHED[name], batches, strict=True):
        found = parameters(preset, chapter, task)
        wanted = wanted | {"batch_size": batch, "lr": 2e-4, "average": 0, "precision": "fp32"}
        assert {key: found[key] for key in wanted} == wanted
        assert found["steps"] == round((constant + falling) * pictures / batch)
        assert found["decay_from"] == pytest.approx(constant / (constant + falling), abs=1e-5)
    found = parameters(preset, "02-search-space", task)
    assert (found["base"], found["blocks"] if not gaugan else 9) == (64, 9)
    assert parameters(preset, "01-data", task)["image_size"] == parameters(preset, pruning, task)["image_size"] == 256
    assert parameters(preset, pruning, task)["paper_budget"] == budget
