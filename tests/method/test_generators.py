"""Networks against what the official code computes, and what training asks of them."""

from dataclasses import replace

import pytest
import torch
from goldens import golden, widely_used_resnet
from torch import nn
from toys import label_map, network, same

from i2i_lib.checkpoint import build
from i2i_lib.config import (
    DiscriminatorConfig,
    ResnetConfig,
    SpadeConfig,
    SpadeResnetConfig,
    cat_spade_teacher,
    cat_teacher,
    mobile_resnet,
)
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.macs import generator_macs
from i2i_lib.official import from_cat_state_dict


@pytest.mark.parametrize("name", ["inception_instance", "inception_batch", "student_instance", "student_batch"])
def test_generators_compute_what_the_official_ones_do(name):
    weights, image, [wanted] = golden(name)
    with torch.no_grad():
        torch.testing.assert_close(from_cat_state_dict(weights)(image), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_discriminators_compute_what_the_official_ones_do(norm):
    weights, image, [wanted] = golden(f"patchgan_{norm}")
    net = PatchDiscriminator(DiscriminatorConfig(in_channels=6, base=8, norm=norm))
    net.load_state_dict(weights)
    torch.testing.assert_close(net(image), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("norm", "factor"), [("none", 2.0), ("instance", 1.0)])
def test_only_without_norms_a_discriminator_sees_how_large_values_are(norm, factor):
    net = network(DiscriminatorConfig(in_channels=3, base=8, norm=norm), scheme="xavier", gain=1.0)
    image = torch.rand(2, 3, 64, 64) - 0.5
    torch.testing.assert_close(net(2 * image), factor * net(image), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("n_blocks", [6, 9])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_resnets_of_the_widely_used_repository_load(norm, dropout, n_blocks, prefix):
    """To equal pictures; and the state dict's own tensors are left as they were."""
    official = widely_used_resnet(norm, dropout=dropout, n_blocks=n_blocks)
    state = {f"{prefix}{name}": value for name, value in official.state_dict().items()}
    before = dict(state)
    image = torch.rand(2, 3, 24, 32) * 2 - 1
    with torch.no_grad():
        ours = from_cat_state_dict(state)
        torch.testing.assert_close(ours(image), official.get_submodule("model")(image), atol=1e-5, rtol=0)
    assert ours.config == ResnetConfig(4, n_blocks, norm) and not ours.training
    assert state.keys() == before.keys() and all(state[name] is before[name] for name in before)


@pytest.mark.parametrize(("norm", "inside"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)])
def test_a_separable_resnet_loads(norm, inside):
    official = widely_used_resnet(norm, dropout=True, separable=inside)
    image = torch.rand(2, 3, 24, 32) * 2 - 1
    with torch.no_grad():
        ours = from_cat_state_dict(official.state_dict())
        torch.testing.assert_close(ours(image), official.get_submodule("model")(image), atol=1e-5, rtol=0)
    assert ours.config == ResnetConfig(4, 3, norm, separable=True)


def test_a_separable_resnet_of_batch_norms_with_instance_norms_inside_is_refused():
    official = widely_used_resnet("batch", dropout=True, separable=nn.InstanceNorm2d)
    with pytest.raises(ValueError, match="has instance norms inside"):
        from_cat_state_dict(official.state_dict())


CONFIGS = {
    "inception": cat_teacher(6, 4, "batch"),
    "resnet": ResnetConfig(4, 4, "batch"),
    "mobile": mobile_resnet(4, 4, "batch"),
}
SPADE_CONFIGS = {
    "spade": cat_spade_teacher(4, 5, 4),
    "spade-instance": cat_spade_teacher(4, 5, 4, "instance"),
    "spade-original": SpadeResnetConfig(4, 5, 4, hidden=6),
}
pictured = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_generator = pytest.mark.parametrize("config", (CONFIGS | SPADE_CONFIGS).values(), ids=CONFIGS | SPADE_CONFIGS)


def source(config, height, width, n=2):
    """Noise, or random labels for a SPADE generator."""
    if not isinstance(config, SpadeConfig | SpadeResnetConfig):
        return torch.randn(n, 3, height, width)
    return label_map(5, height, width, n)


@pictured
def test_features_are_what_the_blocks_put_out(config):
    net = build(replace(config, norm="instance")).eval()
    x = source(config, 16, 24)
    seen = []
    net.stem.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for block in net.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image, features = net(x, features=True)
    assert image.shape == x.shape and image.abs().max() <= 1
    # After the stem and blocks 2, 3 and 4 of four.
    for feature, wanted in zip(features, (seen[0], *seen[2:]), strict=True):
        assert feature.shape == (2, net.config.stem[-1], 4, 6)
        assert torch.equal(feature, wanted)
    assert torch.equal(net(x), image)


@every_generator
def test_image_sizes_that_do_not_fit_are_refused(config):
    net = build(config)
    step = 16 if config in SPADE_CONFIGS.values() else 4
    with pytest.raises(ValueError, match=f"multiples of {step}, got 32 x 42"):
        net(source(config, 32, 42))


@pictured
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_blocks_have_a_border_to_reflect(config, norm):
    net = build(replace(config, norm=norm))
    least = 12 if isinstance(net, InceptionGenerator) else 8
    assert net(torch.zeros(2, 3, least, 16)).shape == (2, 3, least, 16)
    assert generator_macs(net.config, least) > 0
    small = f"at least {least} for this generator, got {least - 4} x"
    with pytest.raises(ValueError, match=small):
        net(torch.zeros(2, 3, least - 4, 16))
    with pytest.raises(ValueError, match=small):
        generator_macs(net.config, least - 4)


@every_generator
def test_bf16_and_channels_last_change_only_digits(config):
    spade = config not in CONFIGS.values()
    net = network(config, scheme="xavier", gain=1.0).eval() if spade else network(config)
    x = source(config, 32, 32, n=4) if spade else source(config, 16, 16, n=4)
    wanted = net(x)
    net.to(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(last), wanted, atol=1e-3 if spade else 1e-5, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        image, features = net(last, features=True)
    assert image.dtype is torch.bfloat16
    if spade:  # spectral norms spread the rounding of single values
        assert (image.float() - wanted).abs().mean() < 0.05
    else:
        torch.testing.assert_close(image.float(), wanted, atol=0.05, rtol=0)
        assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features)


@pictured
def test_networks_compile_without_a_break(config):
    net = build(config).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, features=True), net(x, features=True))


