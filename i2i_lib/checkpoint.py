"""To disk and back: networks as tensors beside JSON, plans as JSON alone, and the official networks' state dicts.

A network `X` is `X.safetensors` and then `X.json`, which holds its kind, its config and the SHA-256 of the tensors. It
is rebuilt from the config and filled, never guessed from shapes; whatever does not fit is an error. The JSON goes
last, so that an interrupted save is noticed, not read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from i2i_lib.config import BlockWidths, DiscriminatorConfig, GeneratorConfig, Norm, ResnetConfig
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.files import atomic_write, write_json
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.latency import LatencyTable
from i2i_lib.prune import ChannelPlan

FORMAT = 1
GENERATORS = {"inception": (GeneratorConfig, InceptionGenerator), "resnet": (ResnetConfig, ResnetGenerator)}
DISCRIMINATORS = {"patch": (DiscriminatorConfig, PatchDiscriminator)}

Generator = InceptionGenerator | ResnetGenerator


def save_generator(generator: Generator, path: Path | str, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write `path`.safetensors and `path`.json. `provenance` is any JSON: seed, steps, commit, measured values."""
    _save(generator, path, GENERATORS, provenance)


def load_generator(path: Path | str, *, device: str = "cpu") -> Any:
    """The generator saved at `path` (no suffix), in eval mode and float32, verified against its checksum.

    Raises FileNotFoundError, or ValueError naming the file that is truncated, changed or of another kind.
    """
    return _load(path, GENERATORS).to(device).eval()


