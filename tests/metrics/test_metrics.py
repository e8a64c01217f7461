"""Measures against closed forms, slow second implementations and pictures of known content."""

import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from i2i_lib.metrics import pairs
from i2i_lib.metrics.baselines import ColourTransfer
from i2i_lib.metrics.cost import peak_memory
from i2i_lib.metrics.intervals import Estimate, percentile_interval, resample_blocks
from i2i_lib.metrics.lookup import ColourLookup
from i2i_lib.metrics.networks.effnet import EffNetFeatures
from i2i_lib.metrics.pairs import Protocol, feature_distance, l1, quantise, ssim
from i2i_lib.metrics.sets import FeatureStats, frechet_distance, kernel_distance, kernel_distance_interval


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_survive_quantisation(random):
    picture = torch.randint(0, 256, (2, 3, 5, 5), generator=random, dtype=torch.uint8)
    assert torch.equal(quantise(picture.float() / 127.5 - 1), picture)
    assert quantise(torch.tensor([-9.0, 9.0, 0.6 / 127.5 - 1])).tolist() == [0, 255, 1]
    down = torch.tensor([-1.0, -1 + 1.9 / 127.5, 0.999, 1.0, 1.5])
    assert quantise(down, "down").tolist() == [0, 1, 254, 255, 255]
    with pytest.raises(ValueError, match="NaN"):
        quantise(torch.tensor([math.nan]))


def test_l1_is_on_the_scale_of_the_images():
    black, white = torch.full((2, 3, 4, 4), -1.0), torch.ones(2, 3, 4, 4)
    white[1] = -1
    assert l1(white, black).tolist() == [2, 0]
    with pytest.raises(ValueError, match="same shape"):
        l1(black, white[:1])


def test_ssim_equals_its_definition(random):
    a = torch.randint(0, 256, (1, 3, 13, 15), generator=random, dtype=torch.uint8)
    b = (a.float() * 0.7 + 60 * torch.rand(a.shape, generator=random)).to(torch.uint8)
    window = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    window /= window.sum()
    x, y = (image[0].double().numpy() / 127.5 - 1 for image in (a, b))
    values = []
    for channel in range(3):
        for row in range(13 - 10):
            for column in range(15 - 10):
                p, q = (z[channel, row : row + 11, column : column + 11] for z in (x, y))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                cov = (window * (p - mean_p) * (q - mean_q)).sum()
                values.append(
                    (2 * mean_p * mean_q + 0.02**2)
                    * (2 * cov + 0.06**2)
                    / ((mean_p**2 + mean_q**2 + 0.02**2) * (var_p + var_q + 0.06**2))
                )
    assert ssim(a, b).item() == pytest.approx(np.mean(values), rel=1e-9)
    assert ssim(a, a).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(a[..., :10], b[..., :10])


@pytest.mark.parametrize("n", [0, 1, 16, 17, 33])
def test_ssim_in_parts_has_the_bits_of_the_whole(n, random, monkeypatch):
    a = torch.randint(0, 256, (n, 3, 24, 20), generator=random, dtype=torch.uint8)
    b = (a.float() * 0.7 + 60 * torch.rand(a.shape, generator=random)).to(torch.uint8)
    sizes = []
    monkeypatch.setattr(pairs, "_ssim", lambda x, y, compute=pairs._ssim: sizes.append(len(x)) or compute(x, y))
    found = ssim(a, b)
    assert found.shape == (n,) and max(sizes) <= 16 and 1 not in sizes[1:]
    monkeypatch.setattr(pairs, "_AT_ONCE", 1000)
    assert torch.equal(found, ssim(a, b))


def test_feature_distance_of_known_maps(random):
    a = torch.zeros(1, 2, 1, 2)
    a[0, 0] = 3.0
    b = a.clone()
    b[0, :, 0, 1] = torch.tensor([0.0, 5.0])  # at right angles at one position of two: squared distance 2
    assert feature_distance([a], [b]).item() == pytest.approx(1)
    assert feature_distance([a, a], [b, a]).item() == pytest.approx(0.5)
    x, y = torch.randn(3, 8, 4, 4, generator=random), torch.randn(3, 8, 4, 4, generator=random)
    torch.testing.assert_close(feature_distance([x], [y]), feature_distance([7 * y], [x]))


# --- sets ------------------------------------------------------------------------------------------------------------


