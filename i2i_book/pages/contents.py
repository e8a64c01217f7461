"""Pages of the book: their titles and their order."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat.v4 import new_markdown_cell, new_notebook

from i2i_book.chapters import Chapter, chapter_of, chapters
from i2i_book.presets import FAMILIES, MAIN_TASK

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


def contents(toc: Path, preset: str, places: list[Path]) -> str:
    """The table of contents: the committed pages, the chapters, and a part for every further task that was run.

    The chapters come first in their parts; the further tasks before the last part, `Reference`.
    """
    content: Any = yaml.safe_load(toc.read_text())
    for part in content["parts"]:
        listed = [_entries(chapter) for chapter in chapters().values() if chapter.part == part["caption"]]
        part["chapters"] = [entry for entry in listed if entry] + (part.get("chapters") or [])
    found: dict[str, set[str]] = {}
    for place in places:
        for folder in (place / preset).glob("*/seed0"):
            found.setdefault(folder.parent.name, set()).update(_own_pages(folder))
    found.pop(MAIN_TASK, None)
    for task in sorted(found):
        # Not counted on by Sphinx: these chapters have the numbers that the text calls them by.
        part = {"caption": f"The task {task}", "chapters": _entries_of_task(task, found[task])}
        content["parts"].insert(len(content["parts"]) - 1, part)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _entries(chapter: Chapter) -> dict[str, Any] | None:
    """A chapter of the main task and the pages of its variants; None for a chapter of other families."""
    if FAMILIES[MAIN_TASK] not in chapter.families:
        return None
    entry: dict[str, Any] = {"file": f"notebooks/{chapter.notebook}", "title": chapter.title}
    if chapter.pages:
        entry["sections"] = [
            {"file": f"notebooks/{chapter.notebook}-{variant}", "title": title}
            for variant, title in chapter.pages.items()
        ]
    return entry


def _entries_of_task(task: str, names: set[str]) -> list[dict[str, Any]]:
    """The pages of a further task, each variant below the page that it varies."""
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted("04-distillation" if name == MAIN_ARM else name for name in names):
        chapter = chapter_of(name)
        page = {"file": f"tasks/{task}/{name}"}
        if chapter is None or chapter.notebook not in entries:
            title = f"{chapter.number}. {chapter.title}" if chapter else name
            entries[name] = page | {"title": title}
        else:
            variant = name.removeprefix(f"{chapter.notebook}-")
            entries[chapter.notebook].setdefault("sections", []).append(page | {"title": f"“{variant}”"})
    return list(entries.values())


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


def toc_entries(path: Path) -> Iterator[str]:
    """The entries of the table of contents that notebooks fill, in order."""
    yield from re.findall(r"file: *((?:notebooks|tasks)/\S+)", path.read_text())


def page_of(docname: str, preset: str, sources: Path, places: list[Path]) -> Page:
    folder, name = docname.rsplit("/", 1)
    task = MAIN_TASK if folder == "notebooks" else folder.removeprefix("tasks/")
    chapter = chapter_of(name)
    notebook = chapter.notebook if chapter else name
    inside = preset if chapter and chapter.of == "run" else f"{preset}/{task}/seed0"
    stem = MAIN_ARM if name == "04-distillation" else name
    found = [path for place in places if (path := place / inside / "notebooks" / f"{stem}.ipynb").exists()]
    variant = name.removeprefix(notebook).removeprefix("-")
    if variant and chapter and chapter.variants == "arm":
        variant = f"arm {variant}"
    return Page(docname, task, variant, sources / f"{notebook}.ipynb", found[0] if found else None)


def _title(source: Path) -> str:
    cells = json.loads(source.read_text())["cells"] if source.exists() else []
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return next((line[2:] for line in lines if line.startswith("# ")), source.stem)


def stub(page: Page, preset: str) -> Any:
    command = f"make book PRESET={preset}" + ("" if page.task == MAIN_TASK else f" TASK={page.task}")
    how = f"`{command}` makes it."
    if page.variant:
        how = f"To make it, have the preset run it (see `presets/{preset}.yml`) and call `{command}`."
    return new_notebook(
        cells=[
            new_markdown_cell(
                f"# {full_title(_title(page.source), page)}\n\n:::{{admonition}} Not run\n:class: note not-run\n"
                f"This page shows an executed notebook, and that notebook has not been run with the preset "
                f"`{preset}`. {how} The {{doc}}`status page </status>` lists what has been run.\n:::\n"
            )
        ]
    )


def full_title(title: str, page: Page) -> str:
    apart = ", ".join(filter(None, [page.variant, "" if page.task == MAIN_TASK else page.task]))
    chapter = chapter_of(page.source.stem)
    number = f"{chapter.number}. " if chapter and page.task != MAIN_TASK else ""
    return f"{number}{title} ({apart})" if apart else title
