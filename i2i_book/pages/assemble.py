"""Refill the git-ignored pages of the book from one preset's runs; no notebook is executed.

They are book/notebooks/, book/tasks/, book/status.md, and the live demo's networks in book/static/models/.
"""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nbformat

from i2i_book.claims import markdown
from i2i_book.evidence import in_short
from i2i_book.make import command
from i2i_book.pages import search
from i2i_book.pages.contents import Page, contents, page_of, parts_of, stub, toc_entries, variants_of
from i2i_book.pages.demo import demo_parts
from i2i_book.pages.dress import dress, fix_links, link_variants
from i2i_book.pages.front import front_page
from i2i_book.pages.picture import packages_picture
from i2i_book.pages.reference import modules
from i2i_book.pages.status import (
    Digest,
    Shown,
    as_code,
    date_of,
    device_of,
    duration,
    markdown_table,
    origin_of,
    smoke_label,
    status_of,
    status_page,
)
from i2i_book.questions import Answer, pilot, pilot_text, questions, questions_table, recorded_answers
from i2i_book.recorded.check import check, read_manifest, recordings
from i2i_book.recorded.tables import tables
from i2i_book.runs import root
from i2i_lib.results import load_evaluations


def assemble(preset: str, digest: Digest, *, book: Path, runs: Path) -> list[Page]:
    """Wipe and refill the generated pages below `book` from `runs`/`preset`; returns the pages in reading order.

    A notebook that is missing there is taken from `book`/recorded, which has the same layout as `runs`: it holds what
    other machines ran. Raises ValueError for an executed notebook that failed, and for a recording that does not
    match its manifest.
    """
    for folder in (book / "notebooks", book / "tasks"):
        shutil.rmtree(folder, ignore_errors=True)
    kept, made = book / "recorded", book / "notebooks"
    made.mkdir(parents=True)
    (made / "_toc.yml").write_text(contents(book / "_toc.yml", preset, [runs, kept]))
    for folder in {kept / preset, *recordings(kept)}:
        if folder.exists():
            check(folder)
    pages = [
        page_of(docname, preset, book.parent / "notebooks", [runs, kept]) for docname in toc_entries(made / "_toc.yml")
    ]
    shown = _fill_pages(pages, preset, digest, book, runs)
    (book / "status.md").write_text(status_page(preset, shown))
    of_run = (runs if (runs / preset).exists() else kept) / preset
    answers = recorded_answers(kept)
    included = {
        "headline": _headline(preset, pages, of_run / "headline.md"),
        "recorded": _recorded_runs(kept, answers, digest, book.parent / "notebooks", runs),
        "demo": demo_parts(preset, book, runs),
        **front_page(of_run / "results.jsonl", book / "static" / "models"),
        "questions": markdown(questions_table(), "no.") + "\n",
        "in-short": in_short(answers) + "\n",
        "pilot": _pilot(kept / pilot() / "results.jsonl"),
        "modules": modules(book.parent / "i2i_lib"),
        "stress": _stress(book / "stress.json"),
        "changes": _changes(root()),
        "code-picture": f"```{{raw}} html\n{packages_picture(root())}```\n",
    }
    search.place(preset, book, runs)  # after the demo, whose pictures it shows
    included["headline"] = f"{included['headline'].rstrip()} {included.pop('longer')}".rstrip() + "\n"
    for name, text in included.items():
        (made / f"{name}.md").write_text(text)
    return pages


def _fill_pages(pages: list[Page], preset: str, digest: Digest, book: Path, runs: Path) -> list[Shown]:
    """Write every page, a stub where nothing ran; return the lines of the status page, also for runs without a page."""
    sources, kept = book.parent / "notebooks", book / "recorded"
    docnames = {page.docname for page in pages}
    shown = []
    for page in pages:
        notebook = _read(page.executed) if page.executed else stub(page, preset)
        run = notebook.metadata.get("i2i")
        status = "not run"
        if page.executed:
            status = status_of(run, page.executed.is_relative_to(kept), digest, sources, runs)
            dress(notebook, page, status, [_read(path) for path in parts_of(page.executed)])
            link_variants(notebook, page, variants_of(page.executed), book)
        fix_links(notebook, page, docnames)
        target = book / f"{page.docname}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        shown.append(Shown(f"{{doc}}`/{page.docname}`", status, run, page))
    others = set((runs / preset).glob("*/seed*/notebooks/*.ipynb")) - {page.executed for page in pages}
    for path in sorted(others):
        run = _read(path).metadata.i2i
        shown.append(Shown(path.stem, status_of(run, False, digest, sources, runs), run))
    return shown


