"""CycleGAN on toy networks: the losses of a step by hand, the pool, and both directions."""

import copy

import pytest
import torch
from toys import DISCRIMINATORS, batches, network, same, train, trainer

from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.cyclegan import ImagePool, UnpairedDistiller, UnpairedTrainer

CONFIG = TrainConfig(steps=6, lr=1e-3)


def test_the_losses_of_a_step_by_hand():
    t = trainer("cyclegan", CONFIG, cycle=8.0, identity=0.25)
    nets = t.ab.generator, t.ba.generator, t.ba.discriminator, t.ab.discriminator
    ab, ba, d_a, d_b = map(copy.deepcopy, nets)
    batch = next(batches("cyclegan")(0))
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


def test_discriminators_are_shown_the_pool():
    pooled, other = (trainer("cyclegan", CONFIG, pool=size) for size in (3, 0))
    for t in (pooled, other):
        train(t, "cyclegan", 3)
    assert len(pooled.pool_a.images) == 3
    assert not same(pooled.ab.discriminator, other.ab.discriminator)


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


def test_a_conditional_discriminator_is_refused():
    t = trainer("cyclegan", CONFIG)
    conditional = network(DISCRIMINATORS["pix2pix"])
    with pytest.raises(ValueError, match=r"this one reads 6: build it with DiscriminatorConfig\(in_channels=3\)"):
        UnpairedTrainer(t.ab.generator, t.ba.generator, conditional, t.ab.discriminator, CONFIG)
    with pytest.raises(ValueError, match="this one reads 6"):
        UnpairedDistiller(t.ab.generator, t.ba.generator, conditional, CONFIG)
