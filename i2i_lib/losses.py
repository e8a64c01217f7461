"""Losses as functions of tensors. Each returns a scalar and computes in float32 at least."""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.config import check_choice


def lsgan(logits: Tensor, real: bool) -> Tensor:
    """Mean squared distance to 1 for real, to 0 for fake (Mao et al. 2017)."""
    return (logits.float() - (1.0 if real else 0.0)).square().mean()


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Discriminator's hinge loss, the mean of its two sides: real above 1, fake below -1 (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean())


def hinge_g(fake_logits: Tensor) -> Tensor:
    """Generator's side of the hinge loss: fake up, without a bound."""
    return -fake_logits.float().mean()


def kernel_alignment(
    x: Tensor,
    y: Tensor,
    *,
    rows: Literal["pixels", "samples"] = "pixels",
    centered: bool = True,
    group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    """Similarity of two feature maps, from 0 to 1, whatever their channels: no adaptor has to be learned.

    The maps [N, C, H, W] become matrices X and Y with a row for each pixel (N·H·W x C) or sample (N x C·H·W), and

        ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)

    is returned. The default, centred over pixels, is global centred kernel alignment (GCKA), the index that the
    paper's abstract names; time and memory grow linearly with the pixels. `rows="samples", centered=False` is the KA
    of the authors' code. Unchanged by rotations of the channels and by scaling either map; centred, also by shifts.

    With a process `group`, X and Y hold the rows of all its processes. Each gets the same value, and a gradient
    whose mean over processes, which DDP takes, is that of one process with the whole batch. None never communicates.

    Raises ValueError where the index is undefined or the same for all maps: fewer than two rows (centred: three),
    features that do not vary (uncentred: all zero), grids of pixels that differ.
    """
    samples = _samples(x, group)
    value, constant = unchecked_alignment(x, y, rows=rows, centered=centered, group=group, samples=samples)
    if constant.any():
        names = compress(("x", "y"), constant.tolist())
        raise ValueError(f"alignment is undefined: the features {' and '.join(names)} do not vary (or are all zero)")
    return value


def unchecked_alignment(
    x: Tensor,
    y: Tensor,
    *,
    rows: str,
    centered: bool,
    group: "dist.ProcessGroup | None",
    samples: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `kernel_alignment` and, as bool [2], whether x and y do not vary, which leaves it undefined.

    For training steps: reading whether they vary makes a GPU wait for the host, which may be done once in many steps.
    So would asking each process how many `samples` it holds: if they are not given, all hold as many as this one.
    """
    check_choice("rows", rows, ("pixels", "samples"))
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"the maps are of different batches: {x.shape[0]} and {y.shape[0]} samples")
    if rows == "pixels" and x.shape[2:] != y.shape[2:]:
        grids = f"{tuple(x.shape[2:])} and {tuple(y.shape[2:])}"
        raise ValueError(f"the maps have different grids, {grids}: resize one, or compare samples (rows='samples')")
    held = samples or [x.shape[0]] * (1 if group is None else dist.get_world_size(group))
    each = math.prod(x.shape[2:]) if rows == "pixels" else 1
    counts = [each * own for own in held]
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = (m.to(dtype).movedim(1, -1) for m in (x, y))
        x, y = (m.reshape(-1, m.shape[-1]) if rows == "pixels" else m.flatten(1) for m in (x, y))
        count = sum(counts)
        least = 3 if centered else 2
        if count < least:
            kind = f"{'centred' if centered else 'uncentred'} {rows}"
            raise ValueError(f"the alignment of fewer than {least} {kind} is constant, got {count}: use a larger batch")

        # To 1 at most, or the products of small maps would underflow and those of large ones overflow. Detached,
        # because the index is the same at every scale.
        x, y = (m / peak for m, peak in zip((x, y), _peaks(x, y, group), strict=True))
        raw = _sum_of_squares(x, y)
        if centered:
            # Before the products: raw moments would cancel digits. Detached, because centred rows sum to 0 and with
            # them the gradient of the mean.
            x, y = (m - _reduce([m.detach().sum(0)], group)[0] / count for m in (x, y))
        # A constant leaves only the rounding error of its mean.
        raw, remaining = _reduce([raw, _sum_of_squares(x, y)], group)
        constant = remaining <= (32 * torch.finfo(raw.dtype).eps) ** 2 * raw

        if rows == "pixels":
            xy, xx, yy = _reduce([x.T @ y, x.T @ x, y.T @ y], group)
            value = (xy / (xx.norm() * yy.norm()).sqrt()).square().sum()
        else:
            x, y = _gather([x, y], counts, group)  # N x N Gram matrices need every sample's features
            xx, yy = x @ x.T, y @ y.T
            value = (xx / xx.norm() * (yy / yy.norm())).sum()
        return value.clamp(0, 1), constant  # clamped, for rounding


def _peaks(x: Tensor, y: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """The largest absolute value of each map over the group; of zeros, the least number that divides them."""
    peaks = torch.stack([torch.linalg.vector_norm(m.detach(), math.inf) for m in (x, y)])
    if group is not None:
        dist.all_reduce(peaks, op=dist.ReduceOp.MAX, group=group)
    return peaks.clamp(min=torch.finfo(peaks.dtype).tiny)


def _sum_of_squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x.detach().square().sum(), y.detach().square().sum()])


class _AllReduce(torch.autograd.Function):
    """Sum over processes, whose gradient is again summed over processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "dist.ProcessGroup") -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def _reduce(parts: list[Tensor], group: "dist.ProcessGroup | None") -> list[Tensor]:
    """Each tensor summed over the group, in one message."""
    if group is None:
        return parts
    total = _AllReduce.apply(torch.cat([p.flatten() for p in parts]), group)
    return [flat.view_as(p) for flat, p in zip(total.split([p.numel() for p in parts]), parts, strict=True)]


def _samples(x: Tensor, group: "dist.ProcessGroup | None") -> list[int]:
    """How many samples each process of the group holds."""
    if group is None:
        return [x.shape[0]]
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=x.device)
    counts[dist.get_rank(group)] = x.shape[0]
    return _reduce([counts], group)[0].tolist()


def _gather(parts: list[Tensor], counts: list[int], group: "dist.ProcessGroup | None") -> list[Tensor]:
    """All processes' rows, in rank order: a sum in which every process fills its own rows."""
    if group is None:
        return parts
    rank = dist.get_rank(group)
    around = (0, 0, sum(counts[:rank]), sum(counts[rank + 1 :]))
    return _reduce([F.pad(p, around) for p in parts], group)


def sum_of_l1(x: Sequence[Tensor], y: Sequence[Tensor], weights: Sequence[float] = ()) -> Tensor:
    """Sum of the L1 distances between feature maps, each with its weight, by default 1."""
    pairs = zip(x, y, weights or (1.0,) * len(x), strict=True)
    return torch.stack([weight * F.l1_loss(a.float(), b.float()) for a, b, weight in pairs]).sum()


def wavelet_details(images: Tensor) -> Tensor:
    """The three high bands of one step of the Haar wavelet transform, [N, 3 C, H / 2, W / 2] of images [N, C, H, W].

    They are differences of neighbouring rows, of columns, and of both, and 0 where an image is flat. H and W are even.
    """
    a, b, c, d = (images[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    return torch.cat([a + b - c - d, a - b + c - d, a - b - c + d], 1) / 2
