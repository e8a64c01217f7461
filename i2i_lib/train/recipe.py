"""A training described in a file, for one process or many: `accelerate launch -m i2i_lib.train RUN/config.json`.

The folder of the file is that of the training: its checkpoint, its log and, at the end, its networks are there. The
networks start, and the batches come, as `build` has them everywhere for the same seed. However many processes share it,
a training is the same up to rounding, and one goes on where another has stopped.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from i2i_lib.checkpoint import (
    DISCRIMINATORS,
    GENERATORS,
    build,
    load_discriminator,
    load_generator,
    load_plan,
    save_discriminator,
    save_generator,
)
from i2i_lib.data.batches import paired_batches, unpaired_batches
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task
from i2i_lib.files import sha256, write_json
from i2i_lib.layers import init_weights
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.cyclegan import UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.device import set_up
from i2i_lib.train.distill import Distillation
from i2i_lib.distributed import rank, together
from i2i_lib.train.gaugan import SpadeDistiller, SpadeTrainer
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer
from i2i_lib.train.vgg import Vgg19Features

_KINDS = {name: config for name, (config, _) in (GENERATORS | DISCRIMINATORS).items()}


@dataclass(frozen=True, slots=True)
class Described:
    """What decides a training. Paths are relative to the file and, as everywhere, without suffix."""

    task: str  # path of a saved task
    generator: Any  # its config; or, of a student, the path of its plan
    discriminator: Any  # its config; or the path of a saved one to go on from
    training: TrainConfig
    batch_size: int  # of all processes together
    teacher: str | None = None  # path of the generator that a student learns from; null: this trains a teacher
    distillation: Distillation = "gcka"
    seed: int = 0
    threads: int = 0  # of each process on a CPU, 0 for PyTorch's choice
    log_every: int = 50
    result: str = "generator"  # path for the trained generator; its discriminator goes to `<result>-discriminator`

    def save(self, path: Path) -> None:
        """Write the description as JSON; a network's config as its own file has it."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["training"] = asdict(self.training)
        for name in ("generator", "discriminator"):
            if not isinstance(config := values[name], str):
                kind = next(kind for kind, known in _KINDS.items() if type(config) is known)
                values[name] = {"kind": kind, "config": asdict(config)}
        write_json(path, values)


def load_described(path: Path) -> Described:
    """The inverse of `Described.save`; ValueError where the file says something else."""
    try:
        values = json.loads(path.read_text())
        for name in ("generator", "discriminator"):
            if isinstance(value := values[name], dict):
                values[name] = _KINDS[value["kind"]](**value["config"])
        return Described(**values | {"training": TrainConfig(**values["training"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a training: {type(error).__name__}: {error}") from error


def train_described(path: Path) -> None:
    """Train as `path` says, together with the other processes of the launch; the first writes the result."""
    described, folder = load_described(path), path.resolve().parent
    state = PartialState(cpu=not torch.cuda.is_available())  # forms the group: NCCL on GPUs, gloo on CPUs
    device = set_up(described.threads, described.training.precision)
    task = load_saved_task(folder / described.task)
    draw = paired_batches if task.train.paired else unpaired_batches
    batches = draw(
        task.train,
        image_size=task.test.size,
        batch_size=described.batch_size,
        seed=described.seed + 1000 * bool(described.teacher),
        device=device,
    )
    trainer = _trainer(described, folder, task, device)
    run = TrainingRun(folder, trainer, _inputs(described, folder), folder.name, described.log_every)
    rows = fit(trainer.step, batches, run, described.training.steps)
    generator = trainer.result(batches)  # by all: statistics may be those of every process's batches
    if rank() == 0:
        origin = {"seconds": rows[-1]["seconds"], "task": task.name, "seed": described.seed}
        origin |= {"processes": state.num_processes, "training": asdict(described.training)}
        save_generator(generator, folder / described.result, provenance=origin)
        judge = trainer.ab.discriminator if isinstance(trainer, UnpairedTrainer) else trainer.discriminator
        save_discriminator(judge, folder / f"{described.result}-discriminator", provenance=origin)
    state.destroy_process_group()


def _trainer(described: Described, folder: Path, task: Task, device: torch.device) -> Any:
    gaugan, seed = task.family == "gaugan", described.seed
    start: dict[str, Any] = {"scheme": "xavier", "gain": 1.0} if gaugan else {}
    perceptual: dict[str, Any] = {}
    if gaugan and (vgg := Vgg19Features.find()):
        perceptual["perceptual"] = Vgg19Features(vgg).to(device)

    def new(config: Any, seed: int) -> Any:
        network = build(config)
        init_weights(network, seed=seed, **start)
        return _agreeing(network.to(device))

    def judge(seed: int) -> Any:
        if isinstance(described.discriminator, str):
            return _agreeing(load_discriminator(folder / described.discriminator).to(device))
        return new(described.discriminator, seed)

    if described.teacher:
        config = described.generator
        config = load_plan(folder / config).config if isinstance(config, str) else config
        distillers = {"pix2pix": PairedDistiller, "cyclegan": UnpairedDistiller, "gaugan": SpadeDistiller}
        student, teacher = new(config, 1000 + seed), load_generator(folder / described.teacher).to(device)
        nets = (student, teacher, judge(2000 + seed))
        return distillers[task.family](*nets, described.training, described.distillation, **perceptual)
    generator = new(described.generator, 2 * seed)
    if task.family == "cyclegan":
        back = new(described.generator, 2 * seed + 1000)
        return UnpairedTrainer(generator, back, judge(2 * seed + 1001), judge(2 * seed + 1), described.training)
    trainer = SpadeTrainer if gaugan else PairedTrainer
    return trainer(generator, judge(2 * seed + 1), described.training, **perceptual)


def _agreeing(network: nn.Module) -> nn.Module:
    """With batch norms that normalise by the whole batch, were it shared by processes; they need GPUs."""
    if not together() or not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return network
    if next(network.parameters()).device.type != "cuda":
        raise ValueError(
            "batch norm over several processes needs GPUs: train with norm='instance', or as one process"
            " (accelerate launch --num_processes 1)"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def _inputs(described: Described, folder: Path) -> dict[str, Any]:
    """What tells this training from another: the description, and the content of the files that it names."""
    named = {"task": "json", "generator": "json", "teacher": "safetensors", "discriminator": "safetensors"}
    paths = {getattr(described, name): suffix for name, suffix in named.items()}
    files = [f"{path}.{suffix}" for path, suffix in paths.items() if isinstance(path, str)]
    return asdict(described) | {file: sha256(folder / file) for file in files}