def _headline(preset: str, pages: list[Page], made: Path) -> str:
    """Headline for the introduction: no number but those of this book's own run."""
    label = smoke_label("This book was") if preset == "smoke" else ""
    if made.exists():
        return label + made.read_text()
    chapter = "{doc}`Chapter 6 </notebooks/06-results>`"
    if any(page.executed for page in pages if page.source.stem == "06-results"):
        return f"{label}{chapter} has the results.\n"
    return f"{label}{chapter} has not been run with the preset `{preset}` yet: `{command(preset)}` runs it.\n"


def _changes(top: Path) -> str:
    """The version of book and library, and the list of changes without its title; included by the page on changes."""
    version = tomllib.loads((top / "pyproject.toml").read_text())["project"]["version"]
    listed = (top / "CHANGELOG.md").read_text().partition("\n")[2]
    return f"The package `i2i-lib` is at version {version}.{listed}"


def _stress(record: Path) -> str:
    """Results of the last `make stress`: included by the page on errors."""
    if not record.exists():
        return "`make stress` has not been run yet.\n"
    found = json.loads(record.read_text())
    rows = []
    for name, sentence in {"kills": _killed, "fuzz": _fuzzed, "bfloat16": _in_bfloat16}.items():
        if facts := found.get(name):
            made = [facts["date"], duration(facts["seconds"]), device_of(facts), f"PyTorch {facts['torch']}"]
            rows.append([sentence(facts), *made])
    return markdown_table("What `make stress` did, When, Took, Where, With", rows) + "\n"


def _killed(kills: Any) -> str:
    victims = ", ".join(f"{name} {count}" for name, count in kills["victims"].items())
    end = f"**{kills['differing']} did not** end" if kills["differing"] else "all of them ended"
    return (
        f"A process of the pipeline was killed {kills['kills']} times ({victims}) at random moments of"
        f" {kills['chains']} runs, which were then started again: {end} with the {kills['files']} files of an"
        " unbroken run, bit for bit but for times"
    )


def _fuzzed(fuzz: Any) -> str:
    end = "each was read as a whole or refused by a documented error" if fuzz["passed"] else "**not all were refused**"
    return f"{fuzz['cases']:,} damaged or hostile files and folders: {end}"


def _in_bfloat16(half: Any) -> str:
    end = "every number stayed finite" if half["finite"] else "**not every number stayed finite**"
    return f"{half['steps']:,} steps of training in bfloat16: {end}"


def _recorded_runs(kept: Path, answers: list[Answer], digest: Digest, sources: Path, runs: Path) -> str:
    """Results of other machines, each run under its hardware and date: included by the page on recorded results.

    Those that answer the plan come first, in its order.
    """
    planned = dict.fromkeys(question.recording for question in questions())
    order = {name: place for place, name in enumerate(planned)}
    parts = []
    for folder in sorted(recordings(kept), key=lambda folder: order.get(folder.name, len(order))):
        made = [(name.rsplit("/", 1)[-1], run) for name, run in read_manifest(folder)["runs"].items()]
        rows = []
        for name, run in made:
            which = [name, run["task"] or "", "" if run["seed"] is None else str(run["seed"])]
            status = status_of(run, True, digest, sources, runs)
            rows.append(
                [*which, status, date_of(run), duration(run["seconds"]), device_of(run), as_code(run["git"] or "none")]
            )
        parts += [
            f"## {folder.name}: recorded on {origin_of(run for _, run in made)}",
            smoke_label("This recording was") if folder.name == "smoke" else "",
            f"Made with the preset {' and '.join(sorted({as_code(run['preset']) for _, run in made}))} of that day.",
            tables(folder, answers),
            ":::{dropdown} Each notebook: when it ran, how long, and where\n"
            + markdown_table("Notebook, Task, Seed, Status, When, Took, Where, Commit", rows)
            + "\n:::",
        ]
    return "\n\n".join(filter(None, parts)) + "\n" if parts else "Nothing has been recorded yet.\n"


def _pilot(table: Path) -> str:
    """The power that the pilot foretells: included by the page on the plan."""
    return pilot_text(load_evaluations(table)) if table.exists() else ""


def _read(path: Path) -> Any:
    notebook: Any = nbformat.read(path, as_version=4)
    status = notebook.metadata.get("i2i", {}).get("status")
    if status != "ok":
        raise ValueError(
            f"{path} is not a page: expected a notebook that i2i_book.runner ran to its end, got {status=}"
        )
    return notebook
