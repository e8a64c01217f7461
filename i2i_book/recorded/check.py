"""Runs that another machine made, packed small, checked, and shown in the book under their own label.

`python -m i2i_book.recorded pack runs/gpu OUT.zip` (or a folder) packs a run where it was made, and
`python -m i2i_book.recorded import OUT.zip` takes it into `book/recorded/gpu` of another checkout. Under a name of its
own (`--name`) it is only shown among the recorded results and stands in for no run of its preset. A recording is the
evaluations, plans and executed notebooks, with the students' weights in bfloat16. Every file is checked against the
manifest, and the files against each other: the table against the evaluations, evaluations and weights against the
hashes that the notebooks noted when they ran. That finds damage and tampering with a part; someone who forges all of
it is found out by `make verify`, which runs the recorded weights again.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from i2i_lib.files import sha256
from i2i_lib.results import collect

FORMAT = 1
MANIFEST = "manifest.json"
LIMIT = 200 * 2**20  # bytes of a whole recording: the repository holds it
PRESET = re.compile(r"[a-z0-9-]+")
# All that a recording may hold. No name that matches leads out of the folder.
NAMES = re.compile(
    r"results\.jsonl|headline\.md|notebooks/(?:06-results|10-ablations)\.ipynb|"
    r"[a-z0-9-]+/seed[0-9]+/(?:(?:eval|plan|data|scales|ablations)\.json|(?:student-[a-z]+|teacher|original)\.(?:json|safetensors)"
    r"|notebooks/[a-z0-9-]+\.ipynb)"
)
# What a page could do in a reader's browser: no notebook of this book does any of it.
ACTIVE = re.compile(r"<\s*(?:script|iframe|object|embed|form)|javascript:|<[a-z][^<>]*\son[a-z]+\s*=", re.IGNORECASE)


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a recording, every file of which is checked. Raises ValueError naming one that does not fit."""
    manifest = _manifest(folder / MANIFEST, _bytes(folder / MANIFEST))
    present = set(_names(folder)) - {MANIFEST}
    for name in sorted(present ^ manifest["files"].keys()):
        raise ValueError(f"{folder / name} is {'not in the manifest' if name in present else 'missing'}")
    for name, facts in manifest["files"].items():
        _fits(folder / name, _bytes(folder / name), facts)
    _coherent(folder)
    return manifest


def _manifest(where: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        files = {str(name): (str(facts["sha256"]), int(facts["bytes"])) for name, facts in manifest["files"].items()}
        preset, form = str(manifest["preset"]), manifest["format"]
        datetime.fromisoformat(manifest["packed"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{where} is not the manifest of a recording ({error!r})") from error
    if form != FORMAT or not PRESET.fullmatch(preset):
        raise ValueError(f"{where} is of format {form!r} and preset {preset!r}: expected {FORMAT} and a plain name")
    for name in files:
        if not NAMES.fullmatch(name):
            raise ValueError(f"{where} lists {name!r}, which no recording holds")
    if (total := sum(size for _, size in files.values())) > LIMIT:
        raise ValueError(f"{where} lists {total / 2**20:.0f} MiB: a recording holds at most {LIMIT // 2**20}")
    return manifest


def _fits(where: Path, data: bytes, facts: dict[str, Any]) -> None:
    if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise ValueError(f"{where} does not match the manifest: it was damaged, or changed after it was packed")


def _coherent(folder: Path) -> None:
    """Hold the files against each other, and against what the notebooks noted when they ran."""
    evaluations = sorted(folder.glob("*/seed*/eval.json"))
    if not (folder / "results.jsonl").exists() or not evaluations:
        raise ValueError(f"{folder} holds no results: expected results.jsonl and the eval.json of each task and seed")
    if collect(evaluations) != (folder / "results.jsonl").read_text():
        raise ValueError(f"{folder / 'results.jsonl'} is not what the evaluations beside it say")
    for home in {path.parent.parent for path in folder.glob("*/seed*/notebooks/*.ipynb")} | {
        path.parent for path in evaluations
    }:
        wrote, read = _noted(home)
        for name in read.keys() & wrote.keys():
            if read[name] != wrote[name]:
                raise ValueError(f"{folder / name} was changed between the notebooks that wrote and read it")
        for path in sorted(home.glob("*.*")):
            name, digest = path.relative_to(folder).as_posix(), sha256(path)
            if path.with_suffix(".safetensors").exists():  # the notebooks saw these before they were rounded
                described = json.loads(path.with_suffix(".json").read_text())
                if path.suffix == ".safetensors" and described.get("sha256") != digest:
                    raise ValueError(f"{path} does not match the checksum in {path.stem}.json")
                name, digest = f"{name.removesuffix(path.suffix)}.safetensors", described.get("packed_from")
            if digest != wrote.get(name):
                raise ValueError(f"{path} is not the file that its notebook wrote")
    for path in folder.rglob("*.json"):
        if any(ACTIVE.search(text) for text in _strings(json.loads(path.read_text()))):
            raise ValueError(f"{path} holds active content, which no page of this book needs")
    for path, notebook in _notebooks(folder):
        _passive(path, notebook)
    if (headline := folder / "headline.md").exists() and ACTIVE.search(headline.read_text()):
        raise ValueError(f"{headline} holds active content, which no page of this book needs")


def _noted(home: Path) -> tuple[dict[str, str], dict[str, str]]:
    """File below the run -> its hash, as the notebooks of one task and seed noted when they wrote and read it."""
    wrote: dict[str, str] = {}
    read: dict[str, str] = {}
    for path, notebook in _notebooks(home):
        run = notebook.metadata.get("i2i", {})
        if run.get("status") != "ok" or (run.get("task"), f"seed{run.get('seed')}") != home.parts[-2:]:
            raise ValueError(f"{path} is no run of {'/'.join(home.parts[-2:])} that ended well")
        for verb, found in (("wrote", wrote), ("read", read)):
            found |= {name.split("/", 1)[-1]: digest for name, digest in run.get("files", {}).get(verb, {}).items()}
    return wrote, read


def _passive(path: Path, notebook: Any) -> None:
    """Refuse what would act in a reader's browser. Code and plain text are shown escaped, and so not looked at."""
    shown = list(_strings(notebook.metadata))
    for cell in notebook.cells:
        if cell.cell_type != "code":
            shown.append(cell.source)
            continue
        for output in cell.outputs:
            for kind, data in output.get("data", {}).items():
                if kind not in ("text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/jpeg"):
                    raise ValueError(f"{path} has output of type {kind}, which no page of this book needs")
                shown += [] if kind == "text/plain" else ["".join(data)]
    if any(ACTIVE.search(text) for text in shown):
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


def _notebooks(folder: Path) -> Iterator[tuple[Path, Any]]:
    for path in sorted(folder.rglob("*.ipynb")):
        try:
            yield path, nbformat.read(path, as_version=4)
        except Exception as error:
            raise ValueError(f"{path} is not a notebook ({error})") from error


def _names(folder: Path) -> list[str]:
    """Every file below a folder; a link or a device is refused."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is a link or no plain file: a recording holds plain files only")
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return found


def _bytes(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} is missing, or no plain file")
    return path.read_bytes()
