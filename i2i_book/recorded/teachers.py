"""Recorded teachers: one long training a task, kept in `book/recorded/<task>/`, from which shorter runs start."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from i2i_book.chapters import made_by
from i2i_book.presets import family, load_preset, preset_parameters, recorded_students, variants
from i2i_book.recorded.pack import compact_json, pack_weights
from i2i_book.recorded.trainings import deciding_settings
from i2i_book.runner.run import run_notebook
from i2i_book.runs import root
from i2i_lib.checkpoint import load_info
from i2i_lib.data.store import load_saved_task
from i2i_lib.evaluate import Evaluator, per_image_values
from i2i_lib.files import atomic_write, place_folder, read_json
from i2i_lib.results import EvalResult, load_evaluation, save_evaluation
from i2i_lib.train.snapshots import read_frames

RUN = "teacher"  # the run of `make teacher`, beside those of the presets
ROWS = 200  # of a recorded log of losses, at most


def train(preset: str, task: str) -> Path:
    """Train and measure the generators of chapter 2 and the preset's recorded students, however long it takes.

    Returns the folder of the run, runs/teacher/<task>/seed0. A call that was interrupted goes on where it stopped.
    """
    settings, home = load_preset(preset), root() / "runs" / RUN / task / "seed0"
    generators = [name for name in variants(settings, task)[1] if name != "longer"]  # a yardstick of 05 alone
    steps: list[tuple[str, str, dict[str, Any]]] = [("01-data", "01-data", {})]
    for generator in generators:
        name = "02-search-space" if generator == "inception" else f"02-search-space-{generator}"
        steps.append(("02-search-space", name, {"generator": generator, "weights": "train"}))
    students = recorded_students(settings, task)
    pruning = made_by("plan", family(settings, task))
    steps.append((pruning, pruning, {}))
    steps += [("04-distillation", f"04-distillation-{arm}", {"arm": arm}) for arm in students]
    for notebook, name, own in steps:
        source = root() / "notebooks" / f"{notebook}.ipynb"
        given = preset_parameters(settings, notebook, task, own.get("generator") or own.get("arm"))
        given |= own | {"run": RUN, "task": task, "seed": 0}
        page = home / "notebooks" / f"{name}.ipynb"
        log = home / "logs" / page.name
        gpu = settings["gpu"] if notebook in (made_by("teacher"), made_by("student")) else 0
        run_notebook(source, given, log=log, publish=page, threads=settings["threads"], gpu=gpu, preset=preset)
    measure(home)
    return home


def measure(home: Path) -> None:
    """Measure every generator in `home` on the test pictures, for the model card, and write `home`/eval.json."""
    evaluator = Evaluator(load_saved_task(home / "data"), data=load_info(home / "data")["sha256"])
    found = [evaluator.evaluate("look-up")]
    for path in sorted(home.glob("*.safetensors")):
        model = path.stem.removeprefix("student-")
        if model not in ("data", "teacher-discriminator"):
            found.append(evaluator.evaluate(model, path.with_suffix("")))
    rows = [model.result for model in found]
    save_evaluation(home / "eval.json", rows, per_image_values(found), blocks=evaluator.blocks.tolist())


def keep(home: Path, target: Path, arms: Sequence[str] = ()) -> None:
    """Keep the networks of one task and seed, runs/<run>/<task>/seed<k>, in `target`, book/recorded/<task>.

    Those are the teacher with its discriminator, the Original where there is one, and those students that are `arms` of
    the preset, with all that `recorded_training` returns; the weights of other students, which are for the demo; the
    record of the tiles (which are cut again from the source pictures); and a model card.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".models-", dir=target.parent) as temporary:
        new = Path(temporary) / "new"
        pack_weights(home / "teacher-discriminator.safetensors", new / "teacher-discriminator.safetensors")
        pages = {"teacher": "02-search-space", "original": "02-search-space-resnet"}
        pages |= {f"student-{arm}": f"04-distillation-{arm}" for arm in arms}
        for name, page in pages.items():
            if (home / f"{name}.safetensors").exists():
                pack_weights(home / f"{name}.safetensors", new / f"{name}.safetensors")
                _keep_training(home, name, _notes_of(home, page), new)
        for path in sorted(home.glob("student-*.safetensors")):
            if path.stem not in pages:
                pack_weights(path, new / "students" / path.name.removeprefix("student-"))
        for name in ("plan.json", "data.json", "scales.json"):
            if (home / name).exists():
                atomic_write(new / name, compact_json(json.loads((home / name).read_text())))
        atomic_write(new / "MODEL_CARD.md", _model_card(home).encode())
        place_folder(new, target)


