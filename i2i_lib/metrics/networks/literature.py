"""The measures of the literature, each under its protocol: FID and KID as the CAT authors and as clean-fid take them,
FD-DINOv2 and KD-DINOv2.

Their weights come with no package. Where they are not at hand an extractor raises `WeightsMissing`, whose message says
how to get them, and the book goes on without. Nothing is downloaded unless asked for, by
`python -m i2i_lib.metrics`.
"""

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from i2i_lib.files import sha256
from i2i_lib.metrics.pairs import Protocol, floor_quantise, quantise
from i2i_lib.metrics.sets import FeatureStats, frechet_distance, kernel_distance, kernel_distance_interval

FORMAT = 1
# The TensorFlow network of 2015 that FID is defined on, as ported for pytorch-fid and, the same file, torch-fidelity.
INCEPTION = "inception-2015-12-05"
INCEPTION_PREFIX = "6726825d"  # of the file's SHA-256: by it PyTorch's hub names and checks files
INCEPTION_FILES = (f"weights-{INCEPTION}-{INCEPTION_PREFIX}.pth", f"pt_{INCEPTION}-{INCEPTION_PREFIX}.pth")


class WeightsMissing(FileNotFoundError):
    """The weights of an extractor are not at hand. The message is a sentence for the reader."""


def resize_plain(images: Tensor, size: int) -> Tensor:
    """uint8 [N, 3, H, W] to float [N, 3, size, size] in [0, 255], bilinear without antialiasing: clean-fid's
    `legacy_pytorch`."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False)


def resize_clean(images: Tensor, size: int) -> Tensor:
    """The same by Pillow's antialiased bicubic filter in float, clipped but not rounded: clean-fid's `clean`."""
    planes = images.cpu().numpy().astype(np.float32)
    sized = [
        [np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)) for plane in image]
        for image in planes
    ]
    return torch.from_numpy(np.array(sized)).clamp(0, 255).to(images.device)


def _resize_rounded(images: Tensor, size: int) -> Tensor:
    """Pillow's antialiased bicubic filter on 8-bit pictures, as the authors of FD-DINOv2 resize."""
    pictures = [Image.fromarray(image) for image in images.cpu().permute(0, 2, 3, 1).numpy()]
    sized = [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) for p in pictures]
    return torch.from_numpy(np.array(sized)).permute(0, 3, 1, 2).to(images.device)


@dataclass(frozen=True, slots=True)
class Extractor:
    """Pictures in, feature vectors out, by a named protocol. Calls keep one batch of resized pictures at a time."""

    frechet: str  # what the Frechet distance on these features is called
    kernel: str  # and the kernel distance
    network: Callable[[Tensor], Tensor]  # [n, 3, size, size] in [0, 255] -> [n, D]
    size: int
    resize: Callable[[Tensor, int], Tensor]
    to_8_bits: Callable[[Tensor], Tensor]
    name: str  # network and weights, for the protocol
    stage: str
    how: str  # the resize in words
    bits: str  # and the quantisation
    device: str | torch.device = "cpu"
    batch_size: int = 32
    all_real: bool = False  # whether, without pairs, the Frechet distance is to the real pictures of training and test

    def batches(self, images: Tensor) -> Iterable[Tensor]:
        """Features [n, D], float32 on the CPU, of pictures [N, 3, H, W], float in [-1, 1] or uint8, batch by batch."""
        for batch in images.split(self.batch_size):
            with torch.no_grad():
                yield self.network(self.resize(self.to_8_bits(batch).to(self.device), self.size)).float().cpu()

    def __call__(self, images: Tensor) -> Tensor:
        """Features [N, D] of all pictures."""
        return torch.cat(list(self.batches(images)))

    def stats(self, images: Tensor | Iterable[Tensor]) -> FeatureStats:
        """Mean and covariance, from pictures or from any number of batches of them, in memory that does not grow."""
        parts = [images] if isinstance(images, Tensor) else images
        return FeatureStats.from_batches(features for part in parts for features in self.batches(part))

    def protocol(self, split: str, images: int) -> Protocol:
        """How numbers on `images` pictures, measured against those of `split`, came about."""
        return Protocol(self.name, self.stage, self.how, self.bits, split, images)


def inception(
    mode: Literal["cat", "clean"], *, weights: Path | str | None = None, device: str | torch.device = "cpu"
) -> Extractor:
    """FID and KID: as the CAT authors take them (clean-fid's `legacy_pytorch`), or by clean-fid's own protocol.

    The weights are the file `weights`, or the one that the variable I2I_INCEPTION names, or what torch-fidelity or
    pytorch-fid have downloaded. Raises WeightsMissing if there is none and ValueError for another file.
    """
    path = weights_at_hand(
        weights,
        "I2I_INCEPTION",
        INCEPTION_FILES,
        "FID and KID",
        "`python -m i2i_lib.metrics` downloads them",
    )
    if not (found := sha256(path)).startswith(INCEPTION_PREFIX):
        raise ValueError(f"{path} has sha256 {found}: expected the weights that begin with {INCEPTION_PREFIX}")
    layers = _inception_layers(_state(path)).to(device)
    described = f"Inception-v3 of {INCEPTION}, weights {found[:8]}"
    if mode == "cat":
        return Extractor(
            frechet="FID (CAT)",
            kernel="KID (CAT)",
            network=lambda x: layers(x * (2 / 255) - 1),
            size=299,
            resize=resize_plain,
            to_8_bits=floor_quantise,
            name=described,
            stage="2048 pooled features",
            how="bilinear to 299, not antialiased",
            bits="8 bits, rounded down",
            device=device,
            all_real=True,  # the published FID of zebras is to all 1,474, some 4 lower than to those of the test
        )
    if mode == "clean":
        return Extractor(
            frechet="FID (clean)",
            kernel="KID (clean)",
            network=lambda x: layers((x - 128) / 128),
            size=299,
            resize=resize_clean,
            to_8_bits=quantise,
            name=described,
            stage="2048 pooled features",
            how="antialiased bicubic to 299",
            bits="8 bits, rounded",
            device=device,
        )
    raise ValueError(f"unknown mode {mode!r}: expected 'cat' or 'clean'")


