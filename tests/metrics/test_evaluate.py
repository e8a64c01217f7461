"""One model on one task: its row holds what the measures give, and yardsticks need no weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import GENERATORS, network, task, tiles, trained

from i2i_lib.checkpoint import load_generator, save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.data.store import save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import encode
from i2i_lib.evaluate import Evaluator, _authors_real, _fewer, per_image_values
from i2i_lib.macs import generator_macs
from i2i_lib.metrics.baselines import ColourTransfer
from i2i_lib.metrics.pairs import l1, quantise
from i2i_lib.metrics.sets import kernel_distance


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "student"
    provenance = {"training": {"steps": 7}, "seconds": 3.5}
    save_generator(network(GENERATORS["pix2pix"]), path, provenance=provenance)
    return path


def test_a_network_is_measured_on_the_test_pictures(weights):
    toy = task()
    evaluator = Evaluator(toy, seed=3, data="d")
    found = evaluator.evaluate("gcka", weights)
    row = found.result
    with torch.no_grad():
        made = load_generator(weights)(encode(toy.test.source))
    # One level is what the last bits of another order of summation may turn.
    assert (found.pictures.int() - quantise(made).int()).abs().max() <= 1
    assert (found.rounded_down.int() - quantise(made, "down").int()).abs().max() <= 1
    assert torch.equal(found.per_image["l1"], l1(found.pictures, toy.test.target))
    assert row.l1 == found.per_image["l1"].mean().item() and row.ssim == found.per_image["ssim"].mean().item()
    assert (row.task, row.seed, row.model, row.data, row.images, row.blocks) == ("toy", 3, "gcka", "d", 6, 3)
    assert "toy test tiles of 16 px" in row.protocol and row.miou is None and found.miou is None
    assert (row.kd_low, row.kd_high) == (None, None), "of 3 blocks"
    assert row.kd > 0 and row.fd > 0
    config = load_generator(weights).config
    assert (row.macs_exact, row.macs_paper) == (generator_macs(config, 16, "exact"), generator_macs(config, 16))
    assert (row.steps, row.train_seconds) == (7, 3.5) and row.weights and row.peak_memory_mib
    assert per_image_values([found])["l1"]["gcka"] == found.per_image["l1"].tolist()


def test_a_network_whose_training_is_not_known_is_measured_all_the_same(tmp_path):
    """As a teacher that a compression saved, or what `save_generator` writes without a provenance."""
    save_generator(network(GENERATORS["pix2pix"]), tmp_path / "plain")
    row = Evaluator(task()).evaluate("plain", tmp_path / "plain").result
    assert (row.steps, row.train_seconds) == (None, None) and row.params and row.weights


def test_the_command_measures_a_folder_in_either_direction(tmp_path, capsys):
    """As a student of `i2i compress --direction BtoA` is to be measured: here B is white, and A black."""
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for name in "abc":
            pair = Image.new("RGB", (32, 16))
            pair.paste("white", (16, 0, 32, 16))
            pair.save(tmp_path / part / f"{name}.png")
    generator = trained(GENERATORS["pix2pix"])
    save_generator(generator, tmp_path / "student")
    found = []
    for direction, source, target in (("AtoB", -1.0, 1.0), ("BtoA", 1.0, -1.0)):
        words = [str(tmp_path / "student"), str(tmp_path), "--size", "16", "--direction", direction, "--json"]
        assert main(["evaluate", *words]) == 0, capsys.readouterr().err
        found.append(json.loads(capsys.readouterr().out)["l1"])
        with torch.no_grad():
            made = generator(torch.full((1, 3, 16, 16), source))
        assert found[-1] == pytest.approx((made - target).abs().mean().item(), abs=0.01)
    assert abs(found[0] - found[1]) > 0.1
    save_task(task(), tmp_path / "data")
    assert main(["evaluate", str(tmp_path / "student"), str(tmp_path / "data"), "--direction", "BtoA"]) == 1
    assert "is a saved task, which has its direction: --direction is for a folder" in capsys.readouterr().err


def test_fewer_pictures_are_spread_over_the_part(weights):
    toy = task()
    every, some = Evaluator(toy).evaluate("gcka", weights), Evaluator(toy, most=3).evaluate("gcka", weights)
    assert some.per_image["l1"].tolist() == pytest.approx(every.per_image["l1"][[0, 2, 5]].tolist(), abs=1e-3)
    assert (some.result.images, some.result.blocks) == (3, 3)
    assert some.result.protocol != every.result.protocol, "numbers of other pictures do not compare"


def test_fewer_pictures_keep_their_scenes_and_both_domains():
    a, b = tiles(n=9, size=16), tiles(n=5, size=16)
    apart = replace(a, target=b.target, target_box=b.target_box, paired=False)
    toy = replace(task(), test=apart, info=task().info | {"test_scenes": list("abcdefghi")})
    some = _fewer(toy, "test", 4)
    assert (len(some.test), len(some.test.target)) == (4, 4)
    assert some.info["test_scenes"] == list("acfi") and len(toy.info["test_scenes"]) == 9
    with pytest.raises(ValueError, match="most is at least 2, or 0 for all, got 1"):
        Evaluator(task(), most=1)


def test_settings_are_chosen_on_the_validation_part(weights):
    toy = task()
    held = tiles(n=4, size=16, seed=2)
    evaluator = Evaluator(replace(toy, validation=held), part="validation")
    found = evaluator.evaluate("gcka", weights)
    with torch.no_grad():
        made = load_generator(weights)(encode(held.source))
    assert (found.pictures.int() - quantise(made).int()).abs().max() <= 1 and found.result.images == 4
    assert torch.equal(found.per_image["l1"], l1(found.pictures, held.target))
    assert "toy validation tiles of 16 px" in found.result.protocol
    assert torch.equal(evaluator.task.test.source, held.source)
    with pytest.raises(ValueError, match=r"toy has no validation part: make its data with validation=0\.1"):
        Evaluator(toy, part="validation")


def test_fid_is_taken_to_the_real_pictures_of_the_authors(tmp_path):
    """Of `maps` to the test's own, as large as they are; without pairs to all; else to those that are translated."""
    assert _authors_real(task("pix2pix")) is None and _authors_real(task("gaugan")) is None
    pictures, name = _authors_real(task("cyclegan")) or ([], "")
    assert name == "toy all 14 training and test tiles of 16 px" and sum(map(len, pictures)) == 14
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for number in range(3):
            Image.new("RGB", (60, 30), (number, 0, 0)).save(tmp_path / part / f"{number}.png")
    pictures, name = _authors_real(load_task("maps", image_size=12, path=tmp_path)) or ([], "")
    assert name == "maps test pictures at their own size"
    assert [(picture.shape, picture[0, 0, 0, 0].item()) for picture in pictures] == [
        ((1, 3, 30, 30), n) for n in range(3)
    ]
    back = load_task("maps", image_size=12, path=tmp_path, direction="BtoA")
    assert _authors_real(back) is None, "generated maps are not aerial photographs"


