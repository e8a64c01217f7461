"""pix2pix: training and distillation on registered pairs.

A step draws no random numbers, and the batches are a pure function of seed and step, so that a run killed at any
moment and started again ends as an unbroken one does.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.train.adversarial import Adversaries, Generator, autocast, detached, generator_step
from i2i_lib.train.distill import Distiller


class PairedTrainer(Adversaries[Generator, PatchDiscriminator]):
    """pix2pix (Isola et al. 2017): a conditional discriminator and an L1 distance to the paired target."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        c = self.config
        self.decay()
        source, target = batch.source, batch.target
        with autocast(source, c):
            fake = self.learning_generator(source).float()
        pair = torch.cat([source, fake], 1)
        loss_d = self.discriminator_step(torch.cat([source, target], 1), pair)
        losses = {"gan": self.adversarial(pair), "recon": c.recon * F.l1_loss(fake, target)}
        generator_step(losses, self)
        return {"d": loss_d} | detached(losses)


class PairedDistiller(Distiller[Generator, PatchDiscriminator]):
    """A student of the targets, the conditional discriminator and the teacher's features: see `Distiller`.

    With `config.imitate` it also learns the teacher's pictures, as in distillation at several depths (Ren et al. 2021).
    """

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the student; return the detached losses and, for GCKA, each alignment."""
        c = self.config
        self.decay()
        source, target = batch.source, batch.target
        (fake, features), (image, wanted) = self.look(source)
        pair = torch.cat([source, fake], 1)
        loss_d = self.discriminator_step(torch.cat([source, target], 1), pair)
        losses = {"gan": self.adversarial(pair), "recon": c.recon * (1 - c.imitate) * F.l1_loss(fake, target)}
        if c.imitate:
            losses["imitate"] = c.recon * c.imitate * F.l1_loss(fake, image)
        distilled, layers = self.distillation(features, wanted)
        generator_step(losses | distilled, self)
        return {"d": loss_d} | detached(losses | distilled | layers)