def _inception_layers(state: dict[str, Tensor]) -> nn.Sequential:
    """torch-fidelity's network without its own resize: [n, 3, 299, 299] in [-1, 1] -> [n, 2048]."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # It unpickles whatever file it is given, so it is given one that was written here from checked tensors.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
    return nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"), nn.Flatten()).eval()


def dinov2(
    *, code: Path | str | None = None, weights: Path | str | None = None, device: str | torch.device = "cpu"
) -> Extractor:
    """FD-DINOv2 and KD-DINOv2 (Stein et al. 2023): class token of ViT-L/14, resized as their code does.

    Needs a copy of the repository facebookresearch/dinov2 (`code`, else the variable I2I_DINOV2, else PyTorch's hub
    cache) and dinov2_vitl14_pretrain.pth (`weights`, else I2I_DINOV2_WEIGHTS, else the same cache). Raises
    WeightsMissing if either is not there.
    """
    what = "FD-DINOv2 and KD-DINOv2"
    help = "`torch.hub.load('facebookresearch/dinov2', 'dinov2_vitl14')` downloads both"
    folder = weights_at_hand(code, "I2I_DINOV2", ("../facebookresearch_dinov2_main",), what, help)
    path = weights_at_hand(weights, "I2I_DINOV2_WEIGHTS", ("dinov2_vitl14_pretrain.pth",), what, help)
    network: Any = torch.hub.load(str(folder), "dinov2_vitl14", source="local", pretrained=False)
    network.load_state_dict(_state(path))
    network.to(device).eval().requires_grad_(False)
    mean, deviation = (torch.tensor(v, device=device).view(3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
    return Extractor(
        frechet="FD-DINOv2",
        kernel="KD-DINOv2",
        network=lambda x: network((x / 255 - mean) / deviation),
        size=224,
        resize=_resize_rounded,
        to_8_bits=quantise,
        name=f"DINOv2 ViT-L/14, weights {sha256(path)[:8]}",
        stage="class token, 1024",
        how="antialiased bicubic to 224, in 8 bits",
        bits="8 bits, rounded",
        device=device,
    )


_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def at_hand(device: str | torch.device = "cpu") -> tuple[list[Extractor], list[str]]:
    """The extractors whose weights are at hand, and a sentence for each of those that are not."""
    found, missing = [], []
    makers: list[Callable[[], Extractor]] = [
        lambda: inception("cat", device=device),
        lambda: inception("clean", device=device),
        lambda: dinov2(device=device),
    ]
    for make in makers:
        try:
            found.append(make())
        except WeightsMissing as error:
            missing.append(str(error))
    return found, list(dict.fromkeys(missing))


def weights_at_hand(given: Path | str | None, variable: str, names: Iterable[str], what: str, help: str) -> Path:
    """The file or folder `given`, else the one that the environment's `variable` names, else the first of `names` in
    the checkpoint folder of PyTorch's hub. Raises WeightsMissing: `what` is left out, and `help` gets it."""
    if given or variable in os.environ:
        path = Path(given or os.environ[variable])
        if not path.exists():
            raise WeightsMissing(f"{what} are left out: {path}, which should hold what they need, does not exist.")
        return path
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in names:
        if (cache / name).exists():
            return (cache / name).resolve()
    raise WeightsMissing(f"{what} are left out: their weights are not at hand; {help}, or {variable} names them.")


def _state(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True, slots=True)
class SetDistance:
    """How far a set of pictures lies from a reference set, by one protocol."""

    model: str
    measure: str
    protocol: str
    value: float  # a kernel distance is times 1000
    low: float | None = None  # 95 % interval over geographic blocks, of a kernel distance
    high: float | None = None


def set_distances(
    extractor: Extractor,
    pictures: dict[str, Tensor],
    reference: Tensor,
    split: str,
    blocks: Tensor | None = None,
    *,
    all_real: tuple[Iterable[Tensor], str] | None = None,
) -> list[SetDistance]:
    """Frechet and kernel distance of each model's pictures to the reference pictures, which `split` names.

    With `blocks` [N] of the pictures, the kernel distance gets its bootstrap interval. `all_real`, for tasks without
    pairs, are batches of the real pictures of training and test, and their name: what FID (CAT) is taken to, as its
    authors do, while their KID is to the test's.
    """
    real = extractor(reference)
    real_stats, frechet_split = FeatureStats.from_batches([real]), split
    if all_real and extractor.all_real:
        batches, frechet_split = all_real
        real_stats = extractor.stats(batches)
    found = []
    for model, images in pictures.items():
        made = extractor(images)
        frechet = frechet_distance(FeatureStats.from_batches([made]), real_stats)
        protocol = extractor.protocol(frechet_split, len(images)).id
        found.append(SetDistance(model, extractor.frechet, protocol, frechet))
        protocol = extractor.protocol(split, len(images)).id
        if blocks is None:
            kernel = (1000 * kernel_distance(made, real),)
        else:
            e = kernel_distance_interval(made, real, blocks)
            kernel = (1000 * e.value, 1000 * e.low, 1000 * e.high)
        found.append(SetDistance(model, extractor.kernel, protocol, *kernel))
    return found
