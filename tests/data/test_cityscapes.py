"""Cityscapes, on a made-up tree of the layout in which it is distributed."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from i2i_book.runs import root
from i2i_lib import evaluate
from i2i_lib.data.batches import paired_batches
from i2i_lib.data.cityscapes import CHANNELS, load_cityscapes, read_scene, train_ids
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import source_pictures, to_batch
from i2i_lib.evaluate import Evaluator

HEIGHT, WIDTH = 32, 64
SCENES = [
    "train/aachen/aachen_000000_000019",
    "train/aachen/aachen_000001_000019",
    "train/ulm/ulm_000000_000019",
    "val/lindau/lindau_000003_000019",
    "val/munster/munster_000009_000019",
]
ROAD, CAR, TRAILER = 7, 26, 30


@pytest.fixture
def tree(tmp_path) -> Path:
    """Sky over road, with two cars that touch and a trailer; the photograph has the value of the scene's number."""
    for number, scene in enumerate(SCENES):
        ids = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
        ids[:16] = 23
        ids[16:24, 8:24] = CAR
        ids[16:24, 40:48] = TRAILER
        instances = ids.astype(np.uint16)
        instances[16:24, 8:16], instances[16:24, 16:24] = 26000, 26001
        instances[16:24, 40:48] = 30000
        write(tmp_path, "gtFine", f"{scene}_gtFine_labelIds.png", ids)
        write(tmp_path, "gtFine", f"{scene}_gtFine_instanceIds.png", instances)
        # What else the archive holds is left alone.
        write(tmp_path, "gtFine", f"{scene}_gtFine_color.png", np.zeros((HEIGHT, WIDTH, 4), np.uint8))
        write(tmp_path, "leftImg8bit", f"{scene}_leftImg8bit.png", np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8))
    return tmp_path


def write(tree: Path, part: str, name: str, values: np.ndarray) -> Path:
    path = tree / part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_pix2pix_translates_squashed_colours(tree):
    task = load_cityscapes(16, path=str(tree))
    assert (task.name, task.family) == ("cityscapes", "pix2pix")
    assert task.train.source.shape == (3, 3, 17, 17)  # 286 / 256 of the crop
    assert task.test.source.shape == task.test.target.shape == (2, 3, 16, 16)
    assert task.test.target[:, 0, 8, 8].tolist() == [120, 160]  # registered with the scenes' order
    assert task.test.source[0, :, 2, 2].tolist() == [70, 130, 180]  # the sky of the table
    assert task.test.source[0, :, 10, 4].tolist() == [0, 0, 142]  # a car
    assert task.test.block.tolist() == [0, 1] and task.train.block.tolist() == [-1] * 3
    assert task.info["test_scenes"] == SCENES[3:]


