"""pix2pix: training and distillation on registered pairs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.data.tiles import Batch
from i2i_lib.losses import sum_of_l1, wavelet_details
from i2i_lib.train.adversarial import (
    GanState,
    adversarial_losses,
    autocast,
    descend,
    detached,
    frozen,
    total,
)
from i2i_lib.train.distill import Distiller, teacher_outputs


class PairedTrainer(GanState):
    """pix2pix (Isola et al. 2017): a conditional discriminator and an L1 distance to the paired target."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        c, source, target = self.config, batch.source, batch.target
        self.decay()
        with autocast(source, c):
            fake = self.generator_ddp(source).float()
        loss_d, loss_gan = adversarial_losses(self, source, target, fake)

        # Generator: fool the discriminator, and be near the target.
        losses = {"gan": loss_gan, "recon": c.recon * F.l1_loss(fake, target)}
        descend(total(losses), self, self.opt_g)
        self.after_step()
        return detached({"d": loss_d, **losses})


class PairedDistiller(Distiller):
    """A student of the targets, the conditional discriminator and the teacher's features: see `FeatureLoss`.

    With `config.imitate` it also learns the teacher's pictures, as in distillation at several depths (Ren et al. 2021);
    with `config.wavelet` their high bands (Zhang et al. 2022), and with `config.judged` what the discriminator that it
    begins with, the teacher's own, sees in them (Hu et al. 2023).

    With `config.labelled` below 1, batches are those of `partly_labelled_batches`: the L1 distance to the target and
    the adversarial loss are of the half whose targets are known, the teacher's features and pictures of the whole.
    Beside a student that learns no features from its teacher ("none"), this tells what they add where few targets are
    known: both draw the same pictures in the same order, and their batch norms see all of them. Teacher and inherited
    discriminator are given, and have learned from all targets.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, discriminator: nn.Module, *settings: Any) -> None:
        super().__init__(student, teacher, discriminator, *settings)
        # As it is given: the other one goes on learning.
        self.judge: Any = frozen(copy.deepcopy(self.discriminator)) if self.config.judged else None

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the student (paper, equation 5)."""
        c, source, target = self.config, batch.source, batch.target
        self.decay()
        with autocast(source, c):
            image = c.imitate > 0 or c.wavelet > 0 or self.judge is not None
            needed = {"image": image, "features": self.feature_loss.kind != "none"}
            teacher_image, teacher_features = teacher_outputs(self.teacher, source, **needed)
            fake, features = self.generator_ddp(source, features=True)
        fake = fake.float()
        known = len(target)  # of the first pictures, which are all unless `labelled` is below 1
        told = fake if known == len(fake) else fake[:known]
        loss_d, loss_gan = adversarial_losses(self, source[:known], target, told)

        # Student: fool the discriminator, be near the target, and see as the teacher does.
        losses = {"gan": loss_gan}
        losses["recon"] = c.recon * (1 - c.imitate) * F.l1_loss(told, target)
        losses |= self.to_teachers_image(source, fake, teacher_image)
        distilled, layers = self.feature_loss(features, teacher_features)  # alignment, MSE or nothing
        losses |= distilled
        descend(total(losses), self, self.opt_g)
        self.after_step()
        return detached({"d": loss_d, **losses, **layers})

    def to_teachers_image(self, source: Tensor, fake: Tensor, image: Tensor) -> dict[str, Tensor]:
        """The losses of `fake` against the teacher's `image` that the settings ask for, by name; none by default."""
        c = self.config
        losses = {}
        if c.imitate:
            losses["imitate"] = c.recon * c.imitate * F.l1_loss(fake, image)
        if c.wavelet:
            losses["wavelet"] = c.recon * c.wavelet * F.l1_loss(wavelet_details(fake), wavelet_details(image))
        if self.judge:
            with autocast(source, c):
                seen, wanted = (self.judge.features(torch.cat([source, picture], 1)) for picture in (fake, image))
            losses["judged"] = c.recon * c.judged / len(seen) * sum_of_l1(seen, wanted)
        return losses
