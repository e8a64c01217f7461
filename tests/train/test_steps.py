"""Steps of all trainers on toy networks: losses by hand, what a step moves and reads, what its settings do."""

import copy
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchvision.models import vgg
from toys import DISCRIMINATORS, FAMILIES, LABELS, batches, distiller, network, same, train, trainer

from i2i_lib.data.tiles import Batch
from i2i_lib.losses import hinge_d, kernel_alignment, wavelet_details
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.cyclegan import ImagePool, UnpairedDistiller, UnpairedTrainer
from i2i_lib.train.distill import ALIGNMENTS, teacher_outputs
from i2i_lib.train.vgg import Vgg19Features
from i2i_lib.weights import find_vgg19

CONFIG = TrainConfig(steps=20, lr=1e-3, recon=10.0, average=0.8)
DISTILL = TrainConfig(steps=20, distill=1.0)
kinds = pytest.mark.parametrize("kind", [*ALIGNMENTS, "mse", "none"])


@pytest.mark.parametrize(
    ("family", "lowered"),
    [
        ("pix2pix", ["recon"]),
        ("cyclegan", ["cycle_a", "cycle_b", "identity_a", "identity_b", "d_a"]),
        ("gaugan", ["features"]),
    ],
)
def test_training_fits_a_batch(family, lowered):
    t = trainer(family, TrainConfig(steps=25, lr=1e-2, decay_from=1.0))
    batch = next(batches(family)(0))
    rows = [t.step(batch) for _ in range(25)]
    for name in lowered:
        assert rows[-1][name] < 0.8 * rows[0][name], name


@pytest.mark.parametrize("make", [trainer, distiller])
def test_the_adversarial_loss_begins_after_its_share_of_the_steps(make):
    t = make("pix2pix", replace(CONFIG, steps=4, gan_from=0.5))
    batch = next(batches()(0))
    before = copy.deepcopy(t.discriminator.state_dict())
    for _ in range(2):
        losses = t.step(batch)
        assert losses["d"] == losses["gan"] == 0
    assert same(t.discriminator.state_dict(), before)
    losses = t.step(batch)
    assert losses["d"] > 0
    assert losses["gan"] != 0
    assert not same(t.discriminator.state_dict(), before)


@pytest.mark.parametrize(("name", "choices"), [("gan", "hinge, lsgan"), ("precision", "bf16, fp16, fp32, tf32")])
def test_settings_are_checked(name, choices):
    given: dict[str, Any] = {"steps": 1, name: "wgan"}
    with pytest.raises(ValueError, match=f"{name} is one of {choices}, got 'wgan'"):
        TrainConfig(**given)


def test_compiled_networks_train_alike_and_are_saved_bare(monkeypatch):
    # Traced, but not built, which would take a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = (trainer("pix2pix", replace(CONFIG, compiled=choice)) for choice in (False, True))
    batch = next(batches()(0))
    torch.testing.assert_close(compiled.step(batch), plain.step(batch))
    assert compiled.state_dict()["generator"].keys() == plain.state_dict()["generator"].keys()


@pytest.mark.parametrize("family", FAMILIES)
@kinds
def test_distillation_moves_the_student_and_nothing_else(family, kind):
    t = distiller(family, TrainConfig(8, 1e-2, recon=0.0, distill=20.0), kind)
    teacher = copy.deepcopy(t.teacher)
    batch = next(batches(family)(0))
    rows = [t.step(batch) for _ in range(8)]
    assert same(t.teacher, teacher) and not any(p.requires_grad for p in t.teacher.parameters())
    tapped = 3 if family == "gaugan" else 4
    layers = [f"layer{n}" for n in range(1, tapped + 1)] if kind != "none" else []
    assert [name for name in rows[0] if name.startswith("layer")] == layers
    assert ("distill" in rows[0]) == (kind != "none")
    if kind != "none":
        assert rows[-1]["distill"] < rows[0]["distill"]
    if kind == "mse" and family == "gaugan":  # head_0, G_middle_1, up_1
        adaptors = [(a.in_channels, a.out_channels) for a in t.feature_loss.adaptors]
        assert adaptors == [(32, 64), (32, 64), (8, 16)]


