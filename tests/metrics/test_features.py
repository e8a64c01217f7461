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


def dinov2(state: dict[str, torch.Tensor], x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The class token by the published definition, two heads to a block."""
    part = lambda name: (state[f"{name}.weight"], state[f"{name}.bias"])  # noqa: E731
    norm = lambda name, x: F.layer_norm(x, x.shape[-1:], *part(name), eps=1e-6)  # noqa: E731
    x = F.conv2d(x, *part("patch_embed.proj"), stride=14).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + positions
    for block in ("blocks.0", "blocks.1"):
        q, k, v = F.linear(norm(f"{block}.norm1", x), *part(f"{block}.attn.qkv")).unflatten(-1, (3, 2, -1)).unbind(2)
        weights = torch.einsum("nihc,njhc->nhij", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
        attended = F.linear(torch.einsum("nhij,njhc->nihc", weights, v).flatten(2), *part(f"{block}.attn.proj"))
        x = x + state[f"{block}.ls1.gamma"] * attended
        hidden = F.gelu(F.linear(norm(f"{block}.norm2", x), *part(f"{block}.mlp.fc1")))
        x = x + state[f"{block}.ls2.gamma"] * F.linear(hidden, *part(f"{block}.mlp.fc2"))
    return norm("norm", x)[:, 0]


def dinov2_state(width: int = 12) -> dict[str, torch.Tensor]:
    """Random weights with the names and, but for the width, the shapes of the published file."""
    norms = {f"{name}.{kind}": (width,) for name in ("norm1", "norm2") for kind in ("weight", "bias")}
    shapes = norms | {"ls1.gamma": (width,), "ls2.gamma": (width,)}
    for name, inputs, outputs in [("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)]:
        shapes |= {f"{name}.weight": (outputs * width, inputs * width), f"{name}.bias": (outputs * width,)}
    shapes = {f"blocks.{i}.{name}": shape for i in range(2) for name, shape in shapes.items()}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "patch_embed.proj.bias": (width,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "cls_token": (1, 1, width), "mask_token": (1, width)}
    shapes["pos_embed"] = (1, 1 + 37 * 37, width)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}


def test_dinov2_is_the_published_network(tmp_path, monkeypatch):
    state = dinov2_state()
    torch.save(state, tmp_path / "weights.pth")
    monkeypatch.setattr(literature.DinoV2, "sizes", {"embed_dim": 12, "depth": 2, "num_heads": 2})
    extract = literature.DinoV2(tmp_path / "weights.pth")
    noise = pictures(3, 2, 224)  # at the network's own size
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (noise / 255 - mean[:, None, None]) / deviation[:, None, None]
    wanted = dinov2(state, scaled, literature._resampled_positions(state["pos_embed"], 16))
    torch.testing.assert_close(extract(noise), wanted, rtol=1e-5, atol=1e-5)
    assert (extract.frechet, extract.kernel) == ("FD-DINOv2", "KD-DINOv2")

    torch.save(state | {"norm.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not dinov2_vitl14_pretrain\.pth: .*norm\.bias"):
        literature.DinoV2(tmp_path / "other.pth")


def test_positions_are_resampled_as_dinov2_does():
    """A ramp nearly stays one: 16 patches lie on the 37 learnt ones as 16.1 of equal width would."""
    rows, columns = torch.meshgrid(torch.arange(37.0), torch.arange(37.0), indexing="ij")
    ramp = torch.stack([rows, columns], -1).flatten(0, 1)
    made = literature._resampled_positions(torch.cat([torch.tensor([[-7.0, -9]]), ramp])[None], 16)[0]
    assert made[0].tolist() == [-7, -9] and made.shape == (257, 2)
    places = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(made[1:, 0].view(16, 16)[1:-1, 5], places[1:-1], rtol=0, atol=0.06)
    torch.testing.assert_close(made[1:, 1].view(16, 16)[5, 1:-1], places[1:-1], rtol=0, atol=0.06)


def test_without_weights_a_sentence_and_no_download(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("a download"))
    for variable in ("I2I_INCEPTION", "I2I_DINOV2_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    found, missing = literature.available_extractors()
    assert found == [] and len(missing) == 2
    assert missing[0].startswith("FID and KID are left out: their weights were not found; `i2i data weights`")
    assert missing[1].startswith("FD-DINOv2 and KD-DINOv2 are left out") and "I2I_DINOV2_WEIGHTS" in missing[1]
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
    for variable in ("I2I_INCEPTION", "I2I_DINOV2_WEIGHTS", "I2I_DRN", "I2I_VGG19", "I2I_GPU"):
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
