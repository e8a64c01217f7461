"""What the training steps of all families share: optimisers, learning rate, precision, averages, adversarial losses."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from i2i_lib.batches import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.losses import hinge_d, hinge_g, lsgan

Batches = Callable[[int], Iterator[Batch]]
Generator = InceptionGenerator | ResnetGenerator


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a generator is trained: paper section 4.1 where it says, the preset where it does not."""

    steps: int
    lr: float = 2e-4
    decay_from: float = 0.5  # share of the steps after which the learning rate falls linearly to 0
    gan: Literal["hinge", "lsgan"] = "hinge"
    recon: float = 100.0  # weight of the L1 distance to the target
    distill: float = 0.0  # weight of the distillation term, summed over the tapped layers
    average: float = 0.0  # decay of the running average of weights per step; 0 keeps no average
    precision: Literal["bf16", "fp32"] = "fp32"


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


def autocast(like: Tensor, config: TrainConfig) -> torch.autocast:
    return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def adam(parameters: Iterable[Tensor], config: TrainConfig) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=config.lr, betas=(0.5, 0.999), fused=True)


def running_average(generator: nn.Module, config: TrainConfig) -> AveragedModel | None:
    if not config.average:
        return None
    # It starts as the weights after the first step: what it keeps of them fades by `average` with every step.
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.average))


def decay(step: int, config: TrainConfig, *optimisers: torch.optim.Optimizer) -> None:
    """Constant, then linear to 0 at the last step (Zhu et al. 2017)."""
    start = config.decay_from * config.steps
    factor = 1.0 if step < start else (config.steps - step) / max(config.steps - start, 1)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = config.lr * factor


def discriminator_step(
    discriminator: PatchDiscriminator,
    optimiser: torch.optim.Optimizer,
    source: Tensor,
    target: Tensor,
    fake: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Real pairs up, fake pairs down."""
    discriminator.requires_grad_(True)
    with autocast(source, config):
        real_logits = discriminator(torch.cat([source, target], 1)).float()
        fake_logits = discriminator(torch.cat([source, fake.detach()], 1)).float()
    if config.gan == "hinge":
        loss = hinge_d(real_logits, fake_logits)
    else:
        loss = 0.5 * (lsgan(real_logits, real=True) + lsgan(fake_logits, real=False))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()


def adversarial(discriminator: PatchDiscriminator, source: Tensor, fake: Tensor, config: TrainConfig) -> Tensor:
    discriminator.requires_grad_(False)
    with autocast(source, config):
        logits = discriminator(torch.cat([source, fake], 1)).float()
    return hinge_g(logits) if config.gan == "hinge" else lsgan(logits, real=True)


def generator_step(optimiser: torch.optim.Optimizer, losses: dict[str, Tensor]) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()


def averaged(
    average: AveragedModel | None, generator: Generator, batches: Batches, count: int, config: TrainConfig
) -> Generator:
    """The averaged generator with batch-norm statistics of its own; `generator` itself if nothing was averaged."""
    if average is None:
        return generator.eval()
    result: Generator = copy.deepcopy(average.module)  # pyright: ignore[reportAssignmentType]
    sources = (batch.source for _, batch in zip(range(count), batches(0), strict=False))
    first = next(result.parameters())
    with autocast(first, config):
        update_bn(sources, result)
    return result.eval()
