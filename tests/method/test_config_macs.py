"""Costs in closed form, against published numbers, a counter on a real forward pass, and torch's own."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from i2i_lib.checkpoint import build
from i2i_lib.config import (
    BlockWidths,
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    ResnetConfig,
    SpadeBlockWidths,
    SpadeConfig,
    SpadeResnetConfig,
    cat_spade_teacher,
    cat_teacher,
    mobile_resnet,
)
from i2i_lib.macs import generator_macs, generator_params, layers, nearest_mobile_resnet

NOTHING = BlockWidths((0, 0, 0), (0, 0, 0))
STUDENT = GeneratorConfig(
    stem=(5, 7, 6),
    blocks=(BlockWidths((3, 0, 2), (0, 4, 1)), NOTHING, BlockWidths((0, 0, 0), (1, 0, 0))),
    up=(3, 4),
    norm="batch",
)
SPADE_STUDENT = SpadeConfig(
    stem=6,
    blocks=(
        SpadeBlockWidths(6, STUDENT.blocks[0], STUDENT.blocks[2]),
        SpadeBlockWidths(5, NOTHING, STUDENT.blocks[0]),
        SpadeBlockWidths(5, STUDENT.blocks[2], NOTHING),
        SpadeBlockWidths(4, STUDENT.blocks[0], STUDENT.blocks[0]),
        SpadeBlockWidths(4, NOTHING, NOTHING),
    ),
    label_channels=7,
    upsamplings=3,
)
SPADE_TEACHER = cat_spade_teacher(4, 5, 4)
CONFIGS = {
    "student-batch": STUDENT,
    "student-instance": replace(STUDENT, norm="instance"),
    "student-resize": replace(STUDENT, norm="instance", upsample="resize"),
    "other-kernels": replace(STUDENT, kernel_sizes=(1, 3, 7), in_channels=1, out_channels=2),
    "resnet": ResnetConfig(base=4, n_blocks=3),
    "resnet-batch": ResnetConfig(base=4, n_blocks=4, norm="batch", upsample="resize"),
    "mobile": mobile_resnet(base=4, n_blocks=3),
    "spade": SPADE_TEACHER,
    "spade-student": SPADE_STUDENT,
    "spade-instance": replace(SPADE_STUDENT, norm="instance"),
    "spade-original": SpadeResnetConfig(4, 5, 4, hidden=6),
    "spade-original-instance": SpadeResnetConfig(4, 5, 4, norm="instance"),
}
SPADE = SpadeConfig | SpadeResnetConfig
FLOOR = GeneratorConfig(stem=(16, 16, 16), blocks=(NOTHING,) * 9, up=(16, 16))


@pytest.mark.parametrize(
    ("config", "paper", "exact"),
    [
        (ResnetConfig(norm="batch"), 56_799_264_768, 49_551_507_456),
        (cat_teacher(), 43_527_405_568, 36_242_644_992),
        (cat_teacher(norm="batch"), 43_490_402_304, 36_242_644_992),
        (cat_teacher(norm="sync_batch"), 43_490_402_304, 36_242_644_992),
        (FLOOR, 546_897_920, 402_653_184),
        (replace(FLOOR, norm="batch"), 544_210_944, 402_653_184),
    ],
    ids=["resnet9", "teacher", "teacher-batch", "teacher-sync", "floor", "floor-batch"],
)
def test_macs_at_256_are_the_published_ones(config, paper, exact):
    assert generator_macs(config, 256) == paper
    assert generator_macs(config, (256, 256), "exact") == exact


def test_params_are_the_published_ones():
    assert generator_params(cat_teacher()) == 8_154_255
    assert generator_params(cat_teacher(norm="batch")) == 8_136_389


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_macs_match_two_other_counters(config):
    """The paper's convention, hooked onto a forward pass, and the exact one by torch's count of operations."""
    net = build(config).eval()
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        if isinstance(module, nn.InstanceNorm2d):
            counted += output.numel()
        elif isinstance(module, nn.Conv2d):
            counted += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):  # at the output size, as the authors do
            counted += output.numel() * module.weight[:, 0].numel()

    for module in net.modules():
        module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        channels = config.label_channels if isinstance(config, SPADE) else config.in_channels
        net(torch.zeros(1, channels, 32, 48))
    assert generator_macs(config, (32, 48)) == counted
    assert 2 * generator_macs(config, (32, 48), "exact") == flops.get_total_flops()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layers_and_params_are_the_network_s(config):
    net = build(config)
    state = net.state_dict()
    assert generator_params(config) == sum(p.numel() for p in net.parameters())
    owners = {name.partition(".parametrizations")[0] if "param" in name else name.rpartition(".")[0] for name in state}
    named = {layer.name for layer in layers(config) if layer.kind != "norm" or layer.bias or config.norm != "instance"}
    assert named == owners


@pytest.mark.parametrize("size", [0, -4, 30, (64, 62)])
def test_image_sizes_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 4"):
        generator_macs(STUDENT, size)
    with pytest.raises(ValueError, match="multiples of 64"):
        generator_macs(SpadeResnetConfig(), size)


@pytest.mark.parametrize(("base", "side", "mobile"), [(16, 64, 6), (24, 128, 10)])  # the teachers of preset cpu
def test_the_mobile_resnet_of_later_papers_can_cost_an_eighth_of_a_teacher(base, side, mobile):
    teacher = replace(cat_teacher(base, 6, "batch"), upsample="resize")
    eighth = generator_macs(teacher, side, "exact") / 8
    found = nearest_mobile_resnet(teacher, eighth, side)
    assert found == replace(mobile_resnet(mobile, 9, "batch"), upsample="resize")
    assert generator_macs(found, side, "exact") == pytest.approx(eighth, rel=0.012)
    others = [replace(found, base=mobile + more) for more in (-1, 1)]
    assert all(abs(generator_macs(other, side, "exact") / eighth - 1) > 0.05 for other in others)
    with pytest.raises(ValueError, match="does not read labels"):
        nearest_mobile_resnet(SPADE_TEACHER, eighth, side)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="convention is one of paper, exact, got 'flops'"):
        generator_macs(STUDENT, 32, "flops")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("n", "taps"), [(3, (1, 2, 3)), (4, (2, 3, 4)), (6, (2, 4, 6)), (9, (3, 6, 9))])
def test_features_come_after_each_third_of_the_blocks(n, taps):
    assert cat_teacher(8, n).taps == taps == ResnetConfig(8, n).taps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cat_teacher(n_blocks=2), "expected 3 to 999 blocks, got 2"),
        (lambda: ResnetConfig(norm="layer"), "got 'layer'"),  # pyright: ignore[reportArgumentType]
        (lambda: replace(STUDENT, upsample="bilinear"), "got 'bilinear'"),
        (lambda: replace(STUDENT, stem=(0, 7, 6)), "at least 1"),
        (lambda: replace(STUDENT, stem=(7, 6)), "3 stem and 2 up"),
        (lambda: replace(STUDENT, kernel_sizes=(1, 2, 3)), "odd"),
        (lambda: replace(STUDENT, blocks=(BlockWidths((1,), (1,)),) * 3), "block 0 needs one width per kernel"),
        (lambda: BlockWidths((-1,), (1,)), "conv=\\(-1,\\)"),
        (lambda: ResnetConfig(base=0), "at least 1"),
        (lambda: DiscriminatorConfig(n_layers=-1), "n_layers"),
        (lambda: replace(SPADE_TEACHER, upsamplings=3), "got 7 blocks and upsamplings=3"),
        (lambda: replace(SPADE_TEACHER, blocks=SPADE_TEACHER.blocks[:4], upsamplings=2), "at least 5 blocks"),
        (lambda: replace(SPADE_TEACHER, stem=0), "at least 1"),
        (lambda: replace(SPADE_TEACHER, kernel_sizes=(1, 3)), "block 0 needs one width per kernel"),
        (lambda: replace(SPADE_TEACHER, norm="layer"), "got 'layer'"),
        (lambda: cat_spade_teacher(upsamplings=8), "upsamplings=8"),
        (lambda: cat_spade_teacher(base=0), "at least 1"),
        (lambda: SpadeResnetConfig(hidden=0), "at least 1"),
        (lambda: MultiscaleDiscriminatorConfig(n_scales=0), "n_scales=0"),
    ],
)
def test_impossible_configs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
