"""Tiny networks, pictures, batches and trainers of every family, shared by the tests."""

import random
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from i2i_lib.checkpoint import build
from i2i_lib.config import (
    BlockWidths,
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    Norm,
    Upsample,
    cat_spade_teacher,
    cat_teacher,
)
from i2i_lib.data.batches import paired_batches, unpaired_batches
from i2i_lib.data.tiles import Family, Task, Tiles
from i2i_lib.layers import init_weights
from i2i_lib.train.adversarial import Batches, TrainConfig
from i2i_lib.train.cyclegan import UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.gaugan import SpadeDistiller, SpadeTrainer
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer

LABELS = 4
FAMILIES: tuple[Family, ...] = ("pix2pix", "cyclegan", "gaugan")
GENERATORS: dict[str, Any] = {
    "pix2pix": cat_teacher(4, 3, "batch"),
    "cyclegan": cat_teacher(4, 3, "batch"),
    "gaugan": cat_spade_teacher(2, LABELS, 2),
}
TEACHERS: dict[str, Any] = {
    "pix2pix": cat_teacher(8, 3, "batch"),
    "cyclegan": cat_teacher(8, 3, "batch"),
    "gaugan": cat_spade_teacher(4, LABELS, 2),
}
DISCRIMINATORS: dict[str, Any] = {
    "pix2pix": DiscriminatorConfig(6, 4, 2),
    "cyclegan": DiscriminatorConfig(3, 4, 2),
    "gaugan": MultiscaleDiscriminatorConfig(LABELS + 3, 4, 3),
}
TRAINERS: dict[str, Any] = {"pix2pix": PairedTrainer, "cyclegan": UnpairedTrainer, "gaugan": SpadeTrainer}
DISTILLERS: dict[str, Any] = {"pix2pix": PairedDistiller, "cyclegan": UnpairedDistiller, "gaugan": SpadeDistiller}


def network(config: Any, seed: int = 0, **options: Any) -> Any:
    """The network of a configuration with weights by `init_weights`."""
    made = build(config)
    init_weights(made, seed=seed, **options)
    return made


def label_map(labels: int, height: int, width: int, n: int = 1) -> torch.Tensor:
    """Random labels, one-hot [n, labels, height, width]."""
    drawn = torch.randint(labels, (n, height, width), generator=torch.Generator().manual_seed(2))
    return F.one_hot(drawn, labels).movedim(-1, 1).float()


def any_config(seed: int) -> GeneratorConfig:
    """Any widths, branches and blocks missing, any kernel sizes in any order."""
    draw = random.Random(seed)
    kernels = draw.choice([(1, 3, 5), (3, 5), (5, 1, 3), (1, 3, 5, 7)])

    def branches() -> tuple[int, ...]:
        return tuple(draw.choice([0, 0, 1, 3, 10, 20]) for _ in kernels)

    blocks = [BlockWidths(branches(), branches()) for _ in range(3)]
    blocks[draw.randrange(3)] = BlockWidths((0,) * len(kernels), (0,) * len(kernels))
    norm: Norm = "instance" if seed % 2 else "batch"
    upsample: Upsample = "resize" if seed // 2 % 2 else "transpose"
    return GeneratorConfig((draw.randint(1, 9), 5, draw.randint(3, 20)), tuple(blocks), (7, 4), norm, upsample, kernels)


def trained(config: Any, seed: int = 0) -> Any:
    """A generator, in eval mode, whose norms have moved far from where they start."""
    net, generator = build(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.5, generator=generator)
            elif isinstance(part, nn.BatchNorm2d | nn.InstanceNorm2d):
                part.weight.normal_(1, 0.3, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.normal_(0, 0.5, generator=generator)  # pyright: ignore[reportOptionalMemberAccess]
                    part.running_var.uniform_(0.3, 3, generator=generator)  # pyright: ignore[reportOptionalMemberAccess]
    return net.eval()


def same(a: Any, b: Any) -> bool:
    """Whether two networks, or two states however nested, are equal to the bit."""
    if isinstance(a, nn.Module):
        return same(a.state_dict(), b.state_dict())
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


def tiles(family: Family = "pix2pix", *, n: int = 12, size: int = 20, seed: int = 0) -> Tiles:
    """Smooth pictures, two to a block: with negatives, or dark and bright ones apart, or with labels by their red."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    pictures = (256 * F.interpolate(coarse, (size, size), mode="bilinear")).byte()
    block, box = torch.arange(n) // 2, torch.zeros(n, 2, dtype=torch.int64)
    if family == "gaugan":
        return Tiles(pictures[:, :1] // (256 // LABELS), pictures, block, box, box, classes=LABELS)
    if family == "cyclegan":
        return Tiles(pictures // 2, 255 - pictures.flip(0) // 2, block, box, box, paired=False)
    return Tiles(pictures, 255 - pictures, block, box, box)


def task(family: Family = "pix2pix") -> Task:
    """Eight tiles of 40 px to learn from, and six of 16 px."""
    info: dict[str, Any] = {"domains": ["map", "satellite"]}
    if family == "gaugan":
        info["classes"] = [{"name": f"label {n}", "colour": f"#{60 * n:02x}8000"} for n in range(LABELS)]
    return Task("toy", family, tiles(family, n=8, size=40), tiles(family, n=6, size=16, seed=1), info)


def batches(family: Family = "pix2pix", device: str | torch.device = "cpu") -> Batches:
    """Four crops of 16 px a step."""
    draw = unpaired_batches if family == "cyclegan" else paired_batches
    return draw(tiles(family), image_size=16, batch_size=4, seed=0, device=device)


def discriminator(family: Family, seed: int, norm: str = "batch") -> Any:
    config = DISCRIMINATORS[family]
    return network(config if family == "gaugan" else replace(config, norm=norm), seed, gain=0.1)


def trainer(family: Family, config: TrainConfig, *, norm: str = "batch", **options: Any) -> Any:
    """A teacher's training. `options` are the trainer's own."""
    generator = network(replace(GENERATORS[family], norm=norm), 0, gain=0.1)
    first = discriminator(family, 2, norm)
    if family == "cyclegan":
        back = network(generator.config, 1, gain=0.1)
        return UnpairedTrainer(generator, back, first, discriminator(family, 3, norm), config, **options)
    return TRAINERS[family](generator, first, config, **options)


def distiller(family: Family, config: TrainConfig, kind: str = "gcka", *, norm: str = "batch") -> Any:
    """A student's training, from a teacher of twice its widths."""
    teacher = network(replace(TEACHERS[family], norm=norm), 1, gain=0.1)
    student = network(replace(GENERATORS[family], norm=norm), 2, gain=0.1)
    return DISTILLERS[family](student, teacher, discriminator(family, 3, norm), config, kind)


def train(trainer: Any, family: Family, steps: int) -> None:
    """Take the first steps."""
    for batch in islice(batches(family)(0), steps):
        trainer.step(batch)
