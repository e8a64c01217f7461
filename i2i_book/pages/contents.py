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
from i2i_book.make import command
from i2i_book.presets import FAMILIES, MAIN_TASK

MAIN_ARM = "04-distillation-gcka"  # shown as the page 04-distillation


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the table of contents that a notebook fills."""

    docname: str  # `notebooks/04-distillation`: book/<docname>.ipynb
    task: str
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
        listed = [_entry(chapter) for chapter in chapters().values() if chapter.part == part["caption"]]
        part["chapters"] = [entry for entry in listed if entry] + (part.get("chapters") or [])
    found: dict[str, set[str]] = {}
    for place in places:
        for path in (place / preset).glob("*/seed0/notebooks/*.ipynb"):
            found.setdefault(path.parents[2].name, set()).add(path.stem)
    found.pop(MAIN_TASK, None)
    for task in sorted(found):
        # Not counted on by Sphinx: these chapters have the numbers that the text calls them by.
        part = {"caption": f"The task {task}", "chapters": _entries_of_task(task, found[task])}
        content["parts"].insert(len(content["parts"]) - 1, part)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _entry(chapter: Chapter) -> dict[str, Any] | None:
    """A chapter of the main task; None for one of other families, and for a part of another chapter's page."""
    if FAMILIES[MAIN_TASK] not in chapter.families or chapter.within:
        return None
    return {"file": f"notebooks/{chapter.notebook}", "title": chapter.title}


def _entries_of_task(task: str, names: set[str]) -> list[dict[str, Any]]:
    """The pages of a further task: one for each chapter that ran, whatever its variants."""
    ran = {chapter.notebook: chapter for name in names if (chapter := chapter_of(name)) and not chapter.within}
    return [
        {"file": f"tasks/{task}/{notebook}", "title": f"{chapter.number}. {chapter.title}"}
        for notebook, chapter in sorted(ran.items())
    ]


def parts_of(executed: Path) -> list[Path]:
    """The executed notebooks that are shown on the same page: those of its seed that lie within its chapter."""
    chapter = chapter_of(executed.stem)
    inside = [other.notebook for other in chapters().values() if chapter and other.within == chapter.notebook]
    return [path for name in inside if (path := executed.with_name(f"{name}.ipynb")).exists()]


def variants_of(executed: Path) -> list[Path]:
    """The other executed notebooks of its chapter in its seed, such as those of the other students of chapter 4."""
    chapter = chapter_of(executed.stem)
    if not chapter or not chapter.variants:
        return []
    return sorted(set(executed.parent.glob(f"{chapter.notebook}*.ipynb")) - {executed})


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
    return Page(docname, task, sources / f"{notebook}.ipynb", found[0] if found else None)


def _title(source: Path) -> str:
    cells = json.loads(source.read_text())["cells"] if source.exists() else []
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return next((line[2:] for line in lines if line.startswith("# ")), source.stem)


def stub(page: Page, preset: str) -> Any:
    return new_notebook(
        cells=[
            new_markdown_cell(
                f"# {full_title(_title(page.source), page)}\n\n:::{{admonition}} Not run\n:class: note not-run\n"
                f"This page shows an executed notebook, and that notebook has not been run with the preset "
                f"`{preset}`. `{command(preset, page.task)}` makes it. The {{doc}}`status page </status>` lists what"
                " has been run.\n:::\n"
            )
        ]
    )


def full_title(title: str, page: Page) -> str:
    """The title of a page: on that of a further task, with the chapter's number and the task."""
    if page.task == MAIN_TASK:
        return title
    chapter = chapter_of(page.source.stem)
    return f"{chapter.number}. {title} ({page.task})" if chapter else f"{title} ({page.task})"
