"""Networks and channel plans to disk and back.

A network is an artifact (see `artifacts`) whose record holds its kind and its config. It is rebuilt from the config and
filled, never guessed from shapes; whatever does not fit is an error. A plan is a record alone.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2i_lib.artifacts import artifact_file, read_record, read_tensors, write_artifact
from i2i_lib.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    ResnetConfig,
    SpadeConfig,
    SpadeResnetConfig,
)
from i2i_lib.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.hub import fetch_generator, is_address
from i2i_lib.spade import InceptionSpadeGenerator, SpadeGenerator
from i2i_lib.threshold import ChannelPlan

# The kind in a network's JSON: the classes of its config and of the network.
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
    """The generator or discriminator of a configuration, with PyTorch's own random weights.

    Raises ValueError for anything but a configuration of `i2i_lib.config`.
    """
    known = {config_type: network for config_type, network in (GENERATORS | DISCRIMINATORS).values()}
    if type(config) not in known:
        names = ", ".join(config_type.__name__ for config_type in known)
        raise ValueError(f"no network has the configuration {config!r:.80}: expected one of {names}")
    return known[type(config)](config)


def save_generator(generator: Generator, path: Path | str, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write `path`.safetensors and `path`.json. `provenance` is any JSON: seed, steps, commit, measured values."""
    _save(generator, path, GENERATORS, provenance)


def load_generator(path: Path | str, *, device: str = "cpu") -> Any:
    """The generator saved at `path` (no suffix), in eval mode and float32, verified against its checksum.

    `path` may also be its address on a model hub, as text: "hf://owner/name@revision" (see `hub`, an extra).

    Raises FileNotFoundError, or ValueError naming the file that is truncated, changed or of another kind.
    """
    if is_address(path):
        path = fetch_generator(str(path))
    return _load(path, GENERATORS).to(device).eval()


def save_discriminator(
    discriminator: Discriminator, path: Path | str, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """As `save_generator`."""
    _save(discriminator, path, DISCRIMINATORS, provenance)


def load_discriminator(path: Path | str) -> Any:
    """As `load_generator`, but on the CPU and in training mode: a loaded discriminator is one to train on."""
    return _load(path, DISCRIMINATORS).train()


def load_info(path: Path | str) -> dict[str, Any]:
    """The JSON beside a network or of a plan, provenance included, without its tensors."""
    return read_record(path)


def save_plan(plan: ChannelPlan, path: Path | str, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write `path`.json.

    `provenance` is any JSON; its `teacher`, the checksum in the teacher's own JSON, is what `load_plan` compares.
    """
    network = next(name for name, (config_type, _) in GENERATORS.items() if type(plan.config) is config_type)
    described = {"network": network, "plan": asdict(plan) | {"keep": dict(plan.keep)}}
    write_artifact(path, "plan", described | {"provenance": dict(provenance or {})})


def load_plan(path: Path | str, *, teacher: Path | str | None = None) -> ChannelPlan:
    """The plan saved at `path` (no suffix); ValueError where the file is not one.

    With the path of a `teacher` (no suffix) also where the plan was not made of that one.
    """
    file, record = artifact_file(path, "json"), read_record(path, ["plan"])
    try:
        config_type, _ = GENERATORS[record["network"]]
        config = config_type(**record["plan"]["config"])
        keep = {name: tuple(channels) for name, channels in record["plan"]["keep"].items()}
        plan = ChannelPlan(**record["plan"] | {"keep": keep, "config": config})
        ranked = record["provenance"].get("teacher")
        widths = {name: len(channels) for name, channels in keep.items() if channels}
        if widths != config.ranked_widths:
            raise ValueError("the channels that it keeps are not as many as its config's widths")
        for channels in keep.values():
            numbers = {i for i in channels if type(i) is int and i >= 0}
            if [*channels] != sorted(numbers):
                raise ValueError("kept channels are numbers in ascending order")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} is not a channel plan: {error}") from error
    if teacher is not None:
        info = load_info(teacher)
        if ranked is None or ranked not in (info.get("sha256"), info.get("packed_from")):
            raise ValueError(f"{file} was made of another teacher than {teacher}: prune again")
    return plan


def _save(net: nn.Module, path: Path | str, kinds: Mapping[str, Any], provenance: Mapping[str, Any] | None) -> None:
    kind = next((name for name, (_, network_type) in kinds.items() if type(net) is network_type), None)
    if kind is None:
        expected = " or ".join(network_type.__name__ for _, network_type in kinds.values())
        raise ValueError(
            f"expected a bare {expected}, got {type(net).__name__}: unwrap it (.module of DDP, ._orig_mod of compile)"
        )
    config: Any = net.config
    described = {"config": asdict(config), "provenance": dict(provenance or {})}
    write_artifact(path, kind, described, net.state_dict())


def _load(path: Path | str, kinds: Mapping[str, Any]) -> Any:
    file, record = artifact_file(path, "json"), read_record(path, kinds)
    config_type, network_type = kinds[record["kind"]]
    try:
        with torch.device("meta"):  # the size that a damaged config asks for is not allocated before the tensors agree
            net = network_type(config_type(**record["config"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{file} does not describe a network: {error}") from error
    tensors = read_tensors(path, record)
    fill(net, tensors, {name: name for name in net.state_dict()}, str(artifact_file(path, "safetensors")))
    return net


def fill(net: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str], where: str) -> None:
    """Load `tensors`, where our tensor `name` is called `names[name]`: all of them, and nothing else.

    `net` is on the device "meta" and comes to the CPU.
    """
    ours = net.state_dict()
    for name, own in ours.items():
        expected, given = tuple(own.shape), names[name]
        if given not in tensors:
            raise ValueError(f"{given!r} is missing from {where}: expected shape {expected}")
        value = tensors[given]
        if tuple(value.shape) != expected:
            raise ValueError(f"{given!r} in {where} has shape {tuple(value.shape)}: expected {expected}")
        if value.is_complex() or value.is_floating_point() < own.is_floating_point():
            wanted = "floating-point numbers" if own.is_floating_point() else "integers"
            raise ValueError(f"{given!r} in {where} is of {value.dtype}: expected {wanted}")
    known = set(names.values())
    foreign = next((name for name in tensors if name not in known), None)
    if foreign is not None:
        raise ValueError(f"{foreign!r} in {where} is foreign: expected no such tensor in a {type(net).__name__}")
    # Only now that all shapes agree is anything allocated.
    values = {name: tensors[names[name]].to("cpu", own.dtype, copy=True).contiguous() for name, own in ours.items()}
    net.load_state_dict(values, strict=True, assign=True)
