"""The page of the live demo: finished examples as HTML, which scripts bring to life on a click."""

import json
import shutil
from colorsys import rgb_to_hsv
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from i2i_book.pages.status import smoke_label
from i2i_book.plan import DEMOS

# What each tool is called, and its icon: the inside of an SVG of 24 x 24.
TOOLS = {
    "ellipse": ("Ellipse: drag from corner to corner", '<ellipse cx="12" cy="12" rx="9" ry="7.5"/>'),
    "box": ("Rounded box: drag from corner to corner", '<rect x="3" y="4.5" width="18" height="15" rx="4"/>'),
    "shape": ("Any shape: draw around it", '<path d="M5 8C8 1 13 6 17 4s6 6 3 9-3 8-8 7-10-4-7-12z"/>'),
    "brush": ("Brush", '<path d="M3 21c0-5 2-7 5-6s2 5-1 6-4 0-4 0zM10 14 19 3l2 2-9 11z"/>'),
}
WHITE = "#ffffff"
RUNTIME = 7e6  # bytes of what runs the networks, compressed


def demo_parts(preset: str, book: Path, runs: Path) -> str:
    """Put the networks of the demos among the static files; return what the page shows, a part for each task."""
    models = book / "static" / "models"
    shutil.rmtree(models, ignore_errors=True)
    found = {task: title for task, title in DEMOS.items() if _place(preset, task, book, runs, models / task)}
    if not found:
        return (
            f":::{{admonition}} Not run\n:class: note not-run\nNo network has been trained with the preset `{preset}`. "
            f"`make book PRESET={preset}` trains them and puts them here.\n:::\n"
        )
    others = [*found][1:]
    links = " · ".join(f"[{found[task]}](#demo-{task})" for task in others)
    parts = [smoke_label("These networks were")] if preset == "smoke" else []
    for task, title in found.items():
        about = json.loads((models / task / "demo.json").read_text())
        html = demo_part(about, title, book / "static" / "demo")
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


def demo_part(about: dict[str, Any], title: str, templates: Path) -> str:
    """A demo's HTML from its demo.json: pictures and prices of every network for one example."""
    networks = about["networks"]
    teacher = next((network for network in networks if network["name"] == "teacher"), None)
    brushes = list(enumerate(about.get("palette") or [{"name": name} for name in about["world"]["brushes"]]))
    colours = [i for i, brush in brushes if brush.get("colour") != WHITE]
    precision = "fp16" if any(network["precision"] == "fp16" for network in networks) else "fp32"
    environment = Environment(loader=FileSystemLoader(templates), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("demo.html").render(
        about=about,
        title=title,
        models=f"_static/models/{about['task']}/",
        main=next(network for network in networks if network["name"] == about["main"]),
        teacher=teacher,
        students=[network for network in networks if network is not teacher],
        tools={name: {"title": title, "icon": icon} for name, (title, icon) in TOOLS.items()},
        brushes=sorted(brushes, key=_by_hue) if "palette" in about else brushes,
        first_brush=colours[0],  # the commonest
        megabytes=round((RUNTIME + sum(network["bytes"] for network in networks)) / 1e6),
        precision=precision,
        others=[network["label"] for network in networks if network["precision"] != precision],
    )


def _by_hue(numbered: tuple[int, dict[str, str]]) -> tuple[bool, float, float]:
    """Greys from light to dark, then the other colours by hue."""
    hue, saturation, value = rgb_to_hsv(*(part / 255 for part in bytes.fromhex(numbered[1]["colour"][1:])))
    grey = saturation < 0.15
    return not grey, 0.0 if grey else hue, -value
