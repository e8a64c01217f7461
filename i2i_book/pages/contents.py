"""Which pages the book has, their titles and their order."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat.v4 import new_markdown_cell, new_notebook

OF_ALL = ("06", "08", "09", "10")  # chapters over all tasks and seeds, or of none; the others are shown for seed 0
MAIN_ARM = "04-distillation-gcka"  # shown as the page 04-distillation


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the table of contents that a notebook fills."""

    docname: str  # `notebooks/04-distillation-none`: book/<docname>.ipynb
    task: str
    variant: str  # what tells it from the other pages of its notebook ("arm none"); empty for the main one
    source: Path  # notebooks/04-distillation.ipynb
    executed: Path | None  # the run's copy, None if it did not run

    @property
    def label(self) -> str:
        """The target, on the status page, of this page's provenance."""
        return "run-" + self.docname.replace("/", "-")


# The titles that the pages of a further task have in the margin.
TITLES = {"01": "Data", "02": "The search space", "03": "Pruning", "04": "Distillation", "05": "Evaluation"}


def _contents(toc: Path, preset: str, places: list[Path]) -> str:
    """The table of contents with a part for every further task that was run, before the part `Reference`."""
    content: Any = yaml.safe_load(toc.read_text())
    found: dict[str, set[str]] = {}
    for place in places:
        for folder in (place / preset).glob("*/seed0"):
            found.setdefault(folder.parent.name, set()).update(_own_pages(folder))
    found.pop("earth", None)
    for task in sorted(found):
        # A page whose name begins with another's is one of its variants: an arm, or another generator.
        names = sorted("04-distillation" if name == MAIN_ARM else name for name in found[task])
        chapters = []
        for name in names:
            entry = {"file": f"tasks/{task}/{name}"}
            parent = chapters[-1] if chapters and name.startswith(chapters[-1]["file"].rsplit("/", 1)[1]) else None
            if parent:
                variant = name.removeprefix(parent["file"].rsplit("/", 1)[1] + "-")
                parent.setdefault("sections", []).append(entry | {"title": f"“{variant}”"})
            else:
                chapters.append(entry | {"title": f"{int(name[:2])}. {TITLES.get(name[:2], name)}"})
        # Not counted on by Sphinx: these chapters have the numbers that the text calls them by.
        part = {"caption": f"The task {task}", "chapters": chapters}
        content["parts"].insert(len(content["parts"]) - 1, part)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _own_pages(folder: Path) -> set[str]:
    """The notebooks that ran in a seed's folder, less those of students that chapter 10 alone compares."""
    names = {path.stem for path in (folder / "notebooks").glob("*.ipynb")}
    if not all((folder / f"{name}.json").exists() for name in ("eval", "ablations")):
        return names
    compared, ablated = (
        {row["model"] for row in json.loads((folder / f"{name}.json").read_text())["results"]}
        for name in ("eval", "ablations")
    )
    return names - {f"04-distillation-{model}" for model in ablated - compared} - {"05-evaluation-ablations"}


def _toc(path: Path) -> Iterator[str]:
    """The entries of the table of contents that notebooks fill, in order."""
    yield from re.findall(r"file: *((?:notebooks|tasks)/\S+)", path.read_text())


def _page(docname: str, preset: str, sources: Path, places: list[Path]) -> Page:
    folder, name = docname.rsplit("/", 1)
    task = "earth" if folder == "notebooks" else folder.removeprefix("tasks/")
    inside = preset if name.startswith(OF_ALL) else f"{preset}/{task}/seed0"
    stem = MAIN_ARM if name == "04-distillation" else name
    found = [path for place in places if (path := place / inside / "notebooks" / f"{stem}.ipynb").exists()]
    # A variant's page is called after its notebook: 04-distillation-none shows notebooks/04-distillation.ipynb.
    named = [p for p in sources.glob("*.ipynb") if name.startswith(p.stem)]
    source = max(named, key=lambda p: len(p.stem), default=sources / f"{name}.ipynb")
    variant = name.removeprefix(source.stem).replace("-", "arm " if name.startswith("04") else "", 1)
    return Page(docname, task, variant, source, found[0] if found else None)


def _title(source: Path) -> str:
    cells = json.loads(source.read_text())["cells"] if source.exists() else []
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return next((line[2:] for line in lines if line.startswith("# ")), source.stem)


def _stub(page: Page, preset: str) -> Any:
    command = f"make book PRESET={preset}" + ("" if page.task == "earth" else f" TASK={page.task}")
    how = f"`{command}` makes it."
    if page.variant:
        how = f"To make it, have the preset run it (see `presets/{preset}.yml`) and call `{command}`."
    return new_notebook(
        cells=[
            new_markdown_cell(
                f"# {_full_title(_title(page.source), page)}\n\n:::{{admonition}} Not run\n:class: note not-run\n"
                f"This page shows an executed notebook, and that notebook has not been run with the preset "
                f"`{preset}`. {how} The {{doc}}`status page </status>` lists what has been run.\n:::\n"
            )
        ]
    )


def _full_title(title: str, page: Page) -> str:
    apart = ", ".join(filter(None, [page.variant, "" if page.task == "earth" else page.task]))
    number = "" if page.task == "earth" else f"{int(page.source.stem[:2])}. "
    return f"{number}{title} ({apart})" if apart else title