def _notes_of(home: Path, page: str) -> dict[str, Any]:
    """What the runner noted of an executed notebook."""
    notebook: Any = nbformat.read(home / "notebooks" / f"{page}.ipynb", as_version=4)
    return dict(notebook.metadata["i2i"])


def _keep_training(home: Path, name: str, run: dict[str, Any], new: Path) -> None:
    folder = home / "train" / name
    losses = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    noted = {
        "settings": deciding_settings(read_json(folder / "config.json", "run chapter 2 again")),
        "data": load_info(home / "data")["sha256"],
        "made": {
            "started": run["started"],
            "seconds": losses[-1]["seconds"],
            "device": run["machine"]["gpu"] or run["machine"]["cpu"],
            "torch": run["versions"]["torch"],
            "git": run["git"],
        },
        "losses": _thinned(losses),
    }
    atomic_write(new / f"{name}-training.json", compact_json(noted))
    for step, frame in read_frames(folder / "snapshots").items():
        atomic_write(new / "snapshots" / name / f"{step}.webp", frame)


def _thinned(losses: list[dict[str, float]]) -> list[dict[str, float]]:
    """Means of neighbouring rows, so that at most `ROWS` are left; step and seconds are those of the last."""
    size = -(-len(losses) // ROWS)
    parts = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [
        {key: round(sum(row[key] for row in part) / len(part), 6) for key in part[-1]}
        | {"step": part[-1]["step"], "seconds": part[-1]["seconds"]}
        for part in parts
    ]


def _model_card(home: Path) -> str:
    task = home.parent.name
    rows = {row.model: row for row in load_evaluation(home / "eval.json")["results"]}
    pages = {
        "teacher": ("Teacher", "02-search-space"),
        "original": ("The paper's “Original”, a ResNet generator", "02-search-space-resnet"),
    }
    networks = [model for model in rows if (home / "notebooks" / f"04-distillation-{model}.ipynb").exists()]
    pages |= {model: (f"Student “{model}”", f"04-distillation-{model}") for model in networks}
    parts = [_card_part(home, *pages[model], rows[model]) for model in pages if model in rows]
    credit = load_info(home / "data")["info"].get("credit", "")
    return (
        f"# Model card: networks for `{task}`\n\n"
        "Runs whose preset sets `weights: recorded` start from them, and they let chapters 3 to 5 open at once in"
        f" JupyterLab. `make teacher TASK={task}` trains them again.\n\n"
        + "\n".join(parts)
        + "\n## Use and limits\n\nFor study. Colours and textures are guesses; nothing in a picture is evidence of what"
        f" it shows.\n\nMeasured by: {rows['teacher'].protocol}.\n\n{credit} See `data/README.md` for origin and"
        " licence of the pictures. The weights are under the licence of this repository.\n"
    )


def _card_part(home: Path, title: str, page: str, row: EvalResult) -> str:
    run = _notes_of(home, page)
    settings = ", ".join(f"{name} {value}" for name, value in sorted(run["parameters"].items()))
    machine = run["machine"]
    return (
        f"## {title}\n\n"
        f"- {row.params:,} parameters; MACs of one picture: {row.macs_exact:,} exact, {row.macs_paper:,} by the"
        f" paper's count\n"
        f"- on {row.images} test pictures in {row.blocks} independent groups: "
        + ", ".join(f"{label} {value:.4f}" for label, value in _measures(row).items())
        + "; measured before the weights were rounded to 16 bits\n"
        f"- made by `notebooks/{run['notebook']}.ipynb` on {run['started'][:10]} after {row.train_seconds:,.0f} s of"
        f" training, on {machine['gpu'] or machine['cpu']}, PyTorch {run['versions']['torch']}, commit {run['git']}\n"
        f"- parameters: {settings}\n"
    )


def _measures(row: EvalResult) -> dict[str, float]:
    values = {"L1": row.l1, "SSIM": row.ssim, "feature distance": row.feature_distance, "FD-EffNet": row.fd}
    return {label: value for label, value in values.items() if value is not None}
