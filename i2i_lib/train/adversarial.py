"""What the training steps of all families share: optimisers, learning rate, precision, averages, adversarial losses."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from i2i_lib.config import check_choice
from i2i_lib.data.tiles import Batch
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.losses import hinge_d, hinge_g, lsgan
from i2i_lib.distributed import parallel

Batches = Callable[[int], Iterator[Batch]]
Gan = Literal["hinge", "lsgan"]
Precision = Literal["bf16", "fp32"]
Generator = InceptionGenerator | ResnetGenerator
Network = TypeVar("Network", bound=nn.Module)
Judge = TypeVar("Judge", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a generator is trained: paper section 4.1 where it says, the preset where it does not."""

    steps: int
    lr: float = 2e-4
    decay_from: float = 0.5  # share of the steps after which the learning rate falls linearly to 0
    gan: Gan | None = None  # None: least squares where there are no pairs, else hinge
    recon: float = 100.0  # weight of the L1 distance to the target; without pairs, to the teacher's image
    distill: float = 0.0  # weight of the distillation term, summed over the tapped layers
    imitate: float = 0.0  # share of the L1 distance that is to the teacher's image in place of a paired target
    average: float = 0.0  # decay of the running average of weights per step; 0 keeps no average
    precision: Precision = "fp32"
    compiled: bool = False  # by torch.compile: other bits, and the first step takes minutes; for long trainings

    def __post_init__(self) -> None:
        if self.gan is not None:
            check_choice("gan", self.gan, get_args(Gan))
        check_choice("precision", self.precision, get_args(Precision))


class Resumable:
    """State of a trainer: its named parts, and how many steps they have taken."""

    count: int

    def parts(self) -> dict[str, Any]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()} | {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.count = state["count"]


class Adversaries(Resumable, Generic[Network, Judge]):
    """A generator and the discriminator that judges it, with their optimisers and the generator's running average.

    `rates` multiply the learning rates of generator and discriminator, `betas` are Adam's, and `extra` are parameters
    that learn with the generator's.
    """

    def __init__(
        self,
        generator: Network,
        discriminator: Judge,
        config: TrainConfig,
        *,
        extra: Iterable[Tensor] = (),
        rates: tuple[float, float] = (1.0, 1.0),
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        self.config = config
        self.generator = generator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = discriminator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.count = 0
        own = [[*self.generator.parameters(), *extra], [*self.discriminator.parameters()]]
        self.opt_g, self.opt_d = (
            torch.optim.Adam(parameters, lr=config.lr * rate, betas=betas, fused=True)
            for parameters, rate in zip(own, rates, strict=True)
        )
        # It starts as the weights after the first step: what it keeps of them fades by `average` with every step.
        average = get_ema_multi_avg_fn(config.average)
        self.average = AveragedModel(self.generator, multi_avg_fn=average) if config.average else None
        # What is called wherever their own weights learn; elsewhere, and for saving, there are the bare networks.
        self.learning_generator, self.learning_discriminator = (
            torch.compile(call) if config.compiled else call
            for call in (parallel(self.generator), parallel(self.discriminator))
        )

    def parts(self) -> dict[str, Any]:
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        parts |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"average": self.average} if self.average else {})

    def decay(self) -> None:
        """Set the learning rates of this step: constant, then linear to 0 at the last step (Zhu et al. 2017)."""
        c = self.config
        start = c.decay_from * c.steps
        factor = 1.0 if self.count < start else (c.steps - self.count) / max(c.steps - start, 1)
        for optimiser in (self.opt_g, self.opt_d):
            for group in optimiser.param_groups:
                group["lr"] = optimiser.defaults["lr"] * factor

    def judge(self, image: Tensor, *, learning: bool = False) -> list[list[Tensor]]:
        """The discriminator's feature maps at each of its scales, its logits last; a PatchGAN shows only these."""
        judged = (self.learning_discriminator if learning else self.discriminator)(image)
        return judged if isinstance(judged, list) else [[judged]]

    def discriminator_step(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real images up, fake ones down; each stands behind its source where the discriminator is conditional."""
        self.discriminator.requires_grad_(True)
        with autocast(real, self.config):
            scales = zip(self.judge(real, learning=True), self.judge(fake.detach(), learning=True), strict=True)
        logits = [(r[-1], f[-1]) for r, f in scales]
        if self.config.gan == "lsgan":
            losses = [0.5 * (lsgan(r, real=True) + lsgan(f, real=False)) for r, f in logits]
        else:
            losses = [hinge_d(r, f) for r, f in logits]
        loss = torch.stack(losses).mean()
        self.opt_d.zero_grad(set_to_none=True)
        loss.backward()
        self.opt_d.step()
        return loss.detach()

    def adversarial(self, fake: Tensor) -> Tensor:
        """What the generator loses by being seen through; the discriminator learns nothing from it."""
        self.discriminator.requires_grad_(False)
        with autocast(fake, self.config):
            judged = self.judge(fake)
        return self.seen_through(judged)

    def seen_through(self, judged: list[list[Tensor]]) -> Tensor:
        """`adversarial` from what the discriminator made of the fakes, the mean over its scales."""
        logits = [scale[-1] for scale in judged]
        losses = [lsgan(f, real=True) if self.config.gan == "lsgan" else hinge_g(f) for f in logits]
        return torch.stack(losses).mean()

    def result(self, batches: Batches, count: int = 50) -> Network:
        """The trained generator in eval mode: the averaged weights if the config asks for them.

        Batch-norm statistics belong to the weights that they were gathered with, so those of averaged weights are
        gathered again, over `count` batches.
        """
        if self.average is None:
            return self.generator.eval()
        return own_statistics(self.average.module, batches, count, self.config)  # pyright: ignore[reportReturnType]


def autocast(like: Tensor, config: TrainConfig) -> torch.autocast:
    return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def generator_step(losses: dict[str, Tensor], *sides: Adversaries) -> None:
    """Descend the sum of the losses with the generator of every side, which ends its step."""
    for side in sides:
        side.opt_g.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    for side in sides:
        side.opt_g.step()
        side.count += 1
        if side.average:
            side.average.update_parameters(side.generator)


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: loss.detach() for name, loss in losses.items()}


def own_statistics(generator: nn.Module, batches: Batches, count: int, config: TrainConfig) -> nn.Module:
    """A copy in eval mode, its batch-norm statistics those of the sources of `count` batches."""
    result = copy.deepcopy(generator)
    sources = (batch.source for _, batch in zip(range(count), batches(0), strict=False))
    with autocast(next(result.parameters()), config):
        update_bn(sources, result)
    return result.eval()
