"""GauGAN on toy networks: the losses of a step by hand, and VGG's features from a local file."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import vgg
from toys import LABELS, batches, trainer

from i2i_lib.data.tiles import Batch
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.vgg import Vgg19Features


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torchvision's, of random weights; its last layers and the classifier are not read."""
    layers = vgg.make_layers(vgg.cfgs["E"])[:30]
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{name}": w for name, w in layers.state_dict().items()}, path)
    return layers, path


def test_the_losses_of_a_step_by_hand(weights):
    layers, path = weights
    config = TrainConfig(steps=9, lr=1e-3)
    t = trainer("gaugan", config, feature_matching=7.0, perceptual=Vgg19Features(path))
    g, d = copy.deepcopy(t.generator), copy.deepcopy(t.discriminator)
    batch = next(batches("gaugan")(0))
    losses = t.step(batch)

    fake = g(batch.source)
    pair, real = torch.cat([batch.source, fake], 1), torch.cat([batch.source, batch.target], 1)
    optimiser = torch.optim.Adam(d.parameters(), lr=2e-3, betas=(0.0, 0.9))
    verdicts = zip(d(real), d(pair.detach()), strict=True)
    halves = [(1 - r[-1]).clamp(min=0).mean() + (1 + f[-1]).clamp(min=0).mean() for r, f in verdicts]
    loss_d = torch.stack(halves).mean() / 2
    torch.testing.assert_close(losses["d"], loss_d.detach())
    loss_d.backward()
    optimiser.step()
    optimiser.zero_grad()

    seen, wanted = d(pair), d(real)
    gan = -sum(scale[-1].mean() for scale in seen) / 2
    matching = sum(
        (s - w.detach()).abs().mean()
        for scale, truth in zip(seen, wanted, strict=True)
        for s, w in zip(scale[:-1], truth[:-1], strict=True)
    )
    x, y, perceptual = fake, batch.target, torch.tensor(0.0)
    for i, layer in enumerate(layers):
        x, y = layer(x), layer(y)
        if i in (1, 6, 11, 20, 29):
            weight = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}[i]
            perceptual = perceptual + weight * (x - y).abs().mean()
            x, y = x.clone(), y.clone()  # VGG's ReLUs write in place
    by_hand = {"gan": gan, "features": 7 * matching / 2, "perceptual": 10 * perceptual}
    assert losses.keys() == {"d", *by_hand}
    for name, value in by_hand.items():
        torch.testing.assert_close(losses[name], value.detach(), msg=lambda m, name=name: f"{name}: {m}")
    torch.stack(list(by_hand.values())).sum().backward()
    for ours, theirs in zip(t.generator.parameters(), g.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    # Adam's first step without momentum is the rate itself, half of the config's for the generator.
    moved = (t.generator.head.weight - g.head.weight).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 5e-4), rtol=1e-2, atol=0)


def coloured(step: int) -> Batch:
    """Each label has a colour of its own."""
    labels = torch.randint(LABELS, (3, 4, 4), generator=torch.Generator().manual_seed(step))
    source = F.interpolate(F.one_hot(labels, LABELS).movedim(-1, 1).float(), (16, 16))
    colours = torch.linspace(-0.9, 0.9, 3 * LABELS).reshape(LABELS, 3)
    return Batch(source, torch.einsum("nlhw,lc->nchw", source, colours))


def test_training_finds_the_labels_colours():
    t = trainer("gaugan", TrainConfig(steps=25, lr=1e-2, decay_from=1.0))

    def distance() -> float:
        with torch.no_grad():
            return F.l1_loss(t.generator(coloured(99).source), coloured(99).target).item()

    before = distance()
    rows = [t.step(coloured(step)) for step in range(25)]
    assert distance() < 0.7 * before
    assert rows[0].keys() == {"d", "gan", "features"}  # plainly without VGG's weights


def test_vgg_comes_from_a_local_file_or_not_at_all(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("I2I_VGG19", raising=False)
    assert Vgg19Features.find() is None
    monkeypatch.setenv("I2I_VGG19", str(tmp_path / "gone.pth"))
    with pytest.raises(ValueError, match=r"gone\.pth, which is not a file"):
        Vgg19Features.find()
    monkeypatch.setenv("I2I_VGG19", str(weights[1]))
    assert Vgg19Features.find() == weights[1]
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(weights[1].read_bytes()[:1000])
    for name in ("other.pth", "torn.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a state dict of torchvision's vgg19"):
            Vgg19Features(tmp_path / name)
    features = Vgg19Features(weights[1])
    assert not any(p.requires_grad for p in features.parameters())
    shapes = [tuple(m.shape[1:]) for m in features(torch.zeros(1, 3, 16, 16))]
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]
