"""CycleGAN on toy networks: the losses of a step by hand, the pool, resume, both directions, and a student."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F

from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.tiles import Batch
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.cyclegan import ImagePool, UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.loop import TrainingRun, fit

CONFIG = TrainConfig(steps=6, lr=1e-3, average=0.8)


def generator(seed: int, base: int = 4) -> InceptionGenerator:
    made = InceptionGenerator(cat_teacher(base, 3, "batch"))
    init_weights(made, seed=seed, gain=0.1)
    return made


def discriminator(seed: int, channels: int = 3) -> PatchDiscriminator:
    made = PatchDiscriminator(DiscriminatorConfig(channels, base=4, n_layers=2))
    init_weights(made, seed=seed, gain=0.1)
    return made


def batches(first: int):
    """Dark pictures to bright ones, drawn apart."""
    for step in itertools.count(first):
        colours = torch.rand(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        dark, bright = (F.interpolate(c, (16, 16), mode="bilinear") for c in colours)
        yield Batch(dark - 1, bright)


def trainer(config: TrainConfig = CONFIG, **weights) -> UnpairedTrainer:
    return UnpairedTrainer(generator(0), generator(1), discriminator(2), discriminator(3), config, **weights)


def run(step, steps: int) -> list[dict[str, float]]:
    rows = [step(batch) for batch in itertools.islice(batches(0), steps)]
    return [{name: value.item() for name, value in row.items()} for row in rows]


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return all(map(same, a, b)) if isinstance(a, list | tuple) else a == b


def test_the_losses_of_a_step_by_hand():
    t = trainer(cycle=8.0, identity=0.25)
    ab, ba, d_a, d_b = (
        copy.deepcopy(net).train() for net in (t.ab.generator, t.ba.generator, t.ba.discriminator, t.ab.discriminator)
    )
    batch = next(batches(0))
    a, b = batch.source, batch.target
    losses = t.step(batch)

    fake_a, fake_b = ba(b), ab(a)
    wanted = {
        "d_a": ((d_a(a) - 1) ** 2).mean() / 2 + (d_a(fake_a.detach()) ** 2).mean() / 2,
        "d_b": ((d_b(b) - 1) ** 2).mean() / 2 + (d_b(fake_b.detach()) ** 2).mean() / 2,
        # The generators are judged by discriminators that have taken their step.
        "gan_a": ((t.ba.discriminator(fake_a) - 1) ** 2).mean(),
        "gan_b": ((t.ab.discriminator(fake_b) - 1) ** 2).mean(),
        "cycle_a": 8 * (ba(fake_b) - a).abs().mean(),
        "cycle_b": 8 * (ab(fake_a) - b).abs().mean(),
        "identity_a": 2 * (ba(a) - a).abs().mean(),
        "identity_b": 2 * (ab(b) - b).abs().mean(),
    }
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value.detach(), msg=lambda m, name=name: f"{name}: {m}")
    # Generators moved by the last six terms alone, discriminators by their own: frozen, they took no other gradient.
    torch.stack(list(wanted.values())).sum().backward()
    for side, copies in ((t.ab, (ab, d_b)), (t.ba, (ba, d_a))):
        for net, by_hand in zip((side.generator, side.discriminator), copies, strict=True):
            for ours, theirs in zip(net.parameters(), by_hand.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_training_closes_the_cycle_and_tells_the_domains_apart():
    t = trainer(TrainConfig(steps=20, lr=1e-2, decay_from=1.0))
    rows = run(t.step, 20)
    for name in ("cycle_a", "cycle_b", "identity_a", "d_a"):
        assert sum(r[name] for r in rows[-3:]) < 0.8 * sum(r[name] for r in rows[:3]), name


def test_an_interrupted_training_ends_in_the_same_bits(tmp_path):
    """The pool too: of 12 fakes a domain it holds 3, so that choices are made before and after the kill."""
    whole, parts = trainer(pool=3), [trainer(pool=3), trainer(pool=3)]
    fit(whole.step, batches, TrainingRun(tmp_path / "whole", whole, {}, "toy", log_every=1), 6)
    calls = 0

    def dies(batch):
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return parts[0].step(batch)

    with pytest.raises(KeyboardInterrupt):
        fit(dies, batches, TrainingRun(tmp_path / "parts", parts[0], {}, "toy", log_every=1), 6)
    torch.rand(3)  # nothing in a step depends on the global random numbers
    fit(parts[1].step, batches, TrainingRun(tmp_path / "parts", parts[1], {}, "toy", log_every=1), 6)
    assert same(whole.state_dict(), parts[1].state_dict())
    assert len(parts[1].pool_a.images) == 3

    other = trainer(pool=0)
    run(other.step, 6)
    assert not torch.equal(other.ab.generator.head.weight, whole.ab.generator.head.weight)  # the pool has its part


def test_the_pool_shows_each_fake_once_or_never_and_half_of_them_late():
    pool, shown = ImagePool(20, 0), []
    for step in range(100):
        fakes = torch.arange(4 * step, 4 * step + 4).float().view(4, 1, 1, 1).expand(4, 3, 2, 2)
        out = pool.exchange(fakes, step)
        assert out.shape == fakes.shape
        if step < 5:
            assert torch.equal(out, fakes)
        shown += [(int(image[0, 0, 0]), step) for image in out]
    # Those that filled the pool are shown at once and again when they leave it; no other comes twice.
    late = [n for n, step in shown if n // 4 < step]
    assert len(late) == len(set(late)) and 0.35 < len(late) / (400 - 20) < 0.65
    at_once = {n for n, step in shown if n // 4 == step}
    assert not {n for n in late if n >= 20} & at_once
    resumed = ImagePool(20, 0)
    resumed.load_state_dict(pool.state_dict())
    more = torch.randn(8, 3, 2, 2)
    assert torch.equal(pool.exchange(more, 100), resumed.exchange(more, 100))


def test_the_result_comes_with_the_statistics_of_what_it_reads():
    """Learning nothing, the averages are the start's weights; running statistics of training are of mixed domains."""
    for average in (0.0, 0.5):
        t = trainer(TrainConfig(steps=3, lr=1e-30, average=average))
        run(t.step, 3)
        result = t.result(batches, 4)
        assert not result.training and result is not t.ab.generator
        seen = torch.cat([b.source for b in itertools.islice(batches(0), 4)])
        with torch.no_grad():
            before = result.get_submodule("stem.0.conv")(seen)
        mean = result.get_submodule("stem.0.norm").get_buffer("running_mean")
        torch.testing.assert_close(mean, before.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["gcka", "ka", "mse", "none"])
