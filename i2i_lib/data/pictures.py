"""Picture files: read, written, listed and checked."""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from i2i_lib.cpus import usable_cpus
from i2i_lib.files import atomic_write

SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
THREADS = min(8, usable_cpus())


def read_picture(path: Path | str) -> Tensor:
    """One picture file as uint8 RGB [3, H, W], upright by its EXIF orientation.

    Whatever is transparent shows white behind it; 16 bits per channel become 8 by scaling the full range; CMYK, grey
    and palettes become RGB; of an animation, the first frame. Colour profiles are ignored. Raises FileNotFoundError, or
    ValueError naming the file if it is empty, cut short, not a picture or suspiciously large.
    """
    return to_tensor(_read(Path(path)))


def read_tile(path: Path | str, size: int, halves: int = 1) -> Tensor:
    """A picture's middle square, or with `halves=2` those of its left and right half, as uint8 [halves, 3, S, S].

    The short side is brought to `size` pixels with an antialiasing filter. Errors are those of `read_picture`.
    """
    # A JPEG decoder halves large pictures for free. Twice the size leaves the filter enough to work with.
    image = _read(Path(path), enough=2 * halves * size)
    width = image.width // halves
    if not width:
        raise ValueError(f"{path} is {image.width} pixels wide: too narrow to hold {halves} pictures side by side")
    boxes = [(left, 0, left + width, image.height) for left in (0, image.width - width)[:halves]]
    return torch.stack(
        [to_tensor(ImageOps.fit(image.crop(box), (size, size), Image.Resampling.LANCZOS)) for box in boxes]
    )


def _read(path: Path, enough: int | None = None) -> Image.Image:
    """The whole picture, RGB; a JPEG larger than `enough` both ways may come smaller, but not below `enough`."""
    try:
        with Image.open(path) as image:
            if enough:
                image.draft(None, (enough, enough))  # pyright: ignore[reportArgumentType]
            # The file does not state the range of its 32 bits. Pillow opens 16 bits of a PGM as such, too.
            if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
                raise ValueError("its pixels have 32 bits: save it with 8 or 16 bits per channel")
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            start = file.read(12)
        if not start:
            raise ValueError(f"{path} is empty (0 bytes): copy it again, or remove it") from error
        raise ValueError(f"{path} is not a picture, whatever its name (it starts with {start!r}): remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path} unpacks to a suspiciously large picture ({error}): shrink or remove it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except Exception as error:  # decoders meet damage in as many ways as there are formats
        raise ValueError(f"{path} cannot be decoded ({error}): replace or remove it") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, of which convert() would clip what exceeds 255
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
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


def list_pictures(folder: Path | str) -> dict[str, int]:
    """The names of a folder's pictures, sorted, each with its size in bytes.

    A picture has one of `SUFFIXES`, in any case; hidden files and sub-folders are skipped. Raises FileNotFoundError, or
    ValueError if there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    found: dict[str, int] = {}
    others: Counter[str] = Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or not entry.is_file():
                continue
            if suffix in SUFFIXES:
                found[entry.name] = entry.stat().st_size
            else:
                others[suffix or "no suffix"] += 1
    if not found:
        has = ", ".join(f"{n} of {suffix}" for suffix, n in others.most_common(5))
        raise ValueError(f"{folder} holds no pictures ({f'other files: {has}' if has else 'it is empty'}): {_KNOWN}")
    return dict(sorted(found.items()))


_KNOWN = f"expected files that end in {', '.join(sorted(SUFFIXES))}"


def check_pictures(folder: Path | str) -> Iterator[str]:
    """Decode every picture in a folder and its sub-folders; yield a sentence for each that is damaged."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        yield f"{folder} holds no pictures: {_KNOWN}"

    def problem(path: Path) -> str | None:
        try:
            read_picture(path)
        except (ValueError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from filter(None, tqdm(pool.map(problem, paths), total=len(paths), unit=" pictures"))


def shorten(names: Sequence[str]) -> str:
    """Their number and the first few of them, for a sentence."""
    first = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names):,} file{'s' if len(names) > 1 else ''} ({first})"
