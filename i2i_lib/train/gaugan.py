"""GauGAN: training and distillation from label maps to pictures, judged at several scales (Park et al. 2019)."""

from typing import Any

import torch
from torch import Tensor

from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import MultiscaleDiscriminator
from i2i_lib.losses import sum_of_l1
from i2i_lib.spade import InceptionSpadeGenerator, SpadeGenerator
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
from i2i_lib.train.vgg import Vgg19Features

LabelGenerator = InceptionSpadeGenerator | SpadeGenerator


class SpadeTrainer(GanState):
    """SPADE (Park et al. 2019): a conditional discriminator at several scales, whose features are matched too.

    `feature_matching` weighs the L1 distance between the discriminator's layers for a fake and for the target. Where
    features `perceptual` are given, they are matched too. `config.recon` has no part here.
    """

    # Two time scales (Heusel et al. 2017): the discriminator learns four times as fast, without momentum.
    rates = (0.5, 2.0)
    betas = (0.0, 0.9)
    perceptual_weight = 10.0

    def __init__(
        self,
        generator: LabelGenerator,
        discriminator: MultiscaleDiscriminator,
        config: TrainConfig,
        *,
        feature_loss: FeatureLoss | None = None,
        feature_matching: float = 10.0,
        perceptual: Vgg19Features | None = None,
    ) -> None:
        super().__init__(generator, discriminator, config, feature_loss=feature_loss)
        self.feature_matching, self.perceptual = feature_matching, perceptual

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the generator, then the discriminator; return the detached losses by name."""
        self.decay()
        with autocast(batch.source, self.config):
            fake = self.generator_ddp(batch.source).float()
        losses = self.generator_losses(batch, fake)
        descend(total(losses), self, self.opt_g)
        loss_d = self.update_discriminator(batch)
        self.after_step()
        return detached({"d": loss_d, **losses})

    def generator_losses(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """The generator's weighted losses by name.

        The discriminator returns a list of feature maps for each of its scales, logits last; losses are means
        over scales.
        """
        c, source, target = self.config, batch.source, batch.target
        # Fool the frozen discriminator, and look like the target to each of its layers but the logits.
        self.discriminator.requires_grad_(False)
        with autocast(source, c):
            fake_scales = self.discriminator(torch.cat([source, fake], 1))
            with torch.no_grad():
                real_scales = self.discriminator(torch.cat([source, target], 1))
        gan = torch.stack([generator_gan_loss(c.gan, scale[-1]) for scale in fake_scales]).mean()
        scales = zip(fake_scales, real_scales, strict=True)
        matching = torch.stack([sum_of_l1(fake[:-1], real[:-1]) for fake, real in scales]).mean()
        losses = {"gan": gan, "features": self.feature_matching * matching}
        if self.perceptual:
            with autocast(source, c):
                losses["perceptual"] = self.perceptual_weight * self.perceptual.distance(fake, target)
        return losses

    def update_discriminator(self, batch: Batch) -> Tensor:
        """One step of the discriminator, on pictures that the updated generator makes anew; return its loss.

        Those of Park et al. and of the paper's authors do so, too. The second pass also moves the statistics of the
        generator's batch norms once more.
        """
        c, source, target = self.config, batch.source, batch.target
        with torch.no_grad(), autocast(source, c):
            fake = self.generator(source).float()
        # Real up, fake down.
        self.discriminator.requires_grad_(True)
        with autocast(source, c):
            real_scales = self.discriminator_ddp(torch.cat([source, target], 1))
            fake_scales = self.discriminator_ddp(torch.cat([source, fake], 1))
        scales = zip(real_scales, fake_scales, strict=True)
        loss = torch.stack([discriminator_loss(c.gan, real[-1], fake[-1]) for real, fake in scales]).mean()
        descend(loss, self, self.opt_d)
        return loss


class SpadeDistiller(SpadeTrainer):
    """Distils a student: `SpadeTrainer`'s losses plus the teacher's features at head_0, G_middle_1 and up_1.

    `options` are those of `SpadeTrainer`.
    """

    def __init__(
        self,
        student: LabelGenerator,
        teacher: LabelGenerator,
        discriminator: MultiscaleDiscriminator,
        config: TrainConfig,
        kind: Distillation = "gcka",
        **options: Any,
    ) -> None:
        feature_loss = FeatureLoss(kind, student, teacher, config)
        super().__init__(student, discriminator, config, feature_loss=feature_loss, **options)
        self.teacher = frozen(teacher)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the student (paper, equation 5), then one of the discriminator."""
        c, source = self.config, batch.source
        self.decay()
        with autocast(source, c):
            needed = self.feature_loss.kind != "none"
            _, teacher_features = teacher_outputs(self.teacher, source, image=False, features=needed)
            fake, features = self.generator_ddp(source, features=True)
        losses = self.generator_losses(batch, fake.float())
        distilled, layers = self.feature_loss(features, teacher_features)  # alignment, MSE or nothing
        losses |= distilled
        descend(total(losses), self, self.opt_g)
        loss_d = self.update_discriminator(batch)
        self.after_step()
        return detached({"d": loss_d, **losses, **layers})
