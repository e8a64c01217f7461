"""Runs that another machine made, packed small, checked, and shown in the book under their own label.

`python -m i2i_book.recorded pack runs/gpu OUT.zip` (or a folder) packs a run where it was made, and
`python -m i2i_book.recorded import OUT.zip` takes it into `book/recorded/gpu` of another checkout. Under a name of its
own (`--name`) it is only shown among the recorded results and stands in for no run of its preset. A recording is the
evaluations, plans and executed notebooks, with the students' weights in bfloat16. Every file is checked against the
manifest, and the files against each other: the table against the evaluations, evaluations and weights against the
hashes that the notebooks noted when they ran. That finds damage and tampering with a part; someone who forges all of
it is found out by `make verify`, which runs the recorded weights again.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from i2i_lib.claims import SEEDS_OF_A_CLAIM, answers, over_seeds, table_of
from i2i_lib.commands import plainly
from i2i_lib.downloads import DAMAGED
from i2i_lib.files import atomic_write, sha256, write_json
from i2i_lib.results import collect, headed, load_evaluation, load_evaluations, load_table
from i2i_lib.runs import root

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
YARDSTICKS = ("floor", "look-up", "original", "teacher")  # first in a table
MEASURES = {"l1": 3, "ssim": 3, "feature_distance": 3, "kd": 1, "fd": 1}  # and the digits to show


# --- pack ------------------------------------------------------------------------------------------------------------


def pack(run: Path, out: Path, *, teachers: bool = False, pages: bool = True) -> Path:
    """Pack the finished run `run` (runs/<preset>) into `out`, a .zip file or a folder, which must not exist yet.

    The pages of seed 0 are packed whole unless `pages` is false; of other seeds the manifests alone, in notebooks
    without outputs. `teachers` adds the teachers' weights, many times larger than the students'.

    Raises ValueError naming what is missing or does not fit.
    """
    if out.exists():
        raise ValueError(f"{out} exists already: delete it first, or pack under another name")
    if not (run / "results.jsonl").exists():
        raise ValueError(f"{run}/results.jsonl is missing: expected the folder of a finished run, such as runs/gpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=out.parent) as temporary:
        folder = Path(temporary) / "packed"
        for path in sorted(p for p in run.rglob("*") if p.is_file()):
            name = path.relative_to(run).as_posix()
            if NAMES.fullmatch(name) and (teachers or path.stem not in ("teacher", "original")):
                _pack_file(path, folder / name, pages)
        files = {
            name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in _names(folder)
        }
        packed = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / MANIFEST, {"format": FORMAT, "preset": run.name, "packed": packed, "files": files})
        check(folder)
        if out.suffix == ".zip":
            packed_file = io.BytesIO()
            with zipfile.ZipFile(packed_file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in _names(folder):
                    archive.write(folder / name, name)
            atomic_write(out, packed_file.getvalue())
        else:
            folder.rename(out)
    return out


def _pack_file(path: Path, target: Path, pages: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ipynb" and (not pages or re.fullmatch("seed[1-9][0-9]*", path.parent.parent.name)):
        notebook: Any = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        nbformat.write(notebook, target)
    elif path.suffix == ".safetensors":
        _pack_weights(path, target)
    elif not path.with_suffix(".safetensors").exists() or path.name == "data.json":
        shutil.copyfile(path, target)


def pack_models(home: Path, target: Path) -> None:
    """Keep the small models of one task and seed, runs/<preset>/<task>/seed<k>, in `target`, book/recorded/<task>.

    They let chapters 3 to 5 open at once when run by hand: the teacher with its discriminator and the GCKA student in
    bfloat16, the plan, the record of the tiles (which are cut again from the source pictures), and a model card.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".models-", dir=target.parent) as temporary:
        new = Path(temporary) / "new"
        for name in ("teacher", "teacher-discriminator", "student-gcka"):
            _pack_weights(home / f"{name}.safetensors", new / f"{name}.safetensors")
        for name in ("plan.json", "data.json"):
            atomic_write(new / name, (home / name).read_bytes())
        atomic_write(new / "MODEL_CARD.md", _model_card(home).encode())
        _place(new, target)


