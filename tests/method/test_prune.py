"""The search against the official one and against its own definition; what a student takes from its teacher."""

import copy
import json
from bisect import bisect_right
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from goldens import DATA
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from toys import network, same, trained

from i2i_lib import prune, threshold
from i2i_lib.config import GeneratorConfig, Norm, ResnetConfig, SpadeConfig, cat_spade_teacher, cat_teacher
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.official import from_cat_state_dict
from i2i_lib.prune import norm_scales, random_scales, spared_scales, uniform_scales
from i2i_lib.students import inherit, start_student


def teacher(n_blocks: int = 3, norm: Norm = "instance") -> InceptionGenerator:
    return trained(cat_teacher(8, n_blocks, norm))


TEACHER = teacher()
NAMES = {name: len(layer) for name, layer in norm_scales(TEACHER).items()}
WHOLE = generator_macs(TEACHER.config, 16)


@pytest.mark.parametrize(
    "case", json.loads((DATA / "prune_cases.json").read_text()), ids=lambda case: f"case{case['case']}-{case['kind']}"
)
def test_the_official_widths_or_wider(case):
    shapes = json.loads((DATA / "prune_shapes.json").read_text())[str(case["case"])]
    prefix = f"{case['case']}/"
    gammas = {
        k.removeprefix(prefix): v
        for k, v in load_file(DATA / "prune_gammas.safetensors").items()
        if k.startswith(prefix)
    }
    net: Any = from_cat_state_dict({name: torch.zeros(shape) for name, shape in shapes.items()} | gammas)
    if case["kind"] == "spade":
        assert net.config == cat_spade_teacher(case["ngf"], case["semantic_nc"])
        size = round(case["crop"] / case["aspect_ratio"]), case["crop"]
        assert generator_macs(net.config, size) == case["teacher_macs"]
        assert generator_params(net.config) == case["teacher_params"]
    else:
        assert net.config == cat_teacher(case["ngf"], norm=case["norm"])
        size = case["height"], case["width"]

    plan = prune.prune(net, case["target"], image_size=size, min_width=case["lb"])
    assert case["student_macs"] <= plan.macs == plan.cost <= case["target"]
    if isinstance(plan.config, SpadeConfig):
        blocks = [(b.body, b.spade) for b in plan.config.blocks]
        widths = [*plan.config.widths, *(w for pair in blocks for b in pair for w in b.conv + b.depthwise)]
        theirs = case["blocks"].values()
        official = [case["fc"], *(b["output"] for b in theirs)]
        official += [w for b in theirs for part in ("res", "dw", "spade_res", "spade_dw") for w in b[part]]
    else:
        widths = [*plan.config.stem, *plan.config.up, *(w for b in plan.config.blocks for w in b.conv + b.depthwise)]
        official = [*case["down"], *case["up"], *(w for b in case["blocks"] for w in b["res"] + b["dw"])]
    assert all(ours >= theirs for ours, theirs in zip(widths, official, strict=True))


scales_of_any_kind = st.integers(0, 2**32 - 1).map(
    # Few distinct values now and then, since ties are where an off-by-one hides.
    lambda seed: {
        name: [v if seed % 2 else round(v, 1) for v in layer] for name, layer in random_scales(TEACHER, seed).items()
    }
)


@settings(max_examples=60, deadline=None)
@given(scales=scales_of_any_kind, share=st.floats(0.03, 1.2), min_width=st.integers(1, 9))
@example(scales=norm_scales(TEACHER), share=1.0, min_width=2)
def test_the_plan_is_the_widest_that_fits(scales, share, min_width):
    def search(budget):
        return prune.prune(TEACHER, budget, image_size=16, min_width=min_width, scales=scales)

    budget = share * WHOLE
    try:
        plan = search(budget)
    except ValueError as error:
        assert "below the floor" in str(error)
        return
    assert plan.macs == generator_macs(plan.config, 16) <= budget
    for name, kept in plan.keep.items():
        floor = 0 if name.startswith("blocks") else min(min_width, NAMES[name])
        assert len(kept) >= floor and list(kept) == sorted(set(kept))
        threshold = -1 if plan.threshold is None else plan.threshold
        above = [i for i, s in enumerate(scales[name]) if s > threshold]
        best = sorted(range(NAMES[name]), key=lambda i: (-scales[name][i], i))
        assert list(kept) == (above if len(above) >= floor else sorted(best[:floor]))
    if plan.threshold is None:
        assert plan.config == TEACHER.config and budget >= WHOLE
    else:
        # One step down the ladder of scales there is a wider student, and it is over the budget.
        lower = max((s for layer in scales.values() for s in layer if s < plan.threshold), default=-1)
        wider = {
            name: max(len(layer) - bisect_right(sorted(layer), lower), len(plan.keep[name]))
            for name, layer in scales.items()
        }
        assert generator_macs(TEACHER.config.narrowed(wider), 16) > budget
    # Budgets nest: a smaller one keeps a subset.
    try:
        smaller = search(0.7 * budget)
    except ValueError:
        return
    assert all(set(smaller.keep[name]) <= set(kept) for name, kept in plan.keep.items())


