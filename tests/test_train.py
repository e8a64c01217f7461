"""One step of each trainer on toy networks, and the loop's promises: resume, refusal, averages."""

import json
import re
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.files import exclusive
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
from i2i_lib.losses import kernel_alignment
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.distill import ALIGNMENTS
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.nonfinite import not_finite
from i2i_lib.train.pix2pix import PairedDistiller, PairedTrainer

CONFIG = TrainConfig(steps=20, lr=1e-3, recon=10.0, average=0.8)


def generator(seed: int = 0, base: int = 4) -> InceptionGenerator:
    made = InceptionGenerator(cat_teacher(base, 3, "batch"))
    init_weights(made, seed=seed)
    return made


def discriminator() -> PatchDiscriminator:
    made = PatchDiscriminator(DiscriminatorConfig(base=4))
    init_weights(made, seed=9)
    return made


def batches(first: int):
    step = first
    while True:
        colours = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(step)) * 2 - 1
        source = F.interpolate(colours, (32, 32), mode="bilinear")
        yield Batch(source, -source)
        step += 1


def trainer(config: TrainConfig = CONFIG) -> PairedTrainer:
    return PairedTrainer(generator(), discriminator(), config)


def test_training_lowers_the_distance_to_the_target(tmp_path):
    t = trainer(TrainConfig(steps=80, lr=1e-2, recon=100.0))
    rows = fit(t.step, batches, TrainingRun(tmp_path, t, {}, "toy", log_every=10), 80)
    assert rows[-1]["recon"] < 0.8 * rows[0]["recon"]
    assert t.opt_g.param_groups[0]["lr"] == pytest.approx(1e-2 / 40)  # the last of forty steps of decay


@pytest.mark.parametrize(("name", "choices"), [("gan", "hinge, lsgan"), ("precision", "bf16, fp32")])
def test_a_config_knows_its_choices(name, choices):
    given: dict[str, Any] = {"steps": 1, name: "wgan"}
    with pytest.raises(ValueError, match=f"{name} is one of {choices}, got 'wgan'"):
        TrainConfig(**given)


def test_compiled_networks_train_alike_and_are_saved_bare(monkeypatch):
    # Traced, but not built, which would take a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = (trainer(replace(CONFIG, compiled=choice)) for choice in (False, True))
    torch.testing.assert_close(compiled.step(next(batches(0))), plain.step(next(batches(0))))
    assert compiled.state_dict()["generator"].keys() == plain.state_dict()["generator"].keys()


@pytest.mark.parametrize("kind", [*ALIGNMENTS, "mse", "none"])
def test_distillation_moves_the_student_and_nothing_else(kind):
    teacher, student = generator(1, base=8), generator(2)
    frozen = [p.clone() for p in teacher.state_dict().values()]
    distiller = PairedDistiller(student, teacher, discriminator(), TrainConfig(20, 2e-3, recon=0.0, distill=5.0), kind)
    first, *_, last = [distiller.step(batch) for batch, _ in zip(batches(0), range(15), strict=False)]
    assert all(torch.equal(a, b) for a, b in zip(frozen, teacher.state_dict().values(), strict=True))
    assert all(torch.isfinite(loss) for loss in last.values())
    assert ("distill" in last) == (kind != "none")
    if kind != "none":
        assert last["distill"] < first["distill"]


def test_the_distance_is_shared_between_the_truth_and_the_teachers_pictures():
    teacher, student = generator(1, base=8), generator(2)
    config = TrainConfig(20, recon=10.0, imitate=0.25)
    distiller = PairedDistiller(student, teacher, discriminator(), config, "none")
    batch = next(batches(0))
    with torch.no_grad():
        fake, image = student(batch.source), teacher(batch.source)
    losses = distiller.step(batch)
    torch.testing.assert_close(losses["recon"], 7.5 * F.l1_loss(fake, batch.target))
    torch.testing.assert_close(losses["imitate"], 2.5 * F.l1_loss(fake, image))


def test_gcka_of_a_step_is_that_of_the_features_it_saw():
    teacher, student = generator(1, base=8), generator(2)
    distiller = PairedDistiller(student, teacher, discriminator(), TrainConfig(20, distill=1.0), "gcka")
    batch = next(batches(0))
    with torch.no_grad():  # batch norm in train mode: as in the step
        features = student.train().forward_features(batch.source)[1]
        wanted = teacher.forward_features(batch.source)[1]
    losses = distiller.step(batch)
    for i, (x, y) in enumerate(zip(features, wanted, strict=True), start=1):
        torch.testing.assert_close(losses[f"layer{i}"], kernel_alignment(x, y))


