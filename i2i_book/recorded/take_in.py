"""Import a packed run into book/recorded."""

import stat
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from i2i_book.recorded.check import LIMIT, MANIFEST, NAMES, PRESET, _names, check
from i2i_lib.archives import DAMAGED
from i2i_lib.files import atomic_write, place_folder


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
        place_folder(new, target)
    return target


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
