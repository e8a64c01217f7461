"""To disk and back: networks as tensors beside JSON, plans as JSON alone, and the official networks' state dicts.

A network `X` is `X.safetensors` and then `X.json`, which holds its kind, its config and the SHA-256 of the tensors. It
is rebuilt from the config and filled, never guessed from shapes; whatever does not fit is an error. The JSON goes
last, so that an interrupted save is noticed, not read.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from i2i_lib.config import (
    BlockWidths,
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    Norm,
    ResnetConfig,
    SpadeBlockWidths,
    SpadeConfig,
    SpadeResnetConfig,
)
from i2i_lib.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from i2i_lib.files import atomic_write, write_json
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.prune import ChannelPlan, ranked_widths
from i2i_lib.spade import InceptionSpadeGenerator, SpadeGenerator

FORMAT = 1
GENERATORS = {
    "inception": (GeneratorConfig, InceptionGenerator),
    "resnet": (ResnetConfig, ResnetGenerator),
    "inception_spade": (SpadeConfig, InceptionSpadeGenerator),
    "spade": (SpadeResnetConfig, SpadeGenerator),
}
DISCRIMINATORS = {
    "patch": (DiscriminatorConfig, PatchDiscriminator),
    "multiscale": (MultiscaleDiscriminatorConfig, MultiscaleDiscriminator),
}

Generator = InceptionGenerator | ResnetGenerator | InceptionSpadeGenerator | SpadeGenerator
Discriminator = PatchDiscriminator | MultiscaleDiscriminator


def build(config: Any) -> Any:
    """The generator or discriminator of a configuration, with PyTorch's own random weights."""
    return next(network for kind, network in (GENERATORS | DISCRIMINATORS).values() if kind is type(config))(config)


def save_generator(generator: Generator, path: Path | str, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write `path`.safetensors and `path`.json. `provenance` is any JSON: seed, steps, commit, measured values."""
    _save(generator, path, GENERATORS, provenance)


def load_generator(path: Path | str, *, device: str = "cpu") -> Any:
    """The generator saved at `path` (no suffix), in eval mode and float32, verified against its checksum.

    Raises FileNotFoundError, or ValueError naming the file that is truncated, changed or of another kind.
    """
    return _load(path, GENERATORS).to(device).eval()


def save_discriminator(
    discriminator: Discriminator, path: Path | str, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """As `save_generator`."""
    _save(discriminator, path, DISCRIMINATORS, provenance)


def load_discriminator(path: Path | str, *, device: str = "cpu") -> Any:
    """As `load_generator`, but in training mode: a loaded discriminator is one to train on."""
    return _load(path, DISCRIMINATORS).to(device).train()


def load_info(path: Path | str) -> dict[str, Any]:
    """The JSON beside a network or of a plan, provenance included, without its tensors."""
    return _read_json(_named(path, "json"))


def save_plan(
    plan: ChannelPlan,
    path: Path | str,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `path`.json.

    `provenance` is any JSON; its `teacher`, the checksum in the teacher's own JSON, is what `load_plan` compares.
    """
    network = next(name for name, (config, _) in GENERATORS.items() if type(plan.config) is config)
    values = {"format": FORMAT, "kind": "plan", "network": network, "plan": asdict(plan) | {"keep": dict(plan.keep)}}
    values |= {"provenance": dict(provenance or {})}
    write_json(_named(path, "json"), values)


def load_plan(path: Path | str, *, teacher: Path | str | None = None) -> ChannelPlan:
    """The plan saved at `path` (no suffix); ValueError where the file is not one.

    With the path of a `teacher` (no suffix) also where the plan says that it was made of another one.
    """
    file = _named(path, "json")
    values = _read_json(file)
    _check(values.get("kind") == "plan", file, f"holds kind {values.get('kind')!r}, expected 'plan'")
    try:
        plan = dict(values["plan"])
        plan["keep"] = {name: tuple(channels) for name, channels in plan["keep"].items()}
        config_type, _ = GENERATORS[values.get("network", "inception")]  # the first plans were of no other
        plan["config"] = config_type(**plan["config"])
        widths = {name: len(channels) for name, channels in plan["keep"].items() if channels}
        if widths != ranked_widths(plan["config"]):
            raise ValueError("the channels that it keeps are not as many as its config's widths")
        if any([*c] != sorted({i for i in c if type(i) is int and i >= 0}) for c in plan["keep"].values()):
            raise ValueError("kept channels are numbers in ascending order")
        made, ranked = ChannelPlan(**plan), values.get("provenance", {}).get("teacher")  # the first plans do not say
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} is not a channel plan: {error}") from error
    if teacher is not None and ranked is not None:
        info = load_info(teacher)
        problem = f"was made of another teacher than {teacher}: run notebook 03 (pruning) again"
        _check(ranked in (info.get("sha256"), info.get("packed_from")), file, problem)
    return made