@pytest.mark.parametrize("imitate", [0.0, 0.25])
def test_the_losses_of_a_student_of_few_labels_by_hand(imitate):
    """L1 and adversarial loss of the pictures whose target is known, all else of all."""
    t = distiller("pix2pix", TrainConfig(20, recon=10.0, imitate=imitate, distill=3.0))
    whole = next(batches()(0))
    with torch.no_grad():
        fake, features = copy.deepcopy(t.generator).forward_features(whole.source)
        image, teacher_features = t.teacher.forward_features(whole.source)
        judge = copy.deepcopy(t.discriminator)
        pairs = [torch.cat([whole.source[:3], pictures], 1) for pictures in (whole.target[:3], fake[:3])]
        d = hinge_d(*map(judge, pairs))
    losses = t.step(Batch(whole.source, whole.target[:3]))
    aligned = [kernel_alignment(x, y) for x, y in zip(features, teacher_features, strict=True)]
    wanted = {"d": d, "recon": 10 * (1 - imitate) * F.l1_loss(fake[:3], whole.target[:3])}
    wanted |= {"imitate": 10 * imitate * F.l1_loss(fake, image)} if imitate else {}
    wanted |= {"distill": 3 * sum(1 - value for value in aligned)}
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)


def test_what_a_student_may_learn_of_its_teachers_image_by_hand():
    t = distiller("pix2pix", TrainConfig(20, recon=10.0, wavelet=0.5, judged=0.25), "none")
    judge = copy.deepcopy(t.discriminator).eval()
    for _ in range(2):  # the student's own discriminator learns, the teacher's does not
        batch = next(batches()(0))
        with torch.no_grad():
            fake, image = copy.deepcopy(t.generator)(batch.source), t.teacher(batch.source)
            seen, wanted = (judge.features(torch.cat([batch.source, picture], 1)) for picture in (fake, image))
        losses = t.step(batch)
        bands = F.l1_loss(wavelet_details(fake), wavelet_details(image))
        torch.testing.assert_close(losses["wavelet"], 10 * 0.5 * bands, rtol=1e-4, atol=1e-5)
        distance = sum(F.l1_loss(a, b) for a, b in zip(seen, wanted, strict=True)) / len(seen)
        torch.testing.assert_close(losses["judged"], 10 * 0.25 * distance, rtol=1e-4, atol=1e-5)
    assert (
        not same(t.discriminator.state_dict(), judge.state_dict())
        and len(judge.features(torch.zeros(1, 6, 16, 16))) == 3
    )


def test_high_bands_are_those_of_haar():
    images = torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    haar = torch.tensor([[[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]], dtype=torch.float32) / 2
    by_hand = torch.cat([F.conv2d(images, band.expand(3, 1, 2, 2), stride=2, groups=3) for band in haar], 1)
    torch.testing.assert_close(wavelet_details(images), by_hand)
    assert not wavelet_details(torch.ones(1, 3, 4, 4)).any()


@pytest.mark.parametrize("kind", ["gcka", "none"])
@pytest.mark.parametrize("imitate", [0.0, 0.25])
@pytest.mark.parametrize("family", ["pix2pix", "cyclegan"])
def test_the_losses_of_a_student_by_hand(family, imitate, kind):
    """L1 to the target where there are pairs, and to the teacher's image; alignments of the features of this step."""
    t = distiller(family, TrainConfig(20, recon=10.0, imitate=imitate, distill=3.0), kind)
    batch = next(batches(family)(0))
    with torch.no_grad():  # batch norm in train mode: as in the step
        fake, features = copy.deepcopy(t.generator).forward_features(batch.source)
        image, teacher_features = t.teacher.forward_features(batch.source)
    to_teacher = 10 * F.l1_loss(fake, image)
    wanted = {"recon": to_teacher}
    if family == "pix2pix":
        wanted = {"recon": 10 * (1 - imitate) * F.l1_loss(fake, batch.target)}
        wanted |= {"imitate": imitate * to_teacher} if imitate else {}
    if kind == "gcka":
        layers = [kernel_alignment(x, y) for x, y in zip(features, teacher_features, strict=True)]
        wanted |= {f"layer{i}": value for i, value in enumerate(layers, start=1)}
        wanted["distill"] = 3 * (4 - torch.stack(layers).sum())
    losses = t.step(batch)
    torch.testing.assert_close({name: loss for name, loss in losses.items() if name not in ("d", "gan")}, wanted)


@pytest.mark.parametrize("family", ["pix2pix", "gaugan"])
def test_a_teacher_asked_for_features_alone_makes_no_image(family):
    t, source = distiller(family, DISTILL), next(batches(family)(0)).source
    with torch.no_grad():
        wanted = t.teacher.forward_features(source)[1]
    ran = []
    t.teacher.head.register_forward_hook(lambda *_: ran.append("head"))
    image, features = teacher_outputs(t.teacher, source, image=False, features=True)
    assert not ran and not image.numel() and len(features) == len(wanted)
    assert all(torch.equal(x, y) for x, y in zip(features, wanted, strict=True))


def test_an_alignment_over_shards_is_the_mean_of_theirs():
    """As the authors' GPUs take each its own samples; a shard of one sample has no alignment."""
    t = distiller("pix2pix", replace(DISTILL, distill=2.0, shard=3), "ka")
    x, y = (torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))

    def ka(part):  # the authors' formula, by hand
        k, other = (m[part].flatten(1) @ m[part].flatten(1).T for m in (x, y))
        return (k * other).sum() / ((k**2).sum() * (other**2).sum()).sqrt()

    wanted = (ka(slice(3)) + ka(slice(3, 5))) / 2
    losses, layers = t.feature_loss([x, x], [y, y])
    torch.testing.assert_close(layers, {"layer1": wanted, "layer2": wanted})
    torch.testing.assert_close(losses["distill"], 2 * (2 - 2 * wanted))
    t.check()
    with pytest.raises(ValueError, match="fewer than 2 uncentred samples is constant, got 1"):
        t.feature_loss([x[:4]], [y[:4]])


