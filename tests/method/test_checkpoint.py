"""What is saved comes back, what is damaged is refused by name, and official state dicts are read or explained."""

import json
import os
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from goldens import official, official_resnet
from safetensors.torch import save_file
from toys import network, same

from i2i_lib import files
from i2i_lib.checkpoint import (
    build,
    load_discriminator,
    load_generator,
    load_info,
    load_plan,
    save_discriminator,
    save_generator,
    save_plan,
)
from i2i_lib.config import BlockWidths, DiscriminatorConfig, GeneratorConfig, ResnetConfig, cat_teacher, mobile_resnet
from i2i_lib.official import from_cat_state_dict
from i2i_lib.prune import prune

CONFIG = GeneratorConfig(
    stem=(5, 7, 6),
    blocks=(BlockWidths((3, 0, 2), (0, 4, 1)), BlockWidths((0, 0, 0), (0, 0, 0)), BlockWidths((0, 1, 0), (1, 0, 0))),
    up=(3, 4),
    norm="batch",
    upsample="resize",
)


def generator(config: Any = CONFIG) -> Any:
    return network(config, norm_start="normal")


@pytest.mark.parametrize("config", [CONFIG, cat_teacher(6, 3), ResnetConfig(4, 3), mobile_resnet(4, 3, "batch")])
def test_generators_come_back(config, tmp_path):
    net = generator(config)
    net.to(memory_format=torch.channels_last)
    save_generator(net, tmp_path / "a.b", provenance={"seed": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.json", "a.b.safetensors"]
    back = load_generator(tmp_path / "a.b")
    assert type(back) is type(net) and back.config == config and not back.training and same(back, net)
    assert load_info(tmp_path / "a.b")["provenance"] == {"seed": 3}


def test_bf16_networks_come_back_as_the_same_numbers(tmp_path):
    net = generator().bfloat16()
    save_generator(net, tmp_path / "net")
    numbers = sum(value.numel() for value in net.state_dict().values())
    assert (tmp_path / "net.safetensors").stat().st_size < 3 * numbers + 10_000
    back = load_generator(tmp_path / "net")
    assert {v.dtype for v in back.parameters()} == {torch.float32}
    assert all(torch.equal(v, back.state_dict()[name].to(v.dtype)) for name, v in net.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_networks_move_between_gpu_and_cpu(tmp_path):
    net = generator().cuda()
    save_generator(net, tmp_path / "net")
    for device in ("cpu", "cuda"):
        back = load_generator(tmp_path / "net", device=device)
        assert next(back.parameters()).device.type == device and same(back.cpu(), net.cpu())


def test_discriminators_come_back_ready_to_train(tmp_path):
    net = build(DiscriminatorConfig(base=4, n_layers=2, norm="instance"))
    save_discriminator(net, tmp_path / "judge")
    back = load_discriminator(tmp_path / "judge")
    assert back.config == net.config and back.training and same(back, net)
    with pytest.raises(ValueError, match="kind 'patch', expected 'inception' or 'resnet'"):
        load_generator(tmp_path / "judge")


def test_plans_come_back_with_their_teacher(tmp_path):
    """Also once the teacher is packed small, which changes its checksum."""
    for name in ("own", "other"):
        net = generator(cat_teacher(8, 3, "batch"))
        torch.nn.init.constant_(net.head.bias, len(name))
        save_generator(net, tmp_path / name)
    plan, digest = prune(net, 400_000, image_size=16), load_info(tmp_path / "own")["sha256"]
    save_plan(plan, tmp_path / "plan", provenance={"teacher": digest})
    assert load_plan(tmp_path / "plan", teacher=tmp_path / "own") == load_plan(tmp_path / "plan") == plan
    with pytest.raises(ValueError, match=r"another teacher than .*other: prune again"):
        load_plan(tmp_path / "plan", teacher=tmp_path / "other")
    rewrite(tmp_path / "other.json", lambda v: v.update(packed_from=digest))
    assert load_plan(tmp_path / "plan", teacher=tmp_path / "other") == plan
    unnamed = replace(plan, threshold=None)
    save_plan(unnamed, tmp_path / "unnamed")
    assert load_plan(tmp_path / "unnamed") == unnamed
    with pytest.raises(ValueError, match="another teacher"):
        load_plan(tmp_path / "unnamed", teacher=tmp_path / "own")


def test_only_bare_networks_are_saved(tmp_path):
    with pytest.raises(ValueError, match=r"expected a bare InceptionGenerator or .* got Sequential"):
        save_generator(torch.nn.Sequential(generator()), tmp_path / "net")  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_a_config_of_no_network_is_refused():
    with pytest.raises(ValueError, match=r"no network has the configuration BlockWidths.* expected one of Generator"):
        build(BlockWidths((1,), (1,)))


# --- damage ----------------------------------------------------------------------------------------------------


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"net\.json does not exist: .* holds no saved network"):
        load_generator(tmp_path / "net")
    save_generator(generator(), tmp_path / "net")
    save_generator(generator(), tmp_path / "student-0.5")
    for given, sentence in {
        "net.safetensors": r"name it without suffix, .*/net$",
        "net.json": r"name it without suffix, .*/net$",
        "nett": r"nett\.json does not exist: beside it there are net, student-0\.5$",
        "no/net": r"nor does its folder, .*/no$",
    }.items():
        with pytest.raises(FileNotFoundError, match=sentence):
            load_generator(tmp_path / given)
    (tmp_path / "net.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.safetensors"):
        load_generator(tmp_path / "net")


def rewrite(file, change):
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def config_with(**changes):
    return lambda file: rewrite(file.with_suffix(".json"), lambda values: values["config"].update(changes))


def last_byte_flipped(file):
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def forged(file):
    """Another file under the checksum that fits it."""
    file.write_bytes(b"\x80\x04 pickle")
    rewrite(file.with_suffix(".json"), lambda values: values.update(sha256=files.sha256(file)))


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        ("safetensors", last_byte_flipped, "truncated, changed"),
        ("safetensors", lambda f: f.write_bytes(b""), "truncated, changed"),
        ("safetensors", forged, "not a safetensors file"),
        ("safetensors", config_with(up=[3, 5]), r"'up.1.conv.weight' .*\(4, 3, 3, 3\): expected \(5, 3, 3, 3\)"),
        ("json", lambda f: f.write_bytes(b"\xff\xfe"), "not JSON"),
        ("json", lambda f: f.write_text("[1]"), "not of format 1"),
        ("json", lambda f: rewrite(f, lambda v: v.update(format=2)), "not of format 1"),
        ("json", lambda f: rewrite(f, lambda v: v.update(kind="unet")), "kind 'unet', expected"),
        ("json", lambda f: rewrite(f, lambda v: v.pop("sha256")), "does not match the checksum in net.json"),
        ("json", lambda f: rewrite(f, lambda v: v["config"].pop("stem")), "does not describe a network.*'stem'"),
        ("json", config_with(widths=3), "does not describe a network.*'widths'"),
        ("json", config_with(norm="none"), "does not describe a network.*'none'"),
    ],
)
def test_damaged_networks_are_refused_by_name(suffix, damage, message, tmp_path):
    save_generator(generator(), tmp_path / "net")
    damage(tmp_path / f"net.{suffix}")
    with pytest.raises(ValueError, match=message) as error:
        load_generator(tmp_path / "net")
    assert f"net.{suffix}" in str(error.value)


