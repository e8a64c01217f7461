"""An executed notebook as a page: what a reader does not need is left out, and a fold tells of its run."""

import re
import subprocess
from pathlib import Path
from typing import Any

from nbformat.v4 import new_markdown_cell

from i2i_book.chapters import chapter_of
from i2i_book.pages.contents import Page, full_title
from i2i_book.pages.status import run_summary, smoke_label
from i2i_book.presets import FAMILIES, MAIN_TASK
from i2i_lib.files import read_json

PARAMETER_CELLS = {"parameters", "injected-parameters"}
ONLY = "only-"  # begins the tags of cells for some families or tasks: `only-pix2pix`, `only-fluent`


def dress(notebook: Any, page: Page, status: str, parts: list[Any]) -> None:
    """Turn an executed notebook into the page: with its `parts`, the fold on its run, and labels of its own.

    `parts` are executed notebooks within its chapter: they come before its last section.
    """
    for part in parts:
        last = _last_section(notebook)
        notebook.cells[last:last] = _as_section(part)
    record = _record_of(page)
    # By its name, a task may be of another family: that of `folder` and `cityscapes` is chosen in chapter 1.
    family = record.get("family") or FAMILIES.get(page.task, "")
    _leave_out(notebook, page.task, family)
    if not record.get("test", {}).get("paired", True):
        _choose_captions(notebook)
    _add_run_line(notebook, page, status)
    if page.task != MAIN_TASK:
        _relabel(notebook, "-" + page.docname.split("/", 1)[1].replace("/", "-"))


def _record_of(page: Page) -> dict[str, Any]:
    """The record of the pictures of the page's seed, as chapter 1 wrote it; empty where a page is of a whole run."""
    path = page.executed.parents[1] / "data.json" if page.executed else None
    return read_json(path, "run chapter 1 again") if path and path.exists() else {}


def _last_section(notebook: Any) -> int:
    """The place of the cell with the last heading of the second level; behind all cells if there is none."""
    texts = [cell.source if cell.cell_type == "markdown" else "" for cell in notebook.cells]
    return max((i for i, text in enumerate(texts) if re.search(r"^## ", text, re.MULTILINE)), default=len(texts))


def _as_section(notebook: Any) -> list[Any]:
    """The cells of a notebook with its headings one level deeper."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^(#+ )", r"#\1", cell.source, flags=re.MULTILINE)
    return notebook.cells


def _choose_captions(notebook: Any) -> None:
    """Give figures their caption for a test without pairs, where their cell has one."""
    for cell in notebook.cells:
        if caption := cell.metadata.get("captions", {}).get("unpaired"):
            cell.metadata["mystnb"]["figure"]["caption"] = caption


def _leave_out(notebook: Any, task: str, family: str) -> None:
    """Mark what the page leaves out and the download keeps: parameters, cells for other tasks, cells without output.

    A Markdown cell tagged `if-output` goes with the code between it and the next text, if none of that has an output.
    """
    here = {f"{ONLY}{family}", f"{ONLY}{task}"}
    below = False  # whether the code between this cell and the next text shows something
    for cell in reversed(notebook.cells):
        tags = set(cell.metadata.get("tags", []))
        only = {tag for tag in tags if tag.startswith(ONLY)}
        shown = not (tags & PARAMETER_CELLS or (only and not only & here))
        if cell.cell_type == "code":
            shown = shown and bool(cell.outputs or not tags & {"if-output", "remove-input"})
            below = below or (shown and bool(cell.outputs))
        else:
            shown, below = shown and (below or "if-output" not in tags), False
        if not shown:
            cell.metadata["tags"] = sorted(tags | {"remove-cell"})


def _add_run_line(notebook: Any, page: Page, status: str) -> None:
    run = notebook.metadata.i2i
    links = [
        f"{{ref}}`Parameters, versions, code <{page.label}>`",
        f'<a href="{_to_top(page)}_sources/{page.docname}.ipynb" download>The whole notebook</a>',
        "{doc}`All pages </status>`",
    ]
    sign = '<span aria-hidden="true">i</span>'
    head = f'<summary title="How this page was made">{status.capitalize()} {sign}</summary>'
    told = f"{run_summary(run)}. {last_change(page.source)}"
    line = f'<details class="run-line">{head}\n\n{told}{" · ".join(links)}\n\n</details>\n'
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (title := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            smoke = smoke_label("This page was") if run["preset"] == "smoke" else ""
            steps = chapter.steps if (chapter := chapter_of(page.source.stem)) else []
            strip = f"```{{method-map}} {' '.join(steps)}\n```\n\n" if steps else ""
            below = f"# {full_title(title[1], page)}\n\n{strip}{smoke}{line}"
            cell.source = cell.source[: title.start()] + below + cell.source[title.end() :]
            break
    else:
        raise ValueError(f"{page.executed} has no title: expected a Markdown cell with a line `# Title`")


def last_change(source: Path) -> str:
    """When the notebook last changed, and what for, by the history of the checkout; empty where that is not known.

    Of a clone without its history git would name the newest commit for every file.
    """
    said = _git(source.parent, "log", "-1", "--format=%cs: %s", "--", source.name)
    if not said or _git(source.parent, "rev-parse", "--is-shallow-repository") != "false":
        return ""
    # As entities: whatever a subject holds is text.
    plain = re.sub(r"[^\w ,.:()-]", lambda sign: f"&#{ord(sign[0])};", said)
    return f"Last change of the notebook, {plain}. "


def _git(folder: Path, *words: str) -> str:
    """What git says in a folder, whatever the user's settings; empty where it fails."""
    asked = ["git", "-C", str(folder), "-c", "log.showSignature=false", "-c", "color.ui=false", *words]
    try:
        return subprocess.run(asked, capture_output=True, check=True).stdout.decode(errors="replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _to_top(page: Page) -> str:
    return "../" * page.docname.count("/")


def link_variants(notebook: Any, page: Page, variants: list[Path], book: Path) -> None:
    """Offer the executed notebooks of the page's other variants for download, at the end of its last part."""
    if not variants:
        return
    folder = book / Path(page.docname).parent / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for path in variants:
        (folder / path.name).write_bytes(path.read_bytes())
        links.append(f"{{download}}`{path.stem} <executed/{path.name}>`")
    cell = new_markdown_cell(f"The same notebook, executed for the others: {' · '.join(links)}.")
    notebook.cells.insert(_last_section(notebook), cell)


def _relabel(notebook: Any, suffix: str) -> None:
    """Add `suffix` to the notebook's labels, which begin with fig-, eq- or sec-, and to its references to them."""

    def renamed(text: str) -> str:
        return re.sub(r"(?<=[(`<#: ])(?:fig|eq|sec)-[\w-]+", rf"\g<0>{suffix}", text)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = renamed(cell.source)
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "name" in figure:
            figure["name"] += suffix
        if "caption" in figure:
            figure["caption"] = renamed(figure["caption"])


def fix_links(notebook: Any, page: Page, docnames: set[str]) -> None:
    """Lead links to a chapter that this task has in another family's version, or that is of all tasks, to that one."""
    folder = page.docname.rsplit("/", 1)[0]

    def target(link: re.Match[str]) -> str:
        versions = sorted(name for name in docnames if name.startswith(f"{folder}/{link[1]}-"))
        if f"{folder}/{link[1]}" in docnames:
            return link[0]
        if not versions:
            return f"](/notebooks/{link[1]}.ipynb" if f"notebooks/{link[1]}" in docnames else link[0]
        return f"]({versions[0].rsplit('/', 1)[1]}.ipynb"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d-[\w-]+)\.ipynb", target, cell.source)
