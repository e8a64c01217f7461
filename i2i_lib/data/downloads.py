"""Public data sets, fetched into data/: resumed after a cut, verified, unpacked as a whole or not at all."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

from i2i_lib.archives import CHUNK, unpack
from i2i_lib.files import data_folder, exclusive, read_json, sha256, write_json

CYCLEGAN = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets"
PIX2PIX = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
ATTEMPTS = 5  # in a row that brought nothing new
TIMEOUT = 60  # seconds without a byte


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

    A folder that is there already is left alone, and a download that was cut goes on where it stopped. The archive must
    have the recorded checksum, or that of the first download (`name`.json beside the folder).

    Raises ValueError for an unknown name, or an archive that is damaged, not the recorded one, or unsafe;
    ConnectionError where the server cannot be reached or cuts the connection again and again; RuntimeError while
    another process fetches the same.
    """
    folder = folder or data_folder()
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


def known_sets() -> dict[str, str]:
    """The data sets that can be fetched, each with what it holds."""
    return {name: source.about for name, source in SOURCES.items()} | {"cityscapes": "how to get it by hand"}


def listing() -> str:
    """The data sets that can be fetched, a line each."""
    return "known data sets:\n" + "\n".join(f"  {name:24}{about}" for name, about in known_sets().items())


def _download(source: Source, folder: Path, name: str) -> Path:
    record = folder / f"{name}.json"
    known = source.sha256
    if known is None and record.exists():
        trust = "delete it, to trust the next download"
        found = read_json(record, trust)
        if not isinstance(found, dict) or not isinstance(found.get("sha256"), str):
            raise ValueError(f"{record} holds no checksum: {trust}")
        known = found["sha256"]
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
    version = part.with_name(part.name + ".version")  # the server's date of the file when the part was begun
    vain = most = 0
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
        # A part that cannot go on (see `_fetch_rest`) begins again: it gains nothing until it is larger than ever.
        vain, most = (vain + 1, most) if now <= max(have, most) else (0, now)
        if vain == ATTEMPTS or not now:
            way_out = f"{now:,} bytes are kept: the same command goes on from there" if now else "is there a network?"
            raise ConnectionError(f"{url} could not be downloaded ({problem}); {way_out}")
    version.unlink(missing_ok=True)
    os.replace(part, output_file)


def _fetch_rest(url: str, part: Path, version: Path, have: int) -> bool:
    """Append the missing bytes; return whether the file is complete."""
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
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1024)
        with bar, open(part, "ab" if have else "wb") as file:
            try:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.RequestException:
                return False
        return total is None or part.stat().st_size == total
