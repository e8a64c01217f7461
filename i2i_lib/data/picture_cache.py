"""Pictures that stay in their files, decoded once into a cache."""

import copy
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i_lib.data.pictures import THREADS, Filter, read_tile


class FileImages:
    """Square pictures in files, in place of a tensor uint8 [N, 3, S, S]: only what is indexed is read.

    A file is decoded (see `read_tile`) when its picture is first needed, a batch in parallel, and its pixels kept for
    every process in the folder `cache`, or without one as long as the object lives.

    `halves=2` cuts each file into a left and a right picture: this object holds the `half` 0 or 1, and `other_half()`
    the other one, from the same decoding.
    """

    def __init__(
        self,
        folder: Path | str,
        files: dict[str, int],
        size: int,
        *,
        halves: int = 1,
        half: int = 0,
        filter: Filter = "lanczos",
        cache: Path | None = None,
    ) -> None:
        """`files` maps names in `folder` to their sizes in bytes, as `list_pictures` does; S is `size`."""
        self.folder, self.files, self.halves, self.half = Path(folder), files, halves, half
        self.filter: Filter = filter
        self.shape = torch.Size((len(files), 3, size, size))
        self._names = list(files)
        self._device = torch.device("cpu")
        self._cache = _Cache(cache)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """uint8 [3, S, S] for a number, else [n, 3, S, S]. Raises the errors of `read_picture`, or ValueError for a
        file that has changed since it was listed."""
        chosen = np.arange(len(self))[index.cpu().numpy() if isinstance(index, Tensor) else index]
        wanted = np.unique(chosen).tolist()
        size = self.shape[1:].numel()
        begin = self.half * size
        tiles = {i: data for i in wanted if (data := self._cache.read(i, begin, size))}
        if missing := [i for i in wanted if i not in tiles]:
            with ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
                decoded = pool.map(self._decode, missing)
                tiles |= {i: data[begin : begin + size] for i, data in zip(missing, decoded, strict=True)}
        # A GPU fetches pinned memory by itself.
        pixels = torch.empty(chosen.size, size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        for row, i in zip(pixels.numpy(), chosen.flatten().tolist(), strict=True):
            row[:] = np.frombuffer(tiles[i], np.uint8)
        return pixels.view(*chosen.shape, *self.shape[1:]).to(self._device, non_blocking=True)

    def to(self, device: str | torch.device) -> "FileImages":
        """The same pictures, moved to `device` when they are indexed."""
        moved = copy.copy(self)
        moved._device = torch.device(device)
        return moved

    def other_half(self) -> "FileImages":
        """The other half of each side-by-side file."""
        other = copy.copy(self)
        other.half = 1 - self.half
        return other

    def record(self) -> dict[str, Any]:
        """Arguments of `FileImages` that reopen the pictures without listing the folder: plain JSON."""
        shape = {"size": self.shape[-1], "halves": self.halves, "half": self.half}
        return {"folder": str(self.folder), "files": self.files, "filter": self.filter} | shape

    def _decode(self, i: int) -> bytes:
        path, listed = self.folder / self._names[i], self.files[self._names[i]]
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} was there when its folder was listed and is gone: put it back, or make the data again "
                "without it"
            ) from None
        if found != listed:
            raise ValueError(
                f"{path} has {found:,} bytes and had {listed:,} when its folder was listed: put the old file back, "
                "or make the data again with this one"
            )
        data = read_tile(path, self.shape[-1], self.halves, filter=self.filter).numpy().tobytes()
        self._cache.write(i, data)
        return data


class _Cache:
    """Decoded pictures, a file each: in `folder`, or in a temporary one as long as the object lives.

    A file begins with the CRC-32 of the rest, which is compared when it is first read: one that a dying machine left
    half-written counts as absent. Two processes that write the same file write the same bytes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.mkdtemp())
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sound: set[int] = set()  # those whose sum was found right
        if not folder:
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def read(self, number: int, begin: int, size: int) -> bytes | None:
        """`size` bytes of a picture from `begin` on; None if they are not there."""
        try:
            with open(self._folder / str(number), "rb") as file:
                if number not in self._sound:
                    checksum = file.read(4)
                    if zlib.crc32(file.read()).to_bytes(4, "little") != checksum:
                        return None
                    self._sound.add(number)
                file.seek(4 + begin)
                data = file.read(size)
        except FileNotFoundError:
            return None
        return data if len(data) == size else None  # another process may be writing the same bytes once more

    def write(self, number: int, data: bytes) -> None:
        try:
            (self._folder / str(number)).write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)
        except OSError as error:
            reason = f"{error.strerror} (for pictures decoded so far)"
            raise OSError(error.errno, reason, str(self._folder)) from error
