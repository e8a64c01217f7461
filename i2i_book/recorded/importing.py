"""Import a packed run into book/recorded."""

import tempfile
from pathlib import Path

from i2i_book.questions import questions
from i2i_book.recorded import check as checks
from i2i_book.recorded.check import PRESET, check, names_below
from i2i_lib.archives import unpack
from i2i_lib.files import atomic_write, place_folder


def import_recording(source: Path, recorded: Path, *, name: str | None = None, replace: bool = False) -> Path:
    """Check the recording `source` (.zip or folder) and place it in `recorded`/`name`; returns that folder.

    `name` is its preset's unless given; under another it stands in for no run of that preset. Nothing is left behind
    unless all of it fits. Raises ValueError naming the file that does not, for an archive that names a path outside, a
    link or a file twice, for a name that is no plain one, and for a recording that is there already unless `replace`.
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
        if target.exists() and not replace:
            raise ValueError(f"{target} exists already: pass --replace to put this recording in its place")
        place_folder(new, target)
    return target
