"""One training step of each kind, and the loop that runs, logs and resumes them.

A trainer owns networks and optimisers and offers `step(batch) -> losses`; `fit` calls it. A step draws no random
numbers, and the batches are a pure function of seed and step, so that a run killed at any moment and started again
ends as an unbroken one does.
"""

import copy
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm.auto import tqdm

from i2i_lib.data import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.files import atomic_write, sha256, write_json
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.losses import hinge_d, hinge_g, kernel_alignment, lsgan
from i2i_lib.runs import exclusive
from i2i_lib.sources import library_modules

Batches = Callable[[int], Iterator[Batch]]
Generator = InceptionGenerator | ResnetGenerator
Distillation = Literal["gcka", "ka", "mse", "none"]


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


class Trainer(Protocol):
    """What `fit` needs of a trainer to resume it."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# --- steps -----------------------------------------------------------------------------------------------------


class _Resumable:
    """State of a trainer: its named parts, and how many steps they have taken."""

    count: int

    def _parts(self) -> dict[str, Any]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()} | {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.count = state["count"]


class PairedTrainer(_Resumable):
    """pix2pix (Isola et al. 2017): a conditional discriminator and an L1 distance to the paired target."""

    def __init__(self, generator: Generator, discriminator: PatchDiscriminator, config: TrainConfig) -> None:
        self.config = config
        self.generator = generator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = discriminator.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.count = 0
        self.opt_g = _adam(self.generator.parameters(), config)
        self.opt_d = _adam(self.discriminator.parameters(), config)
        self.average = _average(self.generator, config)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; return the detached losses by name."""
        c = self.config
        _decay(self.count, c, self.opt_g, self.opt_d)
        source, target = batch.source, batch.target
        with _autocast(source, c):
            fake = self.generator(source).float()
        loss_d = _discriminator_step(self.discriminator, self.opt_d, source, target, fake, c)
        losses = {
            "gan": _adversarial(self.discriminator, source, fake, c),
            "recon": c.recon * F.l1_loss(fake, target),
        }
        _generator_step(self.opt_g, losses)
        self.count += 1
        if self.average:
            self.average.update_parameters(self.generator)
        return {"d": loss_d} | {name: loss.detach() for name, loss in losses.items()}

    def _parts(self) -> dict[str, Any]:
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        parts |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"average": self.average} if self.average else {})

    def result(self, batches: Batches, count: int = 50) -> Generator:
        """The trained generator in eval mode: the averaged weights if the config asks for them.

        Batch-norm statistics belong to the weights that they were gathered with, so those of averaged weights are
        gathered again, over `count` batches.
        """
        return averaged(self.average, self.generator, batches, count, self.config)


