"""One place for a training: the recipe that decides it, and all that is built from it.

A recipe is JSON: the fingerprint of its training, and the file of `accelerate launch -m i2i_lib.train RUN/config.json`.
However many processes share it, a training is the same up to rounding, and one goes on where another has stopped.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import PartialState
from torch import nn

from i2i_lib.checkpoint import (
    DISCRIMINATORS,
    GENERATORS,
    load_discriminator,
    load_generator,
    load_plan,
    save_discriminator,
    save_generator,
)
from i2i_lib.checkpoint import build as build_network
from i2i_lib.config import check_choice
from i2i_lib.data.batches import paired_batches, unpaired_batches
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task
from i2i_lib.distributed import default_group, rank
from i2i_lib.files import sha256, write_json
from i2i_lib.layers import init_weights
from i2i_lib.students import start_student
from i2i_lib.train.adversarial import Batches, TrainConfig
from i2i_lib.train.cyclegan import UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.device import set_up
from i2i_lib.train.distill import Distillation
from i2i_lib.train.gaugan import SpadeDistiller, SpadeTrainer
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer
from i2i_lib.train.vgg import Vgg19Features

Start = Literal["random", "inherited", "scales", "noisy"]
_CONFIGS = {kind: config for kind, (config, _) in (GENERATORS | DISCRIMINATORS).items()}
_NETWORKS = ("generator", "discriminator", "discriminator_back")
# What each path points to, by the suffix of the file that its content is recognised by.
_FILES = {
    "task": "json", "teacher": "safetensors", "discriminator": "safetensors", "discriminator_back": "safetensors",
    "generator": "json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training. Paths are relative to the training's folder and, as everywhere, without suffix.

    The family is the task's. With a `teacher` a student is distilled, else a teacher is trained.
    """

    task: str  # path of a saved task
    generator: Any  # its config; or, of a student, the path of its plan
    discriminator: Any  # its config; or the path of a saved one to go on from
    training: TrainConfig
    batch_size: int  # of all processes together
    seed: int = 0  # of the weights and of the order of the data
    # First weights of the generator: "random", or "noisy" with the norm scales that the authors' code draws; of a
    # student with a plan also "inherited" or "scales" (see `students.start_student`).
    start: Start = "random"

    # A student's.
    teacher: str | None = None  # path of the generator that it learns from
    distillation: Distillation = "gcka"

    # A CycleGAN teacher's (see `UnpairedTrainer`).
    discriminator_back: Any = (
        None  # of the sources' domain; None: a new one like `discriminator`, which then is a config
    )
    cycle: float = 10.0
    identity: float = 0.5
    pool: int = 50

    # GauGAN's: weight of the discriminator's features.
    matching: float = 10.0

    # How a launch runs it; without effect on the result up to rounding.
    threads: int = 0  # of each process on a CPU, 0 for PyTorch's choice
    log_every: int = 50
    result: str = "generator"  # path for the trained generator; its discriminator goes to `<result>-discriminator`

    def __post_init__(self) -> None:
        check_choice("start", self.start, get_args(Start))
        if self.start in ("inherited", "scales") and not (self.teacher and isinstance(self.generator, str)):
            raise ValueError(f"start={self.start!r} needs a teacher, and as generator the path of a plan made of it")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as JSON: paths relative to the file, a network's config as its own file has it, with its kind."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    for name in _FILES:
        if isinstance(value := values[name], str):
            values[name] = os.path.relpath(path.parent / value, path.parent)
    values["training"] = asdict(recipe.training)
    for name in _NETWORKS:
        config = values[name]
        if config is not None and not isinstance(config, str):
            kind = next(kind for kind, known in _CONFIGS.items() if type(config) is known)
            values[name] = {"kind": kind, "config": asdict(config)}
    write_json(path, values)


