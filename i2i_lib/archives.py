"""Unpack archives that may be hostile."""

import errno
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm.auto import tqdm

CHUNK = 1 << 20
MAX_UNPACKED = 8 << 30  # bytes; a bomb unpacks to more
MAX_FILES = 500_000
MAX_HEADER = 1 << 20  # bytes that an entry of a tar file may hold beside a file's content: long names, mostly


def _bar(what: str, total: int | None, done: int = 0) -> tqdm:
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024, miniters=1)


# What the readers raise on damage, and for ways to compress or lock that they do not know.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error)
DAMAGED = (*DAMAGED, UnicodeError, OverflowError, RuntimeError)


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder", or what else it is
    content: IO[bytes] | None


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        made = super().frombuf(buf, encoding, errors)
        if made.size < 0 or (made.size > MAX_HEADER and not made.isreg()):  # such headers are read whole, to memory
            raise tarfile.ReadError(f"a header of {made.size:,} bytes")
        return made


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_UNPACKED) -> None:
    """Unpack a .zip or .tar.gz to a new folder: plain files and folders, nothing outside it.

    Raises ValueError naming the member that is absolute, climbs out with `..`, is a link, a device or a second file
    of its name, or makes it all larger than `max_bytes`; or if the archive is damaged. Half of it may lie in `folder`
    then.
    """
    folder.mkdir(parents=True)
    total = 0
    try:
        with _bar(f"unpacking {archive.name}", None) as bar, closing(_members(archive)) as members:
            for number, member in enumerate(members):
                total += member.size
                if number >= MAX_FILES or total > max_bytes:
                    raise ValueError(
                        f"{archive} unpacks to more than {max_bytes:,} bytes or {MAX_FILES:,} files: refused"
                    )
                path = _inside(folder, member, archive)
                if member.content is None:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as file:
                    shutil.copyfileobj(member.content, file, CHUNK)
                    if file.tell() != member.size:
                        raise EOFError(f"{member.name} is cut short")
                bar.update(member.size)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{archive} holds {error.filename} twice: refused") from error
    except OSError as error:
        # A decompressor's, a member that begins before its archive, or a name that no disk takes.
        if error.errno in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise ValueError(f"{archive} is damaged or cut short ({error}): fetch it again") from error
        raise
    except DAMAGED as error:
        raise ValueError(f"{archive} is damaged or cut short ({error}): fetch it again") from error


def _inside(folder: Path, member: _Member, archive: Path) -> Path:
    parts = PurePosixPath(member.name).parts
    climbs = member.name.startswith("/") or ".." in parts or "\\" in member.name or ":" in member.name
    climbs = climbs or (member.kind == "file" and not parts)  # "" and "." are the folder itself
    if climbs or "\0" in member.name or member.kind not in ("file", "folder"):
        what = f"is a {member.kind}" if member.kind not in ("file", "folder") else "leads outside the folder"
        raise ValueError(f"{archive} is not safe to unpack: its member {member.name!r} {what}")
    return folder.joinpath(*parts)


def _members(archive: Path) -> Generator[_Member, None, None]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was made without Unix modes
                kind = "file" if mode in (0, stat.S_IFREG) else "link or device"
                if info.filename.endswith("/"):
                    kind = "folder"
                if info.flag_bits & 1:
                    kind = "locked file"
                with zipped.open(info) if kind == "file" else nullcontext() as content:
                    yield _Member(info.filename, info.file_size, kind, content)
    else:
        # "r|": a member that claims a negative size would send a tape that can be wound back round for ever.
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tape:
            for info in tape:
                kind = "folder" if info.isdir() else "file" if info.isreg() else "link or device"
                content = tape.extractfile(info) if kind == "file" else None
                yield _Member(info.name, info.size, kind, content)
            while stream.read(CHUNK):  # the checksum of all of it stands at the very end
                pass
