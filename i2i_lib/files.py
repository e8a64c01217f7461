"""Files that are either whole or absent; the lock of a folder; which files a piece of code depends on."""

import ast
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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


def read_json(path: Path, remedy: str = "copy it again, or make it anew") -> Any:
    """Read a JSON file. ValueError with the `remedy` where it holds none; OSError where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # no text, no JSON, or nested too deep for the parser
        raise ValueError(f"{path} is not JSON, or was cut short ({error}): {remedy}") from error


def walk_once(folder: Path | str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` from the top, into links too, but no folder twice: a link may lead up again."""
    visited: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        yield place, folders, names


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[int]:
    """Hold the lock file `path` while the block runs; yields its descriptor. The system frees it when the process dies.

    Raises RuntimeError at once, naming `what` and the process that holds it, if another process does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode().strip() or "unknown"
            raise RuntimeError(
                f"{what} is in use by process {holder}: wait for it or stop it (lock {shorten_path(path)})"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield handle
    finally:
        os.close(handle)


def place_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`; the old folder is kept beside `new`, and restored on failure."""
    old = new.with_name("old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:  # Ctrl-C, too
        if old.exists():
            old.rename(target)
        raise


def record_file(verb: str, path: Path) -> Path:
    """Return `path`, an artifact without suffix or a file, after noting for the runner's manifest "read" or "wrote"."""
    if listing := os.environ.get("I2I_FILES"):
        with open(listing, "a") as file:
            file.write(json.dumps([verb, str(path)]) + "\n")  # a path may hold anything
    return path


def root() -> Path:
    """The checkout that holds this library."""
    return Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Where data sets lie: `data` in the checkout, or in the present folder if the library was installed by itself."""
    return (root() if (root() / "pyproject.toml").exists() else Path.cwd()) / "data"


def shorten_path(path: Path) -> str:
    """A path as a message shows it: below the checkout relative to it, else whole."""
    return str(path.relative_to(root())) if path.is_relative_to(root()) else str(path)


def library_modules(code: str) -> list[Path]:
    """The files of this checkout's packages that Python code imports, directly or through one another, sorted.

    Read from its syntax, not by running it. A name taken from a package is followed to the module that the package's
    `EXPORTS` finds it in; the package's own `__init__` computes nothing, and is no part of it.
    """
    found: set[Path] = set()
    waiting = [code]
    while waiting:
        for name in _imported_names(waiting.pop()):
            for path in _files_of(name):
                if path not in found:
                    found.add(path)
                    waiting.append(path.read_text())
    return sorted(found)


@cache  # one plan of a book asks for a hundred modules, and for most of them once a notebook
def _imported_names(code: str) -> tuple[str, ...]:
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(name for name in names if name.startswith(("i2i_lib.", "i2i_book.")))


def _files_of(name: str) -> Iterator[Path]:
    """The files that importing `package.module.name` runs."""
    place = root()
    for part in name.split("."):
        if (module := place / f"{part}.py").exists():
            yield module
            return
        if not (place / part / "__init__.py").exists():
            exports = re.search(rf'"{part}": "(\w+)"', (place / "__init__.py").read_text())
            if exports:
                yield place / f"{exports[1]}.py"
            return
        place /= part
