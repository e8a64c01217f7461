"""One place for a training: the recipe that decides it, and all that is built from it.

A recipe is JSON: the fingerprint of its training, and the file of `i2i train RUN/config.json`.
However many processes share it, a training is the same up to rounding, and one goes on where another has stopped.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import torch
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
from i2i_lib.data.batches import paired_batches, partly_labelled_batches, unpaired_batches
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task
from i2i_lib.distributed import default_group, local_slice, rank
from i2i_lib.files import sha256, write_json
from i2i_lib.layers import init_weights
from i2i_lib.prune import Prunable
from i2i_lib.scales import ScaleNotes
from i2i_lib.students import start_student
from i2i_lib.train.adversarial import Batches, TrainConfig
from i2i_lib.train.device import set_up
from i2i_lib.train.distill import Distillation
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.snapshots import Snapshots
from i2i_lib.weights import find_vgg19

Start = Literal["random", "inherited", "scales", "noisy"]
Perceptual = Literal["none", "vgg19"]
# What trains a family's teachers and its students, in the module beside this one of the family's name. Only that of the
# task is imported, so that its trainings depend on no other family's code.
TRAINERS = {
    "pix2pix": ("PairedTrainer", "PairedDistiller"),
    "cyclegan": ("UnpairedTrainer", "UnpairedDistiller"),
    "gaugan": ("SpadeTrainer", "SpadeDistiller"),
}
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
    # First weights: "random", or "noisy" with batch norms' scales drawn as the authors' code does; of a student with a
    # plan also "inherited" or "scales" (see `students.start_student`).
    start: Start = "random"
    # Spread of the first weights: the authors' .02. GauGAN's Xavier start has its usual spread with 1.
    gain: float = 0.02

    # A student's.
    teacher: str | None = None  # path of the generator that it learns from
    distillation: Distillation = "gcka"

    # A CycleGAN teacher's (see `UnpairedTrainer`).
    discriminator_back: Any = None  # of the sources' domain; None: a new one like `discriminator`, then a config
    cycle: float = 10.0
    identity: float = 0.5
    identity_until: float = 1.0
    pool: int = 50

    # GauGAN's: weight of the discriminator's features, and whether those of VGG-19 are matched, too.
    matching: float = 10.0
    perceptual: Perceptual = "none"

    # How a launch runs it; without effect on the result up to rounding.
    threads: int = 0  # of each process on a CPU, 0 for PyTorch's choice
    log_every: int = 50
    result: str = "generator"  # path for the trained generator; its discriminator goes to `<result>-discriminator`

    def __post_init__(self) -> None:
        check_choice("start", self.start, get_args(Start))
        check_choice("perceptual", self.perceptual, get_args(Perceptual))
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
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # the third where the JSON is no object
        raise ValueError(f"{path} is not a recipe of a training: {type(error).__name__}: {error}") from error


def build(
    recipe: Recipe, folder: Path, task: Task, device: torch.device, what: str | None = None
) -> tuple[Any, Batches, TrainingRun]:
    """Return the trainer, the batches and the run of a training, for `fit`.

    `folder` is the training's, `task` the one that the recipe names, loaded. `what` names the training in progress and
    errors, by default as its folder.
    """
    if recipe.training.gan_from and task.family != "pix2pix":
        raise ValueError(f"gan_from is for tasks with pairs: {task.name} has no other loss to begin with, set it to 0")
    _check_paired(recipe, task)
    _check_shards(recipe)
    module = import_module(f"i2i_lib.train.{task.family}")
    teacher_trainer, distiller = (getattr(module, name) for name in TRAINERS[task.family])
    options, inputs = {}, _inputs(recipe, folder)
    if task.family == "gaugan":
        options["feature_matching"] = recipe.matching
        if recipe.perceptual == "vgg19":
            weights = find_vgg19()
            options["perceptual"] = module.Vgg19Features(weights).to(device)
            inputs["perceptual"] = sha256(weights)
    elif task.family == "cyclegan" and not recipe.teacher:
        options = {name: getattr(recipe, name) for name in ("cycle", "identity", "identity_until", "pool")}

    networks = _networks(recipe, folder, task, device)
    if recipe.teacher:
        trainer = distiller(*networks, recipe.training, recipe.distillation, **options)
    else:
        trainer = teacher_trainer(*networks, recipe.training, **options)
    draw: Any = paired_batches if task.train.paired else unpaired_batches
    if (labelled := recipe.training.labelled) < 1:
        draw = partial(partly_labelled_batches, groups=task.info["train_groups"], share=labelled)
    seed = recipe.seed + (1000 if recipe.teacher else 0)
    batches = draw(task.train, image_size=task.crop, batch_size=recipe.batch_size, seed=seed, device=device)
    return trainer, batches, TrainingRun(folder, trainer, inputs, what or folder.name, recipe.log_every)


def _check_paired(recipe: Recipe, task: Task) -> None:
    """Raise ValueError for settings of students of pairs where there are none, or none to tell the labelled by."""
    for name, off in {"wavelet": 0, "judged": 0, "labelled": 1}.items():
        if getattr(recipe.training, name) != off and not (recipe.teacher and task.family == "pix2pix"):
            raise ValueError(
                f"{name} is for students of tasks with pairs (pix2pix), which this training of {task.name} is not: set"
                f" it to {off}"
            )
    if recipe.training.labelled < 1 and "train_groups" not in task.info:
        raise ValueError(
            f"labelled needs to know which training pairs belong together, and the task {task.name} has not noted it:"
            " set it to 1 or, of a task of emoji, make the data again"
        )


def _check_shards(recipe: Recipe) -> None:
    """Raise ValueError unless each process's part of a batch is of whole shards: others would mean another loss."""
    own, shard = local_slice(recipe.batch_size), recipe.training.shard
    if recipe.teacher and shard and (samples := own.stop - own.start) % shard:
        raise ValueError(
            f"shard is {shard}, and {samples} samples of each batch are a process's own: choose a batch_size, and so"
            " many processes, that this is a multiple of it"
        )


