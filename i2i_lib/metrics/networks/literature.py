"""Measures of the literature, each under its protocol: FID and KID as the CAT authors and as clean-fid take them,
FD-DINOv2 and KD-DINOv2.

Their weights come with no package. Where they are not found an extractor raises `WeightsMissing`, whose message names
the way to get them. Only `i2i data weights` downloads anything.
"""

import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import read_tile
from i2i_lib.data.tiles import Task, middle
from i2i_lib.files import sha256
from i2i_lib.metrics.pairs import Protocol, quantise
from i2i_lib.metrics.sets import FeatureStats, frechet_distance, kernel_distance_interval
from i2i_lib.weights import DINOV2, INCEPTION, Weights, hub_checkpoints

INCEPTION_PREFIX = "6726825d"  # of the file's SHA-256: by it PyTorch's hub names and checks files


class WeightsMissing(FileNotFoundError):
    """The weights of an extractor were not found. The message is a sentence for the reader."""


def resize_plain(images: Tensor, size: int) -> Tensor:
    """Bilinear, not antialiased: uint8 [N, 3, H, W] to float [N, 3, size, size] in [0, 255] (`legacy_pytorch`)."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False)


def resize_clean(images: Tensor, size: int) -> Tensor:
    """The same by Pillow's antialiased bicubic filter in float, clipped but not rounded: clean-fid's `clean`."""
    planes = [Image.fromarray(plane) for plane in images.cpu().flatten(0, 1).numpy().astype(np.float32)]
    sized = [np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.array(sized)).unflatten(0, images.shape[:2]).clamp(0, 255).to(images.device)


def resize_rounded(images: Tensor, size: int) -> Tensor:
    """Pillow's antialiased bicubic filter on 8-bit pictures, as the authors of FD-DINOv2 resize."""
    pictures = [Image.fromarray(image) for image in images.cpu().permute(0, 2, 3, 1).numpy()]
    sized = [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) for p in pictures]
    return torch.from_numpy(np.array(sized)).permute(0, 3, 1, 2).to(images.device)


class Extractor(ABC):
    """Pictures in, feature vectors out, by a named protocol. A call keeps one batch of resized pictures at a time."""

    frechet: str  # the name of the Fréchet distance on these features
    kernel: str  # and of the kernel distance
    network: str  # with its weights, for the protocol
    stage: str
    resize: str
    rounding: Literal["nearest", "down"] = "nearest"  # of pictures to 8 bits
    all_real = False  # whether the Fréchet distance is to the real pictures that the authors of the paper take
    device: str | torch.device = "cpu"
    batch_size = 32

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features [n, D] of a batch of pictures, uint8 [n, 3, H, W]."""

    def batches(self, images: Tensor) -> Iterator[Tensor]:
        """Features [n, D], float32 on the CPU, of pictures [N, 3, H, W], float in [-1, 1] or uint8."""
        for batch in images.split(self.batch_size):
            with torch.no_grad():
                yield self.features(quantise(batch, self.rounding).to(self.device)).float().cpu()

    def __call__(self, images: Tensor) -> Tensor:
        """Features [N, D] of all pictures."""
        return torch.cat(list(self.batches(images)))

    def stats(self, batches: Iterable[Tensor]) -> FeatureStats:
        """Mean and covariance from any number of batches of pictures, in memory that does not grow."""
        return FeatureStats.from_batches(features for images in batches for features in self.batches(images))

    def protocol(self, split: str, images: int) -> Protocol:
        """How numbers on `images` pictures, measured against those of `split`, came about."""
        bits = {"nearest": "8 bits, rounded", "down": "8 bits, rounded down"}[self.rounding]
        return Protocol(self.network, self.stage, self.resize, bits, split, images)


class Inception(Extractor):
    """FID and KID by clean-fid's own protocol.

    The weights are the file `weights`, else the one that I2I_INCEPTION names, else what torch-fidelity or pytorch-fid
    have downloaded. Raises WeightsMissing if there is none and ValueError for another file.
    """

    frechet, kernel = "FID (clean)", "KID (clean)"
    stage = "2048 pooled features"
    resize = "antialiased bicubic to 299"

    def __init__(self, weights: Path | str | None = None, device: str | torch.device = "cpu") -> None:
        help = "`i2i data weights` downloads them"
        path = find_weights(weights, INCEPTION, "FID and KID", help)
        if not (found := sha256(path)).startswith(INCEPTION_PREFIX):
            raise ValueError(f"{path} has sha256 {found}: expected the weights that begin with {INCEPTION_PREFIX}")
        self.network = f"Inception-v3 of inception-2015-12-05, weights {found[:8]}"
        self.device = device
        self._layers = _inception_layers(read_weights(path)).to(device)

    def features(self, images: Tensor) -> Tensor:
        return self._layers((resize_clean(images, 299) - 128) / 128)


class CatInception(Inception):
    """FID and KID as the CAT authors take them: clean-fid's `legacy_pytorch`, on pictures that are rounded down."""

    frechet, kernel = "FID (CAT)", "KID (CAT)"
    resize = "bilinear to 299, not antialiased"
    rounding = "down"
    all_real = True  # the published FID of zebras is to all 1,474, some 4 lower than to those of the test

    def features(self, images: Tensor) -> Tensor:
        return self._layers(resize_plain(images, 299) * (2 / 255) - 1)


