"""A saved generator at work on pictures of any size, as `i2i translate` does:

    generator = load_generator("runs/cpu/earth/seed0/student-gcka")
    made = translate(generator, read_picture("map.png"))
    write_picture(made, "satellite.png")

with `load_generator` from `i2i_lib.checkpoint` and the other two from `i2i_lib.data.pictures`.
"""

import glob
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from i2i_lib.checkpoint import Generator
from i2i_lib.config import GeneratorConfig, ResnetConfig
from i2i_lib.data.pictures import SUFFIXES, list_pictures, read_picture, to_image, to_tensor, write_picture
from i2i_lib.data.tiles import encode
from i2i_lib.metrics.pairs import quantise
from i2i_lib.train.nonfinite import lacks_memory

LEAST = 16  # pixels: the blocks reflect up to 3 pixels of a grid of a quarter of the size
COPIES = 6  # of its widest full-size map that a generator was seen to need at once, at widths 4 to 64


def translate(generator: Generator, picture: Tensor) -> Tensor:
    """Translate one picture, uint8 [3, H, W] to the same, on the generator's device.

    It is padded by reflection to what the generator needs and cropped back. It goes through whole, never in tiles:
    instance norm looks at all of a picture, so that tiles would differ in colour.

    Raises ValueError for a generator that reads labels or another kind of picture, MemoryError for a picture that is
    too large.
    """
    config = generator.config
    if not isinstance(config, GeneratorConfig | ResnetConfig) or config.in_channels != 3:
        raise ValueError(
            f"this generator ({type(generator).__name__}) reads label maps, not pictures: it cannot translate a "
            "photograph, only a map of the classes that it was trained on"
        )
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"expected a uint8 picture [3, H, W], got {picture.dtype} {list(picture.shape)}")
    height, width = picture.shape[1:]
    right, below = _missing(width), _missing(height)
    device = next(generator.parameters()).device
    full_size = (config.stem[0], *(config.up if config.upsample == "resize" else config.up[1:]))
    needed = COPIES * 4 * max(full_size) * (height + below) * (width + right)
    too_large = (
        f"a picture of {width} x {height} needs about {needed / 2**30:.1f} GiB of memory in this generator: use "
        "--max-side (in Python: a smaller picture)"
    )
    if device.type == "cpu" and needed > free_memory():
        raise MemoryError(too_large)  # else the system would kill the process, without a word
    was_training = generator.training
    generator.eval()
    try:
        with torch.inference_mode():
            return quantise(at_any_size(generator, encode(picture[None].to(device))))[0].cpu().clone()
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise MemoryError(too_large) from error
    finally:
        generator.train(was_training)


def free_memory() -> float:
    """Bytes that a process may still take without swapping, of the machine and of a container's limit.

    Infinite where, as outside Linux, none are told.
    """
    free = _container_memory(Path("/sys/fs/cgroup"))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(free, next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    return free


def _container_memory(top: Path) -> float:
    """Bytes that a control group, by version 2 or 1, has left; infinite without a limit."""
    limit, used = "memory.max", "memory.current"
    if not (top / limit).exists():
        top, limit, used = top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
    try:
        left = int((top / limit).read_text()) - int((top / used).read_text())
        counted = dict(line.split() for line in (top / "memory.stat").read_text().splitlines())
        # Copies of files count as used, and give way where memory is short.
        return left + int(counted["active_file"]) + int(counted["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group, or "max"
        return math.inf


def at_any_size(generator: Generator, images: Tensor) -> Tensor:
    """The generator's pictures of images [N, C, H, W] of any size, padded by reflection at the right and below.

    Where a side is too short to be reflected, the last row and column are repeated instead.
    """
    height, width = images.shape[2:]
    right, below = _missing(width), _missing(height)
    mode = "reflect" if right < width and below < height else "replicate"
    return generator(F.pad(images, (0, right, 0, below), mode=mode))[..., :height, :width]


def _missing(side: int) -> int:
    """Pixels to the next side that a generator takes."""
    return max(LEAST, -(-side // 4) * 4) - side


def translate_files(generator: Generator, source: str, out: Path, *, max_side: int | None = None) -> Iterator[str]:
    """Translate a file, a folder's pictures or a glob pattern's, one after another, and yield what went wrong.

    `out` is the folder for PNG files of the same names, or for a single picture may be a file's name in .png. A
    picture whose longer side exceeds `max_side` pixels is shrunk to it first. A file is written whole or not at all.

    Raises ValueError before anything is written if there is no picture, or an input would be overwritten.
    """
    inputs = _inputs(source)
    if single := out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(inputs) > 1 or out.suffix.lower() != ".png":
            raise ValueError(f"{out} should be a folder, or for a single picture a name in .png; got {len(inputs)}")
    elif out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: expected a folder")
    targets = [out if single else out / f"{path.stem}.png" for path in inputs]
    originals = {path.resolve() for path in inputs}
    if lost := [target for target in targets if target.resolve() in originals]:
        raise ValueError(f"this would overwrite {lost[0]}, which is an input: name another folder than {out}")
    taken: dict[Path, Path] = {}
    for path, target in zip(tqdm(inputs, unit=" pictures", disable=None), targets, strict=True):
        try:
            if target in taken:
                raise ValueError(f"{path} would overwrite what {taken[target].name} became: use another folder for it")
            picture = read_picture(path)
            if max_side and max(picture.shape) > max_side:
                image = to_image(picture)
                image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
                picture = to_tensor(image)
            write_picture(translate(generator, picture), target)
            taken[target] = path
        except (ValueError, OSError, MemoryError) as error:
            yield str(error) if str(path) in str(error) else f"{path}: {error}"


def _inputs(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return [path / name for name in list_pictures(path)]
    if path.exists():
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if found := [path for path in found if path.suffix.lower() in SUFFIXES and path.is_file()]:
        return found
    raise ValueError(
        f"no picture at {source!r}: expected a file, a folder or a pattern in quotes such as 'photos/*.jpg'"
    )
