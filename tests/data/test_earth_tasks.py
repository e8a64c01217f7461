"""The Earth unpaired, and its surface classes."""

from pathlib import Path

import pytest
import torch

from i2i_lib.data import earth_labels
from i2i_lib.data.earth import earth_rasters
from i2i_lib.data.tasks import load_task

README = (Path(__file__).parents[2] / "data" / "README.md").read_text()


@pytest.fixture(scope="module")
def earth():
    return load_task("earth", image_size=64)


@pytest.fixture(scope="module")
def labels():
    return load_task("earth-labels", image_size=64)


def covered(box: torch.Tensor, size: int, raster: list[int]) -> torch.Tensor:
    pixels = torch.zeros(raster, dtype=torch.bool)
    for row, column in box.tolist():
        pixels[row : row + size, column : column + size] = True
    return pixels


def test_unpaired_domains_share_no_place(earth):
    task = load_task("earth-unpaired", image_size=64)
    train, raster = task.train, task.info["raster"]
    assert task.family == "cyclegan" and not train.paired
    maps, pictures = (covered(box, train.size, raster) for box in (train.box, train.target_box))
    assert maps.any() and not (maps & pictures).any()
    assert not ((maps | pictures) & covered(task.test.box, 64, raster)).any()
    theirs = covered(earth.train.box, train.size, raster)
    assert not (theirs & ~(maps | pictures)).any(), "every training tile of `earth` is in one of them"
    assert min(len(train.source), len(train.target)) > (len(train.source) + len(train.target)) / 3
    for part in ("source", "target", "box", "target_box", "block", "paired"):
        assert torch.equal(*(torch.as_tensor(getattr(t.test, part)) for t in (task, earth))), part
    atlas, satellite = earth_rasters()
    for raster, tiles, box in [(atlas, train.source, train.box), (satellite, train.target, train.target_box)]:
        row, column = box[-1].tolist()
        assert torch.equal(tiles[-1], raster[:, row : row + train.size, column : column + train.size])
    assert f"| 64 px | {len(train.source)} | {len(train.target)} |" in README


def test_labels_lie_on_the_tiles_of_earth(earth, labels):
    assert labels.family == "gaugan" and labels.test.source.dtype == torch.uint8
    for part in ("train", "test"):
        ours, theirs = getattr(labels, part), getattr(earth, part)
        assert torch.equal(ours.box, theirs.box) and torch.equal(ours.target, theirs.target)
        assert ours.source.shape == (len(ours), 1, ours.size, ours.size) and torch.equal(ours.block, theirs.block)
    with pytest.raises(ValueError, match="there is no other direction"):
        load_task("earth-labels", image_size=32, scale=4, direction="BtoA")


def test_every_class_is_common_enough_and_documented(labels):
    classes = labels.info["classes"]
    assert len(classes) == labels.train.classes >= 8
    shares = torch.bincount(labels.train.source.flatten(), minlength=len(classes)) / labels.train.source.numel()
    for kind, share in zip(classes, shares.tolist(), strict=True):
        assert share == pytest.approx(kind["share"], abs=1e-5) and share >= 0.005
        assert f"| {kind['name']} | {share:.1%} |".replace("%", " %") in README


def test_regions_are_contiguous_and_do_not_give_the_picture_away(labels):
    tiles = labels.train
    inside = tiles.source[::8, 0]
    assert (inside[:, :, 1:] != inside[:, :, :-1]).float().mean() < 0.04, "a border every 25 pixels or fewer"
    # Painting each class in its mean colour explains most of the differences between places, and little within them.
    target = tiles.target[::8].float()
    flat = inside.flatten().long()
    count = torch.bincount(flat, minlength=tiles.classes)
    means = torch.stack([torch.bincount(flat, target[:, c].flatten().double()) / count for c in range(3)])
    error = (target - means[:, inside.long()].movedim(0, 1)).square().mean()
    assert 0.05 < error / target.var() < 0.4
    detail = target - torch.nn.functional.avg_pool2d(target, 9, 1, 4)
    painted = means[:, inside.long()].movedim(0, 1).float()
    painted = painted - torch.nn.functional.avg_pool2d(painted, 9, 1, 4)
    assert torch.corrcoef(torch.stack([detail.flatten(), painted.flatten()]))[0, 1] < 0.7


@pytest.mark.parametrize(
    "latitude, longitude, name",
    [
        (-5, -63, "dense forest"),  # Amazon
        (62, 75, "woodland"),  # Western Siberia
        (42, -93, "grassland and farmland"),  # Iowa
        (-12, 27, "savanna and open woodland"),  # Zambia
        (49, 68, "steppe and tundra"),  # Kazakhstan
        (23, 0, "desert"),  # Sahara
        (-24, 127, "red desert"),  # Gibson Desert
        (70, -40, "snow and ice"),  # Greenland
        (33, 88, "bare highland"),  # Tibet
        (9.5, 39, "green highland"),  # Ethiopia
        (56, 3, "shallow sea"),  # North Sea
        (30, -40, "deep water"),  # Atlantic
        (-1, 33, "deep water"),  # Lake Victoria
    ],
)
def test_places_are_what_an_atlas_says(world, latitude, longitude, name):
    row, column = int((90 - latitude) * 3.75), int((longitude + 180) * 3.75)
    assert earth_labels.CLASSES[world[row, column]].name == name


@pytest.fixture(scope="module")
def world():
    return earth_labels.earth_labels(4)[0]
