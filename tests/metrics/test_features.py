"""FID, KID and their kin: equal to other implementations on the same pictures, each under its own protocol."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from i2i_lib.metrics.networks import literature
from i2i_lib.metrics.networks.drn import drn_d_105
from i2i_lib.metrics.sets import frechet_distance, kernel_distance
from i2i_lib.train.device import set_up
from i2i_lib.weights import find_vgg19, hub_checkpoints

N, SIZE = 60, 24


class StandIn(nn.Module):
    """A small extractor with fixed random weights: 8-bit pictures to 12 features."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(torch.randn(12, 3, 5, 5, generator=draw) / 8, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images.float() / 127.5 - 1, self.kernel, stride=2).relu().mean((2, 3))


def pictures(seed: int, n: int = N, size: int = SIZE, shift: float = 0.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=draw) + shift
    return (255 * F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)).to(torch.uint8)


class Plain(literature.Extractor):
    """The same as one of our extractors."""

    frechet, kernel = "FD", "KD"
    network, stage, resize = "stand-in", "12 features", "not resized"
    rounding = "down"
    batch_size = 7  # which does not divide the number of pictures

    def __init__(self) -> None:
        self.layers = StandIn()

    def features(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_fid_and_kid_are_those_of_torchmetrics():
    made, truth, extract = pictures(1, shift=0.1), pictures(2), Plain()
    our_fid = frechet_distance(extract.stats([made]), extract.stats([truth]))
    our_kid = kernel_distance(extract(made), extract(truth))
    fid = FrechetInceptionDistance(feature=StandIn(), input_img_size=(3, SIZE, SIZE))
    with pytest.warns(UserWarning, match="will save all extracted features"):
        kid = KernelInceptionDistance(feature=StandIn(), subsets=1, subset_size=N)
    for images, real in ((made, False), (truth, True)):
        for batch in images.split(20):
            fid.update(batch, real=real)
            kid.update(batch, real=real)
    assert our_fid == pytest.approx(fid.compute().item(), rel=1e-3)
    assert our_kid == pytest.approx(kid.compute()[0].item(), rel=1e-3)
    assert our_fid > 0.01 and our_kid > 1e-4  # and not because there is nothing to measure


# --- protocols -------------------------------------------------------------------------------------------------------


def test_the_two_resizes_are_those_of_their_protocols():
    checker = (255 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)).to(torch.uint8).expand(1, 3, 64, 64)
    # Shrunk, a chequered board is grey to an antialiased filter, and something else to one that skips pixels.
    assert literature.resize_clean(checker, 16).sub(127.5).abs().max() < 5
    assert literature.resize_plain(checker[..., :63, :63], 21).sub(127.5).abs().max() > 100
    # Pillow's own result, one channel at a time in float; overshoot is cut off, nothing is rounded.
    image = pictures(3, 1, 32)
    plane = Image.fromarray(image[0, 1].numpy().astype(np.float32)).resize((48, 48), Image.Resampling.BICUBIC)
    sized = literature.resize_clean(image, 48)
    np.testing.assert_array_equal(sized[0, 1].numpy(), np.asarray(plane).clip(0, 255))
    assert sized.dtype == torch.float32 and (sized != sized.round()).any() and 0 <= sized.min() <= sized.max() <= 255


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory) -> Path:
    """A file of random weights for torch-fidelity's Inception, small enough that no layer overflows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(feature_extractor_inceptionv3.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_inception_trunk_is_that_of_torch_fidelity(random_inception, monkeypatch):
    digest = hashlib.sha256(random_inception.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"has sha256 {digest}: expected the weights that begin with 6726825d"):
        literature.Inception(random_inception)
    monkeypatch.setattr(literature, "INCEPTION_PREFIX", digest[:8])
    theirs = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(random_inception)
    )
    images = pictures(4, 2, 299)  # of the network's own size, so that no resize tells them apart
    clean = literature.Inception(random_inception)
    torch.testing.assert_close(clean(images), theirs(images)[0], rtol=1e-4, atol=1e-6)
    # The CAT code maps 255 to 1 and not to 127/128.
    monkeypatch.setenv("I2I_INCEPTION", str(random_inception))
    cat = literature.CatInception()
    small = pictures(4, 2, 64)
    sized = F.interpolate(small.float() / 255, (299, 299), mode="bilinear") * 2 - 1
    with monkeypatch.context() as patch:  # theirs on what is resized and scaled already: it undoes its own scaling
        name = "interpolate_bilinear_2d_like_tensorflow1x"
        patch.setattr(feature_extractor_inceptionv3, name, lambda *_, **__: sized * 128 + 128)
        wanted = theirs(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))[0]
    torch.testing.assert_close(cat(small), wanted, rtol=1e-3, atol=1e-6)
    assert clean.protocol("a", 2).id != cat.protocol("a", 2).id
    assert [e.frechet for e in literature.available_extractors()[0]] == ["FID (CAT)", "FID (clean)"]


def test_dinov2_runs_on_a_local_copy_of_its_code(tmp_path):
    (tmp_path / "hubconf.py").write_text(
        "from torch import nn\ndependencies = ['torch']\n"
        "def dinov2_vitl14(pretrained=True):\n    assert not pretrained\n"
        "    return nn.Sequential(nn.AvgPool2d(224), nn.Flatten(), nn.Linear(3, 3))\n"
    )
    torch.save({"2.weight": torch.eye(3), "2.bias": torch.zeros(3)}, tmp_path / "weights.pth")
    extract = literature.DinoV2(code=tmp_path, weights=tmp_path / "weights.pth")
    grey = torch.full((2, 3, 50, 50), 51, dtype=torch.uint8)
    wanted = (0.2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(extract(grey), wanted.expand(2, 3), rtol=0, atol=2e-3)
    assert (extract.frechet, extract.kernel) == ("FD-DINOv2", "KD-DINOv2")


def test_without_weights_a_sentence_and_no_download(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("a download"))
    for variable in ("I2I_INCEPTION", "I2I_DINOV2", "I2I_DINOV2_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    found, missing = literature.available_extractors()
    assert found == [] and len(missing) == 2
    assert missing[0].startswith("FID and KID are left out: their weights were not found; `i2i data weights`")
    assert missing[1].startswith("FD-DINOv2 and KD-DINOv2 are left out") and "I2I_DINOV2" in missing[1]
    monkeypatch.setenv("I2I_INCEPTION", str(tmp_path / "absent.pth"))
    with pytest.raises(
        literature.WeightsMissing, match=r"absent\.pth, which should hold their weights, does not exist"
    ):
        literature.CatInception()
    monkeypatch.setenv("I2I_INCEPTION", str(tmp_path))
    with pytest.raises(literature.WeightsMissing, match="is a folder, expected a file with their weights"):
        literature.CatInception()


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_variable_that_is_set_and_empty_is_unset(empty, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("I2I_INCEPTION", "I2I_DINOV2", "I2I_DINOV2_WEIGHTS", "I2I_DRN", "I2I_VGG19", "I2I_GPU"):
        monkeypatch.setenv(variable, empty)
    found, missing = literature.available_extractors()
    assert found == [] and all("were not found" in sentence for sentence in missing)
    with pytest.raises(literature.WeightsMissing, match="were not found"):
        drn_d_105()
    with pytest.raises(ValueError, match="needs the weights of torchvision's VGG-19: put vgg19-"):
        find_vgg19()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda _: None)
    assert set_up(0).type == "cpu", "no GPU is needed"


def test_weights_are_looked_for_where_pytorch_keeps_them(monkeypatch, tmp_path):
    for home in (None, str(tmp_path), "~/elsewhere"):
        monkeypatch.setenv("TORCH_HOME", home) if home else monkeypatch.delenv("TORCH_HOME", raising=False)
        assert hub_checkpoints() == Path(torch.hub.get_dir()).expanduser() / "checkpoints"


def test_distances_carry_their_protocol():
    made = {"teacher": pictures(1), "truth": pictures(2)}
    found = literature.set_distances(Plain(), made, pictures(2), "60 test tiles", torch.arange(N) // 6)
    assert [d.model for d in found] == ["teacher", "teacher", "truth", "truth"]
    assert [d.measure for d in found] == ["FD", "KD", "FD", "KD"]
    assert {d.protocol for d in found} == {Plain().protocol("60 test tiles", N).id}
    assert found[2].value == pytest.approx(0, abs=1e-6)
    low, high = found[1].low, found[1].high
    assert low is not None and high is not None and low < found[1].value < high


def test_without_pairs_the_frechet_distance_of_cat_alone_is_to_all_real_pictures():
    made, test, training = {"student": pictures(1)}, pictures(2), pictures(3)
    everything = [training[:7], training[7:], test], "all 120 tiles"
    cat, blocks = Plain(), torch.arange(N) // 6
    cat.all_real = True
    fid, kid = literature.set_distances(cat, made, test, "60 test tiles", blocks, all_real=everything)
    wanted = frechet_distance(cat.stats([made["student"]]), cat.stats([training, test]))
    assert fid.value == pytest.approx(wanted) and fid.protocol == cat.protocol("all 120 tiles", N).id
    plain = literature.set_distances(Plain(), made, test, "60 test tiles", blocks, all_real=everything)
    assert [d.protocol for d in (kid, *plain)] == [cat.protocol("60 test tiles", N).id] * 3
    assert kid.value == plain[1].value and plain[0].value != fid.value
    assert plain == literature.set_distances(cat, made, test, "60 test tiles", blocks), "with pairs, to the truth"


MEMORY = """
import resource, sys, torch
from i2i_lib.metrics.networks.literature import Extractor
torch.set_num_threads(1)
class Pixels(Extractor):
    batch_size = 500
    def features(self, images):
        return images.flatten(1)
extract = Pixels()
draw = torch.Generator().manual_seed(0)
def batches(n):
    for _ in range(n // 500):
        yield torch.randint(256, (500, 3, 8, 8), generator=draw, dtype=torch.uint8)
peaks = []
for n in (1_000, 50_000):
    assert extract.stats(batches(n)).count == n
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_number_of_pictures():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # 50,000 pictures hold 9 MiB, their features 37 MiB in float32 and 73 in the float64 of the sums.
    assert float(done.stdout) < 5