def test_numbers_of_another_kind_are_refused(tmp_path):
    net = generator()
    save_generator(net, tmp_path / "net")
    file = tmp_path / "net.safetensors"
    for kind, wanted in {"num_batches_tracked": "integers", "running_mean": "floating-point numbers"}.items():
        state = net.state_dict()
        name = next(name for name in state if name.endswith(kind))
        save_file(state | {name: state[name].to(torch.complex64)}, file)
        rewrite(tmp_path / "net.json", lambda v: v.update(sha256=files.sha256(file)))
        with pytest.raises(ValueError, match=f"{name}' in .*net.safetensors is of torch.complex64: expected {wanted}"):
            load_generator(tmp_path / "net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["plan"].pop("keep"), "not a channel plan"),
        (lambda v: v["plan"].update(more=1), "not a channel plan"),
        (lambda v: v.pop("network"), "not a channel plan: 'network'"),
        (lambda v: v.update(kind="inception"), "kind 'inception', expected 'plan'"),
    ],
)
def test_damaged_plans_are_refused(change, message, tmp_path):
    save_plan(prune(generator(cat_teacher(8, 3)), 1e9, image_size=16), tmp_path / "plan")
    rewrite(tmp_path / "plan.json", change)
    with pytest.raises(ValueError, match=message):
        load_plan(tmp_path / "plan")


