"""Pack a run, or its small models, to be committed."""

import hashlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from i2i_book.recorded.check import FORMAT, MANIFEST, check, may_hold, names_below, run_name
from i2i_lib.files import atomic_write, place_folder, sha256, write_json
from i2i_lib.results import load_evaluation

LINE = 4000  # characters of JSON that stand on one line


def pack(run: Path, out: Path, *, teachers: bool = False, pages: bool = True) -> Path:
    """Pack the finished run `run` (runs/<preset>) into `out`, a .zip file or a folder, which must not exist yet.

    The pages of seed 0 are packed unless `pages` is false; of all others only what they noted when they ran.
    `teachers` adds the teachers' weights, many times larger than the students'.

    Raises ValueError naming what is missing or does not fit.
    """
    if out.exists():
        raise ValueError(f"{out} exists already: delete it first, or pack under another name")
    if not (run / "results.jsonl").exists():
        raise ValueError(f"{run}/results.jsonl is missing: expected the folder of a finished run, such as runs/gpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=out.parent) as temporary:
        folder = Path(temporary) / "packed"
        runs = {}
        for path in sorted(p for p in run.rglob("*") if p.is_file()):
            name = path.relative_to(run).as_posix()
            if not may_hold(name) or (path.stem in ("teacher", "original") and not teachers):
                continue
            if path.suffix == ".ipynb":
                notebook: Any = nbformat.read(path, as_version=4)
                runs[run_name(run, path)] = dict(notebook.metadata["i2i"])
                if not pages or re.fullmatch("seed[1-9][0-9]*", path.parent.parent.name):
                    continue
            _pack_file(path, folder / name)
        files = {
            name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
            for name in names_below(folder)
        }
        packed = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"format": FORMAT, "preset": run.name, "packed": packed, "runs": runs, "files": files}
        atomic_write(folder / MANIFEST, compact_json(manifest))
        check(folder)
        if out.suffix == ".zip":
            packed_file = io.BytesIO()
            with zipfile.ZipFile(packed_file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names_below(folder):
                    archive.write(folder / name, name)
            atomic_write(out, packed_file.getvalue())
        else:
            folder.rename(out)
    return out


def _pack_file(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        _pack_weights(path, target)
    elif path.suffix != ".json":
        shutil.copyfile(path, target)
    elif not path.with_suffix(".safetensors").exists() or path.name == "data.json":  # that of weights comes with them
        atomic_write(target, compact_json(json.loads(path.read_text())))


def compact_json(value: Any) -> bytes:
    """JSON with a line for each row of a table: what fits on one is not broken, nor is a list of numbers."""
    return (_lines(value, "") + "\n").encode()


def _lines(value: Any, indent: str) -> str:
    line = json.dumps(value, allow_nan=False)
    inner = list(value.values() if isinstance(value, dict) else value) if isinstance(value, dict | list) else []
    if len(line) <= LINE or not any(isinstance(part, dict | list) for part in inner):
        return line
    deeper = indent + " "
    parts = [_lines(part, deeper) for part in inner]
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {part}" for key, part in zip(value, parts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    joined = f",\n{deeper}".join(parts)
    return f"{opening}\n{deeper}{joined}\n{indent}{closing}"


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
            atomic_write(new / name, compact_json(json.loads((home / name).read_text())))
        atomic_write(new / "MODEL_CARD.md", _model_card(home).encode())
        place_folder(new, target)


def _model_card(home: Path) -> str:
    rows = {row.model: row for row in load_evaluation(home / "eval.json")["results"]}
    runs_of: dict[str, Any] = {}
    for path in (home / "notebooks").glob("*.ipynb"):
        notebook: Any = nbformat.read(path, as_version=4)
        runs_of[path.stem] = notebook.metadata["i2i"]
    pages = {"teacher": "02-search-space", "gcka": "04-distillation-gcka"}
    lines = []
    for model, page in pages.items():
        row, run = rows[model], runs_of[page]
        settings = ", ".join(f"{name} {value}" for name, value in sorted(run["parameters"].items()))
        machine = run["machine"]
        interval = "" if row.kd_low is None else f" ({row.kd_low:.1f} to {row.kd_high:.1f})"
        lines.append(
            f"## {'Teacher' if model == 'teacher' else 'Student, distilled by GCKA'}\n\n"
            f"- {row.params:,} parameters; MACs of one picture: {row.macs_exact:,} exact, {row.macs_paper:,} by the "
            f"paper's count\n"
            f"- on {row.images} test tiles in {row.blocks} blocks: L1 {row.l1:.4f}, SSIM {row.ssim:.4f}, feature "
            f"distance {row.feature_distance:.4f}, KD-EffNet x 1000 {row.kd:.1f}{interval}, "
            f"FD-EffNet {row.fd:.1f}; measured before the weights were rounded to bfloat16\n"
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
