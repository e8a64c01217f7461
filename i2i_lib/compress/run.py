"""The compression itself: teacher and pictures in, student, ONNX file, card and report out."""

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from i2i_lib.artifacts import tensor_bytes
from i2i_lib.checkpoint import load_generator, load_info, save_generator, save_plan
from i2i_lib.compress.budget import Budget, narrowed
from i2i_lib.compress.pictures import Folder, compression_task, look_into, teacher_pictures
from i2i_lib.compress.report import write_card, write_page
from i2i_lib.compress.teacher import Teacher, read_teacher
from i2i_lib.config import DiscriminatorConfig
from i2i_lib.data.folders import Layout
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tiles import Task
from i2i_lib.export.onnx import export_onnx, milliseconds
from i2i_lib.export.speed import time_in_turn
from i2i_lib.files import read_json, write_json
from i2i_lib.generators import InceptionGenerator
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.metrics.cost import peak_memory
from i2i_lib.metrics.intervals import compare
from i2i_lib.metrics.pairs import l1, ssim
from i2i_lib.threshold import ChannelPlan
from i2i_lib.train.adversarial import Precision, TrainConfig
from i2i_lib.train.device import set_up
from i2i_lib.train.loop import fit
from i2i_lib.train.precision import settle
from i2i_lib.train.recipe import Recipe, build, load_recipe, save_recipe

LEAST_STEPS = 100  # of a training whose length is given in minutes
TIMED_STEPS = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What to compress, on which pictures, how far, and for how long to train."""

    teacher: str
    pictures: str
    budget: Budget
    size: int | None = None  # of training and test pictures; None: see `look_into`
    layout: Layout = "auto"
    swap: bool = False  # translate from the folder's second domain to its first
    minutes: float = 20.0
    steps: int | None = None  # in place of `minutes`
    min_width: int | None = None  # see `prune`
    seed: int = 0


def compress(request: Request, out: Path) -> dict[str, Any]:
    """Make a student in the folder `out`: student, ONNX file, MODEL_CARD.md, report.html; returns the numbers in them.

    The student learns from the teacher's pictures and features, and from the folder's pairs where it holds any. The
    same call goes on after an interruption, and after the end only returns the numbers.

    Raises ValueError or FileNotFoundError, before anything is written, for a teacher, folder or budget that will not do
    and for an `out` that holds something else.
    """
    if request.steps is not None and request.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {request.steps}")
    if request.min_width is not None and request.min_width < 1:
        raise ValueError(f"--min-width must be at least 1, got {request.min_width}")
    if not 0 < request.minutes < float("inf"):
        raise ValueError(f"--minutes must be above 0 and finite, got {request.minutes:g}")
    device = set_up(0)
    _say("reading the teacher and the pictures")
    teacher = read_teacher(request.teacher).to(device)
    folder = look_into(request.pictures, request.layout, request.size)
    if request.swap and not folder.layout:
        raise ValueError(f"{folder.path} holds sources alone: --direction BtoA is for a folder with two domains")
    asked = asdict(request) | {
        "folder": [str(folder.path.resolve()), folder.layout, folder.size, folder.pictures],
        "teacher": hashlib.sha256(tensor_bytes(teacher.state_dict())).hexdigest(),
    }
    del asked["pictures"]
    settings, finished = _earlier(out, asked)
    if finished:
        return finished
    _check_place(out)

    if not settings:
        _say(f"looking for the student within {request.budget.text()}")
        plan = narrowed(teacher, request.budget, folder.size, request.min_width)
        task = compression_task(folder, teacher, swap=request.swap, device=device)
        write_json(out / "compress.json", {"asked": asked})  # from here on files are written
        save_generator(teacher, out / "teacher", provenance={"from": str(request.teacher)})
        save_task(task, out / "data")
        task = load_saved_task(out / "data")
        precision = settle("auto", out / "train" / "config.json", out / "precision.json", device)
        recipe = _recipe(teacher, plan, task, request, out, precision)
        steps = _steps(request, recipe, out, task, device)
        average = max(0.0, min(0.995, 1 - 10 / steps))  # so that the start counts for nothing at the end
        recipe = replace(recipe, training=replace(recipe.training, steps=steps, average=average))
        save_recipe(recipe, out / "train" / "config.json")
        write_json(out / "compress.json", {"asked": asked, "planned": True})
    task = load_saved_task(out / "data")
    recipe = load_recipe(out / "train" / "config.json")

    trainer, batches, run = build(recipe, out / "train", task, device, "training the student")
    log = fit(trainer.step, batches, run, recipe.training.steps)
    facts = {"seconds": log[-1]["seconds"], "training": asdict(recipe.training), "budget": request.budget.text()}
    save_generator(trainer.result(batches), out / "student", provenance=facts)

    _say("measuring the student")
    student = load_generator(out / "student").to(device)
    values, pictures = _measured(teacher, student, folder, task, device)
    exported = export_onnx(out / "student", out / "student.onnx")
    record = {
        "teacher": _cost(teacher, folder, device),
        "student": _cost(student, folder, device),
        "budget": request.budget.text(),
        "size": folder.size,
        **values,
        "training": {"steps": recipe.training.steps, "seconds": log[-1]["seconds"], "pictures": folder.pictures},
        "pairs": task.train.paired,
        "onnx": {
            "file": exported.path.name,
            "bytes": exported.size,
            "largest_difference": exported.largest,
            "ms": milliseconds(exported.path, folder.size),
        },
        "weights": load_info(out / "student")["sha256"],
    }
    write_card(record, out / "MODEL_CARD.md")
    write_page(record, pictures, out / "report.html")
    write_json(out / "compress.json", {"asked": asked, "planned": True, "record": record})
    return record


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _earlier(out: Path, asked: Mapping[str, Any]) -> tuple[bool, dict[str, Any] | None]:
    """Whether `out` holds this compression, planned, and its record if it is finished. ValueError for anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False, None
    file = out / "compress.json"
    if not file.is_file():
        raise ValueError(f"{out} exists and holds no compression: name a new folder for the student")
    found = read_json(file, "name a new folder")
    if not isinstance(found, dict) or found.get("asked") != json.loads(json.dumps(asked)):
        raise ValueError(
            f"{out} holds a compression of another teacher, folder, budget or length: name a new folder, or delete it"
        )
    return bool(found.get("planned")), found.get("record")


