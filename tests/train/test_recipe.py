"""What a recipe builds: every family's networks, their starts and seeds, and what tells one training from another."""

import json
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import DISCRIMINATORS, DISTILLERS, FAMILIES, GENERATORS, TRAINERS, network, same, task

from i2i_lib import checkpoint
from i2i_lib.data.batches import labelled_pairs, paired_batches
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.files import root
from i2i_lib.macs import generator_macs
from i2i_lib.prune import norm_scales, prune
from i2i_lib.students import inherit
from i2i_lib.train import gaugan
from i2i_lib.train.adversarial import TrainConfig, frozen
from i2i_lib.train.distill import quick
from i2i_lib.train.loop import _fingerprint, training_code
from i2i_lib.train.recipe import Recipe, build, load_recipe, noted_step, save_recipe
from i2i_lib.train.snapshots import read_frames

CPU = torch.device("cpu")
XAVIER = {"scheme": "xavier"}
TRAINING = TrainConfig(steps=4, distill=1.0)
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def files(tmp_path, request):
    """A family's task, teacher, discriminators and plan on disk, as recipes name them."""
    family = request.getfixturevalue("family") if "family" in request.fixturenames else "pix2pix"
    save_task(task(family), tmp_path / "data")
    teacher = network(GENERATORS[family], 5, norm_start="normal")
    checkpoint.save_generator(teacher, tmp_path / "teacher")
    budget = generator_macs(teacher.config, 16) / 2
    made_of = {"teacher": checkpoint.load_info(tmp_path / "teacher")["sha256"]}
    plan = prune(teacher, budget, image_size=16, min_width=1)
    checkpoint.save_plan(plan, tmp_path / "plan", provenance=made_of)
    for seed, name in enumerate(("discriminator", "discriminator-back")):
        checkpoint.save_discriminator(network(DISCRIMINATORS[family], seed), tmp_path / name)
    return tmp_path


def teacher_recipe(family: str, **given: Any) -> Recipe:
    known = {"generator": GENERATORS[family], "discriminator": DISCRIMINATORS[family]}
    return Recipe(**{"task": "data", "training": TRAINING, "batch_size": 2, "seed": 3, **known, **given})


def student_recipe(family: str, **given: Any) -> Recipe:
    return teacher_recipe(
        family, **{"generator": "plan", "teacher": "teacher", "discriminator": "discriminator", **given}
    )


def drawn(config: Any, seed: int, family: str, **options: Any) -> nn.Module:
    return network(config, seed, **(XAVIER if family == "gaugan" else {}), **options)


@families
def test_a_teacher_starts_from_seeds_of_its_own(family, files):
    trainer, batches, run = build(teacher_recipe(family), files, task(family), CPU)
    assert type(trainer) is TRAINERS[family] and run.what == files.name
    side = trainer.ab if family == "cyclegan" else trainer
    assert same(side.generator, drawn(GENERATORS[family], 6, family))
    assert same(side.discriminator, drawn(DISCRIMINATORS[family], 7, family))
    if family == "cyclegan":
        assert same(trainer.ba.generator, drawn(GENERATORS[family], 1006, family))
        assert same(trainer.ba.discriminator, drawn(DISCRIMINATORS[family], 1007, family))
    if family == "pix2pix":
        expected = paired_batches(task(family).train, image_size=16, batch_size=2, seed=3)
        assert torch.equal(next(batches(2)).source, next(expected(2)).source)
    assert all(loss.isfinite() for loss in trainer.step(next(batches(0))).values())


@families
def test_a_training_draws_crops_of_the_tasks_size(family, files):
    whole = task(family)
    cropped = replace(whole, info=whole.info | {"crop": 12})
    _, batches, _ = build(teacher_recipe(family), files, cropped, CPU)
    batch = next(batches(0))
    assert batch.source.shape[2:] == batch.target.shape[2:] == (12, 12) and whole.crop == whole.test.size == 16


def test_crops_too_small_for_the_discriminator_are_refused():
    judge = network(replace(DISCRIMINATORS["pix2pix"], n_layers=3, in_channels=3), 0)
    assert judge(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="3 layers needs images of at least 24 pixels a side, got 20 x 24: train on"):
        judge(torch.zeros(1, 3, 20, 24))


