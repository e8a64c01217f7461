"""Export a generator as a program of PyTorch's own: `.pt2` for PyTorch and its compilers, `.pte` for ExecuTorch.

Both hold the fused network in float32, and appear under their names only after they have made PyTorch's pictures.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i_lib.checkpoint import load_generator
from i2i_lib.config import check_image_size
from i2i_lib.export.onnx import TOLERANCE, Exported, psnr_between
from i2i_lib.files import atomic_write
from i2i_lib.fuse import FusedGenerator, can_fuse, fuse
from i2i_lib.translate import LEAST

SIZE = 256  # side of the pictures that an ExecuTorch program takes, unless another is asked for


def export_pt2(student: Path | str, out: Path | str | None = None, *, size: int | None = None) -> Exported:
    """Write the generator saved at `student` (no suffix) by `torch.export`, by default as `<student>.pt2`.

    The program takes one picture [1, C, H, W] in [-1, 1] and returns [1, 3, H, W]; sides are multiples of 4 from 16
    on, or `size`. It runs by `torch.export.load(path).module()(picture)`.

    Raises ValueError where the generator is neither an inception nor a ResNet one, or the program computes something
    else than it. Nothing is then written.
    """
    generator, network = _fused(student)
    picture = _noise(generator, size or SIZE)
    shapes = None
    if size is None:
        height, width = (4 * torch.export.Dim(name, min=LEAST // 4, max=4096) for name in ("rows", "columns"))
        shapes = {"x": {2: height, 3: width}}
    program = torch.export.export(network, (picture,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    tried = [picture] if size else [picture, _noise(generator, (64, 96))]
    return _checked(generator, file.getvalue(), run_pt2, tried, Path(out or f"{student}.pt2"))


def export_pte(student: Path | str, out: Path | str | None = None, *, size: int = SIZE) -> Exported:
    """Write the generator saved at `student` (no suffix) for ExecuTorch on CPUs (XNNPACK), by default `<student>.pte`.

    The program takes one picture [1, C, size, size] in [-1, 1]. Needs the package executorch; raises as `export_pt2`.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore[reportMissingImports]
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    generator, network = _fused(student)
    picture = _noise(generator, size)
    program = torch.export.export(network, (picture,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    return _checked(generator, bytes(lowered.buffer), run_pte, [picture], Path(out or f"{student}.pte"))


def run_pt2(data: bytes) -> Callable[[Tensor], Tensor]:
    """The function of a picture [1, C, H, W] that a .pt2 file's content holds."""
    return torch.export.load(io.BytesIO(data)).module()


def run_pte(data: bytes) -> Callable[[Tensor], Tensor]:
    """The function of a picture [1, C, H, W] that a .pte file's content holds, on one thread."""
    from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

    _one_thread()
    program = Runtime.get().load_program(data)
    method = program.load_method("forward")

    def run(picture: Tensor, _kept: Any = (data, program)) -> Tensor:  # whose memory the method reads
        return method.execute([picture.contiguous()])[0].clone()  # into the same memory each time

    return run


@cache
def _one_thread() -> None:
    """Give ExecuTorch one thread, once: a program that is loaded does not survive it."""
    from executorch.extension.pybindings.portable_lib import (  # pyright: ignore[reportMissingImports]
        _unsafe_reset_threadpool,
    )

    _unsafe_reset_threadpool(1)


def _fused(student: Path | str) -> tuple[Any, FusedGenerator]:
    generator = load_generator(student)
    if not can_fuse(generator):
        raise ValueError(
            f"only inception and ResNet generators are exported, and {student} is a {type(generator).__name__}"
        )
    return generator, fuse(generator)


def _noise(generator: Any, size: int | tuple[int, int]) -> Tensor:
    height, width = check_image_size(size, generator.config)
    drawn = torch.rand(1, generator.config.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    return 2 * drawn - 1


def _checked(
    generator: Any, data: bytes, load: Callable[[bytes], Callable[[Tensor], Tensor]], pictures: list[Tensor], path: Path
) -> Exported:
    """Write a program that makes a generator's pictures."""
    run, gaps = load(data), []
    with torch.no_grad():
        for picture in pictures:
            gaps.append((run(picture) - generator(picture)).flatten())
    largest, psnr = psnr_between(torch.cat(gaps))
    if largest > TOLERANCE["fp32"]:
        raise ValueError(
            f"the {path.suffix} program does not agree with PyTorch (largest difference {largest:.2g}, expected at most"
            f" {TOLERANCE['fp32']:g}): nothing was written"
        )
    atomic_write(path, data)
    return Exported(path, "fp32", len(data), largest, psnr)
