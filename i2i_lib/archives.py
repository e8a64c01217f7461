"""Unpack archives that may be hostile."""

import errno
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm.auto import tqdm

CHUNK = 1 << 20
MAX_UNPACKED = 8 << 30  # bytes; a bomb unpacks to more
MAX_FILES = 500_000
MAX_HEADER = 1 << 20  # bytes that an entry of a tar file may hold beside a file's content: long names, mostly
# Raised by the readers on damage, and for kinds of compression or encryption that they lack.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error,
    UnicodeError, OverflowError, RuntimeError,
)  # fmt: skip


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder", or what else it is
    open: Callable[[], Any]


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_UNPACKED) -> None:
    """Unpack a .zip or .tar.gz to a new folder: plain files and folders, nothing outside it.

    Raises ValueError naming the member that is absolute, climbs out with `..`, is a link or a device, has the name of
    another (or one that differs in case or Unicode form only), or makes it all larger than `max_bytes`; or if the
    archive is damaged. Half of it may lie in `folder` then.
    """
    folder.mkdir(parents=True)
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    total, names = 0, set()
    try:
        with closing(members(archive)) as found:
            for number, member in enumerate(tqdm(found, desc=f"unpacking {archive.name}", unit=" files")):
                _check(archive, member)
                total += member.size
                if number >= MAX_FILES or total > max_bytes:
                    raise ValueError(
                        f"{archive} unpacks to more than {max_bytes:,} bytes or {MAX_FILES:,} files: refused"
                    )
                path = folder / member.name
                if member.kind == "folder":
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                plain = unicodedata.normalize("NFC", str(path)).casefold()
                if plain in names:
                    raise ValueError(f"{archive} holds {member.name!r} twice: refused")
                names.add(plain)
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as file:
                    shutil.copyfileobj(member.open(), file, CHUNK)
                if path.stat().st_size != member.size:
                    raise EOFError(f"{member.name} is cut short")
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{archive} holds {error.filename} twice: refused") from error
    except OSError as error:
        # A decompressor's, a member that begins before its archive, or a name that no disk takes.
        if error.errno in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise ValueError(f"{archive} is damaged or cut short ({error}): fetch it again") from error
        raise
    except DAMAGED as error:
        raise ValueError(f"{archive} is damaged or cut short ({error}): fetch it again") from error


def _check(archive: Path, member: _Member) -> None:
    """Raise ValueError unless the member is a file or folder inside. Windows reads names with \\ and : as paths."""
    name, problem = member.name, None
    if member.kind not in ("file", "folder"):
        problem = f"is a {member.kind}"
    elif name.startswith("/") or ".." in PurePosixPath(name).parts or any(sign in name for sign in "\\:\0"):
        problem = "leads outside the folder"
    if problem:
        raise ValueError(f"{archive} is not safe to unpack: its member {name!r} {problem}")


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was made without Unix modes
            kind = "file"
            if info.flag_bits & 1:
                kind = "locked file"
            elif info.filename.endswith("/"):
                kind = "folder"
            elif mode not in (0, stat.S_IFREG):
                kind = "link or device"
            yield _Member(info.filename, info.file_size, kind, lambda info=info: zipped.open(info))


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    # "r|": a member that claims a negative size would make a seekable tar file loop forever.
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tape:
        for info in tape:
            kind = "folder" if info.isdir() else "file" if info.isreg() else "link or device"
            yield _Member(info.name, info.size, kind, lambda info=info: tape.extractfile(info))
        while stream.read(CHUNK):  # the checksum of all of it stands at the very end
            pass


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        made = super().frombuf(buf, encoding, errors)
        if made.size < 0 or (made.size > MAX_HEADER and not made.isreg()):  # such headers are read whole, to memory
            raise tarfile.ReadError(f"a header of {made.size:,} bytes")
        return made