def save_discriminator(
    discriminator: PatchDiscriminator, path: Path | str, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """As `save_generator`."""
    _save(discriminator, path, DISCRIMINATORS, provenance)


def load_discriminator(path: Path | str, *, device: str = "cpu") -> PatchDiscriminator:
    """As `load_generator`, but in training mode: a loaded discriminator is one to train on."""
    return _load(path, DISCRIMINATORS).to(device).train()


def load_info(path: Path | str) -> dict[str, Any]:
    """The JSON beside a network or of a plan, provenance included, without its tensors."""
    return _read_json(_named(path, "json"))


def save_plan(
    plan: ChannelPlan,
    path: Path | str,
    *,
    latency: LatencyTable | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `path`.json, with the latency table that was its cost, if one was."""
    values = {"format": FORMAT, "kind": "plan", "plan": asdict(plan) | {"keep": dict(plan.keep)}}
    values |= {"latency": asdict(latency) if latency else None, "provenance": dict(provenance or {})}
    write_json(_named(path, "json"), values)


def load_plan(path: Path | str) -> ChannelPlan:
    """The plan saved at `path` (no suffix); ValueError where the file is not one."""
    file = _named(path, "json")
    values = _read_json(file)
    _check(values.get("kind") == "plan", file, f"holds kind {values.get('kind')!r}, expected 'plan'")
    try:
        plan = dict(values["plan"])
        plan["keep"] = {name: tuple(channels) for name, channels in plan["keep"].items()}
        plan["config"] = GeneratorConfig(**plan["config"])
        return ChannelPlan(**plan)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a channel plan: {error}") from error


def load_latency(path: Path | str) -> LatencyTable | None:
    """The latency table saved with a plan, or None if its cost was another."""
    values = _read_json(_named(path, "json")).get("latency")
    return LatencyTable.from_dict(values) if values else None


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
        net = network_type(config_type(**values["config"]))
        digest = values["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a network: {error}") from error
    data = tensor_file.read_bytes()
    _check(
        hashlib.sha256(data).hexdigest() == digest,
        tensor_file,
        f"does not match the checksum in {file.name}: it was truncated, changed, or its saving was interrupted",
    )
    try:
        tensors = safetensors.load(data)
    except SafetensorError as error:
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
    except ValueError as error:
        raise ValueError(f"{file} is not JSON, or was cut short: {error}") from error
    _check(isinstance(values, dict) and values.get("format") == FORMAT, file, f"is not of format {FORMAT}")
    return values


# --- official state dicts --------------------------------------------------------------------------------------


def from_cat_state_dict(state: Mapping[str, Tensor]) -> Generator:
    """Our generator, in eval mode, from the state dict of an official one.

    Reads inception teachers and students of the CAT code, and ResNet generators of the pix2pix/CycleGAN code (which
    its forks share, CAT's included), plain or depthwise-separable. Widths come from the shapes, since such files
    hold nothing else; every key must then be the expected one. Dropout layers have no weights and are not rebuilt:
    pix2pix networks that were trained with them compute what they do in eval mode. Read a file with
    `torch.load(path, map_location="cpu", weights_only=True)`.

    Raises ValueError naming the first key that is missing, foreign or of another shape, and what was expected.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}  # of DataParallel
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} holds a {type(value).__name__}, expected a tensor: pass the state dict itself")
    if any(name.startswith(("down_sampling.", "features.", "up_sampling.")) for name in state):
        net, names = _official_inception(state)
    elif any(name.startswith("model.") for name in state):
        net, names = _official_resnet(state)
    else:
        raise ValueError(
            f"not an official generator: expected 'down_sampling.1.weight' (inception) or 'model.1.weight' (ResNet),"
            f" the first key is {next(iter(state), None)!r}"
        )
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
    found: list[dict[str, dict[int, int]]] = []  # block -> kind -> kernel size -> width
    for i in range(_count(state, "features", "pw_bn.weight", at_least=3)):
        block: dict[str, dict[int, int]] = {"conv": {}, "depthwise": {}}
        # Missing branches renumber the others, so only the k x k convolution tells a branch's kernel size.
        for kind, ops, key, parts in (("conv", "res_ops", "1.0", _PLAIN), ("depthwise", "dw_ops", "2.0", _DEPTHWISE)):
            for j in range(_count(state, f"features.{i}.{ops}", f"{key}.weight")):
                branch = f"features.{i}.{ops}.{j}"
                width, _, kernel, _ = _shape(state, f"{branch}.{key}.weight")
                if kernel in block[kind]:
                    raise ValueError(f"'{branch}.{key}.weight' is a second branch of kernel size {kernel}")
                block[kind][kernel] = width
                prefixes |= {f"blocks.{i}.{kind}.k{kernel}.{ours}": f"{branch}.{theirs}" for ours, theirs in parts}
        if any(block.values()):
            prefixes[f"blocks.{i}.norm"] = f"features.{i}.pw_bn"
        else:  # the official identity block still has its closing norm
            for name in [name for name in state if name.startswith(f"features.{i}.pw_bn.")]:
                del state[name]
        found.append(block)
    kernels = {kernel for block in found for widths in block.values() for kernel in widths}
    sizes = (1, 3, 5) if kernels <= {1, 3, 5} else tuple(sorted(kernels))
    config = GeneratorConfig(
        stem=tuple(shape[0] for shape in stem),
        blocks=tuple(BlockWidths(**{k: tuple(b[k].get(s, 0) for s in sizes) for k in b}) for b in found),
        up=tuple(_shape(state, f"up_sampling.{i}.weight")[1] for i in (0, 3)),  # transposed: inputs first
        norm=_official_norm(state, "down_sampling.1", "down_sampling.2"),
        kernel_sizes=sizes,
        in_channels=stem[0][1],
        out_channels=_shape(state, "up_sampling.7.weight")[0],
    )
    net = InceptionGenerator(config)
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
        state |= {names[name]: torch.full_like(ours[name], float(name.endswith(".weight"))) for name in norms}
    return net, names


_CONV_NORM = ((1, "conv"), (2, "norm"))
_PLAIN = (("expand.conv", "1.0"), ("expand.norm", "1.1"), ("project", "4"))
_DEPTHWISE = (
    ("expand.conv", "0.0"),
    ("expand.norm", "0.1"),
    ("spatial.conv", "2.0"),
    ("spatial.norm", "2.1"),
    ("project", "4"),
)


def _count(state: Mapping[str, Tensor], prefix: str, key: str, at_least: int = 0) -> int:
    """How many numbered parts there are under `prefix`; each needs `key`."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    indices = {int(match[1]) for match in map(pattern.match, state) if match}
    count = max(len(indices), at_least)
    for i in range(count):
        if i not in indices:
            raise ValueError(f"'{prefix}.{i}.{key}' is missing: expected parts numbered from 0 under '{prefix}'")
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
    """Load `tensors`, where our tensor `name` is called `names[name]`: all of them, and nothing else."""
    for name, own in net.state_dict().items():
        expected, given = tuple(own.shape), names[name]
        if given not in tensors:
            raise ValueError(f"{given!r} is missing from {where}: expected shape {expected}")
        if tuple(tensors[given].shape) != expected:
            raise ValueError(f"{given!r} in {where} has shape {tuple(tensors[given].shape)}: expected {expected}")
    known = set(names.values())
    foreign = next((name for name in tensors if name not in known), None)
    if foreign is not None:
        raise ValueError(f"{foreign!r} in {where} is foreign: expected no such tensor in a {type(net).__name__}")
    net.load_state_dict({name: tensors[given] for name, given in names.items()}, strict=True)