@pytest.mark.parametrize("kind", [*ALIGNMENTS, "mse", "none"])
def test_a_step_reads_nothing_from_the_device(kind):
    """A value read, even a flag, would make a GPU wait for the host."""

    class Reads(TorchFunctionMode):
        count = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.count += getattr(func, "__name__", "") in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu")
            return func(*args, **(kwargs or {}))

    distiller = PairedDistiller(generator(2), generator(1, base=8), discriminator(), TrainConfig(20, distill=1.0), kind)
    batch = next(batches(0))
    with Reads() as reads:
        distiller.step(batch)
    assert reads.count == 0
    with Reads() as reads:
        distiller.check()
    assert reads.count == (kind in ALIGNMENTS)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_features_that_do_not_vary_stop_the_run_and_name_the_layer(kind, tmp_path):
    def step(batch):
        if distiller.count == 12:
            with torch.no_grad():
                distiller.generator.stem[-1].norm.weight.zero_()  # of layer 1, whose shifts are zero
                distiller.generator.stem[-1].norm.bias.zero_()
        return distiller.step(batch)

    config = TrainConfig(20, distill=1.0)
    distiller = PairedDistiller(generator(2), generator(1, base=8), discriminator(), config, kind)
    with pytest.raises(ValueError, match="alignment of layer 1 is undefined: the features of the student do not vary"):
        fit(step, batches, TrainingRun(tmp_path, distiller, {}, "toy", log_every=2), 20)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10


def test_an_interrupted_training_ends_in_the_same_bits(tmp_path):
    whole, parts = trainer(), [trainer(), trainer()]
    rows = fit(whole.step, batches, TrainingRun(tmp_path / "whole", whole, {"a": 1}, "toy", log_every=2), 20)

    calls = 0

    def dies(batch):
        nonlocal calls
        calls += 1
        if calls > 13:
            raise KeyboardInterrupt
        return parts[0].step(batch)

    run = [TrainingRun(tmp_path / "parts", part, {"a": 1}, "toy", log_every=2) for part in parts]
    with pytest.raises(KeyboardInterrupt):
        fit(dies, batches, run[0], 20)
    resumed = fit(parts[1].step, batches, run[1], 20)
    assert parts[1].count == 20 and calls == 14
    same = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in resumed] == same
    for a, b in zip(whole.generator.parameters(), parts[1].generator.parameters(), strict=True):
        assert torch.equal(a, b)
    results = [t.result(batches, 3).state_dict() for t in (whole, parts[1])]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, capsys):
    fit((a := trainer()).step, batches, TrainingRun(tmp_path, a, {"lr": 1}, "toy", log_every=2), 10)
    fit((b := trainer()).step, batches, TrainingRun(tmp_path, b, {"lr": 1}, "toy", log_every=2), 10)
    assert b.count == 10 and b.opt_g.state_dict()["state"]  # loaded whole
    left = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "losses.jsonl")}
    assert "toy" not in capsys.readouterr().out
    steps = []
    fit(lambda x: (steps.append(1), trainer().step(x))[1], batches, TrainingRun(tmp_path, a, {"lr": 2}, "toy"), 3)
    assert len(steps) == 3
    assert "toy: beginning anew; another training's files are kept as *.previous" in capsys.readouterr().out
    assert {name: (tmp_path / f"{name}.previous").read_bytes() for name in left} == left


def test_a_training_that_is_not_whole_is_not_passed_off_as_one(tmp_path):
    """Neither one whose batches ended early nor one that ended and then lost its log."""

    def train(batches):
        fit((a := trainer()).step, batches, TrainingRun(tmp_path, a, {}, "toy", log_every=2), 10)

    with pytest.raises(ValueError, match="toy: its batches ended after step 4 of 10: they must never end"):
        train(lambda first: islice(batches(first), 4))
    train(batches)
    (tmp_path / "losses.jsonl").unlink()
    with pytest.raises(ValueError, match=r"toy: it has ended, but its log losses\.jsonl is gone .*delete checkpoint"):
        train(batches)


