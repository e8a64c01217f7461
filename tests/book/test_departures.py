"""The table of departures: every row says what presets and library do; what no other test holds is held here."""

import re
from itertools import islice

import pytest
import torch
from torch import nn
from toys import DISCRIMINATORS, GENERATORS, batches, task, tiles, trainer

from i2i_book.departures import Departure, departures, found, table
from i2i_book.presets import load_preset, preset_parameters
from i2i_book.runs import root
from i2i_lib.checkpoint import build as build_network
from i2i_lib.config import cat_spade_teacher
from i2i_lib.data.batches import unpaired_batches
from i2i_lib.data.store import save_task
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.recipe import Recipe, build


@pytest.mark.parametrize("row", departures(), ids=lambda row: row.what)
def test_every_row_is_true(row: Departure):
    assert row.held, "a row that nothing holds may be wrong"
    for held in row.held:
        if "test" in held:
            file, name = held["test"].split("::")
            assert re.search(rf"^def {name}\(", (root() / file).read_text(), re.M), f"{held['test']} is gone"
        else:
            assert found(held) == held["values"]


def test_the_page_shows_what_is_set(monkeypatch):
    """A preset that is changed shows in the table at once, whatever the file says."""
    rows = departures()
    (weight,) = (row for row in rows if row.what == "Weight of the distillation")
    assert "horse2zebra: distill 4.0" in table([weight])["as set"].item()
    changed = load_preset("paper")
    changed["notebooks"]["04-distillation"]["+horse2zebra"]["distill"] = 3.0
    monkeypatch.setattr("i2i_book.departures.load_preset", lambda name: changed)
    assert "horse2zebra: distill 3.0" in table([weight])["as set"].item()
    assert {row.differs for row in rows} == {True, False}


@pytest.mark.parametrize(
    "preset, task, authors",
    [("paper", t, "official") for t in ("maps", "cityscapes", "horse2zebra", "zebra2horse")]
    + [("paper-gaugan", "cityscapes", "official-gaugan")],
)
def test_the_students_of_two_indices_differ_in_nothing_else(preset, task, authors):
    """The rule for GCKA's weight."""
    settings = load_preset(preset)
    ours, theirs = (preset_parameters(settings, "04-distillation", task, arm) for arm in ("gcka", authors))
    assert {key for key in theirs if theirs[key] != ours.get(key)} == {"index", "shard"}
    assert {"gcka", authors, "none"} == {*settings["arms"]}


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan", "gaugan"])
def test_trainings_start_from_the_authors_spread(family, tmp_path):
    """Of their initialisation: N(0, .02), or Xavier's normal times .02; biases 0; norm scales of 1, or N(1, .02)."""
    save_task(task(family), tmp_path / "data")
    generator = cat_spade_teacher(8, 4, 2) if family == "gaugan" else GENERATORS[family]
    training = TrainConfig(steps=4)
    for start in ("random", "noisy"):
        recipe = Recipe("data", generator, DISCRIMINATORS[family], training, 2, start=start)
        made, *_ = build(recipe, tmp_path, task(family), torch.device("cpu"))
        side = made.ab if family == "cyclegan" else made
        drawn, scales = [], []
        for part in [*side.generator.modules(), *side.discriminator.modules()]:
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                spectral = getattr(part, "parametrizations", None)
                weight = spectral.weight.original if spectral else part.weight
                inputs, outputs = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
                spread = 0.02 * (2 / (inputs + outputs)) ** 0.5 if family == "gaugan" else 0.02
                drawn.append(weight.detach().flatten() / spread)
                assert part.bias is None or not part.bias.any()
            elif isinstance(part, nn.BatchNorm2d) and part.affine:
                scales.append(part.weight.detach())
        drawn, scales = torch.cat(drawn), torch.cat(scales)
        assert drawn.mean().abs() < 0.03 and drawn.std() == pytest.approx(1, abs=0.03)
        if start == "random":
            assert scales.eq(1).all()
        else:
            assert ((scales - 1) / 0.02).std() == pytest.approx(1, abs=0.25)


def test_gaugans_generators_have_plain_relus():
    network = build_network(GENERATORS["gaugan"])
    assert any(isinstance(part, nn.ReLU) for part in network.modules())
    assert not any(isinstance(part, nn.LeakyReLU) for part in network.modules())


def test_the_last_step_is_kept():
    made = trainer("pix2pix", TrainConfig(steps=2, average=0.0))
    for batch in islice(batches()(0), 2):
        made.step(batch)
    assert made.result(batches()) is made.generator


def test_the_learning_rate_falls_to_nothing():
    """At every step from `decay_from` on, along a line that meets 0 where the training ends."""
    made = trainer("pix2pix", TrainConfig(steps=6, lr=1.0, decay_from=0.5))
    rates = []
    for made.count in range(6):
        made.decay()
        rates.append(made.opt_g.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])


def test_both_domains_are_seen_once_an_epoch():
    draw = unpaired_batches(tiles("cyclegan", n=12), image_size=20, batch_size=4, seed=0)
    seen = list(islice(draw(0), 3))
    for images in (torch.cat([batch.source for batch in seen]), torch.cat([batch.target for batch in seen])):
        sums = (127.5 * (images + 1)).round().long().sum((2, 3))  # which a mirror leaves alone
        assert len(sums.unique(dim=0)) == 12
