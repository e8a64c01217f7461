"""Picture files: read, written, listed and checked."""

import io
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from i2i_lib.cpus import usable_cpus
from i2i_lib.files import atomic_write, walk_once

SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
THREADS = min(8, usable_cpus())


def read_picture(path: Path | str) -> Tensor:
    """One picture file as uint8 RGB [3, H, W], upright by its EXIF orientation.

    Whatever is transparent shows white behind it; 16 bits per channel become 8 by scaling the full range; CMYK, grey
    and palettes become RGB; of an animation, the first frame. Colour profiles are ignored. Raises OSError if the file
    cannot be read, or ValueError naming it if it is empty, damaged, not a picture or suspiciously large, or if its
    bands and types of numbers are not supported, 12 bits in a file of 16 among them.
    """
    return to_tensor(_read(Path(path)))


Filter = Literal["lanczos", "bicubic"]


def read_tile(path: Path | str, size: int, halves: int = 1, *, filter: Filter = "lanczos") -> Tensor:
    """A picture's middle square, or with `halves=2` those of its left and right half, as uint8 [halves, 3, S, S].

    The short side is brought to `size` pixels with an antialiasing filter; "bicubic" is that of the paper's code, which
    reads every pixel of the file. Errors are those of `read_picture`.
    """
    # A JPEG decoder halves large pictures for free. Twice the size leaves the filter enough to work with.
    image = _read(Path(path), enough=2 * halves * size if filter == "lanczos" else None)
    width = image.width // halves
    if not width:
        raise ValueError(f"{path} is {image.width} pixels wide: too narrow to hold {halves} pictures side by side")
    boxes = [(left, 0, left + width, image.height) for left in (0, image.width - width)[:halves]]
    method = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}[filter]
    return torch.stack([to_tensor(ImageOps.fit(image.crop(box), (size, size), method)) for box in boxes])


def read_halves(path: Path | str) -> list[Tensor]:
    """The left and the right half of a picture, each uint8 [3, H, W]. Errors are those of `read_picture`."""
    picture = read_picture(path)
    width = picture.shape[-1] // 2
    return [picture[..., :width], picture[..., picture.shape[-1] - width :]]


def picture_size(path: Path | str) -> tuple[int, int]:
    """Width and height of a picture file, upright, by its header alone. Errors are those of `read_picture`."""
    with _opened(Path(path)) as image:
        sideways = False
        # Pillow gives the upright size of a TIFF. A PNG may hold EXIF data behind its pixels, which it would decode.
        if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (image.height, image.width) if sideways else (image.width, image.height)


def _read(path: Path, enough: int | None = None) -> Image.Image:
    """The whole picture, RGB; a JPEG larger than `enough` both ways may come smaller, but not below `enough`."""
    with _opened(path) as image:
        if enough:
            image.draft(None, (enough, enough))  # pyright: ignore[reportArgumentType]
        # Pillow opens 16 bits of a PNG or PGM as 32, too.
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            tags = getattr(image, "tag_v2", {})
            raise _Unsupported(f"has {_bands(tags) if tags else 'numbers of 32 bits'}, {_WAY_OUT}")
        reduced = _reduced_to_8_bits(image)
        upright = ImageOps.exif_transpose(image)
        if reduced:
            colours = [band for name, band in zip(upright.getbands(), upright.split(), strict=True) if name != "A"]
            _check_range(256 * max(int(np.asarray(band).max()) for band in colours) + 255)
        return _rgb(upright)


class _Unsupported(Exception):
    """What a sound picture has that is not read: the end of the sentence "PATH is a picture, but ..."."""


_WAY_OUT = "which is not supported: save it as grey, RGB or RGBA with 8 or 16 bits per channel"


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The open file; whatever goes wrong with it names it.

    An OSError with a number is of the system (no such file, too many open files, a lost network drive) and keeps its
    words: the picture may be sound.
    """
    try:
        with Image.open(path) as image:
            yield image
    except _Unsupported as error:
        raise ValueError(f"{path} is a picture, but {error}") from None
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} {_unidentified(path)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path} unpacks to a suspiciously large picture ({error}): shrink or remove it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders meet damage in as many ways as there are formats
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
        raise ValueError(f"{path} cannot be decoded ({error}): replace or remove it") from error


def _unidentified(path: Path) -> str:
    """What a file is that Pillow does not know, and the way out."""
    with path.open("rb") as file:
        start = file.read(12)
        if not start:
            return "is empty (0 bytes): copy it again, or remove it"
        if start[4:8] == b"ftyp" and start[8:] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
            return "is a HEIC picture, whatever its name, which is not supported: export it as JPEG or PNG"
        if start[:4] in (b"II*\0", b"MM\0*"):
            try:
                tags = TiffImagePlugin.ImageFileDirectory_v2(start[:8])
                file.seek(tags.next)
                tags.load(file)
                return f"is a picture, but has {_bands(tags)}, {_WAY_OUT}"
            except Exception:  # damaged, in one of the many ways of TIFF: said below
                pass
    return f"is not a picture, whatever its name (it starts with {start!r}): remove it"


def _bands(tags: Mapping[int, Any]) -> str:
    """The bands of a TIFF and the numbers in them, by its tags."""
    kinds = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
    count, bits = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1), tags[TiffImagePlugin.BITSPERSAMPLE][0]
    kind = kinds.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "numbers")
    return f"{count} band{'s' if count > 1 else ''} of {kind} of {bits} bits"


def _reduced_to_8_bits(image: ImageFile.ImageFile) -> bool:
    """Whether a picture that is not loaded yet has 16 bits per channel, of which Pillow keeps the upper 8."""
    if image.mode.startswith("I") or not image.tile:
        return False
    arguments = image.tile[0].args
    raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return ";16" in str(raw_mode)


def _check_range(largest: int) -> None:
    """Refuse 16-bit values that hold 12 bits: scaled as 16, they become a black picture."""
    if 0 < largest <= 4095:
        raise _Unsupported(
            f"its 16-bit values are not above {largest:,} of 65,535, so that it would come out black: multiply them "
            "(by 16 if they hold 12 bits), or save it with 8 bits per channel"
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, of which convert() would clip what exceeds 255
        values = np.asarray(image)
        _check_range(int(values.max()))
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [channels, H, W] from an image of 8 bits a channel."""
    # As torchvision's pil_to_tensor and to_pil_image, whose import takes as long as that of PyTorch.
    pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
    return pixels.permute(2, 0, 1).contiguous()