def test_streamed_statistics_equal_one_shot(random):
    x = 1e4 + torch.randn(101, 7, generator=random, dtype=torch.float64)  # raw moments would lose eight digits here
    stats = FeatureStats.from_batches(x.split(10))
    assert stats.count == 101
    torch.testing.assert_close(stats.mean, x.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(stats.cov, x.mT.cov(), rtol=1e-10, atol=1e-10)


def test_statistics_of_degenerate_sets():
    constant = FeatureStats.from_batches([torch.full((5, 3), 0.1)])
    assert constant.cov.abs().max() < 1e-30 and frechet_distance(constant, constant) == 0
    few = FeatureStats.from_batches([torch.eye(3, 10)])  # 3 vectors in 10 dimensions
    moved = FeatureStats(few.mean + 1, few.cov, 3)
    assert frechet_distance(few, moved) == pytest.approx(10, rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        FeatureStats.from_batches([torch.ones(1, 3)])


def ends(estimate: Estimate) -> tuple[float, float]:
    """Both ends of an interval that is there."""
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def test_sets_of_one_colour_have_plain_results(random):
    """Nothing varies in them, so that every distance is that of their means, and equal ones are at 0."""
    a, b = torch.zeros(6, 4), torch.full((6, 4), 0.5)
    assert frechet_distance(FeatureStats.from_batches([a]), FeatureStats.from_batches([b])) == pytest.approx(4 * 0.25)
    assert kernel_distance(a, a) == kernel_distance(b, b, paired=True) == 0
    assert kernel_distance(a, b) == pytest.approx(1 + (0.25 + 1) ** 3 - 2)
    interval = kernel_distance_interval(a, b, torch.arange(6) % 5, paired=True, resamples=50)
    assert interval.low == pytest.approx(interval.value) == pytest.approx(interval.high)
    grey, white = (torch.full((2, 3, 16, 16), value) for value in (0.0, 1.0))
    assert ssim(grey, grey).tolist() == pytest.approx([1, 1]) and (ssim(grey, white) < 0.01).all()
    for images in (grey, white):
        for baseline in (ColourLookup(grey, images), ColourTransfer(grey, images)):
            assert (baseline(grey) - images).abs().max() < 0.02


def test_measures_refuse_what_is_not_finite(random):
    good, image = torch.rand(4, 3, generator=random), torch.zeros(1, 3, 16, 16)
    for value in (math.nan, math.inf):
        bad = good.clone()
        bad[2, 1] = value
        for measure in (kernel_distance, lambda a, b: feature_distance([a[..., None, None]], [b[..., None, None]])):
            for pair in ((good, bad), (bad, good)):
                with pytest.raises(ValueError, match="NaN or infinity"):
                    measure(*pair)
    for measure in (l1, ssim):
        with pytest.raises(ValueError, match="NaN"):
            measure(image, image * math.nan)


def test_frechet_distance_of_known_gaussians(random):
    def gaussian(mean, cov):
        return FeatureStats(torch.tensor(mean, dtype=torch.float64), torch.tensor(cov, dtype=torch.float64), 9)

    # Commuting covariances: the difference of the deviations, squared.
    a, b = gaussian([0, 0], [[4, 0], [0, 9]]), gaussian([1, 2], [[1, 0], [0, 25]])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2)
    # In two dimensions tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), whether the covariances commute or not.
    a, b = gaussian([0, 0], [[2, 1], [1, 3]]), gaussian([0, 0], [[5, -2], [-2, 1]])
    product = a.cov @ b.cov
    root = math.sqrt(product.trace().item() + 2 * math.sqrt(product.det().item()))
    assert frechet_distance(a, b) == pytest.approx(5 + 6 - 2 * root)
    # Rotating both sets changes nothing.
    x, y = torch.randn(40, 6, generator=random), 2 * torch.rand(30, 6, generator=random)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=random))[0]
    distances = [frechet_distance(*(FeatureStats.from_batches([z @ t]) for z in (x, y))) for t in (torch.eye(6), turn)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_kernel_distance_equals_its_definition(random):
    x, y = torch.randn(6, 3, generator=random).double(), torch.rand(5, 3, generator=random).double()

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a.tolist(), b.tolist(), strict=True)) / 3 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across)
    across = np.mean([kernel(a, b) for i, a in enumerate(x[:5]) for j, b in enumerate(y) if i != j])
    within[0] = np.mean([kernel(a, b) for i, a in enumerate(x[:5]) for j, b in enumerate(x[:5]) if i != j])
    assert kernel_distance(x[:5], y, paired=True) == pytest.approx(sum(within) - 2 * across)
    assert kernel_distance(x, x, paired=True) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased(random):
    """Two samples of one distribution are at distance 0 on average, however few they are."""
    draws = [kernel_distance(*torch.randn(2, 8, 4, generator=random)) for _ in range(400)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / 20


def test_kernel_distance_of_many_images_in_parts(random):
    x, y = torch.randn(1500, 2, generator=random), torch.randn(1300, 2, generator=random)
    kernels = [(a.double() @ b.double().mT / 2 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    means = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    assert kernel_distance(x, y) == pytest.approx((means[0] + means[1] - 2 * kernels[2].mean()).item())


def test_kernel_interval_covers_the_spread_over_places(random):
    """Its width is that of the estimate over fresh draws of 30 places of 3 similar images each."""

    def draw():
        place = torch.randn(30, 1, 4, generator=random)
        x, y = (place + 0.3 * torch.randn(30, 3, 4, generator=random) for _ in range(2))
        return x.flatten(0, 1), 1.3 * y.flatten(0, 1) + 0.2

    blocks = torch.arange(30).repeat_interleave(3)
    estimates = [kernel_distance_interval(*draw(), blocks, paired=True, resamples=300) for _ in range(60)]
    values = np.array([e.value for e in estimates])
    lows, highs = np.array([ends(e) for e in estimates]).T
    width = np.mean(highs - lows) / (2 * 1.96)
    assert 0.75 < width / values.std() < 1.35
    assert np.mean((lows < values.mean()) & (values.mean() < highs)) > 0.85


def test_without_pairs_both_sets_are_samples(random):
    """The interval holds the truth about as often as it says; with the target kept as it is, in 7 cases of 10."""
    estimates = []
    for _ in range(200):
        x, y = torch.randn(2, 40, 8, generator=random)
        estimates.append(kernel_distance_interval(x, y + 0.5, torch.arange(40), resamples=300))
    truth = np.mean([e.value for e in estimates])  # unbiased
    lows, highs = np.array([ends(e) for e in estimates]).T
    assert 0.9 < np.mean((lows < truth) & (truth < highs)) < 0.99


@pytest.mark.parametrize("paired", [False, True])
def test_few_blocks_have_a_kernel_distance_without_an_interval(random, paired):
    """Of two pictures only one draw has a distance, whose interval of width 0 excluded everything."""
    x, y = torch.randn(2, 8, 4, generator=random)
    for blocks in (2, 3, 4):
        found = kernel_distance_interval(x[:blocks], y[:blocks], torch.arange(blocks), paired=paired)
        assert found == Estimate(kernel_distance(x[:blocks], y[:blocks], paired=paired), None, None)
    found = kernel_distance_interval(x[:5], y[:5], torch.arange(5), paired=paired)
    low, high = ends(found)
    assert low < found.value < high


def test_sets_that_cannot_be_compared_are_refused():
    x = torch.ones(4, 3)
    for other in (torch.ones(4, 2), torch.ones(1, 3)):
        with pytest.raises(ValueError, match="of one dimension"):
            kernel_distance(x, other)
    with pytest.raises(ValueError, match="equally many"):
        kernel_distance(x, torch.ones(3, 3), paired=True)
    with pytest.raises(ValueError, match="at least 2 blocks"):
        kernel_distance_interval(x, x, torch.zeros(4))


# --- how sure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [2, 3, 8, 50])
def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say(random, blocks):
    """Blocks of equal size with a mean each: at two of them, most draws are as wide as they can be."""
    held = 0
    for trial in range(400):
        values = 0.5 + torch.randn(blocks, generator=random, dtype=torch.float64)
        weights = resample_blocks(blocks, 500, seed=trial)
        interval = percentile_interval(values.mean().item(), weights @ values / blocks, blocks)
        low, high = ends(interval)
        held += low < 0.5 < high
    assert 0.92 < held / 400 < 0.985


# --- the evaluation network ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extract() -> EffNetFeatures:
    return EffNetFeatures()


def portrait(size: int = 448) -> torch.Tensor:
    """Rear Admiral Grace Hopper in uniform, centre crop, uint8 [1, 3, size, size]."""
    image = Image.open(matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg").crop((32, 76, 480, 524))
    return pil_to_tensor(image.convert("RGB").resize((size, size)))[None]


def test_the_network_recognises_a_known_picture(extract):
    chance = extract(portrait()).logits.softmax(1)[0]
    classes = [400, 652, 667]  # academic gown, military uniform, mortarboard
    assert chance.argmax().item() in classes and chance[classes].sum() > 0.5


def test_features_are_those_of_the_published_network(extract):
    """What the package of 2020 computed that these weights were made for: a few of each layer."""
    pictures = (torch.arange(2 * 3 * 40 * 56) * 37 % 251).view(2, 3, 40, 56).to(torch.uint8)
    features = extract(pictures)
    wanted = [
        [5.465474, 12.811514, 3.605681],
        [7.166492, -7.393186, 2.948963],
        [3.771453, 2.150283, 4.744492],
        [2.292413, 1.010395, 2.703838],
    ]
    found = torch.stack([part[1, :3].mean((1, 2)) for part in features.maps])
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-5)
    pooled, logits = [2.692060, 0.0, 0.030179, 0.0], [-0.366159, 1.134266, 0.704436, -1.263008]
    torch.testing.assert_close(features.pooled[1, :4], torch.tensor(pooled), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.logits[1, :4], torch.tensor(logits), rtol=1e-5, atol=1e-5)


def test_features_do_not_depend_on_the_batch_or_the_kind_of_picture(extract):
    picture = portrait(64)
    pictures = torch.cat([picture, picture.flip(2), 255 - picture])
    together, alone = extract(pictures), extract(pictures[1:2].float() / 127.5 - 1)
    torch.testing.assert_close(together.pooled[1:2], alone.pooled, rtol=1e-4, atol=1e-4)
    assert together.pooled.shape == (3, 1280)
    assert feature_distance(together.maps, together.maps).eq(0).all()


def test_more_damage_is_further_away(extract, random):
    picture = portrait(64)
    noise = torch.randn(picture.shape, generator=random)
    damaged = [(picture + sigma * noise).clamp(0, 255).to(torch.uint8) for sigma in (3, 10, 30)]
    truth = extract(picture).maps
    distances = [feature_distance(extract(image).maps, truth).item() for image in damaged]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_frechet_features_are_as_narrow_as_the_images_are_few(extract):
    features = extract(torch.zeros(1, 3, 32, 32))
    assert [features.narrow(n).shape[1] for n in (10, 79, 80, 223, 224, 640)] == [24, 24, 40, 40, 112, 320]
    protocol = extract.protocol("test tiles", 173)
    assert isinstance(protocol, Protocol) and "FD on 40" in protocol.id and "n=173" in protocol.id
    assert len({protocol.id, extract.protocol("test tiles", 172).id, extract.protocol("training tiles", 173).id}) == 3


# --- the baseline ----------------------------------------------------------------------------------------------------


def test_colour_lookup_gives_mean_colours():
    source = torch.tensor([10, 10, 200, 200], dtype=torch.uint8).expand(1, 3, 1, 4)
    target = torch.tensor([0, 100, 250, 250], dtype=torch.uint8).expand(1, 3, 1, 4)
    lookup = ColourLookup(source, target, prior=1e-9)
    torch.testing.assert_close(quantise(lookup(source)), torch.tensor([50, 50, 250, 250]).expand(1, 3, 1, 4).byte())
    # A colour never seen takes that of the smallest bin around it with a colour in it; here red decides.
    unseen = torch.tensor([[12, 190]], dtype=torch.uint8).expand(1, 3, 1, 2)
    assert quantise(lookup(unseen)).flatten(2)[0, 0].tolist() == [50, 250]


def test_colour_lookup_recovers_any_map_of_colours(random):
    colours = torch.randint(0, 128, (3, 20), generator=random, dtype=torch.uint8) * 2
    image = colours[:, torch.randint(20, (30, 30), generator=random)][None]
    lookup = ColourLookup(image, 255 - image.roll(1, 1), prior=1e-6)
    assert torch.equal(quantise(lookup(image)), 255 - image.roll(1, 1))


def test_colour_transfer_gives_the_target_its_moments_and_equal_domains_nothing():
    draw = torch.Generator().manual_seed(0)
    mix = torch.tensor([[20.0, 0, 0], [10, 15, 0], [-5, 4, 12]])

    def pictures(n: int, matrix: torch.Tensor, mean: float) -> torch.Tensor:
        colours = torch.randn(n, 16, 16, 3, generator=draw) @ matrix.T + mean
        return colours.clamp(0, 255).round().to(torch.uint8).movedim(-1, 1)

    source, target = pictures(6, mix, 100), pictures(8, mix.T.flip(0), 140)
    moved = (ColourTransfer(source, target)(source) + 1) * 127.5
    made, wanted = (x.movedim(1, 0).flatten(1) for x in (moved, target.float()))
    torch.testing.assert_close(made.mean(1), wanted.mean(1), atol=0.05, rtol=0)
    torch.testing.assert_close(made.cov(), wanted.cov(), atol=0.5, rtol=0.01)
    grey = torch.full((2, 3, 4, 4), 77, dtype=torch.uint8)
    torch.testing.assert_close(ColourTransfer(grey, grey)(grey), grey / 127.5 - 1)


# --- cost -----------------------------------------------------------------------------------------------------------


def test_peak_memory_is_that_of_the_largest_live_tensors():
    """16 channels of 128 x 128 floats are 1 MiB: two such maps live together, before and after the ReLU."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    one, four = (peak_memory(network.train(), 128, batch_size=n) for n in (1, 4))
    assert one == pytest.approx(2, rel=0.05)
    assert four == pytest.approx(8, rel=0.05)
    assert peak_memory(network, (128, 256)) == pytest.approx(4, rel=0.05)
    assert network.training, "the network is left in the mode that it was in"
