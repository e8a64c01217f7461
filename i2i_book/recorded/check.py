"""Runs that another machine made, packed small, checked, and shown in the book under their own label.

A recording is a manifest, the evaluations and plans, the students' weights in 16 bits and, where pages were packed,
the executed notebooks of seed 0. The manifest holds the checksum of every file, and what every notebook noted when it
ran: parameters, versions, machine, time, and the hashes of the files that it read and wrote. Every file is checked
against the manifest, and the files against each other: the table against the evaluations, evaluations and weights
against the noted hashes. That finds damage and tampering with a part; someone who forges all of it is found out by
`make verify`, which runs the recorded weights again.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from i2i_book.chapters import GENERATORS, chapters
from i2i_lib.files import sha256
from i2i_lib.results import collect

FORMAT = 2
MANIFEST = "manifest.json"
LIMIT = 200 * 2**20  # bytes of a whole recording: the repository holds it
PRESET = re.compile(r"[a-z0-9-]+")
# What a page could do in a reader's browser: no notebook of this book does any of it.
ACTIVE = re.compile(r"<\s*(?:script|iframe|object|embed|form)|javascript:|<[a-z][^<>]*\son[a-z]+\s*=", re.IGNORECASE)
SHOWN = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/jpeg", "image/svg+xml")


def may_hold(name: str) -> bool:
    """Whether a recording may hold a file of this name. None that it may leads out of the folder."""
    listed = chapters().values()
    of_run = "|".join(chapter.notebook for chapter in listed if chapter.of == "run")
    of_seed = "|".join(chapter.notebook for chapter in listed if chapter.of != "run")
    patterns = (
        r"results\.jsonl|headline\.md",
        rf"notebooks/({of_run})\.ipynb",
        r"[a-z0-9-]+/seed[0-9]+/(eval|plan|data|ablations)\.json",
        rf"[a-z0-9-]+/seed[0-9]+/(student-[a-z-]+|{'|'.join(GENERATORS.values())})\.(json|safetensors)",
        rf"[a-z0-9-]+/seed[0-9]+/notebooks/({of_seed})(-[a-z-]+)?\.ipynb",
    )
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a recording, every file of which is checked. Raises ValueError naming one that does not fit."""
    manifest = read_manifest(folder)
    present = set(names_below(folder)) - {MANIFEST}
    for name in sorted(present ^ manifest["files"].keys()):
        raise ValueError(f"{folder / name} is {'not in the manifest' if name in present else 'missing'}")
    for name, facts in manifest["files"].items():
        data = (folder / name).read_bytes()
        if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise ValueError(
                f"{folder / name} does not match the manifest: it was damaged, or changed after it was packed"
            )
    evaluations = sorted(folder.glob("*/seed*/eval.json"))
    if not (folder / "results.jsonl").exists() or not evaluations:
        raise ValueError(f"{folder} holds no results: expected results.jsonl and the eval.json of each task and seed")
    if collect(evaluations) != (folder / "results.jsonl").read_text():
        raise ValueError(f"{folder / 'results.jsonl'} is not what the evaluations beside it say")
    for home in sorted(folder.glob("*/seed*")):
        _check_seed(folder, home, facts_of(manifest, f"{home.parent.name}/{home.name}"))
    _check_shown(folder, manifest)
    return manifest


