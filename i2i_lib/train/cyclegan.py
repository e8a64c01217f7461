"""CycleGAN: training and distillation where no picture of one domain belongs to one of the other.

As in `paired`, a step draws nothing from the global random numbers, so that a resumed run ends as an unbroken one does.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.config import DiscriminatorConfig
from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.train.adversarial import (
    Adversaries,
    Batches,
    Generator,
    Resumable,
    TrainConfig,
    autocast,
    detached,
    generator_step,
    own_statistics,
)
from i2i_lib.train.distill import Distillation, Distiller
from i2i_lib.distributed import gather, share


class ImagePool:
    """Fakes of earlier steps, half of what a discriminator is shown (Zhu et al. 2017, section 4).

    A fake is kept while there is room; later ones trade places with a random one of the pool half of the time. The
    choices of a step depend on `stream` and its number alone.
    """

    def __init__(self, size: int, stream: int) -> None:
        self.size, self.stream = size, stream
        self.images: list[Tensor] = []  # [C, H, W] each

    def exchange(self, fakes: Tensor, step: int) -> Tensor:
        """As many images [N, C, H, W] as there are fakes, some of them from the pool, which all processes share."""
        if not self.size:
            return fakes
        rng = np.random.default_rng((self.stream, step))
        shown = []
        for fake in gather(fakes.detach().contiguous()):
            if len(self.images) < self.size:
                self.images.append(fake.clone())  # a slice would keep the whole batch alive
            elif rng.random() < 0.5:
                slot = int(rng.integers(self.size))
                self.images[slot], fake = fake.clone(), self.images[slot].to(fake.device)
            shown.append(fake)
        return torch.stack(shown)[share(len(shown))]

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": torch.stack(self.images)} if self.images else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.images = [image.clone() for image in state.get("images", ())]


class UnpairedTrainer(Resumable):
    """CycleGAN (Zhu et al. 2017): a generator each way, so that there and back again ends where it began.

    `discriminator_a` judges images of the sources' domain, `discriminator_b` those of the targets'; both see one image.
    `cycle` weighs the L1 distance between an image and itself after both generators; `identity`, in units of `cycle`,
    that between an image and what the generator into its own domain makes of it. `config.recon` has no part here.
    """

    def __init__(
        self,
        generator_ab: Generator,
        generator_ba: Generator,
        discriminator_a: PatchDiscriminator,
        discriminator_b: PatchDiscriminator,
        config: TrainConfig,
        *,
        cycle: float = 10.0,
        identity: float = 0.5,
        pool: int = 50,
    ) -> None:
        for discriminator in (discriminator_a, discriminator_b):
            _check_judges_images(discriminator.config)
        self.config = replace(config, gan=config.gan or "lsgan")
        self.cycle, self.identity, self.count = cycle, identity, 0
        self.ab = Adversaries(generator_ab, discriminator_b, self.config)
        self.ba = Adversaries(generator_ba, discriminator_a, self.config)
        self.pool_a, self.pool_b = ImagePool(pool, 0), ImagePool(pool, 1)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update both discriminators, then both generators; return the detached losses by name and domain."""
        c = self.config
        ab, ba = self.ab, self.ba
        ab.decay()
        ba.decay()
        a, b = batch.source, batch.target
        with autocast(a, c):
            fake_b, fake_a = ab.learning_generator(a).float(), ba.learning_generator(b).float()
        judged = {
            "d_a": ba.discriminator_step(a, self.pool_a.exchange(fake_a, self.count)),
            "d_b": ab.discriminator_step(b, self.pool_b.exchange(fake_b, self.count)),
        }
        losses = {"gan_a": ba.adversarial(fake_a), "gan_b": ab.adversarial(fake_b)}
        with autocast(a, c):
            back_a, back_b = ba.learning_generator(fake_b).float(), ab.learning_generator(fake_a).float()
        losses |= {"cycle_a": self.cycle * F.l1_loss(back_a, a), "cycle_b": self.cycle * F.l1_loss(back_b, b)}
        if self.identity:
            with autocast(a, c):
                same_a, same_b = ba.learning_generator(a).float(), ab.learning_generator(b).float()
            weight = self.cycle * self.identity
            losses |= {"identity_a": weight * F.l1_loss(same_a, a), "identity_b": weight * F.l1_loss(same_b, b)}
        generator_step(losses, ab, ba)
        self.count += 1
        return judged | detached(losses)

    def parts(self) -> dict[str, Any]:
        return {"ab": self.ab, "ba": self.ba, "pool_a": self.pool_a, "pool_b": self.pool_b}

    def result(self, batches: Batches, count: int = 50, *, reverse: bool = False) -> Generator:
        """The generator from sources to targets in eval mode, or with `reverse` the one back.

        `batches` are those of the training. Batch-norm statistics are always gathered again, over `count` of them: in
        training each generator also met fakes and, for the identity loss, images of the domain that it translates to.
        """
        side = self.ba if reverse else self.ab
        latest = side.average.module if side.average else side.generator
        return own_statistics(latest, swapped(batches) if reverse else batches, count, self.config)  # pyright: ignore[reportReturnType]


class UnpairedDistiller(Distiller[Generator, PatchDiscriminator]):
    """A student of one direction: it learns the teacher's images and features, and from the discriminator's verdict.

    Without a paired truth the L1 distance is that to the teacher's image (paper section 3.4). `discriminator` is that
    of the targets' domain. See `Distiller`.
    """

    def __init__(
        self,
        student: Generator,
        teacher: Generator,
        discriminator: PatchDiscriminator,
        config: TrainConfig,
        kind: Distillation = "gcka",
    ) -> None:
        _check_judges_images(discriminator.config)
        config = replace(config, gan=config.gan or "lsgan", imitate=1.0)  # there is nothing else to be near to
        super().__init__(student, teacher, discriminator, config, kind)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the student; return the detached losses and, for GCKA, each alignment."""
        c = self.config
        self.decay()
        source = batch.source
        (fake, features), (image, wanted) = self.look(source)
        loss_d = self.discriminator_step(batch.target, fake)
        losses = {"gan": self.adversarial(fake), "recon": c.recon * F.l1_loss(fake, image)}
        distilled, layers = self.distillation(features, wanted)
        generator_step(losses | distilled, self)
        return {"d": loss_d} | detached(losses | distilled | layers)


def swapped(batches: Batches) -> Batches:
    """The same batches in the other direction: what was source becomes target."""

    def other(first: int) -> Iterator[Batch]:
        return (Batch(batch.target, batch.source) for batch in batches(first))

    return other


def _check_judges_images(config: DiscriminatorConfig) -> None:
    if config.in_channels != 3:
        raise ValueError(
            f"without pairs a discriminator judges one image of 3 channels, but this one reads {config.in_channels}:"
            " build it with DiscriminatorConfig(in_channels=3)"
        )