def test_a_write_leaves_the_umask_alone(tmp_path, monkeypatch):
    """It is the whole process's: a thread that set it to read it would change what others write meanwhile."""
    (tmp_path / "usual").touch()
    monkeypatch.setattr(os, "umask", None)
    files.write_json(tmp_path / "value.json", 1)
    assert (tmp_path / "value.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_is_not_a_number_in_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "value.json", float("nan"))
    assert not list(tmp_path.iterdir())


# --- official state dicts --------------------------------------------------------------------------------------


def test_vanished_branches_and_blocks_are_understood():
    """Official students renumber what is left, and keep the closing norm of a block that does nothing."""
    state = official()
    whole: Any = from_cat_state_dict(state)
    for name in list(state):
        if name.startswith("features.0.res_ops.0.") or (name.startswith("features.4.") and "pw_bn" not in name):
            del state[name]
    for name in list(state):
        for after in (1, 2):
            if name.startswith(f"features.0.res_ops.{after}."):
                state[name.replace(f"res_ops.{after}", f"res_ops.{after - 1}")] = state.pop(name)
    net = from_cat_state_dict({f"module.{name}": value for name, value in state.items()})
    assert isinstance(net.config, GeneratorConfig)
    assert net.config.blocks[0].conv == (0, *whole.config.blocks[0].conv[1:])
    assert net.config.blocks[4] == BlockWidths((0, 0, 0), (0, 0, 0))
    del whole.blocks[0].conv["k1"]
    whole.blocks[4] = torch.nn.Identity()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(image), whole(image))


def test_statistics_that_old_instance_norms_stored_are_ignored():
    state = official_resnet()
    net = from_cat_state_dict(state)
    assert net.config == ResnetConfig(2, 3)
    for name in ("running_mean", "running_var"):
        state[f"model.2.{name}"] = torch.rand(2)
    with pytest.warns(UserWarning, match=r"'model.2.running_mean' and its like are ignored.* before 0.4"):
        old = from_cat_state_dict(state)
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(old(image), net(image))


