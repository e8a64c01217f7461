"""Public data sets, fetched into data/: resumed after a cut, verified, unpacked as a whole or not at all."""

import errno
import gzip
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import pooch
import requests
from tqdm.auto import tqdm

from i2i_lib.files import sha256, write_json
from i2i_lib.runs import exclusive, root

CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets"
PIX2PIX = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
ATTEMPTS = 5  # in a row that brought nothing new
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20
MAX_UNPACKED = 8 << 30  # bytes; a bomb unpacks to more
MAX_FILES = 500_000
MAX_HEADER = 1 << 20  # bytes that an entry of a tar file may hold beside a file's content: long names, mostly


@dataclass(frozen=True, slots=True)
class Source:
    """An archive on a public server. Where nobody has recorded its checksum, the first download is recorded."""

    url: str
    holds: tuple[str, ...]  # folders that it must unpack to
    about: str
    sha256: str | None = None


SOURCES = {
    "horse2zebra": Source(
        f"{CYCLEGAN}/horse2zebra.zip",
        ("trainA", "trainB", "testA", "testB"),
        "horses and zebras of ImageNet, unpaired (117 MB)",
        "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    ),
    "summer2winter_yosemite": Source(
        f"{CYCLEGAN}/summer2winter_yosemite.zip",
        ("trainA", "trainB", "testA", "testB"),
        "Yosemite in summer and in winter, unpaired (133 MB)",
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    ),
    "maps": Source(f"{PIX2PIX}/maps.tar.gz", ("train", "val"), "aerial photographs and maps, side by side"),
    "facades": Source(f"{PIX2PIX}/facades.tar.gz", ("train", "val", "test"), "fronts of houses and their labels"),
}

CITYSCAPES = """Cityscapes may not be passed on, so that you have to fetch it yourself:
  1. register at https://www.cityscapes-dataset.com, which is free for research, and log in there;
  2. download gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip;
  3. unpack both in {folder}, so that it holds the folders gtFine and leftImg8bit."""


def fetch(name: str, folder: Path | None = None) -> Path:
    """Download and unpack a data set to `folder`/`name`, by default in data/; returns that folder.

    What is there already is left alone. A download that was cut goes on where it stopped. The archive is compared
    with the recorded checksum, or with that of the first download (`name`.json beside the folder), and removed once
    it is unpacked.

    Raises ValueError for an unknown name, or an archive that is damaged, not the recorded one, or unsafe;
    ConnectionError where the server cannot be reached or cuts the connection again and again; RuntimeError while
    another process fetches the same.
    """
    folder = folder or root() / "data"
    if name == "cityscapes":
        raise ValueError(CITYSCAPES.format(folder=folder / name))
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}\n{listing()}")
    source, target = SOURCES[name], folder / name
    if target.exists():
        return target
    with exclusive(folder / f".{name}.lock", f"the download of {name}"):
        archive = _download(source, folder, name)
        unpacked = folder / f".{name}.unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
        try:
            unpack(archive, unpacked)
            top = [unpacked, *(path for path in unpacked.iterdir() if path.is_dir())]
            home = next((path for path in top if all((path / part).is_dir() for part in source.holds)), None)
            if home is None:
                raise ValueError(
                    f"{archive} does not hold the folders {', '.join(source.holds)}: it is another archive"
                )
            record = {"url": source.url, "bytes": archive.stat().st_size, "sha256": sha256(archive)}
            write_json(folder / f"{name}.json", record)
            os.replace(home, target)
        except ValueError:
            archive.unlink()  # trying again must not meet the same file
            raise
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        archive.unlink()
    return target


def listing() -> str:
    """What can be fetched, a line each."""
    known = {name: source.about for name, source in SOURCES.items()} | {"cityscapes": "tells how to get it by hand"}
    return "known data sets:\n" + "\n".join(f"  {name:24}{about}" for name, about in known.items())


# --- download --------------------------------------------------------------------------------------------------------


def _download(source: Source, folder: Path, name: str) -> Path:
    record = folder / f"{name}.json"
    try:
        known = source.sha256 or (json.loads(record.read_text())["sha256"] if record.exists() else None)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} holds no checksum ({error!r}): delete it, to trust the next download") from error
    archive = folder / Path(source.url).name
    try:
        pooch.get_logger().setLevel("ERROR")
        checksum = known and f"sha256:{known}"
        pooch.retrieve(source.url, checksum, archive.name, folder, downloader=_resumed)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        recorded = "recorded" if source.sha256 else f"recorded in {record} when it was first downloaded"
        raise ValueError(
            f"{source.url} is not the file whose checksum is {recorded}, and was thrown away ({error}). Try again; if "
            "that changes nothing, the file on the server has changed, and what it holds should be looked at first"
        ) from error
    return archive


def _resumed(url: str, output_file: str, _: object) -> None:
    """A pooch downloader that goes on where an earlier one, in this process or another, was cut."""
    part = Path(output_file).with_name(Path(url).name + ".part")
    version = part.with_name(part.name + ".version")  # what the server said of the file when the part was begun
    vain = 0
    while True:
        have = part.stat().st_size if part.exists() and version.exists() else 0
        problem = "the connection was cut"
        try:
            if _fetch_rest(url, part, version, have):
                break
        except requests.HTTPError as error:
            raise ConnectionError(f"{url} could not be downloaded: {error}") from error
        except requests.RequestException as error:
            reason = getattr(error.args[0] if error.args else None, "reason", error)
            problem = str(reason).rpartition(": ")[2]  # before it stand objects of the library
        now = part.stat().st_size if part.exists() else 0
        vain = vain + 1 if now <= have else 0
        if vain == ATTEMPTS or not now:
            way_out = f"{now:,} bytes are kept: the same command goes on from there" if now else "is there a network?"
            raise ConnectionError(f"{url} could not be downloaded ({problem}); {way_out}")
    version.unlink(missing_ok=True)
    os.replace(part, output_file)


def _fetch_rest(url: str, part: Path, version: Path, have: int) -> bool:
    """Append what is missing; whether all is there then."""
    headers = {"Accept-Encoding": "identity"}
    if have:  # the server sends all of it, from the start, if it has changed in the meantime
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is left to send
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            if size == str(have):
                return True
            part.unlink()
            return _fetch_rest(url, part, version, 0)
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
            version.unlink(missing_ok=True)
            if "Last-Modified" in response.headers:  # else a part cannot be told from that of another file
                version.write_text(response.headers["Last-Modified"])
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(part, "ab" if have else "wb") as file, _bar(part.stem, total, have) as bar:
            try:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.RequestException:
                return False
        return total is None or part.stat().st_size == total


def _bar(what: str, total: int | None, done: int = 0) -> tqdm:
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024, miniters=1)


# --- unpacking -------------------------------------------------------------------------------------------------------


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