def to_image(picture: Tensor) -> Image.Image:
    """An RGB image from uint8 [3, H, W]."""
    return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())


def write_picture(picture: Tensor, path: Path | str) -> None:
    """Write uint8 [3, H, W] as a PNG file, whole or not at all."""
    file = io.BytesIO()
    to_image(picture).save(file, "PNG")
    atomic_write(Path(path), file.getvalue())


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a folder."""

    pictures: dict[str, int]  # names, sorted, each with its size in bytes
    left_out: list[str]  # sentences: what else is there that may be meant as a picture, and the way out


def list_pictures(folder: Path | str) -> dict[str, int]:
    """The names of a folder's pictures, sorted, each with its size in bytes.

    A picture has one of `SUFFIXES`, in any case; hidden files and sub-folders are skipped. Raises FileNotFoundError, or
    ValueError if there is none.
    """
    found = scan_pictures(folder)
    if not found.pictures:
        raise no_pictures(folder, found)
    return found.pictures


def no_pictures(folder: Path | str, found: Listing) -> ValueError:
    """The error of a folder in which there is none to use."""
    return ValueError(f"{folder} holds no pictures ({'; '.join(found.left_out) or 'it is empty'}): {_KNOWN}")


_KNOWN = f"expected files that end in {', '.join(sorted(SUFFIXES))}"


def scan_pictures(folder: Path | str, skip: Collection[str] = ()) -> Listing:
    """List a folder without the names `skip`. Raises FileNotFoundError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    pictures: dict[str, int] = {}
    below: dict[str, int] = {}
    hidden, dead, others = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in skip:
                continue
            is_picture = _has_suffix(entry.name)
            if entry.is_symlink() and not os.path.exists(entry.path):
                dead.append(entry.name)
            elif entry.name.startswith("."):
                if is_picture:
                    hidden.append(entry.name)
            elif entry.is_dir():
                if count := len(pictures_below(entry.path)):
                    below[entry.name] = count
            elif is_picture and entry.is_file():
                pictures[entry.name] = entry.stat().st_size
            else:
                others.append(entry.name)
    left_out = []
    if below:
        where = f"{_count(len(below), 'sub-folder')} ({_first(below)})"
        left_out.append(f"{_count(sum(below.values()), 'picture')} in {where}: move them to where the others are")
    if others:
        kinds = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in others)
        has = ", ".join(f"{count:,} of {shown(kind)}" for kind, count in kinds.most_common(5))
        left_out.append(f"other files: {has}: export those that are pictures, such as HEIC, as JPEG or PNG")
    if dead:
        left_out.append(f"{_count(len(dead), 'link')} to nothing ({_first(dead)}): put the files back, or copy them")
    if hidden:
        left_out.append(f"{_count(len(hidden), 'hidden file')} ({_first(hidden)}): rename what is a picture among them")
    return Listing(dict(sorted(pictures.items())), left_out)


def pictures_below(folder: Path | str) -> list[Path]:
    """The picture files in a folder and its sub-folders, sorted; links are followed, hidden files skipped."""
    found: list[Path] = []
    for path, folders, files in walk_once(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if _has_suffix(name) and not name.startswith(".") and os.path.isfile(os.path.join(path, name)):
                found.append(Path(path, name))
    return sorted(found)


def check_pictures(folder: Path | str) -> Iterator[str]:
    """Decode every picture in a folder and its sub-folders; yield a sentence for each that is damaged."""

    def problem(path: Path) -> str | None:
        try:
            read_picture(path)
        except (ValueError, OSError) as error:
            return shown(str(error))

    paths = pictures_below(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from filter(None, tqdm(pool.map(problem, paths), total=len(paths), unit=" pictures"))


def shown(name: str) -> str:
    """A file's name for people: what cannot be seen is escaped, and bytes that are not UTF-8, as of an old archive."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(names: Collection[str]) -> str:
    """Their number and the first few of them, for a sentence."""
    return f"{_count(len(names), 'file')} ({_first(names)})"


def _first(names: Collection[str]) -> str:
    return shown(", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else ""))


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
