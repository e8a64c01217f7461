"""The status page: what ran when, where and for how long."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from i2i_book.pages.contents import Page
from i2i_lib.files import sha256

# A notebook and its task -> the SHA-256 of its source, and of the modules that it imports.
Digest = Callable[[Path, str | None], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A line of the status page."""

    name: str
    status: str
    run: Any  # the facts of its run; None if it was not run
    page: Page | None = None  # None for a run that has no page

    def row(self) -> list[str]:
        """The cells of its line."""
        made = ["", "", ""]
        if self.run:
            made = [date_of(self.run), duration(self.run["seconds"]), device_of(self.run)]
        preset = self.run["preset"] if self.run else ""
        if self.page:
            return [self.name, preset, self.status, *made]
        return [self.name, self.run["task"] or "", str(self.run["seed"]), preset, self.status, *made]

    def origin(self) -> str:
        """Its provenance: the part of the page that its run line links to."""
        head = f"### {self.name}, {self.run['task']}, seed {self.run['seed']}"
        if self.page:
            head = f"({self.page.label})=\n### {self.page.docname.split('/', 1)[1]}"
        return f"{head}\n\n{_provenance(self.run)}"


def status_of(run: Any, recorded: bool, digest: Digest, sources: Path, runs: Path) -> str:
    """fresh or stale by comparing the digests of code and of files, after smoke or recorded."""
    source = sources / f"{run['notebook']}.ipynb"
    current = source.exists() and digest(source, run["task"]) == (run["source_sha256"], run["modules_sha256"])
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


def smoke_label(what: str) -> str:
    return (
        ":::{admonition} Smoke run\n:class: warning smoke-run\n"
        f"{what} made with the preset `smoke`: tiny pictures and very few training steps, enough to test that "
        "everything runs. Nothing here says anything about the method. `make book` makes the real pages.\n:::\n\n"
    )


def date_of(run: Any) -> str:
    return datetime.fromisoformat(run["started"]).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def device_of(run: Any) -> str:
    machine = run["machine"]
    return machine["gpu"] or f"{machine['cores']} core{'s' * (machine['cores'] != 1)} of {machine['cpu']}"


def origin_of(runs: Iterable[Any]) -> str:
    """The devices of runs and their first and last day: "2 cores of a processor, 2026-01-02 to 2026-01-03"."""
    made = list(runs)
    days = sorted(date_of(run)[:10] for run in made)
    devices = " and ".join(sorted({device_of(run) for run in made}))
    return f"{devices}, {' to '.join(dict.fromkeys([days[0], days[-1]]))}"


def run_summary(run: Any) -> str:
    facts = [f"{key} {run[key]}" for key in ("preset", "task", "seed", "arm", "generator") if run.get(key) is not None]
    return " · ".join(
        filter(None, [*facts, date_of(run), f"{duration(run['seconds'])} on {device_of(run)}", run["precision"]])
    )


def as_code(value: object) -> str:
    """A value as inline code that is safe in a Markdown table."""
    text = str(value).replace("`", "'").replace("|", r"\|").replace("\n", " ")
    return f"`{text or ' '}`"


def markdown_table(heads: str, rows: Iterable[Iterable[str]]) -> str:
    lines = [heads.split(", "), ["---"] * len(heads.split(", ")), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _provenance(run: Any) -> str:
    machine = " · ".join(str(run["machine"][key]) for key in ("cpu", "gpu", "os") if run["machine"][key])
    threads = [f"{run['threads']} threads" if run["threads"] else None, run["precision"]]
    facts = {
        "Run": run_summary(run),
        "Machine": " · ".join(filter(None, [machine, *threads])),
        "Peak memory": f"{run['peak_memory_mib']} MiB",
        "Parameters": ", ".join(as_code(f"{name} = {value!r}") for name, value in run["parameters"].items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        "Notebook": f"`{run['notebook']}.ipynb`, SHA-256 {as_code(run['source_sha256'])}",
        "Library modules": f"SHA-256 {as_code(run['modules_sha256'])}",
        "Commit": as_code(run["git"]) if run["git"] else "none",
    }
    for verb, files in run.get("files", {}).items():
        listed = "<br>".join(f"{as_code(name)} {as_code(digest[:16])}" for name, digest in files.items())
        facts[f"Files {verb} (start of SHA-256)"] = listed or "none"
    return markdown_table("Fact, Value", facts.items())


def status_page(preset: str, shown: list[Shown]) -> str:
    pages = [entry.row() for entry in shown if entry.page]
    others = [entry.row() for entry in shown if not entry.page]
    parts = [
        "# Status of the pages",
        f"This book was assembled from the runs of the preset `{preset}`. A page is **fresh** if its notebook, the "
        "modules that the notebook imports, and the files that it read and wrote are, byte for byte, those of its run, "
        "and **stale** if not. **Recorded** pages were made elsewhere and kept; of these, notebook and modules alone "
        "decide. **Smoke** pages test that everything runs and say nothing about the method. **Not run** pages are "
        "stubs.",
        markdown_table("Page, Preset, Status, When, Took, Where", pages),
    ]
    if others:
        parts += [
            "## Other runs of this preset",
            "Other seeds, tasks and variants have no page here; {doc}`chapter 6 </notebooks/06-results>` gathers what "
            "they measured.",
            markdown_table("Notebook, Task, Seed, Preset, Status, When, Took, Where", others),
        ]
    parts.append("## Where each page comes from")
    origins = [entry.origin() for entry in shown if entry.run]
    return "\n\n".join(parts + (origins or ["No page has been run."])) + "\n"
