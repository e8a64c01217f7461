"""CycleGAN: training and distillation where no picture of one domain belongs to one of the other."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.config import DiscriminatorConfig
from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.distributed import gather, local_slice
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.train.adversarial import (
    Batches,
    GanState,
    TrainConfig,
    autocast,
    descend,
    detached,
    generator_gan_loss,
    total,
    update_discriminator,
    with_fresh_bn_statistics,
)
from i2i_lib.train.distill import Distiller, teacher_outputs

ImageGenerator = InceptionGenerator | ResnetGenerator


class ImagePool:
    """Fakes of earlier steps, half of those that a discriminator is shown (Zhu et al. 2017, section 4).

    A fake is kept while there is room; later ones trade places with a random one of the pool half of the time. The
    choices of a step depend on `stream` and its number alone.
    """

    def __init__(self, size: int, stream: int) -> None:
        self.size, self.stream = size, stream
        self.images: list[Tensor] = []  # [C, H, W] each

    def exchange(self, fakes: Tensor, step: int) -> Tensor:
        """Return as many images [N, C, H, W] as there are fakes, detached; all processes share the pool."""
        if not self.size:
            return fakes.detach()
        self.images = [image.to(fakes.device) for image in self.images]  # after a resume they lie on the CPU
        rng = np.random.default_rng((self.stream, step))
        shown = []
        for fake in gather(fakes.detach().contiguous()):
            if len(self.images) < self.size:
                self.images.append(fake.clone())  # a slice would keep the whole batch alive
            elif rng.random() < 0.5:
                slot = int(rng.integers(self.size))
                self.images[slot], fake = fake.clone(), self.images[slot]
            shown.append(fake)
        return torch.stack(shown)[local_slice(len(shown))]

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": torch.stack(self.images)} if self.images else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.images = [image.clone() for image in state.get("images", ())]


class UnpairedTrainer:
    """CycleGAN (Zhu et al. 2017): a generator each way, so that there and back again ends where it began.

    `discriminator_a` judges images of the sources' domain, `discriminator_b` those of the targets'; both see one image.
    `cycle` weighs the L1 distance between an image and itself after both generators; `identity`, in units of `cycle`,
    that between an image and its translation into its own domain. After the share `identity_until` of the steps that
    weight is 0 (as in Kaneko and Kameoka 2018): at first it tells which colours belong together, later it would keep
    colours that have to change. `config.recon` has no part here.
    """

    def __init__(
        self,
        generator_ab: ImageGenerator,
        generator_ba: ImageGenerator,
        discriminator_a: PatchDiscriminator,
        discriminator_b: PatchDiscriminator,
        config: TrainConfig,
        *,
        cycle: float = 10.0,
        identity: float = 0.5,
        identity_until: float = 1.0,
        pool: int = 50,
    ) -> None:
        _check_reads_images(discriminator_a.config)
        _check_reads_images(discriminator_b.config)
        self.config = replace(config, gan=config.gan or "lsgan")
        self.ab = GanState(generator_ab, discriminator_b, self.config)
        self.ba = GanState(generator_ba, discriminator_a, self.config)
        self.cycle, self.identity, self.identity_until = cycle, identity, identity_until
        self.pool_a, self.pool_b = ImagePool(pool, 0), ImagePool(pool, 1)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update both generators, then both discriminators; return the detached losses by name and domain.

        In this order Zhu et al. and the authors of the paper do it: the generators meet the discriminators of the step
        before.
        """
        c, ab, ba, a, b = self.config, self.ab, self.ba, batch.source, batch.target
        ab.decay()
        ba.decay()
        with autocast(a, c):
            fake_b, fake_a = ab.generator_ddp(a).float(), ba.generator_ddp(b).float()

        # Generators: fool the frozen discriminators, ...
        ab.discriminator.requires_grad_(False)
        ba.discriminator.requires_grad_(False)
        with autocast(a, c):
            logits_a, logits_b = ba.discriminator(fake_a), ab.discriminator(fake_b)
        losses = {"gan_a": generator_gan_loss(c.gan, logits_a), "gan_b": generator_gan_loss(c.gan, logits_b)}
        # ... end there and back again where it began, ...
        with autocast(a, c):
            back_a, back_b = ba.generator_ddp(fake_b).float(), ab.generator_ddp(fake_a).float()
        losses |= {"cycle_a": self.cycle * F.l1_loss(back_a, a), "cycle_b": self.cycle * F.l1_loss(back_b, b)}
        # ... and leave alone what is in their target domain already.
        losses |= self._identity_losses(a, b)
        descend(total(losses), ab, ab.opt_g, ba.opt_g)

        # Discriminators: real up, fake down, half of the fakes from earlier steps.
        losses_d = {
            "d_a": update_discriminator(ba, a, self.pool_a.exchange(fake_a, self.count)),
            "d_b": update_discriminator(ab, b, self.pool_b.exchange(fake_b, self.count)),
        }
        ab.after_step()
        ba.after_step()
        return losses_d | detached(losses)

    def _identity_losses(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        if not self.identity:
            return {}
        if self.count >= self.identity_until * self.config.steps:
            return dict.fromkeys(("identity_a", "identity_b"), a.new_zeros(()))
        with autocast(a, self.config):
            same_a, same_b = self.ba.generator_ddp(a).float(), self.ab.generator_ddp(b).float()
        weight = self.cycle * self.identity
        return {"identity_a": weight * F.l1_loss(same_a, a), "identity_b": weight * F.l1_loss(same_b, b)}

    @property
    def count(self) -> int:
        """Steps taken."""
        return self.ab.count

    def parts(self) -> dict[str, Any]:
        """All that changes in training, by name."""
        return {"ab": self.ab, "ba": self.ba, "pool_a": self.pool_a, "pool_b": self.pool_b}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])

    def check(self) -> None:
        """Raise ValueError if a loss cannot train; see `GanState.check`."""
        self.ab.check()
        self.ba.check()

    def skipped(self) -> int:
        """See `GanState.skipped`: of all four networks."""
        return self.ab.skipped() + self.ba.skipped()

    def result(self, batches: Batches, count: int = 50) -> Any:
        """Return the generator from sources to targets in eval mode.

        `batches` are those of the training. Batch-norm statistics are always gathered again, over `count` of them: in
        training the generator also met fakes and, for the identity loss, images of the domain that it translates to.
        """
        latest = self.ab.average.module if self.ab.average else self.ab.generator
        return with_fresh_bn_statistics(latest, batches, count, self.config)


