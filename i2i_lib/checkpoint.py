"""To disk and back: networks as tensors beside JSON, plans as JSON alone, and the official networks' state dicts.

A network `X` is `X.safetensors` and then `X.json`, which holds its kind, its config and the SHA-256 of the tensors. It
is rebuilt from the config and filled, never guessed from shapes; whatever does not fit is an error. The JSON goes
last, so that an interrupted save is noticed, not read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from i2i_lib.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    ResnetConfig,
    SpadeConfig,
    SpadeResnetConfig,
    ranked_widths,
)
from i2i_lib.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from i2i_lib.files import atomic_write, write_json
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.prune import ChannelPlan
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
        problem = f"was made of another teacher than {teacher}: prune again"
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