class PairedDistiller(_Resumable):
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
        self.opt_g = _adam([*self.student.parameters(), *self.adaptors.parameters()], config)
        self.opt_d = _adam(self.discriminator.parameters(), config)
        self.average = _average(self.student, config)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the student; return the detached losses and, for GCKA, each alignment."""
        c = self.config
        _decay(self.count, c, self.opt_g, self.opt_d)
        source, target = batch.source, batch.target
        with _autocast(source, c):
            wanted: tuple[Tensor, ...] = ()
            if self.kind != "none":
                with torch.no_grad():
                    wanted = self.teacher.forward_features(source)[1]
            fake, features = self.student.forward_features(source)
            fake = fake.float()
        loss_d = _discriminator_step(self.discriminator, self.opt_d, source, target, fake, c)
        losses = {
            "gan": _adversarial(self.discriminator, source, fake, c),
            "recon": c.recon * F.l1_loss(fake, target),
        }
        alignments = self._alignments(features, wanted, source)
        if self.kind == "mse":
            losses["distill"] = c.distill * torch.stack(alignments).sum()
        elif self.kind != "none":
            # A constant offset keeps the term at 0 for perfect alignment; it changes no gradient.
            losses["distill"] = c.distill * (1 - torch.stack(alignments)).sum()
        _generator_step(self.opt_g, losses)
        self.count += 1
        if self.average:
            self.average.update_parameters(self.student)
        named = {f"layer{i}": value for i, value in enumerate(alignments, start=1)}
        return {"d": loss_d} | {name: loss.detach() for name, loss in (losses | named).items()}

    def _alignments(self, features: Iterable[Tensor], wanted: Iterable[Tensor], source: Tensor) -> list[Tensor]:
        if self.kind == "mse":
            with _autocast(source, self.config):
                pairs = [(adapt(f), w) for adapt, f, w in zip(self.adaptors, features, wanted, strict=True)]
            return [F.mse_loss(f.float(), w.float()) for f, w in pairs]
        if self.kind == "gcka":
            return [kernel_alignment(f, w) for f, w in zip(features, wanted, strict=True)]
        if self.kind == "ka":
            return [
                kernel_alignment(f, w, rows="samples", centered=False) for f, w in zip(features, wanted, strict=True)
            ]
        return []

    def _parts(self) -> dict[str, Any]:
        parts = {"student": self.student, "discriminator": self.discriminator, "adaptors": self.adaptors}
        parts |= {"opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"average": self.average} if self.average else {})

    def result(self, batches: Batches, count: int = 50) -> Generator:
        """The trained student in eval mode, as `PairedTrainer.result`."""
        return averaged(self.average, self.student, batches, count, self.config)


def _autocast(like: Tensor, config: TrainConfig) -> torch.autocast:
    return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _adam(parameters: Iterable[Tensor], config: TrainConfig) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=config.lr, betas=(0.5, 0.999), fused=True)


def _average(generator: nn.Module, config: TrainConfig) -> AveragedModel | None:
    if not config.average:
        return None
    # It starts as the weights after the first step: what it keeps of them fades by `average` with every step.
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.average))


def _decay(step: int, config: TrainConfig, *optimisers: torch.optim.Optimizer) -> None:
    """Constant, then linear to 0 at the last step (Zhu et al. 2017)."""
    start = config.decay_from * config.steps
    factor = 1.0 if step < start else (config.steps - step) / max(config.steps - start, 1)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = config.lr * factor


def _discriminator_step(
    discriminator: PatchDiscriminator,
    optimiser: torch.optim.Optimizer,
    source: Tensor,
    target: Tensor,
    fake: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Real pairs up, fake pairs down."""
    discriminator.requires_grad_(True)
    with _autocast(source, config):
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


def _adversarial(discriminator: PatchDiscriminator, source: Tensor, fake: Tensor, config: TrainConfig) -> Tensor:
    discriminator.requires_grad_(False)
    with _autocast(source, config):
        logits = discriminator(torch.cat([source, fake], 1)).float()
    return hinge_g(logits) if config.gan == "hinge" else lsgan(logits, real=True)


def _generator_step(optimiser: torch.optim.Optimizer, losses: dict[str, Tensor]) -> None:
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()


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


def averaged(
    average: AveragedModel | None, generator: Generator, batches: Batches, count: int, config: TrainConfig
) -> Generator:
    """The averaged generator with batch-norm statistics of its own; `generator` itself if nothing was averaged."""
    if average is None:
        return generator.eval()
    result: Generator = copy.deepcopy(average.module)  # pyright: ignore[reportAssignmentType]
    sources = (batch.source for _, batch in zip(range(count), batches(0), strict=False))
    first = next(result.parameters())
    with _autocast(first, config):
        update_bn(sources, result)
    return result.eval()


