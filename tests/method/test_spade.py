"""GauGAN's networks: against the official ones, and what training and pruning ask of them."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from goldens import golden, official
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from toys import label_map, network, same

from i2i_lib import checkpoint
from i2i_lib.config import (
    BlockWidths,
    MultiscaleDiscriminatorConfig,
    SpadeBlockWidths,
    SpadeConfig,
    SpadeResnetConfig,
    cat_spade_teacher,
)
from i2i_lib.layers import init_weights
from i2i_lib.macs import generator_macs
from i2i_lib.official import from_cat_state_dict
from i2i_lib.prune import norm_scales, prune, random_scales, spared_scales, uniform_scales
from i2i_lib.students import inherit, start_student

SMALL = cat_spade_teacher(4, 5, 4)


def generator(config: Any = SMALL, seed: int = 0) -> Any:
    return network(config, seed, gain=1.0, norm_start="normal", scheme="xavier")


def test_image_and_features_are_the_official_ones():
    weights, labels, wanted = golden("inception_spade")
    net = from_cat_state_dict(weights)
    # Its last block has a width of 4 and thus, by sixths, no branch.
    assert net.config == cat_spade_teacher(base=4, label_channels=7)
    with torch.no_grad():
        image, features = net(labels, features=True)
    for ours, theirs in zip((image, *features), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def without(*parts):
    return lambda state: {name: value for name, value in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "upsamplings", "message"),
    [
        (without("fc.weight"), 6, "'fc.weight' is missing"),
        (without("fc_norm.running_mean"), 6, "'fc_norm.running_mean' is missing"),
        (without("G_middle_0."), 6, "'G_middle_0.spade.param_free_norm.running_mean' is missing"),
        (without("up_1.shortcut"), 6, "'up_1.shortcut.1.conv.weight' is missing"),
        (without("up_1."), 6, "'up_1.shortcut.1.conv.weight' is missing"),
        (without("up_0.dw_ops.1.1.conv.bias"), 6, r"'up_0.dw_ops.1.1.conv.bias' is missing.*shape \(5,\)"),
        (without("head_0.spade.res_ops.0.0"), 6, "'head_0.spade.res_ops.0.0.conv.weight' is missing"),
        (lambda state: state | {"netA.weight": torch.ones(2)}, 6, "'netA.weight' .*is foreign"),
        (lambda state: state | {"up_4.shortcut.1.conv.weight": torch.ones(2, 4, 1, 1)}, 6, "expected upsamplings=7"),
        (lambda state: state, 7, "upsamplings=7"),
    ],
)
def test_state_dicts_that_do_not_fit_name_the_key(change, upsamplings, message):
    with pytest.raises(ValueError, match=message):
        from_cat_state_dict(change(official("inception_spade")), upsamplings=upsamplings)


def official_names(net):
    """The state dict of one of our generators as the official code names it, missing branches counted out."""
    state = {}
    for name, value in net.state_dict().items():
        parts = name.removeprefix("blocks.").split(".")
        if name.startswith(("stem", "head.")):
            official = name.replace("stem.conv", "fc").replace("stem.norm", "fc_norm").replace("head.", "conv_img.")
        elif parts[1] == "shortcut":
            official = ".".join([parts[0], "shortcut", {"norm": "0", "conv": "1.conv"}[parts[2]], parts[3]])
        elif parts[1] == "norm":
            official = f"{parts[0]}.spade.param_free_norm.{parts[2]}"
        else:
            stage, where, kind, kernel, layer, *rest = parts
            branches = getattr(net.blocks[stage], where).get_submodule(kind)
            ops = [stage] + ["spade"] * (where == "spade") + [{"conv": "res_ops", "depthwise": "dw_ops"}[kind]]
            layers = ["expand", "spatial", "project"] if kind == "depthwise" else ["expand", "project"]
            rest = ["conv", *rest] if layer == "project" and where == "body" else rest
            official = ".".join([*ops, str(list(branches).index(kernel)), str(layers.index(layer)), *rest])
        state[official] = value
    for stage, block in net.blocks.items():
        if block.body is None:  # a SPADE that is never used
            state[f"{stage}.spade.param_free_norm.running_mean"] = torch.zeros(1)
    return state


@pytest.mark.parametrize("upsamplings", [5, 6, 7])
def test_official_students_load_whatever_they_lack(upsamplings):
    teacher = generator(cat_spade_teacher(8, 5, upsamplings)).eval()
    scales = random_scales(teacher, 1)
    scales = {name: [s / 9 for s in layer] if "k3" in name else layer for name, layer in scales.items()}
    plan = prune(teacher, generator_macs(teacher.config, 128) / 4, image_size=128, scales=scales)
    assert isinstance(plan.config, SpadeConfig) and plan.config.blocks[3].body.conv[1] == 0
    student = generator(plan.config).eval()
    back = from_cat_state_dict(official_names(student), upsamplings=upsamplings)
    assert back.config == plan.config
    labels = label_map(5, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(back(labels), student(labels), atol=0, rtol=0)


CONFIGS = {
    "inception": SMALL,
    "instance": replace(SMALL, norm="instance"),
    "original": SpadeResnetConfig(4, 5, 4, hidden=6),
}


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def net(request):
    return generator(request.param)


def test_features_come_from_three_blocks(net):
    labels = label_map(5, 32, 48, n=2)
    seen = {}
    for name, block in net.blocks.items():
        block.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    image, features = net(labels, features=True)
    assert image.shape == (2, 3, 32, 48) and image.abs().max() <= 1
    heights = [seen[name].shape[2] for name in net.config.stages]
    assert heights == [2, 2, 2, 4, 8, 16, 32]
    for feature, name in zip(features, ("head_0", "G_middle_1", "up_1"), strict=True):
        assert torch.equal(feature, seen[name])


def test_the_grid_doubles_where_it_does_in_the_original():
    first = {3: (8, 8), 4: (16, 16, 16), 5: (32, 16, 16), 6: (64, 32, 16), 7: (128, 64, 32, 16)}
    for upsamplings, shrinks in first.items():
        for config in (cat_spade_teacher(4, 5, upsamplings), SpadeResnetConfig(4, 5, upsamplings)):
            assert tuple(config.stages.values()) == (*shrinks, 8, 4, 2, 1)


def test_every_label_reaches_the_image(net):
    """The stem sees one label in 256; SPADE sees the others."""
    net.eval()
    labels = label_map(5, 32, 32)
    other = labels.clone()
    other[..., 6, 10] = labels[..., 6, 10].roll(1)
    with torch.no_grad():
        (image, features), (changed, others) = net.forward_features(labels), net.forward_features(other)
    assert torch.equal(features[0], others[0]) and not torch.equal(image, changed)


@pytest.mark.parametrize("config", [*CONFIGS.values(), cat_spade_teacher(2, 5, 7)], ids=[*CONFIGS, "no-branches"])
def test_generators_come_back(config, tmp_path):
    net = generator(config)
    net(label_map(5, 128, 128, n=2))  # moves statistics
    checkpoint.save_generator(net, tmp_path / "net")
    back = checkpoint.load_generator(tmp_path / "net")
    assert type(back) is type(net) and back.config == config
    assert same(back, net)


def test_a_block_without_branches_has_no_spade_either():
    nothing, some = BlockWidths((0, 0), (0, 0)), BlockWidths((1, 2), (3, 4))
    assert SpadeBlockWidths(3, nothing, some) == SpadeBlockWidths(3, nothing, nothing)
    assert SpadeBlockWidths(3, some, nothing).spade == nothing


# --- initialisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_xavier_is_reproducible_and_as_described(config):
    net, again = generator(config, seed=3), generator(config, seed=3)
    assert same(net, again)
    for name, value in net.named_parameters():
        if value.ndim == 4 and value.numel() > 2000:
            wanted = nn.init.xavier_normal_(torch.empty(value.shape), generator=torch.Generator().manual_seed(0)).std()
            assert value.std().item() == pytest.approx(wanted.item(), rel=0.1), name
        elif value.ndim == 1:
            assert (value == 0).all() or abs(value.mean() - 1) < 3 / len(value) ** 0.5, name
    with pytest.raises(ValueError, match="got 'kaiming'"):
        init_weights(net, seed=0, scheme="kaiming")  # pyright: ignore[reportArgumentType]


def test_spectral_norms_are_1_from_the_start():
    net = checkpoint.build(MultiscaleDiscriminatorConfig(in_channels=8, base=8)).eval()
    init_weights(net, seed=0, scheme="xavier")
    layers: list[Any] = [layer for layer in net.modules() if is_parametrized(layer)]
    assert len(layers) == 2 * 3 and not any(part.training for part in net.modules())
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)
        assert layer.parametrizations.weight.original.std() < 0.01


# --- the discriminator -----------------------------------------------------------------------------------------


def test_the_discriminator_shows_what_every_layer_saw_at_every_scale(tmp_path):
    net = network(MultiscaleDiscriminatorConfig(in_channels=8, base=4), scheme="xavier")
    pair = torch.randn(2, 8, 64, 48)
    scales = net(pair)
    assert [[tuple(layer.shape[1:]) for layer in scale] for scale in scales] == [
        [(4, 33, 25), (8, 17, 13), (16, 9, 7), (32, 10, 8), (1, 11, 9)],
        [(4, 17, 13), (8, 9, 7), (16, 5, 4), (32, 6, 5), (1, 7, 6)],
    ]
    checkpoint.save_discriminator(net, tmp_path / "judge")
    back = checkpoint.load_discriminator(tmp_path / "judge")
    assert back.config == net.config and back.training
    assert same(net.eval()(pair), back.eval()(pair))


# --- pruning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("upsamplings", "narrowest"), [(3, 2), (4, 1), (6, 1), (7, 0.5)])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_stages_keep_their_ratios(upsamplings, narrowest, share):
    net = generator(cat_spade_teacher(16, 5, upsamplings))
    whole = generator_macs(net.config, 128)
    with pytest.raises(ValueError, match="as wide as its stem"):
        spared_scales(net, "last")
    for scales in (norm_scales(net), uniform_scales(net), spared_scales(net, "trunk"), random_scales(net, 3)):
        plan = prune(net, share * whole, image_size=128, scales=scales)
        assert isinstance(plan.config, SpadeConfig) and plan.macs == generator_macs(plan.config, 128) <= share * whole
        widths = plan.config.widths
        assert [w / widths[-1] for w in widths] == [w / net.config.widths[-1] for w in net.config.widths]
        assert widths[-1] >= 4  # a quarter of the base
        # As many stages' units as channels above the threshold, and no more.
        ratio = round(16 / narrowest)
        above = sum(s > (plan.threshold or 0) for s in scales["stem"])
        assert len(plan.keep["stem"]) == plan.config.stem == ratio * max(above // ratio, 4)
        for name, kept in plan.keep.items():
            assert name == "stem" or len(kept) in (0, sum(s > (plan.threshold or 0) for s in scales[name]))


def test_a_floor_is_named_and_can_be_reached():
    net = generator(cat_spade_teacher(16, 5, 4))
    with pytest.raises(ValueError, match=r"below the floor of .* that min_width=3 leaves") as error:
        prune(net, 1, image_size=64, min_width=3)
    floor = int(str(error.value).split("floor of ")[1].split()[0].replace(",", ""))
    plan = prune(net, floor, image_size=64, min_width=3)
    assert isinstance(plan.config, SpadeConfig) and plan.macs == floor and plan.config.widths[-1] == 3
    everything = prune(net, 1e12, image_size=64, min_width=99)
    assert everything.threshold is None and everything.config == net.config


def test_plans_come_back_and_their_students_start_at_random(tmp_path):
    net = generator()
    plan = prune(net, generator_macs(SMALL, 64) / 4, image_size=64)
    checkpoint.save_plan(plan, tmp_path / "plan")
    assert checkpoint.load_plan(tmp_path / "plan") == plan
    student = start_student(net, plan, seed=3, scheme="xavier", gain=0.5)
    assert student.training and student.config == plan.config
    assert same(student, network(plan.config, 3, scheme="xavier", gain=0.5))
    for refuse in (inherit, partial(start_student, start="scales", seed=0)):
        with pytest.raises(ValueError, match=r"no norm ranks the channels .* start='random'"):
            refuse(net, plan)
