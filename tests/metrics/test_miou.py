"""Confusion matrices, the networks that segment, and how sure a mean IoU is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from i2i_lib.data.tiles import Tiles
from i2i_lib.metrics.labels import class_iou, confusion_matrix, iou_bootstrap, mean_iou
from i2i_lib.metrics.networks.drn import DEVIATION, MEAN, DrnSegmenter, cityscapes_confusion, drn_d_105, segment
from i2i_lib.metrics.networks.literature import WeightsMissing
from i2i_lib.metrics.networks.segmenter import Segmenter, segmenter_confusion, train_segmenter


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
    counts = noisy_confusions(random, 0.8)
    estimate = iou_bootstrap(counts, torch.arange(60) // 3 + 100, resamples=2000)
    assert estimate.value == mean_iou(counts.sum(0))
    drawn = []
    for _ in range(1000):
        blocks = torch.randint(20, (20,), generator=random)
        drawn.append(mean_iou(counts.unflatten(0, (20, 3))[blocks].sum((0, 1))))
    low, high = torch.tensor(drawn).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert estimate.low is not None and estimate.high is not None
    stretch = (estimate.high - estimate.low) / (high - low)
    assert 1.0 < stretch < 1.2  # Student's t for 20 blocks: 1.09
    with pytest.raises(ValueError, match="one confusion matrix per image"):
        iou_bootstrap(counts.sum(0), torch.arange(4))


# --- DRN-D-105 -------------------------------------------------------------------------------------------------------


def tiny() -> DrnSegmenter:
    """The same network with narrow and few layers."""
    torch.manual_seed(0)
    return DrnSegmenter(widths=(4,) * 9, depths=(1, 1, 1, 2, 1, 2, 1, 1, 1)).eval()


def test_drn_d_105_has_the_size_and_the_names_of_the_published_one():
    network = DrnSegmenter()
    state = network.state_dict()
    base = sum(p.numel() for p in network.base.parameters())
    assert round((base + 512 * 1000 + 1000) / 1e6, 1) == 54.8  # as its authors count: with ImageNet's 1,000 classes
    blocks = 3 + 4 + 23 + 3
    assert sum(name.endswith("conv3.weight") for name in state) == blocks
    # Five norms outside the blocks, three in each and one beside the first of each level; a weight per convolution.
    assert len([n for n in state if "num_batches" not in n]) == (5 + 3 * blocks + 4) * 5 + 3
    shapes = {
        "base.0.0.weight": (16, 3, 7, 7),
        "base.2.0.weight": (32, 16, 3, 3),
        "base.3.0.downsample.0.weight": (256, 32, 1, 1),
        "base.4.0.downsample.1.running_mean": (512,),
        "base.5.22.bn2.bias": (256,),
        "base.6.0.conv2.weight": (512, 512, 3, 3),
        "base.7.0.weight": (512, 2048, 3, 3),
        "base.8.1.running_var": (512,),
        "seg.weight": (19, 512, 1, 1),
        "seg.bias": (19,),
        "up.weight": (19, 1, 16, 16),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    dilations = [network.base[i][0].conv2.dilation[0] for i in range(3, 7)] + [network.base[7][0].dilation[0]]  # type: ignore[index, union-attr]
    assert dilations == [1, 1, 2, 4, 2]


def test_logits_have_the_size_of_the_picture():
    with torch.no_grad():
        assert tiny()(torch.zeros(2, 3, 32, 64)).shape == (2, 19, 32, 64)
    up = tiny().up
    inside = up(torch.ones(1, 19, 4, 4))[0, :, 8:-8, 8:-8]
    torch.testing.assert_close(inside, torch.ones_like(inside))  # an interpolation keeps a constant


def test_the_distributed_format_loads_and_others_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("i2i_lib.metrics.networks.drn.DrnSegmenter", tiny)
    path = tmp_path / "drn.pth"
    network = tiny()
    nn.init.constant_(network.base[0][1].running_mean, 3)  # type: ignore[index]
    # As the distributed file holds them: plain names, no counters, the container of its time.
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    loaded = drn_d_105(path)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(x), network(x))
    monkeypatch.setenv("I2I_DRN", str(path))
    assert torch.equal(drn_d_105()(x), network(x))

    lacking = {name: value for name, value in state.items() if name != "seg.bias"}
    for content, message in [
        (lacking, r"Missing key.*seg.bias"),
        (state | {"fc.weight": torch.zeros(1)}, r"Unexpected key.*fc.weight"),
        (state | {"seg.bias": torch.zeros(20)}, r"size mismatch for seg\.bias"),
        ({"path": Path("anything")}, "more than plain tensors"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            drn_d_105(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        drn_d_105(path)


def test_without_its_weights_a_sentence_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("I2I_DRN", raising=False)
    with pytest.raises(WeightsMissing, match=r"left out: .* get drn-d-105_ms_cityscapes.pth from .* or I2I_DRN"):
        drn_d_105()


class Thermometer(nn.Module):
    """Names class 0 to 18 by the red of the unnormalised picture: 19 steps from 0 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        red = x[:, :1] * DEVIATION[0] + MEAN[0]
        return -(red - torch.arange(19).view(1, 19, 1, 1) / 18).abs()