# --- the loop --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The private folder of one training: checkpoint, loss log, progress and lock.

    `trainer` is what is saved and resumed; `inputs` is whatever decides the result besides the code (parameters,
    hashes of the files read), so that a checkpoint of another training is never taken up.
    """

    folder: Path
    trainer: Trainer
    inputs: dict[str, Any]
    what: str  # a name for progress and errors
    log_every: int = 50  # steps between lines of the loss log; every fifth line comes with a checkpoint


def fit(
    step: Callable[[Batch], dict[str, Tensor]], batches: Batches, run: TrainingRun, steps: int
) -> list[dict[str, float]]:
    """Call `step` until `steps` are done, from the last checkpoint if there is one; return the loss log.

    Each row of the log holds the step, the seconds trained so far and the mean of every loss since the row before.
    Raises FloatingPointError, with the last good checkpoint kept, when a loss is not finite, and RuntimeError when
    another process trains in the same folder.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    with exclusive(run.folder / "lock", f"the training folder {run.folder}"):
        fingerprint = _fingerprint(run, steps)
        done, rows = _resume(run, fingerprint)
        if 0 < done < steps:
            print(f"{run.what}: going on from the checkpoint at step {done:,}")
        started = time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
        sums: dict[str, Tensor] = {}
        counted = 0
        # Line by line, so that a killed run leaves at most one torn line behind.
        with open(run.folder / "losses.jsonl", "a", buffering=1) as log, _Progress(run, steps, done) as report:
            for index, batch in zip(range(done + 1, steps + 1), batches(done), strict=False):
                losses = step(batch)
                # Sums stay on the device: reading a value every step would make a GPU wait for the host.
                sums = {name: sums[name] + loss for name, loss in losses.items()} if sums else dict(losses)
                counted += 1
                if index % run.log_every == 0 or index == steps:
                    row = {"step": index, "seconds": round(time.monotonic() - started, 3)}
                    row |= {name: (total / counted).item() for name, total in sums.items()}
                    bad = [name for name, value in row.items() if not math.isfinite(value)]
                    if bad:
                        raise FloatingPointError(
                            f"{run.what}: loss {', '.join(bad)} is not finite at step {index}; lower the learning rate"
                            f" or use precision='fp32'. The checkpoint before it is kept in {run.folder}"
                        )
                    rows.append(row)
                    log.write(json.dumps(row) + "\n")
                    sums, counted = {}, 0
                    report(index)
                if index % (5 * run.log_every) == 0 or index == steps:
                    log.flush()
                    _save(run, {"fingerprint": fingerprint, "step": index, "trainer": run.trainer.state_dict()})
    return rows


def _fingerprint(run: TrainingRun, steps: int) -> str:
    """What makes two trainings the same: inputs, library code, versions, device and threads."""
    here = Path(__file__)
    code = {path.name: sha256(path) for path in [here, *library_modules(here.read_text())]}
    parts = {"inputs": run.inputs, "steps": steps, "code": code, "torch": torch.__version__}
    parts |= {"threads": torch.get_num_threads(), "cuda": torch.version.cuda if torch.cuda.is_available() else None}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _save(run: TrainingRun, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(run.folder / "checkpoint.pt", buffer.getvalue())


def _resume(run: TrainingRun, fingerprint: str) -> tuple[int, list[dict[str, float]]]:
    """Load the checkpoint if it is of this very training; cut the log to its step; else start clean."""
    checkpoint, log = run.folder / "checkpoint.pt", run.folder / "losses.jsonl"
    done, rows = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        if state["fingerprint"] == fingerprint:
            run.trainer.load_state_dict(state["trainer"])
            done = state["step"]
        else:
            checkpoint.unlink()
    if done and log.exists():
        for line in log.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the line that a kill tore
                break
            if row["step"] <= done:
                rows.append(row)
    atomic_write(log, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return done, rows


class _Progress:
    """Tell how far a training is: to the file that the runner reads, or as a bar where a person looks on."""

    def __init__(self, run: TrainingRun, steps: int, done: int) -> None:
        self.what, self.steps, self.done = run.what, steps, done
        self.path = os.environ.get("I2I_PROGRESS", "")
        self.started = time.monotonic()
        self.bar = tqdm(total=steps, initial=done, desc=run.what, disable=bool(self.path))

    def __enter__(self) -> Callable[[int], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def _report(self, step: int) -> None:
        self.bar.update(step - self.bar.n)
        if self.path:
            rate = (step - self.done) / (time.monotonic() - self.started)
            write_json(Path(self.path), {"what": self.what, "step": step, "steps": self.steps, "rate": rate})


def set_up(threads: int, precision: str) -> torch.device:
    """Bound PyTorch's threads (0 keeps its choice) and pick the device: the first GPU, else the CPU.

    On the CPU, kernels that sum in varying order are refused, so that the same run gives the same bits.
    """
    if precision not in ("bf16", "fp32"):
        raise ValueError(f"precision must be 'bf16' or 'fp32', got {precision!r}")
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    torch.use_deterministic_algorithms(True)
    return torch.device("cpu")