def _inception_layers(state: dict[str, Tensor]) -> nn.Sequential:
    """torch-fidelity's network without its own resize: [n, 3, 299, 299] in [-1, 1] -> [n, 2048]."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # It unpickles whatever file it is given, so it is given one that was written here from checked tensors.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
    return nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"), nn.Flatten()).eval()


class DinoV2(Extractor):
    """FD-DINOv2 and KD-DINOv2 (Stein et al. 2023): class token of ViT-L/14, resized as their code does.

    The weights are the file `weights`, else the one that I2I_DINOV2_WEIGHTS names, else dinov2_vitl14_pretrain.pth in
    the checkpoint folder of PyTorch's hub. Raises WeightsMissing if there is none and ValueError for another file.
    """

    frechet, kernel = "FD-DINOv2", "KD-DINOv2"
    stage = "class token, 1024"
    resize = "antialiased bicubic to 224, in 8 bits"
    sizes: ClassVar = {"embed_dim": 1024, "depth": 24, "num_heads": 16}

    def __init__(self, weights: Path | str | None = None, device: str | torch.device = "cpu") -> None:
        (name,) = DINOV2.names
        source = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{name}"
        path = find_weights(
            weights, DINOV2, f"{self.frechet} and {self.kernel}", f"get {source} into {hub_checkpoints()}"
        )
        try:
            network = _vision_transformer(read_weights(path), **self.sizes)
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} is not {name}: {shorten(str(error), 300)}") from error
        self.network = f"DINOv2 ViT-L/14, weights {sha256(path)[:8]}"
        self.device = device
        self._vit = network.to(device)
        self._mean = torch.tensor((0.485, 0.456, 0.406), device=device).view(3, 1, 1)  # of ImageNet
        self._deviation = torch.tensor((0.229, 0.224, 0.225), device=device).view(3, 1, 1)

    def features(self, images: Tensor) -> Tensor:
        return self._vit((resize_rounded(images, 224) / 255 - self._mean) / self._deviation)


def _vision_transformer(state: dict[str, Tensor], **sizes: Any) -> nn.Module:
    """timm's vision transformer, whose names are those of DINOv2's file: [n, 3, 224, 224] -> [n, embed_dim]."""
    from timm.models.vision_transformer import VisionTransformer  # imported here: it takes a second

    state = {name: tensor for name, tensor in state.items() if name != "mask_token"}  # for training alone
    state["pos_embed"] = _resampled_positions(state["pos_embed"], 224 // 14)
    with torch.device("meta"):  # neither memory nor random numbers for what is replaced
        network = VisionTransformer(img_size=224, patch_size=14, num_classes=0, init_values=1.0, **sizes)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _resampled_positions(positions: Tensor, side: int) -> Tensor:
    """Embeddings of the positions [1, 1 + n * n, C], the class token's first, for `side` patches a side.

    DINOv2 learnt them at 518 pixels. Its code enlarges the side by a tenth of a patch, and does not antialias.
    """
    n = isqrt(positions.shape[1] - 1)
    grid = positions[:, 1:].unflatten(1, (n, n)).movedim(-1, 1)
    grid = F.interpolate(grid, scale_factor=(side + 0.1) / n, mode="bicubic")
    return torch.cat([positions[:, :1], grid.movedim(1, -1).flatten(1, 2)], 1)


def available_extractors(device: str | torch.device = "cpu") -> tuple[list[Extractor], list[str]]:
    """The extractors whose weights are found, and a sentence for each of those whose are not."""
    found: list[Extractor] = []
    missing: list[str] = []
    for extractor in (CatInception, Inception, DinoV2):
        try:
            found.append(extractor(device=device))
        except WeightsMissing as error:
            missing.append(str(error))
    return found, list(dict.fromkeys(missing))


def find_weights(given: Path | str | None, weights: Weights, what: str, help: str) -> Path:
    """The file `given`, else the one that is found.

    Raises WeightsMissing, which names what is skipped and how to get it.
    """
    path = Path(given) if given else weights.find()
    if path is None:
        raise WeightsMissing(
            f"{what} are left out: their weights were not found; {help}, or {weights.variable} names them."
        )
    if not path.exists():
        raise WeightsMissing(f"{what} are left out: {path}, which should hold their weights, does not exist.")
    if path.is_dir():
        raise WeightsMissing(f"{what} are left out: {path} is a folder, expected a file with their weights.")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file by name; ValueError if it is damaged or holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or holds more than plain tensors: {error}") from error


@dataclass(frozen=True, slots=True)
class SetDistance:
    """How far a set of pictures lies from a reference set, by one protocol."""

    model: str
    measure: str
    protocol: str
    value: float  # a kernel distance is times 1000
    low: float | None = None  # 95 % interval over independent blocks, of a kernel distance; None of fewer than 5
    high: float | None = None


def set_distances(
    extractor: Extractor,
    pictures: Mapping[str, Tensor],
    reference: Tensor,
    split: str,
    blocks: Tensor,
    *,
    all_real: tuple[Iterable[Tensor], str] | None = None,
) -> list[SetDistance]:
    """Fréchet and kernel distance of each model's pictures to the reference pictures, which `split` names.

    `all_real` are batches of the real pictures that FID (CAT) is taken to, where these are not `reference`, and their
    name: without pairs those of training and test, of `maps` those of the test at their own size. Their KID is to the
    test's.
    """
    real = extractor(reference)
    real_stats, frechet_split = FeatureStats.from_batches([real]), split
    if all_real and extractor.all_real:
        batches, frechet_split = all_real
        real_stats = extractor.stats(batches)
    found = []
    for model, images in pictures.items():
        features = extractor(images)
        frechet = frechet_distance(FeatureStats.from_batches([features]), real_stats)
        # Drawn by themselves though they may show the same places: KID compares a picture with its own target, too.
        kd = kernel_distance_interval(features, real, blocks, target_blocks=blocks).scaled(1000)
        to_real, to_test = (extractor.protocol(name, len(images)).id for name in (frechet_split, split))
        found.append(SetDistance(model, extractor.frechet, to_real, frechet))
        found.append(SetDistance(model, extractor.kernel, to_test, kd.value, kd.low, kd.high))
    return found


def real_targets(task: Task, batch_size: int = 32) -> Iterator[Tensor]:
    """Every target picture of training and test as those of the test are, uint8 [n, 3, H, W], in batches.

    Of a training tile that is larger, this is the middle; a picture in a file is read anew at the test's size.
    """
    height, width = task.test.target.shape[-2:]
    for images in (task.train.target, task.test.target):
        target: Any = images
        for start in range(0, len(images), batch_size):
            if isinstance(target, FileImages):
                paths = [target.folder / name for name in list(target.files)[start : start + batch_size]]
                yield torch.stack(
                    [read_tile(path, height, target.halves, filter=target.filter)[target.half] for path in paths]
                )
            else:
                yield middle(images[start : start + batch_size], (height, width))