@families
def test_a_student_starts_from_its_plan_and_its_teachers_discriminator(family, files):
    trainer, batches, _ = build(student_recipe(family, distillation="mse"), files, task(family), CPU, "student")
    assert type(trainer) is DISTILLERS[family]
    assert same(trainer.generator, drawn(checkpoint.load_plan(files / "plan").config, 1003, family))
    assert same(trainer.discriminator, checkpoint.load_discriminator(files / "discriminator"))
    assert same(trainer.teacher, quick(frozen(checkpoint.load_generator(files / "teacher"))))
    assert trainer.feature_loss.kind == "mse"
    if family == "pix2pix":
        expected = paired_batches(task(family).train, image_size=16, batch_size=2, seed=1003)
        assert torch.equal(next(batches(0)).source, next(expected(0)).source)
    fresh, *_ = build(student_recipe(family, discriminator=DISCRIMINATORS[family]), files, task(family), CPU)
    assert same(fresh.discriminator, drawn(DISCRIMINATORS[family], 2003, family))
    assert all(loss.isfinite() for loss in trainer.step(next(batches(0))).values())


def labelled_task(**changes: Any) -> Task:
    """Eight pairs in four groups."""
    whole = task("pix2pix")
    return replace(whole, info=whole.info | {"train_groups": [0, 0, 1, 1, 2, 2, 3, 3]}, **changes)


FEW = {"training": replace(TRAINING, labelled=0.25), "batch_size": 4}


def test_a_student_of_few_labels_learns_from_no_other_target(files):
    whole = labelled_task()
    chosen = labelled_pairs(whole.info["train_groups"], 0.25)

    def trained(targets: Tensor, **given: Any) -> Any:
        data = replace(whole, train=replace(whole.train, target=targets))
        trainer, batches, _ = build(student_recipe("pix2pix", **FEW | given), files, data, CPU)
        for batch in islice(batches(0), 2):
            trainer.step(batch)
        return trainer.state_dict()

    targets = whole.train.target
    garbage = torch.full_like(targets, 255)
    garbage[chosen] = targets[chosen]
    other = targets.clone()
    other[chosen[0]] = 255 - other[chosen[0]]
    known = trained(targets)
    assert same(trained(garbage), known) and not same(trained(other), known)
    undistilled = trained(targets, distillation="none")
    assert same(trained(garbage, distillation="none"), undistilled) and not same(undistilled, known)


def test_students_of_few_labels_draw_the_same_pictures(files):
    whole = labelled_task()
    kinds: tuple[Any, ...] = ("gcka", "none")
    made = [build(student_recipe("pix2pix", distillation=kind, **FEW), files, whole, CPU)[1] for kind in kinds]
    for one, other in zip(*(islice(batches(0), 3) for batches in made), strict=True):
        assert torch.equal(one.source, other.source) and torch.equal(one.target, other.target)
        assert len(one.target) == 2 and len(one.source) == 4
    seeds = [labelled_pairs(whole.info["train_groups"], 0.25).tolist() for _ in range(2)]
    assert seeds[0] == seeds[1], "which pairs are known is the task's, not a seed's"


@pytest.mark.parametrize("labelled", [0.0, -0.1, 1.5])
def test_a_share_of_labels_is_checked(labelled):
    with pytest.raises(ValueError, match=f"labelled is a share of the training pairs, above 0 .* got {labelled}"):
        replace(TRAINING, labelled=labelled)


def test_labels_are_few_for_students_with_pairs_in_groups_alone(files):
    with pytest.raises(ValueError, match=r"labelled is for students of tasks with pairs .* training of toy is not"):
        build(teacher_recipe("pix2pix", **FEW), files, labelled_task(), CPU)
    with pytest.raises(ValueError, match="the task toy has not noted it: set it to 1 or, of a task of emoji"):
        build(student_recipe("pix2pix", **FEW), files, task("pix2pix"), CPU)