def _save(net: nn.Module, path: Path | str, kinds: Mapping[str, Any], provenance: Mapping[str, Any] | None) -> None:
    kind = next((name for name, (_, cls) in kinds.items() if type(net) is cls), None)
    if kind is None:
        expected = " or ".join(cls.__name__ for _, cls in kinds.values())
        raise ValueError(
            f"expected a bare {expected}, got {type(net).__name__}: unwrap it (.module of DDP, ._orig_mod of compile)"
        )
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    data = safetensors.save(tensors)
    atomic_write(_named(path, "safetensors"), data)
    values = {"format": FORMAT, "kind": kind, "config": asdict(net.config)}  # pyright: ignore[reportArgumentType]
    values |= {"sha256": hashlib.sha256(data).hexdigest(), "provenance": dict(provenance or {})}
    write_json(_named(path, "json"), values)


def _load(path: Path | str, kinds: Mapping[str, Any]) -> Any:
    file, tensor_file = _named(path, "json"), _named(path, "safetensors")
    values = _read_json(file)
    kind = str(values.get("kind"))
    _check(kind in kinds, file, f"holds kind {kind!r}, expected {' or '.join(map(repr, kinds))}")
    config_type, network_type = kinds[kind]
    try:
        with torch.device("meta"):  # what a damaged config asks for is not allocated before the tensors agree
            net = network_type(config_type(**values["config"]))
        digest = values["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{file} does not describe a network: {error}") from error
    data = tensor_file.read_bytes()
    _check(
        hashlib.sha256(data).hexdigest() == digest,
        tensor_file,
        f"does not match the checksum in {file.name}: it was truncated, changed, or its saving was interrupted",
    )
    try:
        tensors = safetensors.load(data)
    except (SafetensorError, KeyError) as error:  # the second for a type of number that PyTorch does not have
        raise ValueError(f"{tensor_file} is not a safetensors file: {error}") from error
    _fill(net, tensors, {name: name for name in net.state_dict()}, str(tensor_file))
    return net


def _named(path: Path | str, suffix: str) -> Path:
    path = Path(path)
    return path.with_name(f"{path.name}.{suffix}")


def _check(condition: bool, file: Path, problem: str) -> None:
    if not condition:
        raise ValueError(f"{file} {problem}")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON, or was cut short: {error}") from error
    _check(isinstance(values, dict) and values.get("format") == FORMAT, file, f"is not of format {FORMAT}")
    return values


# --- official state dicts --------------------------------------------------------------------------------------


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
    with torch.device("meta"):  # as in `_load`
        net, names = read(state)
    for name in names.values():
        if name.endswith(".num_batches_tracked"):  # unused here, and files from before PyTorch 0.4.1 have none
            state.setdefault(name, torch.tensor(0))
    _fill(net, state, names, "the state dict")
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
        # Missing branches renumber the others, so only the k x k convolution tells a branch's kernel size.
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
    """How many numbered parts there are under `prefix`; each needs `key`."""
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


def _fill(net: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str], where: str) -> None:
    """Load `tensors`, where our tensor `name` is called `names[name]`: all of them, and nothing else.

    `net` is on the device "meta" and comes to the CPU.
    """
    for name, own in net.state_dict().items():
        expected, given = tuple(own.shape), names[name]
        if given not in tensors:
            raise ValueError(f"{given!r} is missing from {where}: expected shape {expected}")
        if tuple(tensors[given].shape) != expected:
            raise ValueError(f"{given!r} in {where} has shape {tuple(tensors[given].shape)}: expected {expected}")
        if tensors[given].is_complex() or tensors[given].is_floating_point() < own.is_floating_point():
            wanted = "floating-point numbers" if own.is_floating_point() else "integers"
            raise ValueError(f"{given!r} in {where} is of {tensors[given].dtype}: expected {wanted}")
    known = set(names.values())
    foreign = next((name for name in tensors if name not in known), None)
    if foreign is not None:
        raise ValueError(f"{foreign!r} in {where} is foreign: expected no such tensor in a {type(net).__name__}")
    own = net.state_dict()
    values = {name: tensors[given].to("cpu", own[name].dtype, copy=True).contiguous() for name, given in names.items()}
    net.load_state_dict(values, strict=True, assign=True)
