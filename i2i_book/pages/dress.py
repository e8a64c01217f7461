"""An executed notebook as a page: a line on its run, labels and links of its own."""

import re
from typing import Any

from i2i_book.chapters import chapter_of
from i2i_book.pages.contents import Page, full_title
from i2i_book.pages.status import run_summary, smoke_label
from i2i_book.presets import MAIN_TASK

PARAMETER_CELLS = {"parameters": "parameters and their defaults", "injected-parameters": "what this run set"}


def add_run_line(notebook: Any, page: Page, status: str) -> None:
    """Put the method's strip and the run line below the title; make labels unique where pages share a notebook."""
    run = notebook.metadata.i2i
    provenance = f"{{ref}}`parameters, versions and code of this run <{page.label}>`"
    line = f"**{status.capitalize()}** · {run_summary(run)}. {{doc}}`Status of all pages </status>` · {provenance}"
    line = f":::{{div}} run-line\n{line}\n:::\n"
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
    # A cell for some tasks only, and this was none of them.
    empty = [cell for cell in notebook.cells if "if-output" in cell.metadata.get("tags", []) and not cell.outputs]
    notebook.cells = [cell for cell in notebook.cells if cell not in empty]
    for cell in notebook.cells:  # a reader wants the first picture before the list of what could be set
        if prompt := PARAMETER_CELLS.keys() & set(cell.metadata.get("tags", [])):
            what = PARAMETER_CELLS[prompt.pop()]
            cell.metadata["tags"].append("hide-input")
            cell.metadata["mystnb"] = {"code_prompt_show": f"Show {what}", "code_prompt_hide": f"Hide {what}"}
    if page.variant or page.task != MAIN_TASK:
        _relabel(notebook, "-" + page.docname.split("/", 1)[1].replace("/", "-"))


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
