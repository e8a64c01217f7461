"""Networks of the official code and its relatives, read from their state dicts."""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from i2i_lib.checkpoint import Generator, fill
from i2i_lib.config import BlockWidths, GeneratorConfig, Norm, ResnetConfig, SpadeBlockWidths, SpadeConfig
from i2i_lib.generators import InceptionBlock, InceptionGenerator, ResnetGenerator
from i2i_lib.spade import InceptionSpadeGenerator

# What training scripts put around a generator's state dict, and before its names.
_CONTAINERS = ("netG", "net_G", "generator", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.", "netG.", "net_G.", "generator.")  # DataParallel, torch.compile, whole GANs
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def from_cat_state_dict(state: Mapping[str, Any], *, upsamplings: int = 6, padding: str = "reflect") -> Generator:
    """Our generator, in eval mode, from the state dict of an official one.

    Reads inception and inception-SPADE teachers and students of the CAT code, and ResNet generators of the
    pix2pix/CycleGAN code (which its forks share, CAT's included), plain or, with norms of one kind, separable.
    Widths come from the shapes, since such files hold nothing else; every key must then be the expected one. Numbers of
    any precision become float32. Whole checkpoints ({"state_dict": ...}, {"model": ...}, {"netG": ...}) and prefixes of
    `DataParallel`, `torch.compile` and GAN classes are unwrapped. Read a file with
    `torch.load(path, map_location="cpu", weights_only=True)`.

    Three things leave no trace in a file:

    - Dropout. It does nothing in eval mode, so its layers are not rebuilt.
    - `padding` at the borders. Only "reflect", the official default, can be rebuilt, and any other value is refused;
      a network trained with replicate or zero padding would be read without an error and differ at its borders.
      Compare with one picture that the original made where this is not known.
    - `upsamplings`, how often a SPADE generator doubles its grid: 5 for the official "normal", 6 for "more", 7 for
      "most".

    Instance norms with stored statistics are ambiguous, and a UserWarning tells what was assumed. With
    `num_batches_tracked` in the file they were tracked, and PyTorch normalises by them in eval mode: they become batch
    norms, which compute the same. Without it they are of PyTorch before 0.4, which stored and never used them: each
    picture is then normalised by its own.

    Raises ValueError naming the first key that is missing, foreign or of another shape, and what was expected.
    """
    if padding != "reflect":
        raise ValueError(
            f"padding={padding!r} cannot be rebuilt: these generators reflect their borders. With padding='reflect' the"
            " file can be read, and its pictures differ from the original's near the borders: compare one of each"
        )
    state = _unwrapped(state)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            inner = [repr(other) for other, held in state.items() if isinstance(held, Mapping)]
            where = f", perhaps what {' or '.join(inner)} holds" if inner else ""
            raise ValueError(
                f"{name!r} holds {type(value).__name__}, expected a tensor: pass the state dict itself{where}"
            )
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise ValueError(f"{name!r} is sparse, quantised, complex or without data: expected plain real numbers")
    _refuse_relatives(state)
    if any(name.startswith(("down_sampling.", "features.", "up_sampling.")) for name in state):
        read = _official_inception
    elif any(name.startswith(("fc.", "head_0.", "conv_img.")) for name in state):
        read = partial(_official_spade, upsamplings=upsamplings)
    elif any(name.startswith("model.") for name in state):
        read = _official_resnet
    else:
        raise ValueError(
            f"not an official generator: expected 'down_sampling.1.weight' (inception), 'fc.weight' (SPADE) or"
            f" 'model.1.weight' (ResNet), the first key is {next(iter(state), None)!r}"
        )
    with torch.device("meta"):  # as in `checkpoint`
        net, names = read(state)
    if not isinstance(net, InceptionSpadeGenerator):
        _complete_norms(net, state, names)
        if net.config.in_channels < 3:
            raise ValueError(
                f"this generator reads pictures of {net.config.in_channels} channel(s) (the shape of its first"
                " convolution): expected 3, for colour pictures, or one for each class of a label map"
            )
    for name in names.values():
        if name.endswith(".num_batches_tracked"):  # unused here, and files from before PyTorch 0.4.1 have none
            state.setdefault(name, torch.tensor(0))
    fill(net, state, names, "the state dict")
    return net.eval()


def _unwrapped(state: Any) -> dict[str, Any]:
    """The generator's own state dict, under its own names."""
    if not isinstance(state, Mapping):
        raise ValueError(f"expected a state dict, got a {type(state).__name__}: pass what `.state_dict()` returns")
    while True:
        inner = [name for name in _CONTAINERS if isinstance(state.get(name), Mapping)]
        if not inner:
            break
        state = state[inner[0]]
    state = {str(name): value for name, value in state.items()}
    while True:
        found = [prefix for prefix in _WRAPPERS if any(name.startswith(prefix) for name in state)]
        if not found:
            return state
        # What else a GAN's file holds, such as the discriminator, is left out; any other wrapper holds all there is.
        others = [name for name in state if not name.startswith(found[0])]
        if others and found[0] in ("module.", "_orig_mod."):
            raise ValueError(f"{others[0]!r} does not begin with {found[0]!r}, as other names do: expected all or none")
        state = {name.removeprefix(found[0]): state[name] for name in state if name not in others}


def _refuse_relatives(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError, by name, for generators of the same family of codes that have no counterpart here."""
    filters = [name for name in state if name.endswith(".filt")]
    if filters:
        raise ValueError(
            f"{filters[0]!r} is the blur of an antialiased network, CUT's default, which has no counterpart here:"
            " expected a ResNet trained with --no_antialias --no_antialias_up"
        )
    if getattr(state.get("model.0.weight"), "ndim", 0) == 4 or "net.0.weight" in state:
        raise ValueError(
            "'model.0.weight' or 'net.0.weight' begins a discriminator (such as latest_net_D.pth), which judges"
            " pictures and makes none: expected a generator (latest_net_G.pth)"
        )
    nested = [name for name in state if re.match(r"model\.model\.\d+\.model\.", name)]
    if nested:
        raise ValueError(
            f"{nested[0]!r} is part of a U-Net (unet_128 or unet_256 of pix2pix), which has no counterpart here:"
            " expected a ResNet generator, such as resnet_9blocks"
        )


def _complete_norms(net: Any, state: dict[str, Tensor], names: Mapping[str, str]) -> None:
    """Bring the file's norms, in place, into the form that those of `net` have.

    Instance norms of PyTorch before 0.4 lose statistics that they never used. Norms that normalise by their statistics
    take the biases before them into their means. Norms without scale and shift get 1 and 0.
    """
    norms = [name for name, part in net.named_modules() if isinstance(part, nn.BatchNorm2d | nn.InstanceNorm2d)]
    if net.config.norm == "instance":
        stored = [name for name in state if name.endswith(_STATISTICS)]
        if stored:
            warnings.warn(
                f"{stored[0]!r} and its like are ignored: without 'num_batches_tracked' they are taken for those of"
                " PyTorch before 0.4, which instance norms stored and never used",
                stacklevel=3,
            )
        for name in stored:
            del state[name]
    else:
        biases = {}
        for norm in norms:
            weights = [names[f"{conv}.weight"] for conv in _before(net, norm)]
            biases[norm] = [name.removesuffix("weight") + "bias" for name in weights]
        if not any(name in state for found in biases.values() for name in found):
            return  # plain batch norms
        warnings.warn(
            "the norms store statistics ('num_batches_tracked') after convolutions with biases: they are taken for"
            " instance norms with track_running_stats=True, which in eval mode normalise by these, and read as batch"
            " norms. Pictures made in training mode were normalised by their own",
            stacklevel=3,
        )
        for norm, found in biases.items():
            mean = names[f"{norm}.running_mean"]
            for name in found:
                if name not in state or mean not in state or state[name].shape != state[mean].shape:
                    raise ValueError(
                        f"{name!r} or {mean!r} is missing, or their shapes differ: expected one per channel"
                    )
                state[mean] = state[mean].float() - state.pop(name).float()
    if not any(names[f"{norm}.{leaf}"] in state for norm in norms for leaf in ("weight", "bias")):
        for norm in norms:
            channels = net.get_submodule(norm).num_features
            state[names[f"{norm}.weight"]] = torch.ones(channels)
            state[names[f"{norm}.bias"]] = torch.zeros(channels)


def _before(net: nn.Module, norm: str) -> list[str]:
    """The names of the convolutions whose sum a norm normalises."""
    owner = norm.rpartition(".")[0]
    part: Any = net.get_submodule(owner)
    if isinstance(part, InceptionBlock):
        return [f"{owner}.{kind}.{name}.project" for kind in ("conv", "depthwise") for name in getattr(part, kind)]
    if hasattr(part, "spatial"):
        return [f"{owner}.spatial"]
    return [f"{owner}.conv.project" if hasattr(part.conv, "project") else f"{owner}.conv"]


def _official_inception(state: dict[str, Tensor]) -> tuple[InceptionGenerator, dict[str, str]]:
    """The network that the shapes imply, still unfilled, and the official name of each of its tensors."""
    prefixes = {f"stem.{i}.{part}": f"down_sampling.{3 * i + j}" for i in range(3) for j, part in _CONV_NORM}
    prefixes |= {f"up.{i}.{part}": f"up_sampling.{3 * i + j - 1}" for i in range(2) for j, part in _CONV_NORM}
    prefixes["head"] = "up_sampling.7"
    stem = [_shape(state, f"down_sampling.{i}.weight") for i in (1, 4, 7)]
    found: list[_Found] = []
    for i in range(_count(state, "features", "pw_bn.weight", at_least=3)):
        block = _official_branches(state, f"features.{i}", _BRANCHES, prefixes, f"blocks.{i}")
        if any(block.values()):
            prefixes[f"blocks.{i}.norm"] = f"features.{i}.pw_bn"
        else:  # the official identity block still has its closing norm
            _drop(state, f"features.{i}.pw_bn.")
        found.append(block)
    sizes = _kernel_sizes(found)
    config = GeneratorConfig(
        stem=tuple(shape[0] for shape in stem),
        blocks=tuple(_widths(block, sizes) for block in found),
        up=tuple(_shape(state, f"up_sampling.{i}.weight")[1] for i in (0, 3)),  # transposed: inputs first
        norm=_official_norm(state, "down_sampling.1", "down_sampling.2"),
        kernel_sizes=sizes,
        in_channels=stem[0][1],
        out_channels=_shape(state, "up_sampling.7.weight")[0],
    )
    net = InceptionGenerator(config)
    return net, _named_by_prefix(net, prefixes)


def _official_spade(state: dict[str, Tensor], upsamplings: int) -> tuple[InceptionSpadeGenerator, dict[str, str]]:
    """As `_official_inception`."""
    prefixes = {"stem.conv": "fc", "stem.norm": "fc_norm", "head": "conv_img"}
    stem, label_channels, *_ = _shape(state, "fc.weight")
    ups = _count(state, "up", "shortcut.1.conv.weight", at_least=4, separator="_")
    if ups > 4 and upsamplings != 7:
        raise ValueError(f"'up_4' is in the state dict, and upsamplings={upsamplings}: expected upsamplings=7 ('most')")
    found: list[tuple[int, _Found, _Found]] = []
    width = stem
    for name in ("head_0", "G_middle_0", "G_middle_1", *(f"up_{i}" for i in range(ups))):
        ours = f"blocks.{name}"
        if name.startswith("up_") or f"{name}.shortcut.1.conv.weight" in state:
            width = _shape(state, f"{name}.shortcut.1.conv.weight")[0]
            prefixes |= {
                f"{ours}.shortcut.norm": f"{name}.shortcut.0",
                f"{ours}.shortcut.conv": f"{name}.shortcut.1.conv",
            }
        body = _official_branches(state, name, _SPADE_BODY, prefixes, f"{ours}.body")
        spade = _official_branches(state, f"{name}.spade", _SPADE_LABELS, prefixes, f"{ours}.spade")
        unscaled = f"{name}.spade.param_free_norm"
        if f"{unscaled}.running_mean" not in state:
            raise ValueError(f"'{unscaled}.running_mean' is missing: expected one value for each of the block's inputs")
        if any(body.values()):
            prefixes[f"{ours}.norm"] = unscaled
        else:  # without branches the official block still has a SPADE that it never uses
            _drop(state, f"{name}.spade.")
        found.append((width, body, spade))
    sizes = _kernel_sizes([branches for _, *both in found for branches in both])
    config = SpadeConfig(
        stem,
        tuple(SpadeBlockWidths(width, _widths(body, sizes), _widths(spade, sizes)) for width, body, spade in found),
        label_channels,
        upsamplings,
        kernel_sizes=sizes,
        out_channels=_shape(state, "conv_img.weight")[0],
    )
    net = InceptionSpadeGenerator(config)
    return net, _named_by_prefix(net, prefixes)


def _official_resnet(state: dict[str, Tensor]) -> tuple[ResnetGenerator, dict[str, str]]:
    """As `_official_inception`."""
    prefixes = {f"stem.{i}.{part}": f"model.{3 * i + j}" for i in range(3) for j, part in _CONV_NORM}
    base, in_channels, *_ = _shape(state, "model.1.weight")
    separable = "model.10.conv_block.1.conv.0.weight" in state
    after = 10
    while any(name.startswith(f"model.{after}.conv_block.") for name in state):
        block, ours = f"model.{after}.conv_block", f"blocks.{after - 10}.body"
        # A dropout layer, trained with or not, moves the second convolution up by one.
        moved = f"{block}.6.conv.0.weight" in state or getattr(state.get(f"{block}.6.weight"), "ndim", 0) == 4
        for i, first in enumerate((1, 6 if moved else 5)):
            prefixes[f"{ours}.{i}.norm"] = f"{block}.{first + 1}"
            if separable:
                parts = enumerate(("spatial", "norm", "project"))
                prefixes |= {f"{ours}.{i}.conv.{part}": f"{block}.{first}.conv.{j}" for j, part in parts}
            else:
                prefixes[f"{ours}.{i}.conv"] = f"{block}.{first}"
        after += 1
    if after < 13:
        raise ValueError(f"'model.{after}.conv_block.1.weight' is missing: expected at least 3 residual blocks")
    prefixes |= {f"up.{i}.{part}": f"model.{after + 3 * i + j - 1}" for i in range(2) for j, part in _CONV_NORM}
    prefixes["head"] = f"model.{after + 7}"
    out_channels = _shape(state, f"model.{after + 7}.weight")[0]
    norm = _official_norm(state, "model.1", "model.2")
    inside = "model.10.conv_block.1.conv.1.running_mean"
    if separable and norm == "batch" and inside not in state:
        raise ValueError(
            f"{inside!r} is missing: expected a batch norm inside a depthwise-separable block, as the others are. The"
            " official code has instance norms inside all the same, which is not supported"
        )
    config = ResnetConfig(
        base, after - 10, norm, separable=separable, in_channels=in_channels, out_channels=out_channels
    )
    net = ResnetGenerator(config)
    return net, _named_by_prefix(net, prefixes)


_CONV_NORM = ((1, "conv"), (2, "norm"))
_Found = dict[str, dict[int, int]]  # kind of branch -> kernel size -> hidden width
_Parts = tuple[tuple[str, str], ...]  # ours, theirs


def _in_sequence(*theirs: str) -> _Parts:
    ours = ("expand.conv", "expand.norm", "spatial.conv", "spatial.norm", "project")
    return tuple(zip((*ours[:2], "project") if len(theirs) == 3 else ours, theirs, strict=True))


_BRANCHES = (_in_sequence("1.0", "1.1", "4"), _in_sequence("0.0", "0.1", "2.0", "2.1", "4"))
_SPADE_BODY = (
    _in_sequence("0.conv", "0.norm", "1.conv"),
    _in_sequence("0.conv", "0.norm", "1.conv", "1.norm", "2.conv"),
)
_SPADE_LABELS = (_in_sequence("0.conv", "0.norm", "1"), _in_sequence("0.conv", "0.norm", "1.conv", "1.norm", "2"))


def _official_branches(
    state: Mapping[str, Tensor], theirs: str, parts: tuple[_Parts, _Parts], prefixes: dict[str, str], ours: str
) -> _Found:
    """The branches under `theirs`; adds to `prefixes` how their modules are called under `ours`."""
    found: _Found = {"conv": {}, "depthwise": {}}
    for (kind, widths), ops, names in zip(found.items(), ("res_ops", "dw_ops"), parts, strict=True):
        # Missing branches renumber the others, so only the k x k convolution shows a branch's kernel size.
        key = dict(names)["expand.conv" if kind == "conv" else "spatial.conv"]
        for j in range(_count(state, f"{theirs}.{ops}", f"{key}.weight")):
            branch = f"{theirs}.{ops}.{j}"
            width, _, kernel, _ = _shape(state, f"{branch}.{key}.weight")
            if kernel in widths:
                raise ValueError(f"'{branch}.{key}.weight' is a second branch of kernel size {kernel}")
            widths[kernel] = width
            prefixes |= {f"{ours}.{kind}.k{kernel}.{part}": f"{branch}.{name}" for part, name in names}
    return found


def _kernel_sizes(found: Sequence[_Found]) -> tuple[int, ...]:
    kernels = {kernel for block in found for widths in block.values() for kernel in widths}
    return (1, 3, 5) if kernels <= {1, 3, 5} else tuple(sorted(kernels))


def _widths(found: _Found, sizes: tuple[int, ...]) -> BlockWidths:
    return BlockWidths(**{kind: tuple(widths.get(size, 0) for size in sizes) for kind, widths in found.items()})


def _drop(state: dict[str, Tensor], prefix: str) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _count(state: Mapping[str, Tensor], prefix: str, key: str, at_least: int = 0, separator: str = ".") -> int:
    """The number of numbered parts under `prefix`; each needs `key`."""
    pattern = re.compile(re.escape(prefix + separator) + r"(\d+)\.")
    indices = {int(match[1]) for match in map(pattern.match, state) if match}
    count = max(len(indices), at_least)
    for i in range(count):
        if i not in indices:
            raise ValueError(
                f"'{prefix}{separator}{i}.{key}' is missing: expected parts numbered from 0 under '{prefix}'"
            )
    return count


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"{name!r} is missing: expected a convolution's weight, with 4 dimensions")
    if state[name].ndim != 4:
        raise ValueError(f"{name!r} has shape {tuple(state[name].shape)}: expected a convolution's, with 4 dimensions")
    return tuple(state[name].shape)


def _official_norm(state: Mapping[str, Tensor], conv: str, norm: str) -> Norm:
    """Convolutions have biases exactly where instance norm follows; one with statistics is read as batch norm."""
    if f"{conv}.bias" in state and f"{norm}.num_batches_tracked" not in state:
        return "instance"
    if f"{norm}.running_mean" in state:
        return "batch"
    raise ValueError(
        f"'{norm}.running_mean' is missing: expected running statistics (batch norm), or '{conv}.bias' (instance norm)."
        " Batch norm without statistics depends on the other images of a batch and is not supported"
    )


def _named_by_prefix(net: nn.Module, prefixes: Mapping[str, str]) -> dict[str, str]:
    """Our tensor names -> official ones, from the names of the modules that own them."""
    split = {name: name.rpartition(".") for name in net.state_dict()}
    return {name: f"{prefixes[owner]}.{leaf}" for name, (owner, _, leaf) in split.items()}