@every_generator
def test_synchronised_batch_norm_has_batch_norm_s_weights(config):
    batch, sync = (build(replace(config, norm=norm)).eval() for norm in ("batch", "sync_batch"))  # it trains on a GPU
    sync.load_state_dict(batch.state_dict())
    x = source(config, 16, 16)
    torch.testing.assert_close(sync(x), batch(x))


def test_resizing_leaves_no_checkerboard():
    """From a constant input, the one up-sampling makes a constant; the other repeats its kernel's phases."""
    spread = {}
    for upsample in ("transpose", "resize"):
        net = ResnetGenerator(ResnetConfig(4, 3, "batch", upsample=upsample))
        image = net.up.get_submodule("0.conv")(torch.ones(1, 16, 6, 6))
        spread[upsample] = image[..., 2:-2, 2:-2].std((2, 3)).max().item()
        assert image.shape == (1, 8, 12, 12)
    assert spread["resize"] < 1e-6 < 1e-3 < spread["transpose"]


@pytest.mark.parametrize(("n_layers", "size"), [(3, 6), (1, 30), (0, 64)])
def test_discriminators_judge_patches_or_pixels(n_layers, size):
    net = PatchDiscriminator(DiscriminatorConfig(base=4, n_layers=n_layers)).eval()
    image = torch.randn(1, 6, 64, 64)
    logits = net(image)
    assert logits.shape == (1, 1, size, size)
    if n_layers == 0:
        image[..., 0, 0] += 1
        changed = net(image) != logits
        assert changed[..., 0, 0].all() and changed.sum() == 1


@pictured
def test_initialisation_is_reproducible_and_as_described(config):
    state = {}
    for norm_start in ("one", "normal"):
        net, again = (network(config, 3, norm_start=norm_start) for _ in range(2))
        assert same(net, again)
        state[norm_start] = net.state_dict()
    weights = torch.cat([v.flatten() for name, v in state["one"].items() if v.ndim == 4])
    assert abs(weights.mean()) < 1e-3 and abs(weights.std() - 0.02) < 1e-3
    for name, value in state["one"].items():
        if value.ndim == 1:
            assert torch.equal(value, torch.full_like(value, float(name.endswith(("weight", "running_var")))))
    scales = torch.cat([v for name, v in state["normal"].items() if name.endswith("norm.weight")])
    assert abs(scales.mean() - 1) < 0.01 and 0.015 < scales.std() < 0.025


def test_the_gradients_of_one_picture_are_those_of_its_double():
    """Instance norm looks at each picture alone; networks train with their channels last."""
    net = network(cat_teacher(4, 3, "instance")).double().to(memory_format=torch.channels_last)
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    gradients = []
    for batch in (picture, picture.repeat(2, 1, 1, 1)):
        net.zero_grad()
        net(batch).square().mean().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*gradients)