def load_recipe(path: Path) -> Recipe:
    """Read what `save_recipe` wrote; ValueError where the file holds something else."""
    try:
        values = json.loads(path.read_text())
        for name in _NETWORKS:
            if isinstance(value := values.get(name), dict):
                values[name] = _CONFIGS[value["kind"]](**value["config"])
        return Recipe(**values | {"training": TrainConfig(**values["training"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a recipe of a training: {type(error).__name__}: {error}") from error


def build(
    recipe: Recipe, folder: Path, task: Task, device: torch.device, what: str | None = None
) -> tuple[Any, Batches, TrainingRun]:
    """Return the trainer, the batches and the run of a training, for `fit`.

    `folder` is the training's, `task` the one that the recipe names, loaded. `what` names the training in progress and
    errors, by default as its folder.
    """
    if recipe.teacher:
        trainer = _distiller(recipe, folder, task, device)
    else:
        trainer = _teacher_trainer(recipe, folder, task, device)
    draw = paired_batches if task.train.paired else unpaired_batches
    seed = recipe.seed + (1000 if recipe.teacher else 0)
    batches = draw(task.train, image_size=task.test.size, batch_size=recipe.batch_size, seed=seed, device=device)
    run = TrainingRun(folder, trainer, _inputs(recipe, folder, task), what or folder.name, recipe.log_every)
    return trainer, batches, run


def _teacher_trainer(recipe: Recipe, folder: Path, task: Task, device: torch.device) -> Any:
    seed, initial = 2 * recipe.seed, _initial(task)

    def generator(number: int) -> Any:
        return _new(recipe.generator, device, seed=seed + number, **initial, **_norm_start(recipe))

    if task.family == "cyclegan":
        back = recipe.discriminator_back
        if back is None and isinstance(recipe.discriminator, str):
            raise ValueError("discriminator is a path: give the one of the sources' domain, too, as discriminator_back")
        return UnpairedTrainer(
            generator(0),
            generator(1000),
            _discriminator(back or recipe.discriminator, folder, device, seed=seed + 1001),
            _discriminator(recipe.discriminator, folder, device, seed=seed + 1),
            recipe.training,
            cycle=recipe.cycle,
            identity=recipe.identity,
            pool=recipe.pool,
        )
    networks = generator(0), _discriminator(recipe.discriminator, folder, device, seed=seed + 1, **initial)
    if task.family == "gaugan":
        perceptual = _perceptual(device)
        return SpadeTrainer(*networks, recipe.training, feature_matching=recipe.matching, perceptual=perceptual)
    return PairedTrainer(*networks, recipe.training)


def _distiller(recipe: Recipe, folder: Path, task: Task, device: torch.device) -> Any:
    initial = _initial(task)
    drawn = {"seed": 1000 + recipe.seed, **initial, **_norm_start(recipe)}
    teacher = load_generator(folder / str(recipe.teacher))
    if isinstance(recipe.generator, str):
        plan = load_plan(folder / recipe.generator)
        kind = "random" if recipe.start == "noisy" else recipe.start
        student = start_student(teacher, plan, kind, **drawn)
        student = _sync_batch_norm(student.to(device))
    else:
        student = _new(recipe.generator, device, **drawn)
    discriminator = _discriminator(recipe.discriminator, folder, device, seed=2000 + recipe.seed, **initial)
    networks = student, teacher.to(device), discriminator
    if task.family == "gaugan":
        options: dict[str, Any] = {"feature_matching": recipe.matching, "perceptual": _perceptual(device)}
        return SpadeDistiller(*networks, recipe.training, recipe.distillation, **options)
    distiller = UnpairedDistiller if task.family == "cyclegan" else PairedDistiller
    return distiller(*networks, recipe.training, recipe.distillation)


def _initial(task: Task) -> dict[str, Any]:
    """Options of `init_weights` for every network of the task's family."""
    return {"scheme": "xavier", "gain": 1.0} if task.family == "gaugan" else {}


def _norm_start(recipe: Recipe) -> dict[str, Any]:
    return {"norm_start": "normal"} if recipe.start == "noisy" else {}


def _new(config: Any, device: torch.device, **options: Any) -> Any:
    network = build_network(config)
    init_weights(network, **options)
    return _sync_batch_norm(network.to(device))


def _discriminator(config: Any, folder: Path, device: torch.device, **options: Any) -> Any:
    """The discriminator of a config with fresh weights, or the saved one that a path names."""
    if isinstance(config, str):
        return _sync_batch_norm(load_discriminator(folder / config).to(device))
    return _new(config, device, **options)


def _perceptual(device: torch.device) -> Vgg19Features | None:
    """VGG-19's features, if its weights are found: no Python package carries them."""
    path = Vgg19Features.find()
    return Vgg19Features(path).to(device) if path else None


def _sync_batch_norm(network: Any) -> Any:
    """The network with batch norms over the batches of all processes, if there are several: that needs GPUs."""
    if not default_group() or not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return network
    if next(network.parameters()).device.type != "cuda":
        raise ValueError(
            "batch norm over several processes needs GPUs: train with norm='instance', or as one process"
            " (accelerate launch --num_processes 1)"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def _inputs(recipe: Recipe, folder: Path, task: Task) -> dict[str, Any]:
    """The recipe as it tells trainings apart: in place of each path the hash of the file's content."""
    values = asdict(recipe)
    for name in ("threads", "log_every", "result"):
        del values[name]
    for name, suffix in _FILES.items():
        if isinstance(path := getattr(recipe, name), str):
            values[name] = sha256(folder / f"{path}.{suffix}")
    vgg = Vgg19Features.find() if task.family == "gaugan" else None
    return values | {"perceptual": sha256(vgg) if vgg else None}


def launch(path: Path) -> None:
    """Train by the recipe at `path`, together with the other processes of the launch; the first writes the result."""
    recipe, folder = load_recipe(path), path.resolve().parent
    state = PartialState(cpu=not torch.cuda.is_available())  # forms the group: NCCL on GPUs, gloo on CPUs
    device = set_up(recipe.threads, recipe.training.precision)
    task = load_saved_task(folder / recipe.task)
    trainer, batches, run = build(recipe, folder, task, device)
    rows = fit(trainer.step, batches, run, recipe.training.steps)
    generator = trainer.result(batches)  # by all: statistics may be those of every process's batches
    if rank() == 0:
        provenance = {"seconds": rows[-1]["seconds"], "task": task.name, "seed": recipe.seed}
        provenance |= {"processes": state.num_processes, "training": asdict(recipe.training)}
        save_generator(generator, folder / recipe.result, provenance=provenance)
        two_ways = isinstance(trainer, UnpairedTrainer)
        side = trainer.ab if two_ways else trainer
        save_discriminator(side.discriminator, folder / f"{recipe.result}-discriminator", provenance=provenance)
        if two_ways:
            back = folder / f"{recipe.result}-discriminator-back"
            save_discriminator(trainer.ba.discriminator, back, provenance=provenance)
    state.destroy_process_group()