@pytest.mark.parametrize(("name", "value", "off"), [("labelled", 0.25, 1), ("wavelet", 1.0, 0), ("judged", 1.0, 0)])
@pytest.mark.parametrize("family", ["cyclegan", "gaugan"])
def test_settings_of_students_of_pairs_are_refused_elsewhere(family, name, value, off, files):
    given = replace(TRAINING, **{name: value})
    with pytest.raises(ValueError, match=rf"{name} is for students of tasks with pairs .* is not: set it to {off}"):
        build(student_recipe(family, training=given), files, task(family), CPU)


def test_other_starts(files):
    plan = checkpoint.load_plan(files / "plan")
    noisy, *_ = build(student_recipe("pix2pix", start="noisy"), files, task("pix2pix"), CPU)
    inherited, *_ = build(student_recipe("pix2pix", start="inherited"), files, task("pix2pix"), CPU)
    assert same(noisy.generator, drawn(plan.config, 1003, "pix2pix", norm_start="normal"))
    assert same(inherited.generator, inherit(checkpoint.load_generator(files / "teacher"), plan))
    with pytest.raises(ValueError, match="start='inherited' needs a teacher, and as generator the path of a plan"):
        teacher_recipe("pix2pix", start="inherited")
    with pytest.raises(ValueError, match="start is one of random, inherited, scales, noisy, got 'cold'"):
        teacher_recipe("pix2pix", start="cold")


@pytest.mark.parametrize("family", ["cyclegan"])
def test_a_cyclegan_goes_on_from_a_discriminator_of_each_domain(family, files):
    paths = {"discriminator": "discriminator", "discriminator_back": "discriminator-back"}
    weights = {"cycle": 3.0, "identity": 0.02, "identity_until": 0.3, "pool": 7}
    trainer, *_ = build(teacher_recipe(family, **paths, **weights), files, task(family), CPU)
    assert same(trainer.ab.discriminator, checkpoint.load_discriminator(files / "discriminator"))
    assert same(trainer.ba.discriminator, checkpoint.load_discriminator(files / "discriminator-back"))
    assert (trainer.cycle, trainer.identity, trainer.identity_until, trainer.pool_a.size) == (3.0, 0.02, 0.3, 7)
    with pytest.raises(ValueError, match="discriminator is a path: give the one of the sources' domain, too"):
        build(teacher_recipe(family, discriminator="discriminator"), files, task(family), CPU)