class UnpairedDistiller(Distiller):
    """Distils a student of one direction from the teacher's images and features and from the discriminator.

    There is no paired target, so the L1 distance is that to the teacher's image (paper section 3.4). `discriminator`
    is that of the targets' domain. See `FeatureLoss`.
    """

    gan = "lsgan"

    def __init__(
        self, student: ImageGenerator, teacher: ImageGenerator, discriminator: PatchDiscriminator, *settings: Any
    ) -> None:
        _check_reads_images(discriminator.config)
        super().__init__(student, teacher, discriminator, *settings)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the student (paper, equation 5 and section 3.4)."""
        c, source = self.config, batch.source
        self.decay()
        with autocast(source, c):
            teacher_image, teacher_features = teacher_outputs(self.teacher, source, image=True, features=True)
            fake, features = self.generator_ddp(source, features=True)
        fake = fake.float()

        # Discriminator: real up, fake down.
        loss_d = update_discriminator(self, batch.target, fake.detach())

        # Student: fool the frozen discriminator, be near the teacher's image, and see as the teacher does.
        with autocast(source, c):
            logits = self.discriminator(fake)
        losses = {"gan": generator_gan_loss(c.gan, logits), "recon": c.recon * F.l1_loss(fake, teacher_image)}
        distilled, layers = self.feature_loss(features, teacher_features)  # alignment, MSE or nothing
        losses |= distilled
        descend(total(losses), self, self.opt_g)
        self.after_step()
        return detached({"d": loss_d, **losses, **layers})


def _check_reads_images(config: DiscriminatorConfig) -> None:
    if config.in_channels != 3:
        raise ValueError(
            f"without pairs a discriminator judges one image of 3 channels, but this one reads {config.in_channels}:"
            " build it with DiscriminatorConfig(in_channels=3)"
        )
