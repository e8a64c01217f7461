"""pix2pix: training and distillation on registered pairs.

A step draws no random numbers, and the batches are a pure function of seed and step, so that a run killed at any
moment and started again ends as an unbroken one does.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.batches import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.losses import kernel_alignment
from i2i_lib.steps import (
    Batches,
    Generator,
    Resumable,
    TrainConfig,
    adam,
    adversarial,
    autocast,
    averaged,
    decay,
    discriminator_step,
    generator_step,
    running_average,
)

Distillation = Literal["gcka", "ka", "mse", "none"]


class PairedTrainer(Resumable):
    """pix2pix (Isola et al. 2017): a conditional discriminator and an L1 distance to the paired target."""

    def __init__(self, generator: Generator, discriminator: PatchDiscriminator, config: TrainConfig) -> None:
        self.config = config
        self.generator = generator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = discriminator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.count = 0
        self.opt_g = adam(self.generator.parameters(), config)
        self.opt_d = adam(self.discriminator.parameters(), config)
        self.average = running_average(self.generator, config)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        c = self.config
        decay(self.count, c, self.opt_g, self.opt_d)
        source, target = batch.source, batch.target
        with autocast(source, c):
            fake = self.generator(source).float()
        loss_d = discriminator_step(self.discriminator, self.opt_d, source, target, fake, c)
        losses = {
            "gan": adversarial(self.discriminator, source, fake, c),
            "recon": c.recon * F.l1_loss(fake, target),
        }
        generator_step(self.opt_g, losses)
        self.count += 1
        if self.average:
            self.average.update_parameters(self.generator)
        return {"d": loss_d} | {name: loss.detach() for name, loss in losses.items()}

    def parts(self) -> dict[str, Any]:
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        parts |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"average": self.average} if self.average else {})

    def result(self, batches: Batches, count: int = 50) -> Generator:
        """The trained generator in eval mode: the averaged weights if the config asks for them.

        Batch-norm statistics belong to the weights that they were gathered with, so those of averaged weights are
        gathered again, over `count` batches.
        """
        return averaged(self.average, self.generator, batches, count, self.config)


class PairedDistiller(Resumable):
    """A student learns from the target, the discriminator and the teacher's features (paper section 3.3, eq. 5).

    `kind` says what "like the teacher" means at each tapped layer: "gcka" (centred kernel alignment over pixels),
    "ka" (uncentred over samples, as the authors' code), "mse" through learned 1 x 1 adaptors, or "none".
    """

    def __init__(
        self,
        student: Generator,
        teacher: Generator,
        discriminator: PatchDiscriminator,
        config: TrainConfig,
        kind: Distillation = "gcka",
    ) -> None:
        if kind not in ("gcka", "ka", "mse", "none"):
            raise ValueError(f"unknown distillation {kind!r}: expected gcka, ka, mse or none")
        self.config, self.kind = config, kind
        self.student = student.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.teacher = teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = discriminator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # Only the MSE needs the student's channels to be as many as the teacher's.
        self.adaptors = _adaptors(student, teacher) if kind == "mse" else nn.ModuleList()
        self.count = 0
        self.opt_g = adam([*self.student.parameters(), *self.adaptors.parameters()], config)
        self.opt_d = adam(self.discriminator.parameters(), config)
        self.average = running_average(self.student, config)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the student; return the detached losses and, for GCKA, each alignment."""
        c = self.config
        decay(self.count, c, self.opt_g, self.opt_d)
        source, target = batch.source, batch.target
        with autocast(source, c):
            wanted: tuple[Tensor, ...] = ()
            if self.kind != "none":
                with torch.no_grad():
                    wanted = self.teacher.forward_features(source)[1]
            fake, features = self.student.forward_features(source)
            fake = fake.float()
        loss_d = discriminator_step(self.discriminator, self.opt_d, source, target, fake, c)
        losses = {
            "gan": adversarial(self.discriminator, source, fake, c),
            "recon": c.recon * F.l1_loss(fake, target),
        }
        alignments = self._alignments(features, wanted, source)
        if self.kind == "mse":
            losses["distill"] = c.distill * torch.stack(alignments).sum()
        elif self.kind != "none":
            # A constant offset keeps the term at 0 for perfect alignment; it changes no gradient.
            losses["distill"] = c.distill * (1 - torch.stack(alignments)).sum()
        generator_step(self.opt_g, losses)
        self.count += 1
        if self.average:
            self.average.update_parameters(self.student)
        named = {f"layer{i}": value for i, value in enumerate(alignments, start=1)}
        return {"d": loss_d} | {name: loss.detach() for name, loss in (losses | named).items()}

    def _alignments(self, features: Iterable[Tensor], wanted: Iterable[Tensor], source: Tensor) -> list[Tensor]:
        if self.kind == "mse":
            with autocast(source, self.config):
                pairs = [(adapt(f), w) for adapt, f, w in zip(self.adaptors, features, wanted, strict=True)]
            return [F.mse_loss(f.float(), w.float()) for f, w in pairs]
        if self.kind == "gcka":
            return [kernel_alignment(f, w) for f, w in zip(features, wanted, strict=True)]
        if self.kind == "ka":
            return [
                kernel_alignment(f, w, rows="samples", centered=False) for f, w in zip(features, wanted, strict=True)
            ]
        return []

    def parts(self) -> dict[str, Any]:
        parts = {"student": self.student, "discriminator": self.discriminator, "adaptors": self.adaptors}
        parts |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"average": self.average} if self.average else {})

    def result(self, batches: Batches, count: int = 50) -> Generator:
        """The trained student in eval mode, as `PairedTrainer.result`."""
        return averaged(self.average, self.student, batches, count, self.config)


def _adaptors(student: Generator, teacher: Generator) -> nn.ModuleList:
    """1 x 1 convolutions from the student's widths at the tapped layers to the teacher's."""
    device = next(student.parameters()).device
    image = torch.zeros(1, 3, 32, 32, device=device)
    modes = student.training, teacher.training
    with torch.no_grad():
        widths = [[f.shape[1] for f in net.eval().forward_features(image)[1]] for net in (student, teacher)]
    student.train(modes[0])
    teacher.train(modes[1])
    return nn.ModuleList(nn.Conv2d(s, t, 1, device=device) for s, t in zip(*widths, strict=True))