@families
def test_a_recipe_is_json_and_its_paths_follow_its_file(family, tmp_path):
    for recipe in (teacher_recipe(family), student_recipe(family, start="inherited")):
        save_recipe(replace(recipe, task=str(tmp_path / "data")), tmp_path / "a" / "config.json")
        assert load_recipe(tmp_path / "a" / "config.json") == replace(recipe, task="../data")
    file = tmp_path / "a" / "config.json"
    file.write_text(file.read_text().replace('"seed"', '"sead"'))
    with pytest.raises(ValueError, match=r"config\.json is not a recipe of a training: TypeError: .*'sead'"):
        load_recipe(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json is not a recipe of a training"):
        load_recipe(file)


def test_a_plan_of_another_teacher_is_refused(files):
    checkpoint.save_generator(network(GENERATORS["pix2pix"], 6), files / "teacher")
    with pytest.raises(ValueError, match=r"plan\.json was made of another teacher than .*: prune again"):
        build(student_recipe("pix2pix", start="inherited"), files, task("pix2pix"), CPU)


def test_shards_share_a_batch_evenly(files):
    """Else the rest of a batch would be a shard of its own, or other ones with more processes."""
    training = replace(TRAINING, shard=2)
    build(student_recipe("pix2pix", training=training, batch_size=4), files, task("pix2pix"), CPU)
    with pytest.raises(ValueError, match=r"shard is 2, and 3 samples of each batch are a process's own"):
        build(student_recipe("pix2pix", training=training, batch_size=3), files, task("pix2pix"), CPU)


@pytest.mark.parametrize(
    "given",
    [{"steps": 0}, {"decay_from": -0.5}, {"gan_from": 7.0}, {"imitate": 3.0}, {"average": 1.0}, {"distill": -5.0}],
    ids=str,
)
def test_settings_with_which_nothing_is_learned_are_refused(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} is .*, got {next(iter(given.values()))}"):
        TrainConfig(**{"steps": 4} | given)


def test_what_decides_a_training_tells_it_apart_and_nothing_else_does(files):
    def fingerprint(**given: Any) -> tuple[str, ...]:
        run = build(student_recipe("pix2pix", **given), files, task("pix2pix"), CPU)[2]
        return tuple(_fingerprint(run, 4).values())

    wanted = fingerprint()
    assert fingerprint(log_every=7, threads=2, result="other", task=str(files / "data")) == wanted
    changed = [{"seed": 4}, {"start": "noisy"}, {"distillation": "ka"}, {"training": replace(TRAINING, recon=1.0)}]
    changed += [{"discriminator": "discriminator-back"}, {"batch_size": 4}, {"matching": 1.0}]
    assert len({wanted, *(fingerprint(**given) for given in changed)}) == len(changed) + 1
    plan = json.loads((files / "plan.json").read_text())
    (files / "plan.json").write_text(json.dumps(plan | {"provenance": plan["provenance"] | {"note": "another"}}))
    assert fingerprint() != wanted


@pytest.mark.parametrize("family", ["gaugan"])
def test_a_perceptual_loss_is_asked_for_and_tells_trainings_apart(family, files, monkeypatch):
    """Weights that arrive while a training without them is interrupted change nothing; others begin it anew."""
    weights = files / "vgg19.pth"
    monkeypatch.setenv("I2I_VGG19", str(weights))
    monkeypatch.setattr(gaugan, "Vgg19Features", lambda path: nn.Identity())

    def begun(perceptual: str) -> tuple[Any, str]:
        recipe = teacher_recipe(family, perceptual=perceptual)
        trainer, _, run = build(recipe, files, task(family), CPU)
        return trainer.perceptual, _fingerprint(run, 4)["settings"]

    before = begun("none")
    with pytest.raises(ValueError, match=r"I2I_VGG19 names .*vgg19\.pth, which is not a file"):
        begun("vgg19")
    weights.write_bytes(b"one")
    assert begun("none") == before == (None, before[1])
    with_one = begun("vgg19")
    weights.write_bytes(b"another")
    assert with_one[0] is not None and len({before[1], with_one[1], begun("vgg19")[1]}) == 3
    with pytest.raises(ValueError, match="perceptual is one of none, vgg19, got 'auto'"):
        teacher_recipe(family, perceptual="auto")


COMMON = {
    "config", "data.batches", "data.picture_cache", "data.pictures", "data.tiles", "discriminators", "distributed",
    "fuse", "generators", "kernels", "layers", "losses", "students", "train.adversarial", "train.average",
    "train.device", "train.distill", "train.loop", "train.packed", "train.parts", "train.pix2pix", "train.recipe",
}  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "code"),
    [
        (TRAINERS["pix2pix"], COMMON),
        (DISTILLERS["cyclegan"], COMMON - {"train.pix2pix"} | {"train.cyclegan"}),
        (TRAINERS["gaugan"], COMMON - {"train.pix2pix"} | {"spade", "train.gaugan", "train.vgg"}),
    ],
)
def test_a_change_of_other_code_trains_nothing_again(trainer, code):
    files = training_code(object.__new__(trainer))
    parts = [path.relative_to(root() / "i2i_lib").with_suffix("").parts for path in files]
    assert {".".join(names) for names in parts} == code


@families
@pytest.mark.parametrize("make", [teacher_recipe, student_recipe])
def test_what_is_noted_of_a_training_lies_beside_it(family, make, files):
    """Snapshots of the generator that is kept, and a teacher's norm scales."""
    recipe = make(family, training=replace(TRAINING, steps=1))
    trainer, batches, _ = build(recipe, files, task(family), CPU)
    noted_step(trainer, recipe, files, task(family), CPU)(next(batches(0)))
    assert list(read_frames(files / "snapshots")) == [1]
    kept = trainer.ab.generator if (family, make) == ("cyclegan", teacher_recipe) else trainer.generator
    scales = files / "scales" / "1.json"
    assert scales.exists() == (make is teacher_recipe)
    assert not scales.exists() or json.loads(scales.read_text()) == norm_scales(kept)
