"""Norm scales noted while a teacher trains."""

import pytest
import torch
from toys import GENERATORS, network

from i2i_lib.prune import norm_scales
from i2i_lib.scales import ScaleNotes, load_scales, save_scales, scales_after


class Trainer:
    """Every step adds 1 to all scales."""

    def __init__(self) -> None:
        self.generator, self.count = network(GENERATORS["pix2pix"]), 0

    def step(self, batch):
        self.count += 1
        with torch.no_grad():
            for layer in norm_scales(self.generator):
                norm = f"{layer}.expand.norm" if layer.startswith("blocks") else f"{layer}.norm"
                self.generator.get_parameter(f"{norm}.weight").add_(1)
        return {"loss": torch.tensor(float(batch))}


def test_scales_are_noted_when_due_and_come_back_from_disk(tmp_path):
    trainer, notes = Trainer(), ScaleNotes(tmp_path / "notes", 20)
    assert notes.due == [1, 2, 4, 7, 10, 15]
    step = notes.after(trainer, trainer.generator)
    assert [step(i)["loss"].item() for i in range(20)] == list(range(20))
    history = notes.history(trainer.generator)
    assert [(note.step, note.scales["stem.0"][0]) for note in history] == [(s, s + 1.0) for s in (*notes.due, 20)]
    save_scales(history, tmp_path / "scales")
    assert load_scales(tmp_path / "scales") == history
    assert [scales_after(history, share)["up.1"][0] for share in (0.0, 0.2, 0.8, 1.0)] == [2.0, 5.0, 16.0, 21.0]
    (tmp_path / "scales.json").write_text('[{"steps": 1}]')
    with pytest.raises(ValueError, match=r"scales\.json does not hold norm scales"):
        load_scales(tmp_path / "scales")
