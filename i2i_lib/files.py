"""Files that are either whole or absent."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

# It can only be read by setting it, which concerns all threads: once, before there are any that write.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds the old content or the new, whenever the process or the machine stops.

    Missing folders are made. A temporary file in the same folder is written, synced and renamed; it is removed if
    that fails. Raises OSError naming `path`, on a full disk for instance.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror} (nothing was written)", str(path)) from error
        raise
    # The rename itself lasts only once the folder is synced.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