@pytest.mark.parametrize(
    ("norm", "convention", "floor"),
    [
        ("instance", "paper", "546,897,920 MACs"),
        ("batch", "paper", "544,210,944 MACs"),
        ("batch", "exact", "402,653,184 MACs"),
    ],
)
def test_a_budget_under_the_floor_names_the_floor(norm, convention, floor):
    net = InceptionGenerator(cat_teacher(norm=norm))
    number, unit = floor.split()
    with pytest.raises(ValueError, match=f"{unit} \\({convention} convention\\) is below the floor of {number}"):
        prune.prune(net, 400_000_000, image_size=256, cost=convention)
    assert prune.prune(net, int(number.replace(",", "")), image_size=256, cost=convention).cost <= 546_897_920


def test_the_search_takes_at_most_13_costs_and_leaves_the_teacher_alone(monkeypatch):
    net = trained(cat_teacher())
    before = copy.deepcopy(net)
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return generator_macs(*args, **options)

    monkeypatch.setattr(threshold, "generator_macs", counted)
    for budget in (6e8, 2.6e9, 20e9, 43.5e9):
        calls.clear()
        prune.prune(net, budget, image_size=256)
        assert len(calls) <= 13
    assert same(net, before)


@pytest.mark.parametrize("scales", [uniform_scales(TEACHER), random_scales(TEACHER, 1), random_scales(TEACHER, 2)])
@pytest.mark.parametrize("min_width", [2, 5])
def test_students_filled_up_cost_the_same(scales, min_width):
    """One channel between the blocks costs several per cent of a small student: too much for a fair comparison."""
    budget = WHOLE / 3
    bare, full = (
        prune.prune(TEACHER, budget, image_size=16, min_width=min_width, scales=scales, fill=fill)
        for fill in (False, True)
    )
    assert bare.cost <= full.cost <= budget < 1.01 * full.cost
    assert full.threshold == bare.threshold and full.cost == generator_macs(full.config, 16)
    for name, kept in full.keep.items():
        assert set(bare.keep[name]) <= set(kept)
        out = [scale for i, scale in enumerate(scales[name]) if i not in kept]
        assert not out or max(out) <= min((scales[name][i] for i in kept), default=1.0), (
            "the largest of each layer stay"
        )
        if out:  # no channel of any layer would still have fitted
            widths = {n: len(k) for n, k in full.keep.items()} | {name: len(kept) + 1}
            assert generator_macs(TEACHER.config.narrowed(widths), 16) > budget


def test_filling_up_takes_nothing_where_the_threshold_fits_exactly():
    plan = prune.prune(TEACHER, WHOLE, image_size=16, fill=True)
    assert plan.cost == WHOLE and plan.threshold is None and {n: len(k) for n, k in plan.keep.items()} == NAMES


