"""pix2pix: training and distillation on registered pairs.

A step draws no random numbers, and the batches are a pure function of seed and step, so that a run killed at any
moment and started again ends as an unbroken one does.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.train.adversarial import (
    GanState,
    TrainConfig,
    autocast,
    descend,
    detached,
    discriminator_loss,
    frozen,
    generator_gan_loss,
    total,
)
from i2i_lib.train.distill import Distillation, FeatureLoss, teacher_outputs

ImageGenerator = InceptionGenerator | ResnetGenerator


class PairedTrainer(GanState):
    """pix2pix (Isola et al. 2017): a conditional discriminator and an L1 distance to the paired target."""

    def __init__(self, generator: ImageGenerator, discriminator: PatchDiscriminator, config: TrainConfig) -> None:
        super().__init__(generator, discriminator, config, "pix2pix")

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        c, source, target = self.config, batch.source, batch.target
        self.decay()
        with autocast(source, c):
            fake = self.generator_ddp(source).float()
        real_pair, fake_pair = torch.cat([source, target], 1), torch.cat([source, fake], 1)

        # Discriminator: real up, fake down.
        self.discriminator.requires_grad_(True)
        with autocast(source, c):
            real_logits = self.discriminator_ddp(real_pair)
            fake_logits = self.discriminator_ddp(fake_pair.detach())
        loss_d = discriminator_loss(c.gan, real_logits, fake_logits)
        descend(loss_d, self.opt_d)

        # Generator: fool the frozen discriminator, and be near the target.
        self.discriminator.requires_grad_(False)
        with autocast(source, c):
            logits = self.discriminator(fake_pair)
        losses = {"gan": generator_gan_loss(c.gan, logits), "recon": c.recon * F.l1_loss(fake, target)}
        descend(total(losses), self.opt_g)
        self.after_step()
        return detached({"d": loss_d, **losses})


class PairedDistiller(GanState):
    """A student of the targets, the conditional discriminator and the teacher's features: see `FeatureLoss`.

    With `config.imitate` it also learns the teacher's pictures, as in distillation at several depths (Ren et al. 2021).
    """

    def __init__(
        self,
        student: ImageGenerator,
        teacher: ImageGenerator,
        discriminator: PatchDiscriminator,
        config: TrainConfig,
        kind: Distillation = "gcka",
    ) -> None:
        feature_loss = FeatureLoss(kind, student, teacher, config)
        super().__init__(student, discriminator, config, "pix2pix", feature_loss=feature_loss)
        self.teacher = frozen(teacher)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the student (paper, equation 5)."""
        c, source, target = self.config, batch.source, batch.target
        self.decay()
        with autocast(source, c):
            needed = self.feature_loss.kind != "none" or c.imitate > 0
            teacher_image, teacher_features = teacher_outputs(self.teacher, source, needed=needed)
            fake, features = self.generator_ddp(source, features=True)
        fake = fake.float()
        real_pair, fake_pair = torch.cat([source, target], 1), torch.cat([source, fake], 1)

        # Discriminator: real up, fake down.
        self.discriminator.requires_grad_(True)
        with autocast(source, c):
            real_logits = self.discriminator_ddp(real_pair)
            fake_logits = self.discriminator_ddp(fake_pair.detach())
        loss_d = discriminator_loss(c.gan, real_logits, fake_logits)
        descend(loss_d, self.opt_d)

        # Student: fool the frozen discriminator, be near the target, and see as the teacher does.
        self.discriminator.requires_grad_(False)
        with autocast(source, c):
            logits = self.discriminator(fake_pair)
        losses = {"gan": generator_gan_loss(c.gan, logits)}
        losses["recon"] = c.recon * (1 - c.imitate) * F.l1_loss(fake, target)
        if c.imitate:
            losses["imitate"] = c.recon * c.imitate * F.l1_loss(fake, teacher_image)
        distilled, layers = self.feature_loss(features, teacher_features)  # alignment, MSE or nothing
        losses |= distilled
        descend(total(losses), self.opt_g)
        self.after_step()
        return detached({"d": loss_d, **losses, **layers})
