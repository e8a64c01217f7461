"""Import a packed run into book/recorded."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from i2i_book.presets import MAIN_TASK
from i2i_book.questions import questions
from i2i_book.recorded import check as checks
from i2i_book.recorded.check import MANIFEST, PRESET, check, names_below, read_manifest
from i2i_book.recorded.pack import compact_json
from i2i_lib.archives import unpack
from i2i_lib.files import atomic_write, place_folder
from i2i_lib.results import collect


def import_recording(source: Path, recorded: Path, *, name: str | None = None, replace: bool = False) -> Path:
    """Check the recording `source` (.zip or folder) and place it in `recorded`/`name`; returns that folder.

    `name` is its preset's unless given; under another it stands in for no run of that preset. Other tasks that are
    recorded there stay. Nothing is left behind unless all of it fits. Raises ValueError naming the file that does not,
    for an archive that names a path outside, a link or a file twice, for a name that is no plain one, and for a task
    that is recorded there already unless `replace`.
    """
    if name is not None and not PRESET.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a recording: expected small letters, digits and -")
    if not source.is_dir() and source.suffix != ".zip":
        raise ValueError(f"{source} is neither a folder nor a .zip archive of a recording")
    recorded.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=recorded) as temporary:
        new = Path(temporary) / "new"
        if source.is_dir():
            for path in names_below(source):
                atomic_write(new / path, (source / path).read_bytes())
        else:
            unpack(source, new, checks.LIMIT)
        try:
            manifest = check(new)
        except ValueError as error:
            raise ValueError(str(error).replace(str(new), str(source))) from error
        target = recorded / (name or manifest["preset"])
        if name != manifest["preset"] and name in {question.recording for question in questions()}:
            raise ValueError(f"{name} is a recording that the plan asks for, and this one is of {manifest['preset']}")
        if target.exists():
            there, here = _tasks_in(target, replace), _tasks(manifest)
            if not replace and (both := sorted(there & here)):
                raise ValueError(f"{target} has {', '.join(both)} already: pass --replace to put this in its place")
            if there - here:
                _add(target, there - here, new)
        place_folder(new, target)
    return target


def _tasks_in(target: Path, replace: bool) -> set[str]:
    """The tasks of the recording `target`; none of one whose manifest is damaged, if it is to be replaced."""
    try:
        return _tasks(read_manifest(target))
    except ValueError:
        if replace:
            return set()
        raise


def _tasks(manifest: dict[str, Any]) -> set[str]:
    return {name.split("/")[0] for name in manifest["files"] if "/seed" in name}


def _add(old: Path, tasks: set[str], new: Path) -> None:
    """Add the `tasks` of the recording `old` to the recording `new`. Raises ValueError if their presets differ.

    What is of no task, such as the headline, is that of the recording with the book's main task.
    """
    before, manifest = check(old), read_manifest(new)
    if before["preset"] != manifest["preset"]:
        raise ValueError(f"{old} is of the preset {before['preset']}, this recording of {manifest['preset']}")
    here = _tasks(manifest)
    whole, of_whole = (before, _tasks(before)) if MAIN_TASK in tasks else (manifest, here)
    for part in ("files", "runs"):
        of_no_task = {name: facts for name, facts in whole[part].items() if name.split("/")[0] not in of_whole}
        came = {name: facts for name, facts in manifest[part].items() if name.split("/")[0] in here}
        stays = {name: facts for name, facts in before[part].items() if name.split("/")[0] in tasks}
        manifest[part] = of_no_task | came | stays
    for name in names_below(new):
        if name not in manifest["files"]:
            (new / name).unlink()
    for name, facts in manifest["files"].items():
        if before["files"].get(name) == facts:
            atomic_write(new / name, (old / name).read_bytes())
    table = collect(sorted(new.glob("*/seed*/eval.json"))).encode()
    atomic_write(new / "results.jsonl", table)
    manifest["files"]["results.jsonl"] = {"sha256": hashlib.sha256(table).hexdigest(), "bytes": len(table)}
    atomic_write(new / MANIFEST, compact_json(manifest))
    check(new)