def test_an_alignment_of_patches_is_the_mean_of_theirs():
    t = distiller("pix2pix", replace(DISTILL, patches=2))
    x, y = (torch.randn(3, 6, 5, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cuts = [(rows, columns) for rows in (slice(3), slice(3, 5)) for columns in (slice(4), slice(4, 8))]
    wanted = sum(kernel_alignment(x[..., r, c], y[..., r, c]) for r, c in cuts) / 4
    _, layers = t.feature_loss([x], [y])
    torch.testing.assert_close(layers, {"layer1": wanted})
    for wrong in ({"patches": 0}, {"patches": 2, "shard": 1}):
        with pytest.raises(ValueError, match="patches is at least 1, and 1 with shards, got"):
            replace(DISTILL, **wrong)


@kinds
def test_a_step_reads_nothing_from_the_device(kind):
    """A value read, even a flag, would make a GPU wait for the host."""

    class Reads(TorchFunctionMode):
        count = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.count += getattr(func, "__name__", "") in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu")
            return func(*args, **(kwargs or {}))

    t = distiller("pix2pix", DISTILL, kind)
    batch = next(batches()(0))
    with Reads() as reads:
        t.step(batch)
    assert reads.count == 0
    with Reads() as reads:
        t.check()
    assert reads.count == (kind in ALIGNMENTS)


# Without an average, too, for CycleGAN: running statistics of its training are of mixed domains.
@pytest.mark.parametrize(("family", "average"), [("pix2pix", 0.5), ("cyclegan", 0.5), ("cyclegan", 0.0)])
def test_averaged_weights_bring_the_statistics_of_what_they_read(family, average):
    """The average of equal weights is those weights; running statistics are those of the batches given."""
    t = trainer(family, TrainConfig(steps=3, lr=1e-30, average=average))
    train(t, family, 3)
    result = t.result(batches(family), 4)
    assert not result.training
    seen = torch.cat([batch.source for batch in islice(batches(family)(0), 4)])
    with torch.no_grad():
        before = result.get_submodule("stem.0.conv")(seen)
    mean = result.get_submodule("stem.0.norm").get_buffer("running_mean")
    torch.testing.assert_close(mean, before.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


# --- CycleGAN --------------------------------------------------------------------------------------------------------


def test_the_losses_of_cyclegan_by_hand():
    t = trainer("cyclegan", CONFIG, cycle=8.0, identity=0.25)
    nets = t.ab.generator, t.ba.generator, t.ba.discriminator, t.ab.discriminator
    ab, ba, d_a, d_b = map(copy.deepcopy, nets)
    batch = next(batches("cyclegan")(0))
    a, b = batch.source, batch.target
    losses = t.step(batch)

    fake_a, fake_b = ba(b), ab(a)
    wanted = {
        # The discriminators of the step before judge, and so does what they learn come from the generators before it.
        "d_a": ((d_a(a) - 1) ** 2).mean() / 2 + (d_a(fake_a.detach()) ** 2).mean() / 2,
        "d_b": ((d_b(b) - 1) ** 2).mean() / 2 + (d_b(fake_b.detach()) ** 2).mean() / 2,
    }
    torch.stack(list(wanted.values())).sum().backward()
    for side, by_hand in ((t.ab, d_b), (t.ba, d_a)):
        for ours, theirs in zip(side.discriminator.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    of_generators = {
        "gan_a": ((d_a(fake_a) - 1) ** 2).mean(),
        "gan_b": ((d_b(fake_b) - 1) ** 2).mean(),
        "cycle_a": 8 * (ba(fake_b) - a).abs().mean(),
        "cycle_b": 8 * (ab(fake_a) - b).abs().mean(),
        "identity_a": 2 * (ba(a) - a).abs().mean(),
        "identity_b": 2 * (ab(b) - b).abs().mean(),
    }
    torch.testing.assert_close(losses, wanted | of_generators)
    torch.stack(list(of_generators.values())).sum().backward()
    for side, by_hand in ((t.ab, ab), (t.ba, ba)):
        for ours, theirs in zip(side.generator.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_the_identity_loss_ends_when_it_is_told_to():
    """From then on a step is that of a training without one, which goes on from the same state."""
    config = replace(CONFIG, steps=4)
    half = trainer("cyclegan", config, identity_until=0.5)
    none = trainer("cyclegan", config, identity=0.0)
    draw = list(islice(batches("cyclegan")(0), 4))
    early = [half.step(batch) for batch in draw[:2]]
    none.load_state_dict(copy.deepcopy(half.state_dict()))
    late = [half.step(batch) for batch in draw[2:]]
    for batch in draw[2:]:
        none.step(batch)
    for name in ("identity_a", "identity_b"):
        assert [bool(losses[name] > 0) for losses in early + late] == [True, True, False, False]
    assert same(half.ab.generator, none.ab.generator)


def test_discriminators_are_shown_the_pool():
    pooled, other = (trainer("cyclegan", CONFIG, pool=size) for size in (3, 0))
    train(pooled, "cyclegan", 3)
    train(other, "cyclegan", 3)
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


# --- GauGAN ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torchvision's, of random weights; its last layers and the classifier are not read."""
    layers = vgg.make_layers(vgg.cfgs["E"])[:30]
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{name}": w for name, w in layers.state_dict().items()}, path)
    return layers, path


def test_the_losses_of_gaugan_by_hand(weights):
    layers, path = weights
    t = trainer("gaugan", CONFIG, feature_matching=7.0, perceptual=Vgg19Features(path))
    g, d = copy.deepcopy(t.generator), copy.deepcopy(t.discriminator)
    batch = next(batches("gaugan")(0))
    losses = t.step(batch)

    # The generator first, against the discriminator of the step before.
    fake = g(batch.source)
    real = torch.cat([batch.source, batch.target], 1)
    seen, wanted = d(torch.cat([batch.source, fake], 1)), d(real)
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
    torch.testing.assert_close({name: losses[name] for name in by_hand}, by_hand)
    torch.stack(list(by_hand.values())).sum().backward()
    for ours, theirs in zip(t.generator.parameters(), g.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    # Adam's first step without momentum is the rate itself, half of the config's for the generator.
    moved = (t.generator.head.weight - g.head.weight).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 5e-4), rtol=1e-2, atol=0)

    # Then the discriminator, on a second forward of the generator that has taken its step.
    torch.optim.Adam(g.parameters(), lr=5e-4, betas=(0.0, 0.9)).step()
    with torch.no_grad():
        fake = g(batch.source)
    torch.testing.assert_close(dict(t.generator.named_buffers()), dict(g.named_buffers()), rtol=1e-4, atol=1e-5)
    verdicts = zip(d(real), d(torch.cat([batch.source, fake], 1)), strict=True)
    halves = [(1 - r[-1]).clamp(min=0).mean() + (1 + f[-1]).clamp(min=0).mean() for r, f in verdicts]
    torch.testing.assert_close(losses["d"], torch.stack(halves).mean() / 2, rtol=1e-4, atol=1e-5)


def test_vgg_comes_from_a_local_file_or_not_at_all(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("I2I_VGG19", raising=False)
    with pytest.raises(ValueError, match=f"put vgg19-dcbb9e9d.pth into {tmp_path}/hub/checkpoints, or .* 'none'"):
        find_vgg19()
    monkeypatch.setenv("I2I_VGG19", str(tmp_path / "gone.pth"))
    with pytest.raises(ValueError, match=r"gone\.pth, which is not a file"):
        find_vgg19()
    monkeypatch.setenv("I2I_VGG19", str(weights[1]))
    assert find_vgg19() == weights[1]
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(weights[1].read_bytes()[:1000])
    for name in ("other.pth", "torn.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a state dict of torchvision's vgg19"):
            Vgg19Features(tmp_path / name)
    features = Vgg19Features(weights[1])
    assert not any(p.requires_grad for p in features.parameters())
    shapes = [tuple(m.shape[1:]) for m in features(torch.zeros(1, 3, 16, 16))]
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]


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


@pytest.mark.parametrize("family", FAMILIES)
def test_float16_trains_by_a_scaled_loss(family):
    """As float32 does up to its own rounding; gradients too large for it move nothing and lower the scale."""
    half, full = (distiller(family, replace(DISTILL, lr=1e-3, precision=kind)) for kind in ("fp16", "fp32"))
    half.scaler.load_state_dict(half.scaler.state_dict() | {"scale": 2.0**7})  # as after some steps
    batch = next(batches(family)(0))
    losses, wanted = half.step(batch), full.step(batch)
    torch.testing.assert_close(losses, wanted, rtol=0.02, atol=0.02)
    for ours, theirs in zip(gradients(half), gradients(full), strict=True):
        # The gradients of L1 distances are signs, and rounding turns some; an undivided scale would be a factor of 128.
        assert (ours - theirs).norm() < 0.2 * theirs.norm()
    assert half.skipped() == full.skipped() == 0 and not full.scaler.is_enabled()

    before = copy.deepcopy(half.generator.state_dict())
    half.scaler.load_state_dict(half.scaler.state_dict() | {"scale": 2.0**120})
    half.step(batch)
    assert half.skipped() == 2 and half.scaler.get_scale() == 2.0**118, "halved by each network"
    assert all(torch.equal(p, before[name]) for name, p in half.generator.named_parameters())


def gradients(t: Any) -> list[torch.Tensor]:
    """Those of a first step's generator and discriminator, as Adam's first moments have them."""
    return [
        torch.cat([moments["exp_avg"].flatten() for moments in optimiser.state.values()])
        for optimiser in (t.opt_g, t.opt_d)
    ]


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_convolutions_round_their_factors_where_asked_to_alone(precision):
    """On the way back, too; a step leaves PyTorch's switch as it was."""
    t = distiller("pix2pix", replace(DISTILL, precision=precision))
    seen = []

    class Convolutions(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if getattr(func, "__name__", "") in ("conv2d", "conv_transpose2d"):
                seen.append(torch.backends.cudnn.allow_tf32)
            return func(*args, **(kwargs or {}))

    for each in (t.generator, t.discriminator):
        next(each.parameters()).register_hook(lambda _: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    with Convolutions():
        t.step(next(batches()(0)))
    assert len(seen) > 50 and set(seen) == {precision == "tf32"}
    assert torch.backends.cudnn.allow_tf32 == before


# --- In parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [trainer, distiller])
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_train_as_the_whole_batch_does(family, make, monkeypatch):
    """With instance norm, in float64, to 1e-6: alignments, too, are of the whole batch."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = TrainConfig(steps=20, lr=1e-3, distill=1.0, average=0.5)
    whole, parted = (make(family, replace(config, micro_batch=n), norm="instance") for n in (0, 3))  # of 4: 3 and 1
    for t in (whole, parted):
        in_float64(t)
    for batch in islice(batches(family)(0), 2):
        batch = Batch(batch.source.double(), batch.target.double())
        torch.testing.assert_close(parted.step(batch), whole.step(batch), rtol=1e-6, atol=1e-9)
        for ours, theirs in zip(parameters(parted), parameters(whole), strict=True):
            # The gradient of a bias before an instance norm is 0 but for rounding, and Adam scales it up.
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [trainer, distiller])
@pytest.mark.parametrize("family", FAMILIES)
def test_passes_computed_again_change_nothing(family, make):
    """With batch norm, too, whose running statistics count each pass once."""
    config = TrainConfig(steps=20, lr=1e-3, distill=1.0)
    kept, again = make(family, config), make(family, replace(config, recompute=True))
    for batch in islice(batches(family)(0), 2):
        assert same(again.step(batch), kept.step(batch))
    assert same(again.state_dict(), kept.state_dict())


def in_float64(t: Any) -> None:
    """Turn a trainer's networks to float64, in place, as its optimisers hold their parameters."""
    sides = (t.ab, t.ba) if hasattr(t, "ab") else (t,)
    networks = [n for side in sides for n in (side.generator, side.discriminator, getattr(side, "teacher", None))]
    for each in filter(None, [*networks, *(side.average and side.average.module for side in sides)]):
        each.double()


def parameters(t: Any) -> list[torch.Tensor]:
    sides = (t.ab, t.ba) if hasattr(t, "ab") else (t,)
    return [p for side in sides for n in (side.generator, side.discriminator) for p in n.parameters()]