def _model_card(home: Path) -> str:
    rows = {row.model: row for row in load_evaluation(home / "eval.json")["results"]}
    runs_of = {path.stem: notebook.metadata["i2i"] for path, notebook in _notebooks(home / "notebooks")}
    pages = {"teacher": "02-search-space", "gcka": "04-distillation-gcka"}
    lines = []
    for model, page in pages.items():
        row, run = rows[model], runs_of[page]
        settings = ", ".join(f"{name} {value}" for name, value in sorted(run["parameters"].items()))
        machine = run["machine"]
        lines.append(
            f"## {'Teacher' if model == 'teacher' else 'Student, distilled by GCKA'}\n\n"
            f"- {row.params:,} parameters; MACs of one picture: {row.macs_exact:,} exact, {row.macs_paper:,} by the "
            f"paper's count\n"
            f"- on {row.images} test tiles in {row.blocks} blocks: L1 {row.l1:.4f}, SSIM {row.ssim:.4f}, feature "
            f"distance {row.feature_distance:.4f}, KD-EffNet x 1000 {row.kd:.1f} ({row.kd_low:.1f} to "
            f"{row.kd_high:.1f}), FD-EffNet {row.fd:.1f}; measured before the weights were rounded to bfloat16\n"
            f"- made by `notebooks/{run['notebook']}.ipynb` on {run['started'][:10]} in {run['seconds']:.0f} s, on "
            f"{machine['gpu'] or machine['cpu']}, PyTorch {run['versions']['torch']}, commit {run['git']}\n"
            f"- parameters: {settings}\n"
        )
    row = rows["teacher"]
    return (
        f"# Model card: a small teacher and student for `{row.task}`\n\n"
        "Kept so that chapters 3 to 5 open at once in JupyterLab. They are examples of the method at a small size, "
        f"made by the preset `{runs_of['02-search-space']['preset']}`; no run of the book starts from them.\n\n"
        + "\n".join(lines)
        + "\n## Use and limits\n\nFor study. They turn map tiles of one rendering, at one scale, into pictures that "
        "look like satellite pictures: colours and textures are guesses, and nothing in them is evidence of what is on "
        "the ground.\n\n"
        f"Measured by: {row.protocol}.\n\nTrained on Natural Earth's shaded relief and NASA's Blue Marble: see "
        "`data/README.md` for origin and licence. The weights are under the licence of this repository.\n"
    )


def _pack_weights(path: Path, target: Path) -> None:
    """Write the tensors in bfloat16 and the JSON beside them, which keeps the hash of what was packed."""
    from safetensors.torch import load, save

    data = path.read_bytes()
    small = save({k: t.bfloat16() if t.is_floating_point() else t for k, t in load(data).items()})
    described = json.loads(path.with_suffix(".json").read_text())
    described |= {"sha256": hashlib.sha256(small).hexdigest(), "packed_from": hashlib.sha256(data).hexdigest()}
    atomic_write(target, small)
    write_json(target.with_suffix(".json"), described)


# --- check -----------------------------------------------------------------------------------------------------------


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


# --- import ----------------------------------------------------------------------------------------------------------


def take_in(source: Path, recorded: Path, *, name: str | None = None, replace: bool = False) -> Path:
    """Check the recording `source` (.zip or folder) and place it in `recorded`/`name`; returns that folder.

    `name` is its preset's unless given. Nothing is left behind unless all of it fits. Raises ValueError naming the file
    that does not, for an archive that names a path outside, a link or a file twice, for a name that is no plain one,
    and for a recording that is there already unless `replace`.
    """
    if name is not None and not PRESET.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a recording: expected small letters, digits and -")
    recorded.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=recorded) as temporary:
        new = Path(temporary) / "new"
        if source.is_dir():
            _copy(source, new)
        else:
            _extract(source, new)
        try:
            manifest = check(new)
        except ValueError as error:
            raise ValueError(str(error).replace(str(new), str(source))) from error
        target = recorded / (name or manifest["preset"])
        if target.exists():
            if not replace:
                raise ValueError(f"{target} exists already: pass --replace to put this recording in its place")
        _place(new, target)
    return target


