"""Mean IoU from confusion matrices."""

import torch
from torch import Tensor

from i2i_lib.metrics.intervals import Estimate, number_blocks, percentile_interval, resample_blocks

IGNORED = 255  # the label of pixels that are not counted


def iou_bootstrap(confusion: Tensor, blocks: Tensor, *, resamples: int = 10_000) -> Estimate:
    """`mean_iou` of per-image confusion matrices [N, C, C] with its bootstrap interval.

    Whole blocks [N] are drawn with replacement, and each draw's matrices are summed before anything is divided. A
    class that is absent from a draw is left out of that draw's mean.
    """
    if confusion.ndim != 3:
        raise ValueError(f"need one confusion matrix per image, got {[*confusion.shape]}")
    units, numbers = number_blocks(blocks, len(confusion))
    weights = resample_blocks(units, resamples)
    counts = confusion.cpu()
    total = torch.zeros(units, *counts.shape[1:], dtype=torch.float64).index_add_(0, numbers, counts.double())
    drawn = (weights @ total.flatten(1)).unflatten(1, counts.shape[1:])
    return percentile_interval(mean_iou(counts.sum(0)), class_iou(drawn).nanmean(1), units)


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Pixel counts [true class, predicted class] of each image, int64 [N, classes, classes]; they add up over images.

    Both maps are integer [N, H, W]; pixels labelled 255 are not counted. Raises ValueError for any other value
    outside 0 to `classes` - 1.
    """
    if labels.shape != predicted.shape or labels.ndim != 3:
        raise ValueError(f"need two label maps [N, H, W], got {[*labels.shape]} and {[*predicted.shape]}")
    if labels.is_floating_point() or predicted.is_floating_point():
        raise ValueError(f"label maps are integers, got {labels.dtype} and {predicted.dtype}")
    labels, predicted = labels.long(), predicted.to(labels.device).long()
    image = torch.arange(len(labels), device=labels.device)[:, None, None].expand_as(labels)
    counted = labels != IGNORED
    truth, guess = labels[counted], predicted[counted]
    for what, found in (("label", truth), ("predicted label", guess)):
        if found.numel() and not 0 <= found.min() <= found.max() < classes:
            wrong = found[(found < 0) | (found >= classes)][0]
            raise ValueError(f"a {what} is {wrong}: expected 0 to {classes - 1}, or {IGNORED} for pixels to ignore")
    places = (image[counted] * classes + truth) * classes + guess
    return places.bincount(minlength=len(labels) * classes**2).reshape(-1, classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, float64 [..., C], from counts [..., true class, predicted class].

    A class that is neither true nor predicted anywhere has NaN.
    """
    counts = confusion.double()
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(f"a confusion matrix is square, got {tuple(counts.shape)}")
    hit = counts.diagonal(dim1=-2, dim2=-1)
    return hit / (counts.sum(-1) + counts.sum(-2) - hit)


def mean_iou(confusion: Tensor) -> float:
    """Mean over classes of `class_iou`, from one confusion matrix: the sum over all images, where there are several.

    A class that is neither true nor predicted anywhere is left out. Raises ValueError if that leaves none.
    """
    if (found := class_iou(confusion)).ndim != 1:
        raise ValueError(f"the mean IoU is of one confusion matrix, got {tuple(confusion.shape)}: add them up first")
    if found.isnan().all():
        raise ValueError("the confusion matrix is empty: no pixel was compared")
    return found.nanmean().item()
