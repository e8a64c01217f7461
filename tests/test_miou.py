"""Confusion matrices, the networks that segment, and how sure a mean IoU is."""

import pytest
import torch
from torch import Tensor

from i2i_lib.metrics import class_iou, confusion_matrix, iou_bootstrap, mean_iou


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_a_confusion_counted_by_hand():
    labels = torch.tensor([[[0, 0, 1], [2, 255, 255]], [[1, 1, 1], [1, 1, 1]]], dtype=torch.uint8)
    guess = torch.tensor([[[0, 1, 1], [2, 0, 9]], [[1, 1, 1], [1, 0, 0]]])  # a 9 where nobody looks
    counts = confusion_matrix(labels, guess, 3)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [2, 4, 0], [0, 0, 0]]]
    # Summed: class 0 has 1 of 2 + 3 - 1, class 1 has 5 of 7 + 6 - 5, class 2 has 1 of 1.
    assert class_iou(counts.sum(0)).tolist() == pytest.approx([1 / 4, 5 / 8, 1])
    assert mean_iou(counts.sum(0)) == pytest.approx((1 / 4 + 5 / 8 + 1) / 3)
    assert class_iou(counts)[1].isnan().tolist() == [False, False, True]  # class 2 is not in the second image


@pytest.mark.parametrize(
    "label, guess, message",
    [(3, 0, "a label is 3: expected 0 to 2, or 255"), (-1, 0, "label is -1"), (0, 3, "predicted label is 3")],
)
def test_values_outside_the_classes_are_refused(label, guess, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.full((1, 2, 2), label), torch.full((1, 2, 2), guess), 3)


def test_what_is_no_confusion_of_label_maps_is_refused():
    maps = torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="N, H, W"):
        confusion_matrix(maps, maps[:1], 3)
    with pytest.raises(ValueError, match="integers"):
        confusion_matrix(maps, maps.float(), 3)
    with pytest.raises(ValueError, match="add them up"):
        mean_iou(confusion_matrix(maps, maps, 3))


# --- how sure --------------------------------------------------------------------------------------------------------


def noisy_confusions(random: torch.Generator, right: float) -> Tensor:
    """Of 60 images in 20 blocks: a model that names a pixel's class with this probability."""
    labels = torch.randint(0, 4, (60, 8, 8), generator=random)
    wrong = torch.rand(60, 8, 8, generator=random) > right
    return confusion_matrix(labels, torch.where(wrong, (labels + 1) % 4, labels), 4)


def test_the_bootstrap_of_a_mean_iou_follows_a_loop_over_blocks(random):
    good, bad = noisy_confusions(random, 0.8), noisy_confusions(random, 0.7)
    blocks = torch.arange(60) // 3 + 100
    estimate = iou_bootstrap(good, blocks, versus=bad, resamples=2000)
    assert estimate.value == pytest.approx(mean_iou(good.sum(0)) - mean_iou(bad.sum(0)))
    assert (estimate.count, estimate.blocks, estimate.excludes_zero) == (60, 20, True)
    differences = []
    for _ in range(1000):
        drawn = torch.randint(20, (20,), generator=random)
        a, b = (counts.unflatten(0, (20, 3))[drawn].sum((0, 1)) for counts in (good, bad))
        differences.append(mean_iou(a) - mean_iou(b))
    low, high = torch.tensor(differences).quantile(torch.tensor([0.025, 0.975])).tolist()
    stretch = (estimate.high - estimate.low) / (high - low)
    assert 1.0 < stretch < 1.2  # Student's t for 20 blocks: 1.09


def test_a_model_is_not_better_than_itself(random):
    counts = noisy_confusions(random, 0.8)
    same = iou_bootstrap(counts, torch.arange(60), versus=counts, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    alone = iou_bootstrap(counts, torch.arange(60), resamples=200)
    assert alone.low < alone.value == mean_iou(counts.sum(0)) < alone.high
    with pytest.raises(ValueError, match="one confusion matrix per image"):
        iou_bootstrap(counts, torch.arange(60), versus=counts[:, :3, :3])
