"""The training loop: it resumes to the bit, refuses what is damaged or of another training, names what went bad."""

import json
import re
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import FAMILIES, GENERATORS, batches, distiller, network, same, trainer

from i2i_lib.data.tiles import Family, Task, encode, placeless_tiles
from i2i_lib.prune import norm_scales
from i2i_lib.scales import ScaleNotes, load_scales, save_scales, scales_after
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.distill import ALIGNMENTS
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.nonfinite import not_finite
from i2i_lib.train.recipe import followed_by
from i2i_lib.train.snapshots import WIDTH, Snapshots, read_frames

CONFIG = TrainConfig(steps=20, lr=1e-3, recon=10.0, average=0.8)


def run(
    folder: Path, t: Any, steps: int = 20, *, step: Any = None, family: Family = "pix2pix", inputs: Any = None
) -> list[dict[str, float]]:
    """Train with a line in the log every second step, and thus a checkpoint every tenth."""
    return fit(step or t.step, batches(family), TrainingRun(folder, t, inputs or {}, "toy", log_every=2), steps)


def kept_step(folder: Path) -> int:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


@pytest.mark.parametrize(
    ("family", "precision"), [*((family, "fp32") for family in FAMILIES), ("pix2pix", "fp16"), ("cyclegan", "fp16")]
)
def test_an_interrupted_training_ends_in_the_same_bits(family, precision, tmp_path):
    """With optimisers, running averages, the vectors of spectral norms, CycleGAN's pool, and float16's scaler."""
    options: dict[str, Any] = {"pool": 3} if family == "cyclegan" else {}
    config = replace(CONFIG, steps=14, precision=precision)
    whole, killed, resumed = (trainer(family, config, **options) for _ in range(3))
    for t in (whole, killed, resumed):
        grow_scales_each_third_step(t)
    rows = run(tmp_path / "whole", whole, 14, family=family)

    def dies(batch):
        if killed.count == 12:
            raise KeyboardInterrupt
        return killed.step(batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", killed, 14, step=dies, family=family)
    torch.rand(3)  # nothing in a step depends on the global random numbers
    again = run(tmp_path / "parts", resumed, 14, family=family)
    for row in [*rows, *again]:
        del row["seconds"]
    assert again == rows
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(*(t.result(batches(family), 3) for t in (whole, resumed)))
    for side in (whole.ab, whole.ba) if family == "cyclegan" else (whole,):
        for optimiser in (side.opt_g, side.opt_d):  # the last of seven steps of decay
            assert optimiser.param_groups[0]["lr"] == pytest.approx(optimiser.defaults["lr"] / 7)


def grow_scales_each_third_step(t: Any) -> None:
    """Have the scale of a float16 loss change within a short training; else it grows every 2,000 steps."""
    for side in (t.ab, t.ba) if hasattr(t, "ab") else (t,):
        side.scaler.set_growth_interval(3) if side.scaler.is_enabled() else None


def test_updates_that_float16_left_out_are_said(tmp_path, capsys):
    t = trainer("cyclegan", replace(CONFIG, precision="fp16"))
    for side in (t.ab, t.ba):
        side.scaler.load_state_dict(side.scaler.state_dict() | {"scale": 2.0**120})
    run(tmp_path, t, 4, family="cyclegan")
    assert t.skipped() == 16, "four networks, four steps"
    assert "toy: 16 updates were left out, since float16 was too narrow for their" in capsys.readouterr().out
    plain = trainer("cyclegan", CONFIG)
    run(tmp_path / "fp32", plain, 4, family="cyclegan")
    assert plain.skipped() == 0 and "left out" not in capsys.readouterr().out


def test_float16_gives_up_when_no_scale_is_small_enough(tmp_path):
    t = trainer("pix2pix", replace(CONFIG, precision="fp16"))
    t.scaler.load_state_dict(t.scaler.state_dict() | {"scale": 2.0**-25})
    with pytest.raises(ValueError, match=r"float16 is too narrow for this training: .*use precision='bf16' or 'fp32'"):
        run(tmp_path, t, 4)


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, capsys):
    first, again, other = (trainer("pix2pix", CONFIG) for _ in range(3))
    run(tmp_path, first, 10, inputs={"lr": 1})
    run(tmp_path, again, 10, inputs={"lr": 1})
    assert same(again.state_dict(), first.state_dict())
    left = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "losses.jsonl")}
    assert "toy" not in capsys.readouterr().out
    run(tmp_path, other, 4, inputs={"lr": 2})
    assert other.count == 4
    assert "toy: beginning anew, since settings changed; the files of the training before" in capsys.readouterr().out
    assert {name: (tmp_path / f"{name}.previous").read_bytes() for name in left} == left


def test_batches_that_end_and_a_log_that_is_gone_are_errors(tmp_path):
    t = trainer("pix2pix", CONFIG)
    with pytest.raises(ValueError, match="toy: its batches ended after step 4 of 10: they must never end"):
        fit(t.step, lambda first: islice(batches()(first), 4), TrainingRun(tmp_path, t, {}, "toy"), 10)
    run(tmp_path, trainer("pix2pix", CONFIG), 10)
    (tmp_path / "losses.jsonl").unlink()
    with pytest.raises(ValueError, match=r"toy: it has ended, but its log losses\.jsonl is gone .*delete checkpoint"):
        run(tmp_path, trainer("pix2pix", CONFIG), 10)


def test_a_torn_log_line_is_cut(tmp_path):
    run(tmp_path, trainer("pix2pix", CONFIG), 10)
    log = tmp_path / "losses.jsonl"
    log.write_text(log.read_text() + '{"step": 12, "se')
    rows = run(tmp_path, trainer("pix2pix", CONFIG), 10)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert [json.loads(line) for line in log.read_text().splitlines()] == rows


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run(tmp_path, trainer("pix2pix", CONFIG), 2)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damage in (whole[:-500], whole[:40], b"", b"\x80\x04 pickle", b"text"):
        checkpoint.write_bytes(damage)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
            run(tmp_path, trainer("pix2pix", CONFIG), 2)


