"""The memory of the published trainings, counted on tensors without numbers."""

from typing import Any

import pytest
import torch
from test_first_minutes import benchmark

from i2i_book.estimate import Work, estimates
from i2i_book.presets import load_preset, preset_parameters
from i2i_lib.checkpoint import build
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.tiles import Batch
from i2i_lib.files import root
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.pix2pix import PairedTrainer

memory = benchmark("bench_memory")
TABLE = root() / "book" / "measured" / "published-memory.txt"


def test_micro_batches_take_less_memory_and_passes_computed_again_less_than_all_kept():
    def peak(**saving: Any) -> int:
        generator, judge = cat_teacher(4, 3, "instance"), DiscriminatorConfig(6, 4, 2, norm="instance")

        def make() -> tuple[Any, Batch]:
            images = torch.zeros(8, 3, 64, 64)
            return PairedTrainer(build(generator), build(judge), TrainConfig(4, **saving)), Batch(images, images)

        return memory.step_memory(make).peak

    kept, again, parts = peak(), peak(recompute=True), peak(micro_batch=2)
    assert parts < again < kept


@pytest.mark.parametrize("task", ["horse2zebra", "zebra2horse"])
def test_a_published_teacher_that_would_not_fit_is_set_to(task):
    """Its own batch in 40 GiB, by what its norm allows: batch norm looks at all pictures at once."""
    given = preset_parameters(load_preset("paper"), "02-search-space", task)
    assert given["batch_size"] == 32
    assert bool(given.get("micro_batch")) == (given["norm"] == "instance")
    assert given.get("recompute") or given.get("micro_batch")


def test_the_table_holds_what_is_counted_today():
    """For the training that is counted fastest, up to other versions of PyTorch."""
    taken = next(estimates("paper", "maps", memory.step_memory))
    lines = [line.split() for line in TABLE.read_text().splitlines()]
    row = next(words for words in lines if words[:3] == ["paper", "maps", "teacher"])
    assert taken.network == "teacher" and taken.work.peak / 2**30 == pytest.approx(float(row[-1]), rel=0.05)


def test_the_table_names_every_published_training_and_the_presets_of_today():
    rows = [line.split() for line in TABLE.read_text().splitlines()[2:-1]]
    named = [(preset, task, network) for preset, task, network, *_ in rows]
    found = [
        (preset, task, row.network)
        for preset, tasks in memory.PUBLISHED.items()
        for task in tasks
        for row in estimates(preset, task, lambda make: Work(0, 0))
    ]
    assert named == found
    assert max(float(row[-1]) for row in rows) < memory.LIMIT <= max(float(row[-2]) for row in rows)