def _check_place(out: Path) -> None:
    """Raise ValueError where a folder cannot be made or written into, before long work."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, so that {out} cannot be made: name another folder for the student")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} cannot be written into: name another folder for the student")


def _recipe(
    teacher: Teacher, plan: ChannelPlan, task: Task, request: Request, out: Path, precision: Precision
) -> Recipe:
    """How the student is trained: from the teacher's kept weights if it was pruned, else from random ones."""
    inherits = isinstance(teacher, InceptionGenerator)
    if inherits:
        save_plan(plan, out / "plan", provenance={"teacher": load_info(out / "teacher")["sha256"]})
    size = task.test.size
    training = TrainConfig(
        request.steps or LEAST_STEPS,
        lr=1e-3,
        recon=300.0,
        distill=10.0,
        imitate=0.5,
        gan_from=1.0 if task.train.paired else 0.0,
        precision=precision,
    )
    return Recipe(
        task="../data",
        generator="../plan" if inherits else plan.config,
        discriminator=DiscriminatorConfig(
            6 if task.train.paired else 3, base=32, n_layers=3 if size >= 64 else 2, norm="instance"
        ),
        training=training,
        batch_size=min(8, max(1, 65536 // size**2)),
        seed=request.seed,
        start="inherited" if inherits else "random",
        teacher="../teacher",
        log_every=10,
    )


def _steps(request: Request, recipe: Recipe, out: Path, task: Task, device: torch.device) -> int:
    """The steps that were asked for, or that fit into the minutes, by timing a few."""
    if request.steps:
        return request.steps
    (out / "train").mkdir(exist_ok=True)  # the recipe's paths lead through it
    trainer, batches, _ = build(recipe, out / "train", task, device)
    times = []
    for _, batch in zip(range(TIMED_STEPS), batches(0), strict=False):
        started = time.perf_counter()
        losses = trainer.step(batch)
        float(next(iter(losses.values())))  # waits for a GPU
        times.append(time.perf_counter() - started)
    return max(LEAST_STEPS, int(60 * request.minutes / statistics.median(times)))


def _measured(
    teacher: Teacher, student: Any, folder: Folder, task: Task, device: torch.device
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """How near the student's test pictures are to its teacher's, and to targets where there are pairs."""
    source = task.test.source[:]
    if folder.layout:
        by_teacher = teacher_pictures(teacher.eval(), source, device, "the teacher's test pictures")
    else:  # a folder of sources alone: the teacher has made the targets
        by_teacher = task.test.target[:]
    made = {
        "source": source,
        "teacher": by_teacher,
        "student": teacher_pictures(student, source, device, "the student's test pictures"),
    }
    distances = {
        "l1_to_teacher": l1(made["student"], made["teacher"]),
        "l1_source_to_teacher": l1(source, made["teacher"]),
        "ssim_to_teacher": ssim(made["student"], made["teacher"]),
    }
    if task.test.paired:
        made["target"] = task.test.target[:]
        distances["l1_teacher_to_target"] = l1(made["teacher"], made["target"])
        distances["l1_student_to_target"] = l1(made["student"], made["target"])
        distances["l1_difference"] = distances["l1_student_to_target"] - distances["l1_teacher_to_target"]
    values = {}
    for name, each in distances.items():
        found = compare(each[None], range(len(each)), measure=name)
        values[name] = {"mean": found.difference, "low": found.low, "high": found.high}
    return {"test_pictures": len(source), **values}, made


def _cost(generator: Any, folder: Folder, device: torch.device) -> dict[str, Any]:
    """What one picture costs."""
    picture = torch.zeros(1, 3, folder.size, folder.size, device=device)
    return {
        "kind": type(generator).__name__,
        "macs": generator_macs(generator.config, folder.size, "exact"),
        "params": generator_params(generator.config),
        "ms": time_in_turn({"alone": lambda: generator(picture)}, device=device)["alone"],
        "peak_mib": peak_memory(generator, folder.size),
        "device": str(device),
        "threads": 1,
    }
