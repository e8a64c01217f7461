"""GauGAN: training and distillation from label maps to pictures, judged at several scales (Park et al. 2019).

As in `paired`, a step draws nothing from the global random numbers, so that a resumed run ends as an unbroken one does.
"""

from typing import Any

import torch
from torch import Tensor

from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import MultiscaleDiscriminator
from i2i_lib.losses import _sum_of_l1
from i2i_lib.spade import InceptionSpadeGenerator, SpadeGenerator
from i2i_lib.train.adversarial import Adversaries, TrainConfig, autocast, detached, generator_step
from i2i_lib.train.distill import Distillation, Distiller
from i2i_lib.train.vgg import Vgg19Features

LabelGenerator = InceptionSpadeGenerator | SpadeGenerator
# Two time scales (Heusel et al. 2017): the discriminator learns four times as fast as the generator, without momentum.
TWO_TIME_SCALES: dict[str, Any] = {"rates": (0.5, 2.0), "betas": (0.0, 0.9)}


class SpadeTrainer(Adversaries[LabelGenerator, MultiscaleDiscriminator]):
    """SPADE (Park et al. 2019): a conditional discriminator at several scales, whose features are matched too.

    `feature_matching` weighs the L1 distance between what the discriminator's layers see in a fake and in the truth,
    `perceptual_weight` that between the features `perceptual`, where they are given. `config.recon` has no part here.
    """

    def __init__(
        self,
        generator: LabelGenerator,
        discriminator: MultiscaleDiscriminator,
        config: TrainConfig,
        *,
        feature_matching: float = 10.0,
        perceptual: Vgg19Features | None = None,
        perceptual_weight: float = 10.0,
    ) -> None:
        super().__init__(generator, discriminator, config, **TWO_TIME_SCALES)
        self.truth = _Truth(feature_matching, perceptual, perceptual_weight)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        self.decay()
        with autocast(batch.source, self.config):
            fake = self.learning_generator(batch.source).float()
        loss_d, losses = self.truth(self, batch, fake)
        generator_step(losses, self)
        return {"d": loss_d} | detached(losses)


class SpadeDistiller(Distiller[LabelGenerator, MultiscaleDiscriminator]):
    """A student of the targets, as in `SpadeTrainer`, and of the teacher's features at head_0, G_middle_1 and up_1.

    See `Distiller`.
    """

    def __init__(
        self,
        student: LabelGenerator,
        teacher: LabelGenerator,
        discriminator: MultiscaleDiscriminator,
        config: TrainConfig,
        kind: Distillation = "gcka",
        *,
        feature_matching: float = 10.0,
        perceptual: Vgg19Features | None = None,
        perceptual_weight: float = 10.0,
    ) -> None:
        super().__init__(student, teacher, discriminator, config, kind, **TWO_TIME_SCALES)
        self.truth = _Truth(feature_matching, perceptual, perceptual_weight)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the student; return the detached losses and, for GCKA, each alignment."""
        self.decay()
        (fake, features), (_, wanted) = self.look(batch.source)
        loss_d, losses = self.truth(self, batch, fake)
        distilled, layers = self.distillation(features, wanted)
        generator_step(losses | distilled, self)
        return {"d": loss_d} | detached(losses | distilled | layers)


class _Truth:
    """What teacher and student learn from the targets alike."""

    def __init__(self, feature_matching: float, perceptual: Vgg19Features | None, perceptual_weight: float) -> None:
        self.feature_matching, self.perceptual_weight = feature_matching, perceptual_weight
        self.perceptual = perceptual

    def __call__(
        self, side: Adversaries[Any, MultiscaleDiscriminator], batch: Batch, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Update the discriminator; return its loss, and the weighted ones of the generator."""
        pair, real = (torch.cat([batch.source, image], 1) for image in (fake, batch.target))
        loss_d = side.discriminator_step(real, pair)
        side.discriminator.requires_grad_(False)
        with autocast(pair, side.config):
            seen = side.judge(pair)
            with torch.no_grad():
                wanted = side.judge(real)
        # Of each scale all but the logits; the scales' mean.
        matching = [_sum_of_l1(s[:-1], w[:-1]) for s, w in zip(seen, wanted, strict=True)]
        losses = {"gan": side.seen_through(seen), "features": self.feature_matching * torch.stack(matching).mean()}
        if self.perceptual:
            with autocast(pair, side.config):
                losses["perceptual"] = self.perceptual_weight * self.perceptual.distance(fake, batch.target)
        return loss_d, losses