def test_training_squares_are_enlarged_from_the_tests_size(tree):
    """As from the authors' prepared files: softer than if they were made of the whole photograph at once."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    photo = write(tree, "leftImg8bit", f"{SCENES[0]}_leftImg8bit.png", noise)
    small = Image.open(photo).resize((16, 16), Image.Resampling.BICUBIC)
    wanted = np.array(small.resize((17, 17), Image.Resampling.BICUBIC))
    assert torch.equal(load_cityscapes(16, path=str(tree)).train.target[0], torch.from_numpy(wanted).permute(2, 0, 1))


def test_gaugan_reads_labels_and_edges_of_instances(tree):
    task = load_task("cityscapes", image_size=16, path=str(tree), family="gaugan")
    assert task.family == "gaugan" and task.train.source_channels == CHANNELS + 1 == 36
    assert task.test.source.shape == (2, 2, 16, 32) and task.test.shape == (16, 32) and task.test.size == 16
    labels, edges = task.test.source[0]
    assert sorted(labels.unique().tolist()) == [ROAD, 23, CAR, TRAILER]
    assert edges[:7].sum() == 0 and edges[7].all() and edges[8].all()  # between sky and what is below it
    assert edges[10].nonzero().flatten().tolist() == [3, 4, 7, 8, 11, 12, 19, 20, 23, 24]  # cars touch at 8
    batch = next(paired_batches(task.train, image_size=16, batch_size=2, seed=0)(0))
    assert batch.source.shape == (2, 36, 16, 32) and batch.target.shape == (2, 3, 16, 32)
    assert batch.source[:, :35].sum(1).unique().tolist() == [1]
    # A crop keeps the proportions, and labels stay on their pictures.
    small = next(paired_batches(task.train, image_size=8, batch_size=2, seed=0)(0))
    assert small.source.shape == (2, 36, 8, 16)
    assert to_batch(task.test, slice(0, 1)).source[0, 35].sum() == edges.sum()
    painted = source_pictures(task.test.source, task.info)
    assert painted[0, :, 2, 2].tolist() == [70, 130, 180] and painted[0, :, 10, 4].tolist() == [0, 0, 142]
    with pytest.raises(ValueError, match="no other direction"):
        load_task("cityscapes", image_size=16, direction="BtoA", path=str(tree), family="gaugan")


@pytest.mark.parametrize("family", ["pix2pix", "gaugan"])
def test_whole_cities_are_held_out_of_training(tree, family):
    task = load_task("cityscapes", image_size=16, path=str(tree), family=family, validation=0.5)
    held = task.validation
    assert held is not None and task.info["validation_scenes"] == ["train/ulm/ulm_000000_000019"]
    assert task.info["train_scenes"] == 2 and task.train.target[:, 0, 8, 8].tolist() == [0, 40], "of the other city"
    assert held.target[:, 0, 8, 8].tolist() == [80] and held.block.tolist() == [0]
    assert held.shape == task.test.shape and held.classes == task.test.classes
    whole = load_task("cityscapes", image_size=16, path=str(tree), family=family, validation=0.2)
    assert whole.validation is None and whole.info["train_scenes"] == 3, "a fifth of two cities is none"


def test_a_saved_task_comes_back(tree, tmp_path):
    task = load_task("cityscapes", image_size=16, path=str(tree), family="gaugan")
    save_task(task, tmp_path / "task")
    again = load_saved_task(tmp_path / "task")
    assert torch.equal(again.test.source, task.test.source) and again.info == task.info and again.test.classes == 35
    (tmp_path / "task.safetensors").unlink()
    assert torch.equal(load_saved_task(tmp_path / "task").train.source, task.train.source)


def test_evaluation_reads_full_maps_of_train_ids(tree):
    (truth, _) = train_ids(SCENES[3:], str(tree))
    assert truth.shape == (HEIGHT, WIDTH) and truth.dtype == torch.uint8
    assert (truth[0, 0], truth[30, 0], truth[20, 10], truth[20, 44]) == (10, 0, 13, 255)  # trailers do not count


def test_a_licence_plate_has_the_last_channel(tree):
    ids = np.full((HEIGHT, WIDTH), 255, np.uint8)  # -1 as a byte
    write(tree, "gtFine", f"{SCENES[0]}_gtFine_labelIds.png", ids)
    source, _ = read_scene(tree, SCENES[0], 16, 32, "gaugan")
    assert source[0].unique().tolist() == [34]


def test_a_missing_data_set_says_where_to_register(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"register at https://www.cityscapes-dataset"):
        load_cityscapes(16, path=str(tmp_path))


@pytest.mark.parametrize("name", ["leftImg8bit/{}_leftImg8bit.png", "gtFine/{}_gtFine_instanceIds.png"])
def test_a_missing_counterpart_is_named(tree, name):
    name = name.format(SCENES[1])
    (tree / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load_cityscapes(16, path=str(tree), family="gaugan")


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("gtFine_labelIds", np.full((HEIGHT, WIDTH), 34, np.uint8), "holds the label 34: expected .* 0 to 33"),
        ("gtFine_instanceIds", np.full((HEIGHT, WIDTH), 34001, np.uint16), "holds the label 34: expected .* 0 to 33"),
        ("gtFine_labelIds", np.full((HEIGHT, WIDTH), 700, np.uint16), "holds the label 700: expected .* 0 to 33"),
        ("gtFine_labelIds", np.zeros((HEIGHT, WIDTH, 3), np.uint8), "is not a single-channel integer image"),
        ("leftImg8bit", np.zeros((8, 16, 3), np.uint8), "is .*8, 16"),
    ],
)
def test_damage_is_refused_by_file(tree, kind, values, message):
    path = write(tree, kind.split("_")[0], f"{SCENES[2]}_{kind}.png", values)
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        load_cityscapes(16, path=str(tree), family="gaugan")


def test_unpaired_cityscapes_are_refused(tree):
    with pytest.raises(ValueError, match="'pix2pix' or 'gaugan'"):
        load_cityscapes(16, path=str(tree), family="cyclegan")  # pyright: ignore[reportArgumentType]


def cells(notebook: str, *ids: str) -> str:
    """The source of some cells, one below the other."""
    read = nbformat.read(root() / "notebooks" / f"{notebook}.ipynb", as_version=4)
    return "\n".join(next(cell.source for cell in read.cells if cell.id == i) for i in ids)


class Road(nn.Module):
    """Sees nothing but road, the first of the 19 classes."""

    def forward(self, x):
        return torch.eye(19)[0].view(1, 19, 1, 1).expand(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("family, shape", [("", (16, 16)), ("pix2pix", (16, 16)), ("gaugan", (16, 32))])
def test_both_ways_are_translated_and_measured_by_mean_iou(tree, family, shape, monkeypatch):
    """A cell of chapter 1 as it is, and the evaluation with a segmenter of which the result is known."""
    asked = {"task": "cityscapes", "image_size": 16, "direction": "AtoB", "path": str(tree), "layout": "auto"}
    asked |= {"crop": 0, "validation": 0.0}
    first = asked | {"family": family, "on_earth": False, "load_task": load_task, "pd": pd, "words": {"unit": "scenes"}}
    exec(cells("01-data", "01-04"), first)
    data = first["data"]
    assert data.family == (family or "pix2pix") and data.test.shape == shape

    monkeypatch.setattr(evaluate, "drn_d_105", lambda device: Road().eval())
    evaluator = Evaluator(data)
    road, sky, car = 16 * 64 - 3 * 64, 16 * 64, 2 * 64  # the trailer does not count
    found = evaluator.measure("student", data.test.target.float() / 127.5 - 1)
    ceiling = evaluator.read_labels(data.test.target)
    assert ceiling is not None and found.miou == ceiling
    assert found.result.miou == pytest.approx(road / (road + sky + car) / 3)
