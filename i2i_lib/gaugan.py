"""GauGAN: training and distillation from label maps to pictures, judged at several scales (Park et al. 2019).

As in `paired`, a step draws nothing from the global random numbers, so that a resumed run ends as an unbroken one does.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.batches import Batch
from i2i_lib.discriminators import MultiscaleDiscriminator
from i2i_lib.distill import Distillation, Distiller
from i2i_lib.spade import InceptionSpadeGenerator, SpadeGenerator
from i2i_lib.steps import Adversaries, TrainConfig, autocast, detached, generator_step

LabelGenerator = InceptionSpadeGenerator | SpadeGenerator
# Two time scales (Heusel et al. 2017): the discriminator learns four times as fast as the generator, without momentum.
TWO_TIME_SCALES: dict[str, Any] = {"rates": (0.5, 2.0), "betas": (0.0, 0.9)}


class Vgg19Features(nn.Module):
    """VGG-19's ImageNet features at five depths, for a perceptual loss (Johnson et al. 2016).

    Weights are read from `path`, a state dict of torchvision's `vgg19`. They are never downloaded, and they serve no
    evaluation: a generator that was trained on the features that judge it would only have learned to please them.
    """

    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # as in pix2pixHD (Wang et al. 2018), from shallow to deep

    def __init__(self, path: Path) -> None:
        from torchvision.models import vgg19  # here, for its seconds of import would be paid by every training

        super().__init__()
        with torch.device("meta"):  # nothing is allocated or drawn for weights that are read
            layers = nn.Sequential(*list(vgg19(weights=None).features.children())[:30])
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = {name.removeprefix("features."): w for name, w in state.items() if name.startswith("features.")}
            layers.load_state_dict({name: found[name] for name in layers.state_dict()}, assign=True)
        except (AttributeError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
            raise ValueError(f"{path} is no state dict of torchvision's vgg19: {error}") from error
        self.slices = nn.ModuleList(layers[a:b] for a, b in ((0, 2), (2, 7), (7, 12), (12, 21), (21, 30)))
        self.eval().requires_grad_(False)

    @staticmethod
    def find() -> Path | None:
        """The file named by the variable I2I_VGG19, else the one in PyTorch's hub cache; None where there is none."""
        named = os.environ.get("I2I_VGG19")
        path = Path(named) if named else Path(torch.hub.get_dir(), "checkpoints", "vgg19-dcbb9e9d.pth")
        if named and not path.is_file():
            raise ValueError(f"I2I_VGG19 names {named}, which is no file: correct or unset it")
        return path if path.is_file() else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps after relu1_1, relu2_1, ..., relu5_1 of images [N, 3, H, W] in [-1, 1], at least 16 wide.

        The images go in as they are, not shifted to ImageNet's mean: the weight of the loss belongs to that.
        """
        maps = []
        for part in self.slices:
            image = part(image)
            maps.append(image)
        return maps

    def distance(self, fake: Tensor, target: Tensor) -> Tensor:
        """The weighted sum of L1 distances between the features of two batches; the gradient is that of `fake`."""
        with torch.no_grad():
            wanted = self(target)
        return _sum_of_l1(self(fake), wanted, self.weights)


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


def _sum_of_l1(x: Sequence[Tensor], y: Sequence[Tensor], weights: Sequence[float] = ()) -> Tensor:
    pairs = zip(x, y, weights or (1.0,) * len(x), strict=True)
    return torch.stack([weight * F.l1_loss(a.float(), b.float()) for a, b, weight in pairs]).sum()