def recordings(recorded: Path) -> list[Path]:
    """The folders of `recorded` that hold a recording."""
    return sorted(path.parent for path in recorded.glob(f"*/{MANIFEST}"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a recording. Raises ValueError naming it if it is none, or lists what no recording holds."""
    where = folder / MANIFEST
    if where.is_symlink() or not where.is_file():
        raise ValueError(f"{where} is missing, or no plain file")
    try:
        manifest = json.loads(where.read_bytes())
        files = {str(name): (str(facts["sha256"]), int(facts["bytes"])) for name, facts in manifest["files"].items()}
        preset, form = str(manifest["preset"]), manifest["format"]
        datetime.fromisoformat(manifest["packed"])
        statuses = {str(name): facts["status"] for name, facts in manifest.get("runs", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{where} is not the manifest of a recording ({error!r})") from error
    if form != FORMAT or not PRESET.fullmatch(preset):
        raise ValueError(f"{where} is of format {form!r} and preset {preset!r}: expected {FORMAT} and a plain name")
    for name in files:
        if not may_hold(name):
            raise ValueError(f"{where} lists {name!r}, which no recording holds")
    for name, status in statuses.items():
        if status != "ok":
            raise ValueError(f"{where} lists {name!r}, which did not end well")
    total = sum(size for _, size in files.values())
    if total > LIMIT:
        raise ValueError(f"{where} lists {total / 2**20:.0f} MiB: a recording holds at most {LIMIT // 2**20}")
    return manifest


def facts_of(manifest: dict[str, Any], place: str) -> dict[str, dict[str, Any]]:
    """Name of the run -> facts that it noted, for one task and seed, such as `earth/seed0`."""
    runs = manifest["runs"].items()
    return {name.removeprefix(f"{place}/"): facts for name, facts in runs if name.startswith(f"{place}/")}


def _check_seed(folder: Path, home: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Hold the files of one task and seed against what its notebooks noted when they wrote and read them."""
    place = home.relative_to(folder).as_posix()
    wrote: dict[str, str] = {}
    read: dict[str, str] = {}
    for name, facts in runs.items():
        if f"{facts.get('task')}/seed{facts.get('seed')}" != place:
            raise ValueError(f"{folder / MANIFEST}: {place}/{name} is no run of {place}")
        for verb, found in (("wrote", wrote), ("read", read)):
            noted = facts.get("files", {}).get(verb, {})
            found |= {path.split("/", 1)[-1]: digest for path, digest in noted.items()}  # below the run
    for name in read.keys() & wrote.keys():
        if read[name] != wrote[name]:
            raise ValueError(f"{folder / name} was changed between the notebooks that wrote and read it")
    for path in sorted(home.glob("*.*")):
        if path.with_suffix(".safetensors").exists():  # the notebooks saw these before they were rounded
            described = json.loads(path.with_suffix(".json").read_text())
            if path.suffix == ".safetensors" and described.get("sha256") != sha256(path):
                raise ValueError(f"{path} does not match the checksum in {path.stem}.json")
            name, digest = f"{path.stem}.safetensors", described.get("packed_from")
        else:
            name, digest = path.name, _digest_as_written(path)
        if digest != wrote.get(f"{place}/{name}"):
            raise ValueError(f"{path} is not the file that its notebook wrote")


def _digest_as_written(path: Path) -> str:
    """SHA-256 of JSON as a notebook wrote it: a recording holds the same data on fewer lines."""
    text = json.dumps(json.loads(path.read_text()), indent=1, allow_nan=False) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()


def _check_shown(folder: Path, manifest: dict[str, Any]) -> None:
    """Reject active content, and pages of another run than the manifest names."""
    for path in folder.rglob("*.json"):
        _passive(path, _strings(json.loads(path.read_text())))
    headline = folder / "headline.md"
    if headline.exists():
        _passive(headline, [headline.read_text()])
    for path in sorted(folder.rglob("*.ipynb")):
        try:
            notebook: Any = nbformat.read(path, as_version=4)
        except Exception as error:
            raise ValueError(f"{path} is not a notebook ({error})") from error
        if notebook.metadata.get("i2i") != manifest["runs"].get(run_name(folder, path)):
            raise ValueError(f"{path} is not of the run that the manifest lists")
        _passive(path, _page_texts(path, notebook))


def run_name(folder: Path, notebook: Path) -> str:
    """Name of an executed notebook in the manifest: `earth/seed0/notebooks/01-data.ipynb` is `earth/seed0/01-data`."""
    return (notebook.parent.parent.relative_to(folder) / notebook.stem).as_posix()


def _page_texts(path: Path, notebook: Any) -> Iterator[str]:
    """Texts that a page shows unescaped: all but code and plain text."""
    yield from _strings(notebook.metadata)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            yield cell.source
            continue
        for output in cell.outputs:
            for kind, data in output.get("data", {}).items():
                if kind not in SHOWN:
                    raise ValueError(f"{path} has output of type {kind}, which no page of this book needs")
                if kind != "text/plain":
                    yield "".join(data)


def _passive(path: Path, texts: Iterator[str] | list[str]) -> None:
    if any(ACTIVE.search(text) for text in texts):
        raise ValueError(f"{path} holds active content, which no page of this book needs")


def _strings(value: Any) -> Iterator[str]:
    """Every text in JSON data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def names_below(folder: Path) -> list[str]:
    """Every file below a folder; a link or a device is refused."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is a link or no plain file: a recording holds plain files only")
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return found
