"""Shared by the training steps of all families: settings, optimisers, learning rate, precision, running average.

A step draws nothing from the global random numbers, and batches are a pure function of seed and step, so that a run
killed at any moment and started again ends as an unbroken one does.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from i2i_lib.config import check_choice
from i2i_lib.data.tiles import Batch
from i2i_lib.distributed import parallel
from i2i_lib.losses import hinge_d, hinge_g, lsgan
from i2i_lib.train.average import RunningAverage
from i2i_lib.train.packed import on_cpu, packed
from i2i_lib.train.parts import InParts

Batches = Callable[[int], Iterator[Batch]]
Gan = Literal["hinge", "lsgan"]
Precision = Literal["bf16", "fp16", "fp32", "tf32"]
Network = TypeVar("Network", bound=nn.Module)
_LEAST_SCALE = 2.0**-24  # of a float16 loss, which begins at 2^16: as many halvings in a row are no accident


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a generator is trained: paper section 4.1 where it says, the preset where it does not."""

    steps: int
    lr: float = 2e-4
    decay_from: float = 0.5  # share of the steps after which the learning rate falls linearly to 0
    gan: Gan | None = None  # None: the family's own
    gan_from: float = 0.0  # with pairs: share of the steps before the adversarial loss and its discriminator begin
    recon: float = 100.0  # weight of the L1 distance to the target; without pairs, to the teacher's image
    distill: float = 0.0  # weight of the distillation term, summed over the tapped layers
    patches: int = 1  # parts of height and width that an alignment is taken of, and then the mean over them
    shard: int = 0  # samples that an alignment is taken of, and then the mean over shards; 0 for the whole batch
    imitate: float = 0.0  # with pairs: share of the L1 distance that is to the teacher's image instead
    # With pairs, in units of `recon`: weights of the L1 distances to the teacher's image in high wavelet bands, and in
    # features of the discriminator that the student begins with, the teacher's own (see `PairedDistiller`).
    wavelet: float = 0.0
    judged: float = 0.0
    labelled: float = 1.0  # of a student with pairs: share of them whose target it learns (see `PairedDistiller`)
    average: float = 0.0  # decay of the running average of weights per step; 0 keeps no average
    # Arithmetic of the networks: see `autocast`, and for "fp16" `descend`. Losses and weights are float32 in all.
    precision: Precision = "fp32"
    compiled: bool = False  # by torch.compile: other bits, and the first step takes minutes; for long trainings
    # Less memory for a third more time (see `parts.InParts`): generators compute again in the backward pass what they
    # would keep, and that for so many samples at once; 0 for the whole batch, as batch norm needs to give its numbers.
    recompute: bool = False
    micro_batch: int = 0

    def __post_init__(self) -> None:
        if self.gan is not None:
            check_choice("gan", self.gan, get_args(Gan))
        check_choice("precision", self.precision, get_args(Precision))
        if self.steps < 1:
            raise ValueError(f"steps is at least 1, got {self.steps}")
        for name in ("decay_from", "gan_from", "imitate"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, got {share}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is a decay a step, at least 0 and below 1, got {self.average}")
        if self.distill < 0:
            raise ValueError(f"distill is a weight of at least 0, got {self.distill}")
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled is a share of the training pairs, above 0 and at most 1, got {self.labelled}")
        if self.patches < 1 or (self.patches > 1 and self.shard):
            raise ValueError(f"patches is at least 1, and 1 with shards, got {self.patches} and shard {self.shard}")
        for name in ("shard", "micro_batch"):
            if (samples := getattr(self, name)) < 0:
                raise ValueError(f"{name} is a number of samples, or 0 for the whole batch, got {samples}")


class GanState:
    """A generator and its discriminator in training: optimisers, learning rates, running average, state on disk.

    A student's `feature_loss` (see `distill.FeatureLoss`) may have parameters, which learn with the generator's.
    """

    # A family's own: its published loss, the factors of generator's and discriminator's learning rate, Adam's betas.
    gan: Gan = "hinge"
    rates = (1.0, 1.0)
    betas = (0.5, 0.999)

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, config: TrainConfig, *, feature_loss: Any = None
    ) -> None:
        self.config = replace(config, gan=config.gan or self.gan)
        self.generator: Any = channels_last(generator.train())
        self.discriminator: Any = channels_last(discriminator.train())
        self.feature_loss = feature_loss
        self.count = 0
        device = next(generator.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16")  # see `descend`

        rate_g, rate_d = self.rates
        learning = [*self.generator.parameters(), *(feature_loss.parameters() if feature_loss else ())]
        self.opt_g = torch.optim.Adam(learning, lr=config.lr * rate_g, betas=self.betas, fused=True)
        learning = self.discriminator.parameters()
        self.opt_d = torch.optim.Adam(learning, lr=config.lr * rate_d, betas=self.betas, fused=True)

        self.average = RunningAverage(self.generator) if config.average else None

        # Wrapped (packing, compile, parts, DDP) for passes that need gradients; bare everywhere else.
        drawing: Any = packed(self.generator) if on_cpu(generator) else self.generator
        judging: Any = self.discriminator
        if config.compiled:
            drawing, judging = torch.compile(drawing), torch.compile(judging)
        if config.recompute or config.micro_batch:  # a discriminator keeps little
            drawing = InParts(drawing, config.micro_batch)
        self.generator_ddp, self.discriminator_ddp = parallel(drawing), parallel(judging)

    def parts(self) -> dict[str, Any]:
        """All that changes in training, by name."""
        names = ["generator", "discriminator", "opt_g", "opt_d", "average", "feature_loss"]
        names += ["scaler"] if self.scaler.is_enabled() else []
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()} | {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.count = state["count"]

    @property
    def adversarial(self) -> bool:
        """Whether this step has an adversarial loss."""
        return self.count >= self.config.gan_from * self.config.steps

    def check(self) -> None:
        """Raise ValueError if a loss since the last check had no meaning (see `FeatureLoss.check`), or cannot train."""
        if self.feature_loss:
            self.feature_loss.check()
        if self.scaler.is_enabled() and self.scaler.get_scale() < _LEAST_SCALE:
            raise ValueError(
                "float16 is too narrow for this training: its gradients are infinite however little the loss is"
                " multiplied: use precision='bf16' or 'fp32'"
            )

    def skipped(self) -> int:
        """The number of updates so far that `descend` left out, of generator and discriminator; a GPU waits for it."""
        if not self.scaler.is_enabled():
            return 0
        judged = max(self.count - math.ceil(self.config.gan_from * self.config.steps), 0)
        return self.count + judged - _updates(self.opt_g) - _updates(self.opt_d)

    def decay(self) -> None:
        """Set the learning rates of this step: constant, then linear to 0 (Zhu et al. 2017).

        A step after the last one would have 0.
        """
        c = self.config
        start = c.decay_from * c.steps
        factor = 1.0 if self.count < start else (c.steps - self.count) / max(c.steps - start, 1)
        for optimiser in (self.opt_g, self.opt_d):
            for group in optimiser.param_groups:
                group["lr"] = optimiser.defaults["lr"] * factor

    def after_step(self) -> None:
        """Count the step and follow the generator's weights with their running average."""
        self.count += 1
        if self.average:  # it starts as the weights after step 1; that start decays by `average` per step
            self.average.update(self.generator, self.config.average if self.count > 1 else 0.0)

    def result(self, batches: Batches, count: int = 50) -> Any:
        """Return the trained generator in eval mode: the averaged weights if the config asks for them.

        Batch-norm statistics belong to the weights that they were gathered with, so those of averaged weights are
        gathered again, over `count` batches.
        """
        if self.average is None:
            return self.generator.eval()
        return with_fresh_bn_statistics(self.average.module, batches, count, self.config)


def channels_last(network: Network) -> Network:
    """The same network, its weights laid out as convolutions are fastest."""
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def frozen(network: Network) -> Network:
    """The same network in eval mode and without gradients."""
    return channels_last(network.eval().requires_grad_(False))


@contextmanager
def autocast(like: Tensor, config: TrainConfig) -> Iterator[None]:
    """A block in the arithmetic of `config.precision` on the device of `like`.

    "bf16" and "fp16" are PyTorch's mixed precision: convolutions have half of float32's digits, sums and norms all.
    "tf32" is "fp32" in which a GPU's convolutions round their factors to 10 bits; on a CPU it is "fp32".
    """
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    with (
        _tf32(config.precision == "tf32"),
        torch.autocast(like.device.type, dtype=half or torch.bfloat16, enabled=half is not None),
    ):
        yield


def discriminator_loss(gan: Gan | None, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from its logits: real up, fake down."""
    if gan == "lsgan":
        return 0.5 * (lsgan(real, real=True) + lsgan(fake, real=False))
    return hinge_d(real, fake)


def generator_gan_loss(gan: Gan | None, fake: Tensor) -> Tensor:
    """The generator's adversarial loss from the discriminator's logits: fake up."""
    return lsgan(fake, real=True) if gan == "lsgan" else hinge_g(fake)


def update_discriminator(side: GanState, real: Tensor, fake: Tensor) -> Tensor:
    """One step of the discriminator, which is then frozen; return its loss."""
    side.discriminator.requires_grad_(True)
    with autocast(real, side.config):
        real_logits, fake_logits = side.discriminator_ddp(real), side.discriminator_ddp(fake)
    loss = discriminator_loss(side.config.gan, real_logits, fake_logits)
    descend(loss, side, side.opt_d)
    side.discriminator.requires_grad_(False)
    return loss.detach()


def adversarial_losses(side: GanState, source: Tensor, target: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Update a discriminator of pairs; return its loss, and the generator's from it. Both are 0 before `gan_from`."""
    if not side.adversarial:
        zero = fake.new_zeros(())
        return zero, zero
    real_pair, fake_pair = torch.cat([source, target], 1), torch.cat([source, fake], 1)
    # Discriminator: real up, fake down.
    loss_d = update_discriminator(side, real_pair, fake_pair.detach())
    # Generator: fool the frozen discriminator.
    with autocast(source, side.config):
        logits = side.discriminator(fake_pair)
    return loss_d, generator_gan_loss(side.config.gan, logits)


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of losses."""
    return torch.stack(list(losses.values())).sum()


def descend(loss: Tensor, side: GanState, *optimisers: torch.optim.Optimizer) -> None:
    """One step of every optimiser down the gradient of `loss`, in the arithmetic of `side`.

    Small gradients are 0 in float16, so that the scaler of `side` multiplies the loss and divides the gradients. An
    optimiser whose gradients that makes infinite takes no step, and the next factor is half as large (Micikevicius et
    al. 2018). Adam is a fused one, which decides that on the GPU: nothing is read.
    """
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    with _tf32(side.config.precision == "tf32"):
        side.scaler.scale(loss).backward()
    for optimiser in optimisers:
        side.scaler.step(optimiser)
    side.scaler.update()


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """A block in which a GPU's convolutions may round their factors to 10 bits, or may not.

    Products of matrices are left as they are: few, and in an alignment differences of large sums.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _updates(optimiser: torch.optim.Optimizer) -> int:
    """The updates that Adam has counted; it leaves out those that a scaler had it skip."""
    steps = [state["step"] for state in optimiser.state.values()]
    return int(torch.stack(steps).max()) if steps else 0


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same losses without their graph, for the log."""
    return {name: loss.detach() for name, loss in losses.items()}


def with_fresh_bn_statistics(generator: Any, batches: Batches, count: int, config: TrainConfig) -> Any:
    """A copy in eval mode whose batch-norm statistics are those of the sources of `count` batches."""
    result = copy.deepcopy(generator)
    sources = (batch.source for _, batch in zip(range(count), batches(0), strict=False))
    with autocast(next(result.parameters()), config):
        update_bn(sources, result)
    return result.eval()