def test_only_too_little_memory_is_explained_as_such(tmp_path):
    def step(batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="an illegal memory access"):
        run(tmp_path, trainer("pix2pix", CONFIG), step=step)


# --- numbers that are not finite -------------------------------------------------------------------------------------


def spoil(part: str, layer: str) -> Any:
    def infinite(t):
        with torch.no_grad():
            getattr(t, part).get_parameter(f"{layer}.weight")[0] = float("inf")

    return infinite


def spoil_gradient(t: Any) -> None:
    t.generator.head.weight.register_hook(lambda gradient: gradient * float("nan"))


def spoil_loss(t: Any) -> None:
    step = type(t).step
    t.step = lambda batch: step(t, batch) | ({"gan": torch.tensor(float("nan"))} if t.count > 12 else {})


NORM = "blocks.1.conv.k3.expand.norm"


@pytest.mark.parametrize(
    ("change", "at", "message", "kept"),
    [
        (spoil("generator", NORM), 0, f"first: the output of generator.{NORM} at step 1)", 0),
        (spoil("generator", NORM), 13, f"first: the output of generator.{NORM} at step 14)", 10),
        (spoil("discriminator", "model.2"), 0, "first: the output of discriminator.model.2 at step 1)", 0),
        (spoil("discriminator", "model.2"), 13, "first: the output of discriminator.model.2 at step 14)", 10),
        (spoil_loss, 12, "toy: loss gan is not finite at step 14 (first: the loss gan at step 13", 10),
        # At the last step before a checkpoint every loss is still finite.
        (spoil_gradient, 9, "generator.head.weight is not finite at step 10 (first: the gradient of generator.head", 0),
    ],
)  # fmt: skip
def test_what_went_bad_first_is_named_and_not_kept(change, at, message, kept, tmp_path):
    """All layers are bad a step later; the first is found by going back to a checkpoint, the initial one if need be."""
    t = trainer("pix2pix", CONFIG)

    def step(batch):
        if t.count == at:
            change(t)
        return t.step(batch)

    with pytest.raises(FloatingPointError, match=re.escape(message)):
        run(tmp_path, t, step=step)
    assert kept_step(tmp_path) == kept
    assert not not_finite(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trainer"])


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_features_that_do_not_vary_stop_the_run_and_name_the_layer(kind, tmp_path):
    t = distiller("pix2pix", TrainConfig(steps=20, distill=1.0), kind)

    def step(batch):
        if t.count == 12:
            with torch.no_grad():
                t.generator.stem[-1].norm.weight.zero_()  # of layer 1, whose shifts are zero
                t.generator.stem[-1].norm.bias.zero_()
        return t.step(batch)

    with pytest.raises(ValueError, match="alignment of layer 1 is undefined: the features of the student do not vary"):
        run(tmp_path, t, step=step)
    assert kept_step(tmp_path) == 10


# --- norm scales, noted while a teacher trains ----------------------------------------------------------------------


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
    step = followed_by([notes], trainer, trainer.generator)
    assert [step(i)["loss"].item() for i in range(20)] == list(range(20))
    history = notes.history(trainer.generator)
    assert [(note.step, note.scales["stem.0"][0]) for note in history] == [(s, s + 1.0) for s in (*notes.due, 20)]
    save_scales(history, tmp_path / "scales")
    assert load_scales(tmp_path / "scales") == history
    assert [scales_after(history, share)["up.1"][0] for share in (0.0, 0.2, 0.8, 1.0)] == [2.0, 5.0, 16.0, 21.0]
    (tmp_path / "scales.json").write_text('[{"steps": 1}]')
    with pytest.raises(ValueError, match=r"scales\.json does not hold norm scales"):
        load_scales(tmp_path / "scales")
    trainer.generator.get_parameter("stem.0.norm.weight").data.fill_(torch.nan)
    notes.take(99, trainer.generator)
    assert not (tmp_path / "notes" / "99.json").exists(), "`fit` is to say what is wrong"


def test_snapshots_show_the_validation_part_and_change_nothing(tmp_path):
    height = 16
    pictures = torch.randint(256, (20, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train = placeless_tiles(pictures, pictures)
    test = placeless_tiles(pictures[..., :height, :height], pictures[..., :height, :height], torch.arange(20))
    task = Task("toy", "pix2pix", train, test, {})
    plain, watched = (trainer("pix2pix", TrainConfig(steps=9, lr=1e-3)) for _ in range(2))
    snapshots = Snapshots(tmp_path, 9, replace(task, validation=test))
    assert torch.equal(snapshots.sources[0], encode(test.source[:1])[0])
    step = followed_by([snapshots], watched, watched.generator)
    for _, batch in zip(range(9), batches()(0), strict=False):
        plain.step(batch)
        step(batch)
    assert same(plain.state_dict(), watched.state_dict())
    frames = read_frames(tmp_path)
    assert list(frames) == snapshots.due and snapshots.due[0] == 1 and snapshots.due[-1] == 9
    with Image.open(BytesIO(frames[9])) as row:
        assert row.size == (WIDTH * height, height)
    watched.generator.head.weight.data.fill_(torch.nan)
    snapshots.take(99, watched.generator)
    assert list(read_frames(tmp_path)) == snapshots.due, "`fit` is to say what is wrong"
    # Without a validation part, of the training's pictures the middle.
    middle = Snapshots(tmp_path, 9, task).sources
    assert torch.equal(middle[0], encode(pictures[:1, :, 4:20, 4:20])[0])
