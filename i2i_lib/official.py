"""Networks of the official code and its relatives, read from their state dicts."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from i2i_lib.checkpoint import Generator, fill
from i2i_lib.config import BlockWidths, GeneratorConfig, Norm, ResnetConfig, SpadeBlockWidths, SpadeConfig
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.spade import InceptionSpadeGenerator


def from_cat_state_dict(state: Mapping[str, Tensor], *, upsamplings: int = 6) -> Generator:
    """Our generator, in eval mode, from the state dict of an official one.

    Reads inception and inception-SPADE teachers and students of the CAT code, and ResNet generators of the
    pix2pix/CycleGAN code (which its forks share, CAT's included), plain or depthwise-separable. Widths come from the
    shapes, since such files hold nothing else; every key must then be the expected one. Dropout layers have no weights
    and are not rebuilt: pix2pix networks that were trained with them compute what they do in eval mode. How often a
    SPADE generator doubles its grid leaves no trace in a file either: `upsamplings` is 5 for the official "normal", 6
    for "more", 7 for "most". Read a file with `torch.load(path, map_location="cpu", weights_only=True)`.

    Raises ValueError naming the first key that is missing, foreign or of another shape, and what was expected.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"expected a state dict, got a {type(state).__name__}: pass what `.state_dict()` returns")
    state = {str(name).removeprefix("module."): value for name, value in state.items()}  # of DataParallel
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} holds a {type(value).__name__}, expected a tensor: pass the state dict itself")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise ValueError(f"{name!r} is sparse, quantised, complex or without data: expected plain real numbers")
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
    for name in names.values():
        if name.endswith(".num_batches_tracked"):  # unused here, and files from before PyTorch 0.4.1 have none
            state.setdefault(name, torch.tensor(0))
    fill(net, state, names, "the state dict")
    return net.eval()


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
    config = ResnetConfig(
        base, after - 10, norm, separable=separable, in_channels=in_channels, out_channels=out_channels
    )
    net = ResnetGenerator(config)
    names = _named_by_prefix(net, prefixes)
    norms = [name for name in names if ".norm." in name]
    if norm == "instance" and not any(names[name] in state for name in norms):
        # The original instance norm has no scale and shift; old versions stored statistics that it never used.
        unused = (".running_mean", ".running_var", ".num_batches_tracked")
        for name in [name for name in state if name.endswith(unused)]:
            del state[name]
        ours = net.state_dict()
        starts = {name: float(name.endswith(".weight")) for name in norms}
        state |= {names[name]: torch.full(ours[name].shape, value, device="cpu") for name, value in starts.items()}
    return net, names


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
    """Convolutions have biases exactly where instance norm follows."""
    if f"{conv}.bias" in state:
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
