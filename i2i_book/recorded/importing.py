"""Import a packed run into book/recorded."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
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
    for an archive that names a path outside, a link or a file twice, for a name that is no plain one, for a task that
    is recorded there already unless `replace`, and for other seeds than the plan asks for.
    """
    if name is not None and not PRESET.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a recording: expected small letters, digits and -")
    recorded.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=recorded) as temporary:
        new = Path(temporary) / "new"
        manifest = _unpack(source, new)
        target = recorded / (name or manifest["preset"])
        if name != manifest["preset"] and name in {question.recording for question in questions()}:
            raise ValueError(f"{name} is a recording that the plan asks for, and this one is of {manifest['preset']}")
        for planned in {target.name, manifest["preset"]}:
            _check_complete(planned, manifest)
        if target.exists():
            there, here = _places_in(target, replace), _tasks(_places(manifest))
            if not replace and (both := sorted(_tasks(there) & here)):
                raise ValueError(f"{target} has {', '.join(both)} already: pass --replace to put this in its place")
            if others := {place for place in there if not _tasks({place}) & here}:
                _add(target, others, new)
        place_folder(new, target)
    return target


def join(parts: Sequence[Path], out: Path) -> Path:
    """Check parts of one recording (.zip or folder), which have other seeds or tasks each, and join them in `out`.

    The folder `out` must not exist yet. Raises ValueError as `import_recording` does, for parts that share a seed of a
    task, and for those of another preset, or of other parameters or code for the same task.
    """
    with tempfile.TemporaryDirectory(prefix=".join-", dir=out.parent) as temporary:
        joined = Path(temporary) / "0"
        _unpack(parts[0], joined)
        for number, source in enumerate(parts[1:], start=1):
            part = Path(temporary) / str(number)
            there, here = read_manifest(joined), _unpack(source, part)
            if both := sorted(_places(there) & _places(here)):
                raise ValueError(f"{source} has {', '.join(both)}, as has another part")
            if there["preset"] != here["preset"]:
                raise ValueError(f"{source} is of the preset {here['preset']}, another part of {there['preset']}")
            known = _recipes(there)
            for name, recipe in _recipes(here).items():
                if known.get(name, recipe) != recipe:
                    raise ValueError(f"{source} ran {name} by other code or with other parameters than another part")
            _add(joined, _places(there), part)
            joined = part
        joined.rename(out)
    return out


def _unpack(source: Path, folder: Path) -> dict[str, Any]:
    """Copy the recording `source` to `folder`, check it, and return its manifest. Raises ValueError naming `source`."""
    if source.is_dir():
        for path in names_below(source):
            atomic_write(folder / path, (source / path).read_bytes())
    elif source.suffix == ".zip":
        unpack(source, folder, checks.LIMIT)
    else:
        raise ValueError(f"{source} is neither a folder nor a .zip archive of a recording")
    try:
        return check(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), str(source))) from error


def _check_complete(recording: str, manifest: dict[str, Any]) -> None:
    """Raise ValueError unless the seeds are those that the plan asks for: none looked at too early, none chosen."""
    for question in (question for question in questions() if question.recording == recording):
        named = [re.fullmatch(rf"{question.task}/seed(\d+)/eval\.json", name) for name in manifest["files"]]
        evaluated, planned = {int(found[1]) for found in named if found}, set(question.seeds)
        if evaluated and evaluated != planned:
            asked = f"{recording}: the plan asks for seeds {min(planned)} to {max(planned)} of {question.task}"
            if more := sorted(evaluated - planned):
                raise ValueError(f"{asked}, not for {', '.join(map(str, more))}")
            lacking = ", ".join(map(str, sorted(planned - evaluated)))
            raise ValueError(f"{asked}, and {lacking} is not there: import it when all are, parts of it together")


def _places_in(target: Path, replace: bool) -> set[str]:
    """The places of the recording `target`; none of one whose manifest is damaged, if it is to be replaced."""
    try:
        return _places(read_manifest(target))
    except ValueError:
        if replace:
            return set()
        raise


def _recipes(manifest: dict[str, Any]) -> dict[str, Any]:
    """What each notebook was and was given, whatever the seed: `fluent/04-distillation-gcka` -> code and parameters."""
    found = {}
    for name, facts in manifest["runs"].items():
        if place := _place(name):
            parameters = {key: value for key, value in facts["parameters"].items() if key != "seed"}
            code = facts["source_sha256"], facts["modules_sha256"]
            found[f"{place.split('/')[0]}/{name.removeprefix(f'{place}/')}"] = (parameters, code)
    return found


def _places(manifest: dict[str, Any]) -> set[str]:
    """Its tasks and seeds, such as `fluent/seed0`."""
    return {_place(name) for name in [*manifest["files"], *manifest["runs"]]} - {""}


def _place(name: str) -> str:
    """The task and seed of a file or a run of a notebook; empty for those of the whole run."""
    task, seed, *rest = [*name.split("/"), ""]
    return f"{task}/{seed}" if rest and seed.startswith("seed") else ""


def _tasks(places: set[str]) -> set[str]:
    return {place.split("/")[0] for place in places}


def _add(old: Path, places: set[str], new: Path) -> None:
    """Add the `places` of the recording `old` to the recording `new`. Raises ValueError if their presets differ.

    What is of no place, such as the pages of a whole run, is that of the recording with the book's main task. It goes
    where both have seeds of one task, since it shows those of one recording alone.
    """
    before, manifest = check(old), read_manifest(new)
    if before["preset"] != manifest["preset"]:
        raise ValueError(f"{old} is of the preset {before['preset']}, this recording of {manifest['preset']}")
    here = _places(manifest)
    whole = before if MAIN_TASK in _tasks(places) else manifest
    shared = _tasks(places) & _tasks(here)
    for part in ("files", "runs"):
        of_no_place = {name: facts for name, facts in whole[part].items() if not _place(name) and not shared}
        came = {name: facts for name, facts in manifest[part].items() if _place(name)}
        stays = {name: facts for name, facts in before[part].items() if _place(name) in places}
        manifest[part] = of_no_place | came | stays
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