class Block(torch.nn.Module):
    def __init__(self, width: int, norm: Any) -> None:
        super().__init__()
        parts = [torch.nn.ReflectionPad2d(1), torch.nn.Conv2d(width, width, 3), norm(width)]
        again = [torch.nn.ReflectionPad2d(1), torch.nn.Conv2d(width, width, 3), norm(width)]
        self.conv_block = torch.nn.Sequential(*parts, torch.nn.ReLU(), *again)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class Foreign(torch.nn.Module):
    """A ResNet generator with the official names, of any norm, trained for a moment."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        nn = torch.nn
        layers: list[torch.nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), norm(4), nn.ReLU()]
        for width in (4, 8):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU()]
        layers += [Block(16, norm) for _ in range(3)]
        for width in (16, 8):
            layers += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1), norm(width // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(4, 3, 7), nn.Tanh())
        for _ in range(3):
            self.model(torch.rand(4, 3, 16, 16))
        self.eval()


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norms_with_tracked_statistics_compute_what_they_did_in_eval_mode(affine):
    foreign = Foreign(partial(torch.nn.InstanceNorm2d, affine=affine, track_running_stats=True))
    for part in foreign.modules():
        if affine and isinstance(part, torch.nn.InstanceNorm2d):
            torch.nn.init.uniform_(part.weight)
            torch.nn.init.uniform_(part.bias)
    with pytest.warns(UserWarning, match=r"taken for instance norms with track_running_stats=True"):
        net: Any = from_cat_state_dict(foreign.state_dict())
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(net(image), foreign.model(image), rtol=0, atol=1e-5)
    assert net.config == ResnetConfig(4, 3, "batch")


def test_tracked_statistics_of_an_inception_generator_take_every_bias_before_them():
    """A sum of branches has the sum of their last biases."""
    state, plain = official(), from_cat_state_dict(official())
    norms = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
    convolutions = [n for n in state if state[n].ndim == 4 and not n.startswith("up_sampling.7")]
    for name in convolutions:
        transposed = name in ("up_sampling.0.weight", "up_sampling.3.weight")
        state[name.replace("weight", "bias")] = torch.full((state[name].shape[1 if transposed else 0],), 0.25)
    for norm in norms:
        branches = sum(
            f"{norm.removesuffix('pw_bn')}{ops}." in n and n.endswith(".4.weight")
            for n in convolutions
            for ops in ("res_ops", "dw_ops")
        )
        state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] + 0.25 * (branches if "pw_bn" in norm else 1)
    with pytest.warns(UserWarning, match="read as batch"):
        net: Any = from_cat_state_dict(state)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(image), plain(image), rtol=0, atol=1e-5)
    del state["down_sampling.4.bias"]
    with pytest.raises(ValueError, match=r"'down_sampling.4.bias' .*is missing"), pytest.warns(UserWarning):
        from_cat_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_any_precision_become_float32(dtype):
    state = {name: value.to(dtype) for name, value in official_resnet().items()}
    net: Any = from_cat_state_dict(state)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert torch.equal(net.head.weight, state["model.20.weight"].float())


def renamed(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        renamed("_orig_mod."),
        renamed("module."),
        renamed("module._orig_mod."),
        lambda state: renamed("netG.")(state) | {"netD.model.0.weight": torch.ones(1)},
        lambda state: renamed("generator.")(state) | {"discriminator.0.weight": torch.ones(1)},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": renamed("module.")(state), "optimizer": {"state": {}}},
        lambda state: {"netG": state, "netD": {"model.0.weight": torch.ones(1)}},
        lambda state: {"state_dict": renamed("netG.")(state)},
    ],
)
def test_wrappers_and_whole_checkpoints_are_unwrapped(wrap):
    state = official_resnet()
    net: Any = from_cat_state_dict(wrap(state))
    assert torch.equal(net.head.weight, state["model.20.weight"])


def test_what_cannot_be_rebuilt_is_named():
    state, unet = official_resnet(), "model.model.1.model.3.model.1.weight"
    for given, message in (
        (state | {"model.6.filt": torch.ones(8, 1, 3, 3)}, r"'model.6.filt' is the blur of .*CUT.* --no_antialias"),
        (
            {"model.model.0.weight": torch.ones(4, 3, 4, 4), unet: torch.ones(4, 4, 4, 4)},
            f"'{unet}' is part of a U-Net",
        ),
        (state | {"model.1.weight": torch.ones(2, 1, 7, 7)}, r"pictures of 1 channel\(s\).* expected 3"),
        (renamed("module.")(state) | {"model.1.weight": torch.ones(1)}, "expected all or none"),
    ):
        with pytest.raises(ValueError, match=message):
            from_cat_state_dict(given)
    with pytest.raises(ValueError, match=r"padding='replicate' cannot be rebuilt.* reflect"):
        from_cat_state_dict(state, padding="replicate")


def without(*parts):
    return lambda state: {name: value for name, value in state.items() if not any(part in name for part in parts)}


def plus(name, *shape):
    return lambda state: state | {name: torch.ones(shape)}


def first_half(state):
    return dict(list(state.items())[: len(state) // 2])


def twice_the_kernel(state):
    return state | {"features.0.dw_ops.1.2.0.weight": state["features.0.dw_ops.2.2.0.weight"]}


@pytest.mark.parametrize(
    ("state", "change", "message"),
    [
        (official, without("down_sampling.5.running_var"), r"'down_sampling.5.running_var' is missing.*shape \(19,\)"),
        (official, without("features.3.res_ops.1.1.0.weight"), "'features.3.res_ops.1.1.0.weight' is missing"),
        (official, without("features.3.res_ops.1.4"), r"'features.3.res_ops.1.4.weight' is missing.*\(41, 4, 3, 3\)"),
        (official, without("up_sampling.7.bias"), r"'up_sampling.7.bias' is missing.*shape \(3,\)"),
        (official, first_half, "is missing"),
        (official, without("features"), "'features.0.pw_bn.weight' is missing"),
        (official, without("features.2."), "'features.2.pw_bn.weight' is missing"),
        (official, plus("up_sampling.4.weight", 11), r"'up_sampling.4.weight' .*shape \(11,\): expected \(10,\)"),
        (official, plus("down_sampling.4.weight", 3), r"'down_sampling.4.weight' has shape \(3,\)"),
        (official, twice_the_kernel, "'features.0.dw_ops.2.2.0.weight' is a second branch of kernel size 5"),
        (official, plus("netA.weight", 3), "'netA.weight' .*is foreign"),
        (official, without("running"), "'down_sampling.2.running_mean' is missing.*not supported"),
        (
            official,
            lambda state: {"weights": state, "epoch": 3},
            "'weights' holds dict, expected a tensor: pass the state dict itself, perhaps what 'weights' holds",
        ),
        (official, lambda state: {}, "first key is None"),
        (official_resnet, without("model.1.weight"), "'model.1.weight' is missing"),
        (official_resnet, without("model.11.conv_block.5.bias"), r"'model.11.conv_block.5.bias' is missing.*\(8,\)"),
        (official_resnet, without("model.20.weight"), "'model.20.weight' is missing"),
        (official_resnet, without("conv_block"), "'model.10.conv_block.1.weight' is missing"),
        (
            official_resnet,
            plus("model.7.weight", 9, 4, 3, 3),
            r"'model.7.weight' .*\(9, 4, 3, 3\): expected \(8, 4, 3, 3\)",
        ),
        (official_resnet, plus("model.23.weight", 1), "'model.23.weight' .*is foreign"),
    ],
)
def test_state_dicts_that_do_not_fit_name_the_key(state, change, message):
    with pytest.raises(ValueError, match=message):
        from_cat_state_dict(change(state()))
