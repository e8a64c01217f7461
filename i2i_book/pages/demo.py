"""The demos of the book: their networks among its static files, and their parts of a page."""

import json
import shutil
from pathlib import Path

from i2i_book.make import command
from i2i_book.pages.status import smoke_label
from i2i_book.plan import DEMOS
from i2i_lib.demo.page import demo_part

SERVE = "run “make serve” in the book's repository and open localhost:8000/demo.html"


def demo_parts(preset: str, book: Path, runs: Path) -> str:
    """Put the networks of the demos among the static files; return what the page shows, a part for each task."""
    models = book / "static" / "models"
    shutil.rmtree(models, ignore_errors=True)
    found = {task: title for task, title in DEMOS.items() if _place(preset, task, book, runs, models / task)}
    if not found:
        return (
            f":::{{admonition}} Not run\n:class: note not-run\nNo network has been trained with the preset `{preset}`. "
            f"`{command(preset)}` trains them and puts them here.\n:::\n"
        )
    others = [*found][1:]
    links = " · ".join(f"[{found[task]}](#demo-{task})" for task in others)
    parts = [smoke_label("These networks were")] if preset == "smoke" else []
    for task, title in found.items():
        about = json.loads((models / task / "demo.json").read_text())
        html = demo_part(about, title, models=f"_static/models/{task}/", serve=SERVE)
        parts.append(f"(demo-{task})=\n\n## {title}\n\n```{{raw}} html\n{html}\n```\n")
        if others and task not in others:
            parts.append(f"Below on this page: {links}.\n")
    parts.append('```{raw} html\n<script defer src="_static/demo/demo.js"></script>\n```\n')
    return "\n".join(parts)


def _place(preset: str, task: str, book: Path, runs: Path, models: Path) -> bool:
    """Copy the demo of a task that this preset ran, or make it from a recording of one; whether there is one."""
    made, kept = runs / preset / task / "seed0" / "demo", book / "recorded" / preset / task / "seed0"
    if (made / "demo.json").exists():
        shutil.copytree(made, models)
    elif (kept / "student-gcka.safetensors").exists():  # a recording keeps the weights that the files are made of
        from i2i_book.demo import make

        make(kept, models, book / "recorded" / task / "students")
    return (models / "demo.json").exists()
