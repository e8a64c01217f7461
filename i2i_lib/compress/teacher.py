"""A generator to compress, from whatever file holds it."""

import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from i2i_lib.artifacts import artifact_file, without_suffix
from i2i_lib.checkpoint import load_generator
from i2i_lib.data.pictures import SUFFIXES
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.hub import is_address
from i2i_lib.official import from_cat_state_dict

Teacher = InceptionGenerator | ResnetGenerator
SUPPORTED = (
    "a generator that this library saved, an inception generator of the CAT code, or a ResNet generator of"
    " pytorch-CycleGAN-and-pix2pix (latest_net_G.pth)"
)


def read_teacher(path: str) -> Teacher:
    """The generator in a file: one saved here (the path may lack its suffix), or a state dict of another code.

    Or one on a model hub: see `load_generator`.

    State dicts are read by `official.from_cat_state_dict` from .safetensors, or as weights alone from what `torch.save`
    wrote. Raises FileNotFoundError, or ValueError where the file holds something else, or a generator that does not
    turn colour pictures into colour pictures.
    """
    file = Path(path).expanduser()
    bare = without_suffix(str(file))
    if is_address(path):
        generator = load_generator(path)
    elif artifact_file(bare, "json").is_file():
        generator = load_generator(bare)
    elif file.is_dir():
        raise ValueError(f"{file} is a folder: name the teacher's file in it, {SUPPORTED}")
    elif not file.exists():
        raise FileNotFoundError(f"{file} does not exist: the teacher is {SUPPORTED}")
    elif file.suffix.lower() in SUFFIXES:
        raise ValueError(f"{file} is a picture: first comes the teacher's file, {SUPPORTED}, and then the pictures")
    else:
        try:
            generator = from_cat_state_dict(_state_dict(file))
        except ValueError as error:
            raise ValueError(f"{error} ({file}; supported are {SUPPORTED})") from error
    if not isinstance(generator, Teacher):
        raise ValueError(
            f"{file} is a {type(generator).__name__}, which reads label maps: only generators that read pictures are"
            " compressed by this command. In Python: i2i_lib.prune and i2i_lib.train.recipe"
        )
    config = generator.config
    if (config.in_channels, config.out_channels) != (3, 3):
        raise ValueError(
            f"{file} turns {config.in_channels} channels into {config.out_channels}: expected a generator from colour"
            " pictures to colour pictures, 3 into 3"
        )
    return generator


def _state_dict(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is then an error
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    except Exception as error:  # a pickle meets damage, and objects that are no weights, in as many ways as it can
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0][:160]
        raise ValueError(
            f"no state dict can be read ({reason}): expected what torch.save(net.state_dict(), path) writes, not a"
            " whole pickled network, which would be code to run"
        ) from error