def test_any_monotone_cost_will_do():
    def parameters(config):
        return sum(config.stem) + sum(config.up)

    plan = prune.prune(TEACHER, 40, image_size=16, cost=parameters)
    assert plan.cost == parameters(plan.config) <= 40 and plan.macs == generator_macs(plan.config, 16)
    with pytest.raises(ValueError, match="5 units of the given cost is below the floor of 10"):
        prune.prune(TEACHER, 5, image_size=16, cost=parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_width": 0}, "min_width is at least 1"),
        ({"image_size": 18}, "multiples of 4"),
        ({"scales": {"stem.0": [1.0]}}, "must name the teacher's prunable layers"),
        (
            {"scales": norm_scales(TEACHER) | {"up.1": [float("nan")] * 8}},
            "norm scales of up.1 are negative or not finite",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        prune.prune(TEACHER, WHOLE, **{"image_size": 16} | options)


def test_other_generators_are_refused():
    with pytest.raises(ValueError, match="got ResnetGenerator"):
        prune.prune(ResnetGenerator(ResnetConfig(4, 3)), WHOLE, image_size=16)  # pyright: ignore[reportArgumentType]


def test_the_baselines_narrow_evenly_and_at_random():
    uniform = prune.prune(TEACHER, WHOLE // 4, image_size=16, scales=uniform_scales(TEACHER))
    shares = [len(kept) / NAMES[name] for name, kept in uniform.keep.items() if NAMES[name] >= 8]
    assert max(shares) - min(shares) <= 1 / 8
    spared: dict[Literal["trunk", "last"], str] = {"trunk": "stem.2", "last": "up.1"}
    for part, layer in spared.items():
        wide = prune.prune(TEACHER, WHOLE // 2, image_size=16, scales=spared_scales(TEACHER, part)).keep
        assert len(wide[layer]) == NAMES[layer]
        rest = [len(kept) / NAMES[name] for name, kept in wide.items() if NAMES[name] >= 8 and name != layer]
        assert max(rest) - min(rest) <= 1 / 8 and max(rest) < 1
    with pytest.raises(ValueError, match="trunk"):
        spared_scales(TEACHER, "middle")  # pyright: ignore[reportArgumentType]
    one, same, other = (
        prune.prune(TEACHER, WHOLE // 4, image_size=16, scales=random_scales(TEACHER, seed)).keep for seed in (0, 0, 1)
    )
    assert one == same != other


# --- a student's start -----------------------------------------------------------------------------------------


def set_output(module, channels, value):
    """A norm's output is `value` there, whatever comes in."""
    module.weight.data[channels] = 0
    module.bias.data[channels] = value


def silent_teacher(norm):
    """A teacher whose dropped channels are silent, and the plan that drops them."""
    net = teacher(norm=norm)
    # Ranks are set apart from the weights, so that what stays has scales of every size.
    scales = random_scales(net, seed=1)
    plan = prune.prune(net, generator_macs(net.config, 16) // 5, image_size=16, min_width=3, scales=scales)
    for name, kept in plan.keep.items():
        dropped = [i for i in range(len(scales[name])) if i not in kept]
        if name.startswith("blocks"):
            set_output(net.get_submodule(f"{name}.expand.norm"), dropped, -0.3)  # 0 after the ReLU
            if "depthwise" in name and norm == "batch":
                second: Any = net.get_submodule(f"{name}.spatial.norm")
                constant = second.bias - second.weight * second.running_mean / (second.running_var + second.eps).sqrt()
                second.bias.data[dropped] -= constant.data[dropped] + 0.1
        else:
            set_output(net.get_submodule(f"{name}.norm"), dropped, -0.2)
            if name == "stem.2":
                for block in net.blocks:
                    set_output(block.norm, dropped, 0)
    assert any(len(kept) < len(scales[name]) for name, kept in plan.keep.items() if "depthwise" in name)
    assert len(plan.keep["stem.2"]) < len(scales["stem.2"])
    return net, plan


IMAGE = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_dropping_silent_channels_changes_nothing(norm):
    net, plan = silent_teacher(norm)
    student, image = inherit(net.double(), plan), IMAGE.double()
    assert not student.training and next(student.parameters()).dtype is torch.float64
    with torch.no_grad():
        wanted = net(image)
        assert wanted.std() > 0.1
        torch.testing.assert_close(student(image), wanted, atol=1e-11, rtol=0)


@pytest.mark.parametrize("which", ["ranked", "second", "closing"])
def test_each_part_of_silence_is_needed(which):
    """Break one of the three conditions at one channel, and the student differs."""
    net, plan = silent_teacher("batch")
    kind = {"ranked": "up.0", "second": "depthwise", "closing": "stem.2"}[which]
    name = next(n for n, kept in plan.keep.items() if kind in n and 0 < len(kept) < NAMES[n])
    dropped = next(i for i in range(NAMES[name]) if i not in plan.keep[name])
    norm = {"ranked": f"{name}.norm", "second": f"{name}.spatial.norm", "closing": "blocks.2.norm"}[which]
    net.get_submodule(norm).get_parameter("bias").data[dropped] += 2
    with torch.no_grad():
        assert (inherit(net, plan)(IMAGE) - net(IMAGE)).abs().max() > 1e-3


def test_constants_of_dropped_depthwise_channels_vanish_under_instance_norm():
    """There the second norm's constant need not be 0: the closing norm subtracts it."""
    net, plan = silent_teacher("instance")
    for name, kept in plan.keep.items():
        if "depthwise" in name:
            dropped = [i for i in range(NAMES[name]) if i not in kept]
            net.get_submodule(f"{name}.spatial.norm").get_parameter("bias").data[dropped] = 2.0
    with torch.no_grad():
        torch.testing.assert_close(inherit(net, plan)(IMAGE), net(IMAGE), atol=2e-5, rtol=0)


def test_the_three_starts():
    net = teacher(norm="batch")
    plan = prune.prune(net, WHOLE // 4, image_size=16)
    students = [start_student(net, plan, start, seed=3) for start in ("random", "inherited", "scales")]
    assert all(student.training for student in students)
    random, inherited, scaled = (student.state_dict() for student in students)
    assert isinstance(plan.config, GeneratorConfig)
    fresh = network(plan.config, 3)
    kept = plan.keep["stem.1"]
    assert torch.equal(inherited["stem.1.norm.running_var"], net.state_dict()["stem.1.norm.running_var"][list(kept)])
    for name, value in fresh.state_dict().items():
        assert torch.equal(random[name], value)
        closing = name.startswith("blocks") and name.count(".") == 3
        from_teacher = name.endswith(("norm.weight", "norm.bias")) and not closing
        assert torch.equal(scaled[name], (inherited if from_teacher else fresh.state_dict())[name])
        if value.ndim:
            assert not torch.equal(inherited[name], value)


def test_a_plan_of_another_teacher_is_refused():
    plan = prune.prune(TEACHER, WHOLE // 4, image_size=16)
    with pytest.raises(ValueError, match="not of this teacher"):
        inherit(teacher(n_blocks=4), plan)
    with pytest.raises(ValueError, match="not of this teacher"):
        inherit(teacher(), replace(plan, config=replace(plan.config, up=(1, 1))))
    with pytest.raises(ValueError, match="got 'warm'"):
        start_student(TEACHER, plan, "warm", seed=0)  # pyright: ignore[reportArgumentType]