def _networks(recipe: Recipe, folder: Path, task: Task, device: torch.device) -> tuple[Any, ...]:
    """The networks of a training, in the order of its trainer's arguments."""
    start: dict[str, Any] = {"gain": recipe.gain, "scheme": "xavier" if task.family == "gaugan" else "normal"}
    start |= {"norm_start": "normal"} if recipe.start == "noisy" else {}

    def generator(seed: int) -> Any:
        return _new(recipe.generator, device, seed=seed, **start)

    def discriminator(given: Any, seed: int) -> Any:
        if isinstance(given, str):
            return _sync_batch_norm(load_discriminator(folder / given).to(device))
        return _new(given, device, seed=seed, **start)

    if recipe.teacher:
        teacher, seed = load_generator(folder / recipe.teacher), 1000 + recipe.seed
        if isinstance(recipe.generator, str):
            plan = load_plan(folder / recipe.generator, teacher=folder / recipe.teacher)
            kind = "random" if recipe.start == "noisy" else recipe.start
            student = _sync_batch_norm(start_student(teacher, plan, kind, seed=seed, **start).to(device))
        else:
            student = generator(seed)
        return student, teacher.to(device), discriminator(recipe.discriminator, 1000 + seed)

    seed = 2 * recipe.seed
    own = discriminator(recipe.discriminator, seed + 1)
    if task.family != "cyclegan":
        return generator(seed), own
    back = recipe.discriminator_back
    if back is None and isinstance(recipe.discriminator, str):
        raise ValueError("discriminator is a path: give the one of the sources' domain, too, as discriminator_back")
    return generator(seed), generator(seed + 1000), discriminator(back or recipe.discriminator, seed + 1001), own


def _new(config: Any, device: torch.device, **options: Any) -> Any:
    network = build_network(config)
    init_weights(network, **options)
    return _sync_batch_norm(network.to(device))


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


def _inputs(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe as it tells trainings apart: in place of each path the hash of the file's content."""
    values = asdict(recipe)
    for name in ("threads", "log_every", "result"):
        del values[name]
    for name, suffix in _FILES.items():
        if isinstance(path := getattr(recipe, name), str):
            values[name] = sha256(folder / f"{path}.{suffix}")
    return values


def noted_step(
    trainer: Any, recipe: Recipe, folder: Path, task: Task, device: torch.device
) -> Callable[[Any], dict[str, Any]]:
    """The trainer's step, and after some of them a snapshot in `folder` and, of a teacher to prune, its norm scales."""
    generator = trainer.ab.generator if hasattr(trainer, "ab") else trainer.generator  # from sources to targets
    notes: list[Any] = [Snapshots(folder / "snapshots", recipe.training.steps, task, device)]
    if not recipe.teacher and isinstance(generator, Prunable):
        notes.append(ScaleNotes(folder / "scales", recipe.training.steps))
    return followed_by(notes, trainer, generator)


def followed_by(notes: list[Any], trainer: Any, generator: Any) -> Callable[[Any], dict[str, Any]]:
    """The trainer's step, and after it each of the notes (`Snapshots`, `ScaleNotes`) of the generator that is due."""

    def stepped(batch: Any) -> dict[str, Any]:
        losses = trainer.step(batch)
        for note in notes:
            if trainer.count in note.due:
                note.take(trainer.count, generator)
        return losses

    return stepped


def launch(path: Path) -> Path:
    """Train by the recipe at `path`, together with the other processes of the launch; the first writes the result.

    Returns the path of the trained generator, without suffix.
    """
    recipe, folder = load_recipe(path), path.resolve().parent
    processes, state = int(os.environ.get("WORLD_SIZE", "1")), None
    if processes > 1:
        from accelerate import PartialState  # imported here: one process needs no launcher

        state = PartialState(cpu=not torch.cuda.is_available())  # forms the group: NCCL on GPUs, gloo on CPUs
    device = set_up(recipe.threads)
    task = load_saved_task(folder / recipe.task)
    trainer, batches, run = build(recipe, folder, task, device)
    step = noted_step(trainer, recipe, folder, task, device) if rank() == 0 else trainer.step
    rows = fit(step, batches, run, recipe.training.steps)
    generator = trainer.result(batches)  # by all: statistics may be those of every process's batches
    if rank() == 0:
        provenance = {"seconds": rows[-1]["seconds"], "task": task.name, "seed": recipe.seed}
        provenance |= {"processes": processes, "training": asdict(recipe.training), "skipped": trainer.skipped()}
        save_generator(generator, folder / recipe.result, provenance=provenance)
        sides = {"-discriminator": trainer}
        if task.family == "cyclegan" and not recipe.teacher:
            sides = {"-discriminator": trainer.ab, "-discriminator-back": trainer.ba}
        for suffix, side in sides.items():
            save_discriminator(side.discriminator, folder / f"{recipe.result}{suffix}", provenance=provenance)
    if state:
        state.destroy_process_group()
    return folder / recipe.result
