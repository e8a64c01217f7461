"""Pack a run, or its weights, to be committed."""

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from i2i_book.chapters import GENERATORS
from i2i_book.questions import first_seed
from i2i_book.recorded.check import FORMAT, MANIFEST, check, may_hold, names_below, run_name
from i2i_lib.files import atomic_write, sha256

LINE = 4000  # characters of JSON that stand on one line


def pack(run: Path, out: Path, *, teachers: bool = False, pages: bool = True, weights: bool = True) -> Path:
    """Pack the finished run `run` (runs/<preset>) into `out`, a .zip file or a folder, which must not exist yet.

    The pages of the first seed are packed unless `pages` is false; of all others only what they noted when they ran.
    `teachers` adds the teachers' weights, many times larger than the students'. Without `weights`, only the students of
    the first seed keep theirs: the numbers of others are verified by training again. The plan says which seed is first.

    Raises ValueError naming what is missing or does not fit.
    """
    if out.exists():
        raise ValueError(f"{out} exists already: delete it first, or pack under another name")
    if not (run / "results.jsonl").exists():
        raise ValueError(f"{run}/results.jsonl is missing: expected the folder of a finished run, such as runs/gpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=out.parent) as temporary:
        folder = Path(temporary) / "packed"
        runs, first = {}, f"seed{first_seed(run.name)}"
        for path in sorted(p for p in run.rglob("*") if p.is_file()):
            name = path.relative_to(run).as_posix()
            if not may_hold(name) or (path.stem in GENERATORS.values() and not teachers):
                continue
            if path.suffix == ".ipynb":
                notebook: Any = nbformat.read(path, as_version=4)
                runs[run_name(run, path)] = dict(notebook.metadata["i2i"])
                if not pages or path.parent.parent.name not in (first, run.name):
                    continue
            _pack_file(path, folder / name, bare=not weights and path.parent.name != first)
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


def _pack_file(path: Path, target: Path, *, bare: bool) -> None:
    """Pack a file; weights with the JSON beside them, or if they are to be `bare`, that JSON alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        if not bare:
            pack_weights(path, target)
    elif path.suffix != ".json":
        shutil.copyfile(path, target)
    elif bare or not path.with_suffix(".safetensors").exists() or path.name == "data.json":
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


def pack_weights(path: Path, target: Path) -> None:
    """Write matrices in float16, and the JSON beside them, which keeps the hash of what was packed.

    Vectors stay in float32: pruning ranks norm scales, which rounding would make equal.
    """
    from safetensors.torch import load, save

    data = path.read_bytes()
    small = save({k: t.half() if t.is_floating_point() and t.dim() > 1 else t for k, t in load(data).items()})
    described = json.loads(path.with_suffix(".json").read_text())
    described |= {"sha256": hashlib.sha256(small).hexdigest(), "packed_from": hashlib.sha256(data).hexdigest()}
    atomic_write(target, small)
    atomic_write(target.with_suffix(".json"), compact_json(described))