def test_a_torn_log_line_is_cut(tmp_path):
    fit((a := trainer()).step, batches, TrainingRun(tmp_path, a, {}, "toy", log_every=2), 10)
    log = tmp_path / "losses.jsonl"
    log.write_text(log.read_text() + '{"step": 12, "se')
    rows = fit((b := trainer()).step, batches, TrainingRun(tmp_path, b, {}, "toy", log_every=2), 10)
    assert [r["step"] for r in rows] == [2, 4, 6, 8, 10]
    assert [json.loads(line) for line in log.read_text().splitlines()] == rows


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    def step(batch):
        losses = t.step(batch)
        return losses | {"gan": losses["gan"] * float("nan")} if t.count > 12 else losses

    t = trainer()
    with pytest.raises(
        FloatingPointError, match=r"toy: loss gan is not finite at step 14 \(first: the loss gan at step 13"
    ):
        fit(step, batches, TrainingRun(tmp_path, t, {}, "toy", log_every=2), 20)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10


@pytest.mark.parametrize("layer", ["generator.blocks.1.conv.k3.expand.norm", "discriminator.model.2"])
@pytest.mark.parametrize("after", [0, 13])
def test_the_layer_whose_numbers_went_bad_is_named(layer, after, tmp_path):
    """All layers are bad a step later; the first is found by going back to a checkpoint, the initial one if need be."""
    part, name = layer.split(".", 1)

    def step(batch):
        if t.count == after:
            with torch.no_grad():
                getattr(t, part).get_parameter(f"{name}.weight")[0] = float("inf")
        return t.step(batch)

    t = trainer()
    said = rf"is not finite at step .*\(first: the output of {re.escape(layer)} at step {after + 1}\).*kept"
    with pytest.raises(FloatingPointError, match=said):
        fit(step, batches, TrainingRun(tmp_path, t, {}, "toy", log_every=2), 20)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == (10 if after else 0) and not not_finite(kept["trainer"])


def test_a_gradient_that_is_not_finite_is_named_and_its_weights_are_not_kept(tmp_path):
    """At the last step before a checkpoint every loss is still finite."""

    def step(batch):
        if t.count == 9:
            t.generator.head.weight.register_hook(lambda gradient: gradient * float("nan"))
        return t.step(batch)

    t = trainer()
    with pytest.raises(
        FloatingPointError, match=r"generator\.head\.weight is not finite at step 10 .*gradient of generator"
    ):
        fit(step, batches, TrainingRun(tmp_path, t, {}, "toy", log_every=2), 20)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 0


def test_a_damaged_checkpoint_says_so(tmp_path):
    fit((a := trainer()).step, batches, TrainingRun(tmp_path, a, {}, "toy", log_every=2), 2)
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damage in (whole[:-500], whole[:40], b"", b"\x80\x04 pickle", b"text"):
        checkpoint.write_bytes(damage)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged \(.*delete it, to train from the beginning"):
            fit((b := trainer()).step, batches, TrainingRun(tmp_path, b, {}, "toy", log_every=2), 2)


def test_too_little_memory_names_what_to_lower(tmp_path):
    t = trainer()
    with pytest.raises(MemoryError, match=r"toy: out of memory, lower batch_size, image_size or base \(.*allocate"):
        fit(lambda batch: {"a": torch.empty(10**15)}, batches, TrainingRun(tmp_path, t, {}, "toy"), 2)


def test_other_errors_that_speak_of_memory_keep_their_name(tmp_path):
    def step(batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="an illegal memory access"):
        fit(step, batches, TrainingRun(tmp_path, trainer(), {}, "toy"), 2)


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    t = trainer()
    with exclusive(tmp_path / "lock", "it"), pytest.raises(RuntimeError, match="is in use by process"):
        fit(t.step, batches, TrainingRun(tmp_path, t, {}, "toy"), 2)


def test_averaged_weights_bring_their_own_statistics():
    """The average of equal weights is those weights; its batch-norm statistics are those of the batches given."""
    t = trainer(TrainConfig(steps=5, lr=1e-30, average=0.5))
    for batch, _ in zip(batches(0), range(5), strict=False):
        t.step(batch)
    result = t.result(batches, 4)
    assert not result.training
    conv, norm, source = (
        result.get_submodule("stem.0.conv"),
        result.get_submodule("stem.0.norm"),
        torch.cat([b.source for b, _ in zip(batches(0), range(4), strict=False)]),
    )
    with torch.no_grad():
        before = conv(source)
    torch.testing.assert_close(norm.get_buffer("running_mean"), before.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