def test_the_protocol_enlarges_logits_not_pictures(random):
    truth = torch.tensor([[0, 0, 18, 18]]).repeat_interleave(16, 0).repeat_interleave(8, 1)  # [16, 32]
    picture = torch.full((3, 4, 8), -1.0)  # black, hence class 0
    picture[:, :, 4:] = 1
    guess = segment(Thermometer().eval(), picture, (16, 32))
    assert guess.shape == (16, 32)
    # As Pillow enlarges each class's plane of floats.
    logits = Thermometer()(torch.stack([(picture / 2 + 0.5)[c] - MEAN[c] for c in range(3)])[None] / DEVIATION[0])[0]
    planes = [np.asarray(Image.fromarray(p.numpy()).resize((32, 16), Image.Resampling.BILINEAR)) for p in logits]
    assert (torch.from_numpy(np.stack(planes)).argmax(0) == guess).float().mean() > 0.99
    # Enlarging the picture would invent greys, and with them classes, along the edge.
    assert set(guess.unique().tolist()) == {0, 18}

    ignored = truth.clone()
    ignored[:8] = 255
    counts = cityscapes_confusion(Thermometer().eval(), [picture, picture.flip(2)], iter([truth, ignored]))
    assert counts.shape == (2, 19, 19) and counts.sum((1, 2)).tolist() == [512, 256]
    assert mean_iou(counts[0]) == 1 and mean_iou(counts[1]) == 0
    with pytest.raises(ValueError, match="training mode"):
        cityscapes_confusion(Thermometer(), [picture], [truth])
    with pytest.raises(ValueError, match="shorter"):
        cityscapes_confusion(Thermometer().eval(), [picture, picture], [truth])


# --- the segmenter of the Earth's surface ----------------------------------------------------------------------------


def coloured(random: torch.Generator, n: int) -> Tiles:
    """Label maps of 4 x 4 squares of three classes, and pictures in a dim and a bright shade of each class's colour."""
    labels = torch.randint(0, 3, (n, 1, 4, 4), generator=random).repeat_interleave(4, 2).repeat_interleave(4, 3)
    shade = torch.randint(100, 200, (n, 1, 1, 1), generator=random)
    target = torch.cat([(labels == c) * shade for c in range(3)], 1).to(torch.uint8)
    nowhere = torch.zeros(n, 2, dtype=torch.int64)
    return Tiles(labels.to(torch.uint8), target, torch.arange(n), nowhere, nowhere, classes=3)


def test_the_segmenter_learns_labels_and_reads_them_back(random):
    train, test = coloured(random, 24), coloured(random, 10)
    before = torch.random.get_rng_state()
    segmenter = train_segmenter(train, crop=8, steps=60, batch_size=8, lr=2e-2)
    assert torch.equal(torch.random.get_rng_state(), before) and not segmenter.training
    counts = segmenter_confusion(segmenter, test.target, test.source, batch_size=4)
    assert counts.shape == (10, 3, 3) and counts.sum() == 10 * 16 * 16
    assert mean_iou(counts.sum(0)) > 0.9
    # As floats the pictures score the same; grey pictures hold nothing of their labels.
    floats = segmenter_confusion(segmenter, test.target.float() / 127.5 - 1, test.source)
    assert torch.equal(floats, counts)
    grey = segmenter_confusion(segmenter, torch.zeros(10, 3, 16, 16), test.source)
    assert mean_iou(grey.sum(0)) < 0.4
    one, same = (train_segmenter(train, crop=8, steps=2).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_the_segmenter_needs_labels(random):
    tiles = coloured(random, 4)
    with pytest.raises(ValueError, match="not labels"):
        train_segmenter(replace(tiles, classes=0), crop=8, steps=1)
    with pytest.raises(ValueError, match="one label map per picture"):
        segmenter_confusion(Segmenter(3), tiles.target[:2], tiles.source)
    with pytest.raises(ValueError, match="a label is 2: expected 0 to 1"):
        segmenter_confusion(Segmenter(2).eval(), tiles.target, tiles.source)