def test_yardsticks_need_no_weights():
    toy = task()
    evaluator = Evaluator(toy)
    floor, look_up = evaluator.evaluate("floor"), evaluator.evaluate("look-up")
    # Real pictures of other places, cut from the middle, have no target of their own.
    assert torch.equal(floor.pictures, toy.train.target[[0, 1, 2, 4, 5, 7], :, 12:28, 12:28])
    assert floor.per_image == {} and floor.result.l1 is None and floor.result.params is None
    assert look_up.result.l1 is not None and look_up.result.kd != floor.result.kd
    with pytest.raises(ValueError, match="'gcka' is not one of floor, look-up: pass the path of its weights"):
        evaluator.evaluate("gcka")


def test_true_pictures_are_at_no_distance():
    evaluator = Evaluator(task())
    row = evaluator.measure("truth", evaluator.target).result
    assert (row.l1, row.ssim, row.feature_distance) == (0, pytest.approx(1), 0)
    assert row.kd == pytest.approx(0, abs=1e-9) and row.fd == pytest.approx(0, abs=1e-6)


def test_without_pairs_only_sets_are_compared():
    toy = task("cyclegan")
    toy = replace(toy, test=replace(toy.test, target=torch.cat([toy.test.target, toy.test.target])))
    evaluator = Evaluator(toy)
    assert len(evaluator.source) == len(evaluator.target) == 6, "as many of the one as of the other"
    assert evaluator.blocks.tolist() == list(range(6))
    found = evaluator.evaluate("look-up")
    transfer = ColourTransfer(toy.train.source, toy.train.target)
    assert torch.equal(found.pictures, quantise(transfer(toy.test.source)))
    assert found.per_image == {} and found.result.l1 is None
    extract = evaluator._extract
    kd = 1000 * kernel_distance(extract(evaluator.target).pooled, extract(found.pictures).pooled)
    assert found.result.kd == pytest.approx(kd)
    low, high = found.result.kd_low, found.result.kd_high
    assert low is not None and high is not None and low < kd < high


def test_labels_are_read_back_from_pictures():
    toy = task("gaugan")
    evaluator = Evaluator(toy, segmenter_steps=2)
    found = evaluator.measure("truth", evaluator.target)
    ceiling = evaluator.read_labels(evaluator.target)
    assert found.miou == ceiling and ceiling is not None and found.result.miou == ceiling.value
    assert evaluator.evaluate("floor").miou is None, "other places have other labels"


def test_missing_weights_are_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("I2I_DRN", str(tmp_path / "absent.pth"))
    toy = replace(task(), name="cityscapes")
    toy.info.update(test_scenes=[], options={}, direction="AtoB")
    evaluator = Evaluator(toy)
    assert evaluator.labels_missing and "Mean IoUs on Cityscapes are left out" in evaluator.labels_missing
    assert evaluator.read_labels(evaluator.target) is None
    toy.info["direction"] = "BtoA"
    assert Evaluator(toy).labels_missing is None, "painted labels are no photographs to segment"
