"""Runs that nobody computed: notebooks as the runner leaves them, rows of results, and a run of two seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toys import DISCRIMINATORS, TEACHERS, network, trained

from i2i_book.pages.assemble import assemble
from i2i_book.pages.contents import Page
from i2i_book.runs import root
from i2i_lib.checkpoint import save_discriminator, save_generator
from i2i_lib.config import cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task, placeless_tiles
from i2i_lib.files import sha256, write_json
from i2i_lib.generators import InceptionGenerator
from i2i_lib.prune import norm_scales
from i2i_lib.results import EvalResult, collect, save_evaluation
from i2i_lib.scales import ScaleNote, save_scales
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.recipe import Recipe, save_recipe
from i2i_lib.train.snapshots import picture_row

CHAPTERS = sorted(path.stem for path in (root() / "notebooks").glob("*.ipynb"))
MACHINE = {"cpu": "A Processor", "cores": 8, "gpu": "A Large GPU", "os": "Linux"}
WROTE = {
    "01-data": ["data"],
    "03-pruning": ["plan"],
    "04-distillation-gcka": ["student-gcka"],
    "05-evaluation": ["eval"],
}


def source(path: Path, parameters: str, /, *cells: str, **facts: Any) -> Path:
    """Write a notebook of a cell with parameters and further cells of code, with the runner's `facts` if it ran."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    made = new_notebook(cells=[first, *map(new_code_cell, cells)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if facts:
        made.metadata["i2i"] = facts
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    return path


def facts(notebook: str, preset: str, **more: Any) -> dict[str, Any]:
    """The record that the runner puts into the notebook of a good run."""
    return {
        "notebook": notebook, "preset": preset, "task": "fluent", "seed": 0, "arm": None, "parameters": {"run": preset},
        "source_sha256": "s", "modules_sha256": "m", "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "machine": MACHINE, "precision": None, "threads": 1, "started": "2026-11-20T08:03:05+00:00", "seconds": 125.0,
        "peak_memory_mib": 900, "git": "0123456789ab", "status": "ok",
    } | more  # fmt: skip


def row(seed: int = 0, model: str = "gcka", **more: Any) -> EvalResult:
    """A row of results."""
    values: dict[str, Any] = {"task": "fluent", "protocol": "a protocol", "images": 2, "blocks": 2, "l1": 0.1}
    values |= {"ssim": 0.5, "feature_distance": 1.0, "kd": 1.0, "kd_low": 0.0, "kd_high": 2.0, "fd": 3.0}
    return EvalResult(seed=seed, model=model, **(values | more))


