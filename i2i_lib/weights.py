"""Weights that no Python package carries: where they lie, if they are at hand.

Light, so that the planner of a run can look them up. Nothing here reads or downloads them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from i2i_lib.variables import variable_path


@dataclass(frozen=True, slots=True)
class Weights:
    """A file that a variable of the environment names, else one of some names in the checkpoints of PyTorch's hub."""

    variable: str
    names: tuple[str, ...]

    def find(self) -> Path | None:
        """The path that the variable names, whether or not anything is there; else the first of the names that is."""
        named = variable_path(self.variable)
        if named:
            return named
        places = (hub_checkpoints() / name for name in self.names)
        return next((place.resolve() for place in places if place.exists()), None)


# The TensorFlow network of 2015 that FID is defined on, as ported for pytorch-fid and, the same file, torch-fidelity.
INCEPTION = Weights(
    "I2I_INCEPTION", ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
)
DINOV2 = Weights("I2I_DINOV2_WEIGHTS", ("dinov2_vitl14_pretrain.pth",))
DRN = Weights("I2I_DRN", ("drn-d-105_ms_cityscapes.pth",))
VGG19 = Weights("I2I_VGG19", ("vgg19-dcbb9e9d.pth",))


def hub_checkpoints() -> Path:
    """Folder in which PyTorch's hub keeps weights."""
    # As torch.hub.get_dir, whose import takes a second.
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))).expanduser() / "hub" / "checkpoints"


def at_hand(*wanted: Weights) -> list[str]:
    """The files of them that are there, for a rule that depends on them."""
    return [str(path) for each in wanted if (path := each.find()) and path.is_file()]


def find_vgg19() -> Path:
    """The weights of VGG-19 for a perceptual loss. Raises ValueError, with the way out, where they are not at hand."""
    path = VGG19.find()
    if path and not path.is_file():
        raise ValueError(f"{VGG19.variable} names {path}, which is not a file: correct or unset it")
    if not path:
        raise ValueError(
            f"perceptual='vgg19' needs the weights of torchvision's VGG-19: put {VGG19.names[0]} into"
            f" {hub_checkpoints()}, or name the file in the variable {VGG19.variable}; or set perceptual to 'none',"
            " which trains on another loss than the published one"
        )
    return path