def _place(new: Path, target: Path) -> None:
    """Put the folder `new` where `target` is, which goes beside the place of `new`, or comes back if that fails."""
    old = new.with_name("old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _copy(source: Path, target: Path) -> None:
    for name in _names(source):
        if name != MANIFEST and not NAMES.fullmatch(name):
            raise ValueError(f"{source / name} is not in the manifest: no recording holds such a file")
        atomic_write(target / name, (source / name).read_bytes())


def _extract(source: Path, target: Path) -> None:
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(source) as archive:
            infos = archive.infolist()
            names = Counter(info.orig_filename for info in infos)
            for info in infos:
                name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
                if (name != MANIFEST and not NAMES.fullmatch(name)) or kind not in (0, stat.S_IFREG):
                    raise ValueError(f"{source} holds {name!r}, which no recording holds: nothing was imported")
                if names[name] > 1:
                    raise ValueError(f"{source} holds {name!r} twice: nothing was imported")
            if MANIFEST not in names:
                raise ValueError(f"{source} has no {MANIFEST}: it is not a recording")
            if sum(info.file_size for info in infos) > LIMIT:
                raise ValueError(f"{source} unpacks to more than {LIMIT // 2**20} MiB: nothing was imported")
            for info in infos:
                with archive.open(info) as file:
                    contents[info.filename] = file.read(info.file_size + 1)  # an archive can lie about a size
                if len(contents[info.filename]) != info.file_size:
                    raise ValueError(f"{source}: {info.filename} is larger than the archive says")
    except (*DAMAGED, OSError) as error:
        raise ValueError(f"{source} cannot be read as a .zip archive: {error}") from error
    for name, data in contents.items():
        atomic_write(target / name, data)


# --- show ------------------------------------------------------------------------------------------------------------


def recordings(recorded: Path) -> list[Path]:
    """The folders of `recorded` that hold a recording."""
    return sorted(path.parent for path in recorded.glob(f"*/{MANIFEST}"))


def tables(folder: Path) -> str:
    """What a recording measured, in Markdown: per task its models' quality and, from three seeds on, its claims."""
    table, evaluations = load_table(folder / "results.jsonl"), load_evaluations(folder / "results.jsonl")
    parts = []
    for task, found in sorted(evaluations.items()):
        rows: Any = table[table.task == task]
        lines = [["model", *map(headed, MEASURES), "n"], ["---"] * (len(MEASURES) + 2)]
        models = sorted(rows.model.unique(), key=lambda name: (name not in YARDSTICKS, name))
        for model in models:
            of_model: Any = rows[rows.model == model]
            cells = []
            for measure, digits in MEASURES.items():
                values = of_model[measure].dropna().tolist()
                cells.append(over_seeds(values).text(digits).split(" (n")[0] if values else "")
            lines.append([model, *cells, str(of_model.seed.nunique())])
        said = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{task}**, mean ± standard deviation over n seeds\n\n{said}")
        if len(found) >= SEEDS_OF_A_CLAIM:
            parts += [
                "What each ingredient did: the difference, its 95 % interval over seeds and places and, in bold, the"
                " model that it speaks for; where nothing is bold, no difference is shown. Of twenty such intervals one"
                " excludes 0 by chance.",
                table_of(answers(found)),
            ]
        parts.append(rows.protocol.iloc[0])
    return "\n\n".join(parts)


def manifests(folder: Path) -> list[tuple[str, Any]]:
    """Name and manifest of every notebook of a recording."""
    return [(path.stem, notebook.metadata["i2i"]) for path, notebook in _notebooks(folder)]


@plainly
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.recorded", description=(__doc__ or "").split("\n\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    packing = steps.add_parser("pack", help="pack a finished run")
    packing.add_argument("run", type=Path, help="such as runs/gpu")
    packing.add_argument("out", type=Path, help="a .zip file or a folder to make")
    packing.add_argument("--teachers", action="store_true", help="add the teachers' weights")
    packing.add_argument("--no-pages", action="store_true", help="leave out what the notebooks showed: numbers only")
    keeping = steps.add_parser("models", help="keep a small teacher and student for work by hand")
    keeping.add_argument("home", type=Path, help="such as runs/cpu/earth/seed0")
    importing = steps.add_parser("import", help="check a recording and place it in book/recorded/")
    importing.add_argument("source", type=Path)
    importing.add_argument("--name", help="show it under this name, beside what this checkout runs with its preset")
    importing.add_argument("--replace", action="store_true", help="in place of the recording of the same name")
    options = parser.parse_args(arguments)
    if options.step == "pack":
        out = pack(options.run, options.out, teachers=options.teachers, pages=not options.no_pages)
        size = sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")) if p.is_file())
        print(f"{out}: {size / 2**20:.1f} MiB; elsewhere: `python -m i2i_book.recorded import {out.name}`")
    elif options.step == "models":
        target = root() / "book" / "recorded" / options.home.resolve().parent.name
        pack_models(options.home, target)
        print(f"{target.relative_to(root())}: kept")
    else:
        target = take_in(options.source, root() / "book" / "recorded", name=options.name, replace=options.replace)
        print(f"{target.relative_to(root())}: `make book` shows it; `make verify PRESET={target.name}` runs it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