def publish(run: Path, name: str, home: Path | None) -> None:
    """Put an executed notebook where the runner would have: with the hashes of the files that it wrote."""
    wrote = {}
    for artifact in WROTE.get(name, []):
        for path in sorted((home or run).glob(f"{artifact}.*")):
            wrote[path.relative_to(run.parent).as_posix()] = sha256(path)
    made = facts(name.removesuffix("-gcka"), run.name, files={"read": {}, "wrote": wrote})
    made["arm"] = "gcka" if name.endswith("-gcka") else None
    place = (None, None) if home is None else (home.parent.name, int(home.name.removeprefix("seed")))
    made |= dict(zip(("task", "seed"), place, strict=True))
    number = {"text/plain": "a number", "text/html": "<b>a number</b>"}
    figure = {"text/plain": "<Figure>", "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"/>'}
    shown = new_code_cell("show()", execution_count=1)
    shown.outputs = [new_output("execute_result", data, execution_count=1) for data in (number, figure)]
    notebook = new_notebook(cells=[new_markdown_cell(f"# Title of {name}"), shown], metadata={"i2i": made})
    path = (home or run) / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def finished_run(top: Path, task: str = "fluent", version: int = 0) -> Path:
    """runs/gpu with two seeds of a task, as the pipeline leaves it; one of another version has another plan."""
    run = top / "runs" / "gpu"
    for seed in (0, 1):
        home = run / task / f"seed{seed}"
        torch.manual_seed(seed)
        student = InceptionGenerator(cat_teacher(base=4, n_blocks=3))
        save_generator(student, home / "student-gcka")
        save_generator(student, home / "teacher")
        write_json(home / "data.json", {"kind": "task"})
        (home / "data.safetensors").write_bytes(bytes(1000))
        write_json(home / "plan.json", {"kind": "plan", "version": version})
        rows = [row(seed, task=task, l1=0.1 + 0.2 * seed)]
        save_evaluation(home / "eval.json", rows, {"l1": {"gcka": [0.1, 0.1]}}, blocks=[0, 1])
        for name in WROTE:
            publish(run, name, home)
    (run / "results.jsonl").write_text(collect(sorted(run.glob("*/seed*/eval.json"))))
    publish(run, "06-results", None)
    return run


def checkout(folder: Path) -> Path:
    """The committed part of book/, recordings apart, beside bare sources of the notebooks; returns the book."""
    left_out = (
        "notebooks",
        "tasks",
        "status.md",
        "mathjax",
        "models",
        "onnxruntime",
        "pyodide",
        "reference",
        "searched",
        "recorded",
    )
    shutil.copytree(root() / "book", folder / "book", ignore=shutil.ignore_patterns(*left_out))
    shutil.copy(root() / "_config.yml", folder)
    (folder / "notebooks").mkdir()
    for name in CHAPTERS:
        bare = new_notebook(cells=[new_markdown_cell(f"# Title of {name}")])
        nbformat.write(bare, folder / f"notebooks/{name}.ipynb")
    return folder / "book"


def fill(book: Path, preset: str, digest: tuple[str, str] = ("s", "m")) -> list[Page]:
    """Assemble the book of a checkout, whose notebooks and modules have these checksums."""
    return assemble(preset, lambda *_: digest, book=book, runs=book.parent / "runs")


TRAINING = TrainConfig(steps=1000, lr=1e-3)


def recipe(**settings: Any) -> Recipe:
    """How the teacher of `finished_teacher` was trained."""
    given = {"training": TRAINING, "batch_size": 4} | settings
    return Recipe("data", TEACHERS["pix2pix"], DISCRIMINATORS["pix2pix"], **given)


def finished_training(home: Path, name: str, how: Recipe, page: str) -> Path:
    """What a training leaves beside its network: recipe, losses, pictures and the executed notebook."""
    private = home / "train" / name
    save_recipe(how, private / "config.json")
    lines = [{"step": step, "seconds": step / 10, "recon": float(step)} for step in range(1, 1001)]
    (private / "losses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (private / "snapshots").mkdir(exist_ok=True)
    for step in (10, 9, 1000):
        picture = picture_row(torch.full((4, 3, 16, 16), step % 256, dtype=torch.uint8))
        (private / "snapshots" / f"{step}.webp").write_bytes(picture)
    source(home / "notebooks" / f"{page}.ipynb", "", **facts(page, "cpu"))
    return private


def finished_teacher(home: Path, version: int = 0) -> Path:
    """A finished run of a teacher alone, as chapters 1, 2 and 5 leave it; returns its folder `home`."""
    pictures = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tiles = placeless_tiles(pictures, pictures)
    save_task(Task("toy", "pix2pix", tiles, tiles, {}), home / "data")
    teacher = trained(TEACHERS["pix2pix"], version)
    save_generator(teacher, home / "teacher")
    save_generator(teacher, home / "student-half")
    save_discriminator(network(DISCRIMINATORS["pix2pix"]), home / "teacher-discriminator")
    save_scales([ScaleNote(1000, norm_scales(teacher))], home / "scales")
    finished_training(home, "teacher", recipe(), "02-search-space")
    priced = {"params": 1, "macs_exact": 2, "macs_paper": 3, "train_seconds": 100.0, "steps": 1000}
    save_evaluation(home / "eval.json", [row(0, "teacher", **priced)], {"l1": {"teacher": [0.1, 0.1]}}, blocks=[0, 1])
    return home