def test_the_student_follows_the_teachers_images(kind):
    teacher, student = generator(1, base=8), generator(2)
    before = copy.deepcopy(teacher.state_dict())
    config = TrainConfig(8, 1e-2, recon=10.0, distill=5.0)
    distiller = UnpairedDistiller(student, teacher, discriminator(3), config, kind)
    with torch.no_grad():  # batch norm in train mode: as in the step
        batch = next(batches(0))
        expected = 10 * (copy.deepcopy(student)(batch.source) - teacher(batch.source)).abs().mean()
    rows = run(distiller.step, 8)
    assert rows[0]["recon"] == pytest.approx(expected.item(), rel=1e-5)
    assert rows[-1]["recon"] < 0.9 * rows[0]["recon"]
    assert same(before, teacher.state_dict()) and not any(p.requires_grad for p in teacher.parameters())
    assert [name for name in rows[0] if name.startswith("layer")] == [f"layer{i}" for i in range(1, 5)] * (
        kind != "none"
    )
    if kind != "none":
        assert rows[-1]["distill"] < rows[0]["distill"]


def test_a_conditional_discriminator_is_refused():
    with pytest.raises(ValueError, match=r"this one reads 6: build it with DiscriminatorConfig\(in_channels=3\)"):
        UnpairedTrainer(generator(0), generator(1), discriminator(2, 6), discriminator(3), CONFIG)
    with pytest.raises(ValueError, match="this one reads 6"):
        UnpairedDistiller(generator(0), generator(1), discriminator(2, 6), CONFIG)
