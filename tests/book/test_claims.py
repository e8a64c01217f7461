"""What is said over several seeds: the interval holds what it promises, and the words follow the numbers."""

import re
from dataclasses import replace

import fake_run
import numpy as np
import pandas as pd
import pytest

from i2i_book.ablations import findings, load_ablations, student_table
from i2i_book.claims import (
    GREY,
    answers,
    beyond_colour,
    distance_tables,
    headline,
    in_levels,
    quality_table,
    sentence,
)
from i2i_book.wording import grey_levels, in_percent, share_of, span_of
from i2i_lib.counts import short_count
from i2i_lib.metrics.intervals import compare, compare_models, compare_sets, over_seeds
from i2i_lib.results import PAIRED, collect, load_evaluations, load_table, save_evaluation


def noise(seed=0):
    return np.random.default_rng(seed)


def world(rng, seeds, blocks, *, training, place, both, mean=0.0):
    """Differences [seeds, 3 x blocks] with independent effects of training, of place, and of the two together."""
    block = np.repeat(np.arange(blocks), 3)
    effects = training * rng.standard_normal((seeds, 1)) + place * rng.standard_normal(blocks)
    effects = effects + both * rng.standard_normal((seeds, blocks))
    return mean + effects[:, block] + 0.2 * rng.standard_normal((seeds, len(block))), block


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "effects",
    [
        {"training": 1, "place": 0, "both": 0},  # only another seed matters: an interval over places alone fails
        {"training": 0, "place": 1, "both": 0},  # only other places matter: an interval over seeds alone fails
        {"training": 0.3, "place": 1, "both": 0.5},
    ],
    ids=["trainings", "places", "all"],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds, effects):
    rng, times = noise(), 600
    hits = 0
    for _ in range(times):
        found = compare(*world(rng, seeds, 20, mean=0.7, **effects))
        hits += found.low <= 0.7 <= found.high
    # Binomial noise at 95 % and 600 trials is 0.9 %; caution may add to the coverage.
    assert 0.925 <= hits / times <= 0.99


@pytest.mark.parametrize("blocks", [2, 3, 8, 50])
def test_the_interval_of_one_seed_holds_the_mean_over_places(blocks):
    """Images of one place err together: an interval that took them for independent would hold the mean less often."""
    rng, times = noise(), 600
    held = {"blocks": 0, "images": 0}
    for _ in range(times):
        d, block = world(rng, 1, blocks, training=0, place=1, both=0, mean=0.7)
        for name, unit in (("blocks", block), ("images", range(len(block)))):
            found = compare(d, unit)
            held[name] += found.low <= 0.7 <= found.high
    assert 0.925 <= held["blocks"] / times <= 0.975
    assert held["images"] / times < 0.88


def test_one_part_at_a_time_is_the_textbook_interval():
    from scipy import stats

    seeds = np.array([0.1, 0.5, 0.3])
    found = compare(np.repeat(seeds[:, None], 6, 1), [0, 0, 1, 1, 2, 2])
    low, high = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
    assert (found.low, found.high) == pytest.approx((low, high))

    places = noise().standard_normal(8)
    found = compare(np.stack([places, places]), range(8))
    low, high = stats.t.interval(0.95, 7, places.mean(), stats.sem(places))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_images_of_one_block_do_not_count_as_independent():
    d = noise().standard_normal((3, 10))
    alone = compare(d, range(10))
    copies = compare(np.repeat(d, 4, 1), np.repeat(np.arange(10), 4))
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    assert (copies.images, copies.blocks) == (40, 10)


def test_the_words_follow_the_data():
    def said(mean, seeds=3, measure="l1"):
        d, block = world(noise(1), seeds, 20, training=0.1, place=0.1, both=0.1, mean=mean)
        return compare(d, block, measure=measure, model="a", against="b")

    assert said(-1).verdict == "better" and "the interval favours `a` over `b`" in sentence(said(-1))
    assert said(1).verdict == "worse" and "the interval favours `b` over `a`" in sentence(said(1))
    assert said(1, measure="ssim").verdict == "better"
    assert said(0).verdict == "no significant difference"
    assert "no significant difference between `a` and `b`" in sentence(said(0))
    assert said(-1, seeds=1).verdict == "one seed: no claim about another training"
    assert said(-1, seeds=2).verdict == "two seeds: no claim about another training"
    assert said(-1, seeds=1).direction == "better" and said(1, seeds=1).direction == "worse"
    for seeds in (1, 2):
        assert "better" not in sentence(said(-1, seeds=seeds)) and "no claim" in sentence(said(-1, seeds=seeds))
    assert "-1.0" in sentence(said(-1), 1) and "3 seeds, 20 groups of images" in sentence(said(-1))


def test_models_that_agree_everywhere_differ_by_nothing():
    found = compare(np.zeros((3, 4)), range(4))
    assert (found.low, found.high, found.verdict) == (0, 0, "no significant difference")


def test_spread_over_seeds():
    assert over_seeds([1.0, 2.0, 3.0]).text(1) == "2.0 ± 1.0 (n = 3)"
    assert over_seeds([1000.0, 2000.0]).text(0) == "1,500 ± 707 (n = 2)"
    assert over_seeds([1.0]).text(2) == "1.00 (n = 1)"
    with pytest.raises(ValueError, match="at least one finite value"):
        over_seeds([])
    with pytest.raises(ValueError, match="at least one finite value"):
        over_seeds([1.0, float("nan")])


def evaluation(seed, kd=None, l1=None, blocks=(0, 1, 1), protocol="p", **facts):
    """An evaluation of three pictures. `kd`: model -> its distance, `l1`: model -> its values."""
    facts |= {"protocol": protocol, "images": 3}
    rows = [fake_run.row(seed, name, kd=value, **facts) for name, value in (kd or {"gcka": 1.0}).items()]
    l1 = l1 or {"gcka": [0.1, 0.2, 0.3], "mse": [0.3, 0.3, 0.3]}
    return {"results": rows, "blocks": list(blocks), "per_image": {"l1": l1}}


def test_a_measure_of_sets_is_compared_over_seeds():
    pairs = ({"a": 1.0, "b": 11.0}, {"a": 2.0, "b": 13.0}, {"a": 3.0, "b": 15.0})
    seeds = [evaluation(seed, kd) for seed, kd in enumerate(pairs)]
    found = compare_sets(seeds, "kd", "a", "b")
    # By hand: differences -10, -11, -12; standard error 1 / sqrt 3; Student's quantile for 2 degrees of freedom.
    assert (found.difference, found.low) == pytest.approx((-11.0, -11 - 4.302653 / 3**0.5), abs=1e-5)
    assert found.verdict == "better" and "3 seeds, on these test pictures" in sentence(found)
    with pytest.raises(ValueError, match="at least 2"):
        compare_sets(seeds[:1], "kd", "a", "b")
    with pytest.raises(ValueError, match="no miou of both a and b"):
        compare_sets(seeds[:2], "miou", "a", "b")


def test_questions_are_answered_where_every_seed_has_both_models():
    def seed(number: int, *models: str):
        kd = {name: 10.0 if name == "none" else number for name in models}
        return evaluation(number, kd, {name: [0.3] * 3 if name == "none" else [0.1] * 3 for name in models})

    found = answers([seed(0, "gcka", "none", "mse"), seed(1, "gcka", "none"), seed(2, "gcka", "none", "mse")])
    assert [(question, c.measure, c.favours) for question, c in found] == [
        ("distillation", "l1", "gcka"),
        ("distillation", "kd", "gcka"),
    ]
    assert found[0][1].difference == pytest.approx(-0.2) and found[1][1].difference == pytest.approx(-9)
    one = answers([seed(0, "gcka", "none")])  # KD has no interval over one seed
    assert [c.measure for _, c in one] == ["l1"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (evaluation(1, protocol="q"), "one protocol, got 'p', 'q'"),
        (evaluation(1, task="sea"), "one task"),
        (evaluation(0), "counted twice"),
        (evaluation(1, blocks=(0, 0, 1)), "different places"),
    ],
)
def test_what_does_not_belong_together_is_not_combined(other, says):
    with pytest.raises(ValueError, match=says):
        compare_models([evaluation(0), other], "l1", "gcka", "mse")


def test_errors_name_what_was_expected():
    with pytest.raises(ValueError, match=r"no per-image values of 'l2'.*'l1': \['gcka', 'mse'\]"):
        compare_models([evaluation(0)], "l2", "gcka", "mse")
    with pytest.raises(ValueError, match=r"\[seeds, images\]"):
        compare(np.zeros(3), range(3))
    with pytest.raises(ValueError, match="NaN"):
        compare([[0.0, float("nan")]], [0, 1])
    with pytest.raises(ValueError, match="at least 2 blocks"):
        compare(np.zeros((2, 3)), [7, 7, 7])


def test_evaluations_are_found_beside_the_table(tmp_path):
    paths = []
    for task, seed in (("earth", 10), ("earth", 2), ("sea", 0)):
        e = evaluation(seed, task=task)
        paths.append(tmp_path / task / f"seed{seed}" / "eval.json")
        save_evaluation(paths[-1], e["results"], e["per_image"], blocks=e["blocks"])
    (tmp_path / "results.jsonl").write_text(collect(paths))
    found = load_evaluations(tmp_path / "results.jsonl")
    seeds = {task: [e["results"][0].seed for e in of_task] for task, of_task in found.items()}
    assert seeds == {"earth": [2, 10], "sea": [0]}
    assert compare_models(found["earth"], "l1", "gcka", "mse").seeds == 2


def test_rows_of_two_protocols_or_of_other_tiles_are_not_averaged(tmp_path):
    def table(*rows):
        path = tmp_path / "eval.json"
        save_evaluation(path, rows, {})
        (tmp_path / "results.jsonl").write_text(collect([path]))
        return load_table(tmp_path / "results.jsonl")

    row = replace(evaluation(0)["results"][0], data="a")
    assert len(table(row, replace(row, seed=1))) == 2
    with pytest.raises(ValueError, match="task fluent was measured with 2 protocols: p, q"):
        table(row, replace(row, seed=1, protocol="q"))
    with pytest.raises(ValueError, match="task fluent was measured with 2 sets of tiles: a, b"):
        table(row, replace(row, seed=1, data="b"))


def test_tables_and_headline_show_what_was_measured(tmp_path):
    row = replace(evaluation(0)["results"][0], macs_exact=10)
    rows = [row, replace(row, model="teacher", macs_exact=40), replace(row, seed=1, l1=0.3)]
    table = pd.DataFrame(rows)
    shown = quality_table(table)
    assert list(shown.index) == ["teacher", "gcka"], "yardsticks first"
    assert list(shown.columns) == ["L1 ↓", GREY, "SSIM ↑", "feature distance ↓", "KD x 1000 ↓", "FD ↓", "n"], "no mIoU"
    values = ["0.200 ± 0.141", "25.5", "0.500 ± 0.000", "1.000 ± 0.000", "1.0 ± 0.0", "3.0 ± 0.0", "2"]
    assert shown.loc["gcka"].tolist() == values
    assert "mIoU ↑" in quality_table(pd.DataFrame([replace(row, miou=0.5)])).columns
    without_truth = [evaluation(0) | {"per_image": {}}]
    assert headline(without_truth, table.query("model == 'gcka'")) == "", "nothing to compare it with"
    table.loc[table.model == "teacher", "kd"] = -0.4  # unbiased, KD may be negative: a ratio says nothing
    assert headline(without_truth, table) == (
        "**The small network does a quarter of the large one's arithmetic."
        " Its KD x 1000 (lower is better) is 1.0, the large one's -0.4, after one training.**"
    )
    of_seeds = [evaluation(seed, {"gcka": 2.0 + seed, "teacher": 1.0}) | {"per_image": {}} for seed in range(3)]
    assert headline(of_seeds, table).endswith("the large one's -0.4, not significantly different.**")
    look_up = replace(row, model="look-up", l1=0.4, ssim=row.ssim + 0.1, macs_exact=None, steps=None)
    rows = [replace(row, steps=100), replace(row, model="teacher", macs_exact=40, steps=1600), look_up]
    values = {"l1": {"gcka": [0.1, 0.2, 0.3], "look-up": [0.3, 0.39, 0.5], "teacher": [0.1, 0.3, 0.1]}}
    values["ssim"] = {"gcka": [0.5, 0.6, 0.7], "look-up": [0.6, 0.69, 0.8], "teacher": [0.6, 0.69, 0.8]}
    by_chance = [0.3, 0.8, 0.5]
    values["feature_distance"] = {"gcka": [0.5, 0.6, 0.7], "look-up": by_chance, "teacher": by_chance}
    measured = [evaluation(0) | {"per_image": evaluation(0)["per_image"] | values}]
    assert headline(measured, pd.DataFrame(rows)).endswith(
        "without a network, by colours looked up in a table, 51.0. Looked-up colours are better in SSIM."
        " The small network trained for 100 steps, the large one for 1,600."
    )
    measured[0]["per_image"]["l1"]["look-up"] = [0.05, 0.39, 0.2]
    rows[0] = replace(row, steps=100, l1=0.105)
    said = headline(measured, pd.DataFrame(rows))
    assert (
        "5 % higher, which is not significant; in SSIM it is worse.**" in said
        and "51.0, not significantly different." in said
    )


def test_a_network_that_beats_looked_up_colours_in_nothing_is_called_so():
    values = {"l1": {"teacher": [0.1, 0.2, 0.1], "gcka": [0.3, 0.3, 0.4], "look-up": [0.2, 0.35, 0.3]}}
    measured = evaluation(0) | {"per_image": values, "blocks": [0, 1, 2]}
    measured["per_image"]["ssim"] = {"teacher": [0.1, 0.1, 0.2], "look-up": [0.4, 0.41, 0.5]}
    pairs = [("l1", "teacher"), ("ssim", "teacher"), ("l1", "gcka")]
    teacher, student = beyond_colour(
        [compare_models([measured], measure, model, "look-up") for measure, model in pairs]
    )
    assert teacher == "`teacher` beats the look-up in L1, and is worse in SSIM." and student.startswith(
        "`gcka` beats the look-up in no measure"
    )


def test_distances_of_two_protocols_never_share_a_table():
    def distances(seed, fid):
        rows = [("teacher", "FID (CAT)", "cat; n=120", fid), ("teacher", "KID (CAT)", "cat; n=120", 1.0)]
        rows += [("gcka", "FID (CAT)", "cat; n=120", 70.0), ("teacher", "FID (clean)", "clean; n=120", 75.0)]
        keys = ("model", "measure", "protocol", "value")
        return evaluation(seed) | {"literature": [dict(zip(keys, row, strict=True)) for row in rows]}

    tables = distance_tables([distances(0, 61.0), distances(1, 63.0)])
    assert list(tables) == ["cat; n=120", "clean; n=120"]
    cat = tables["cat; n=120"]
    assert list(cat.columns) == ["FID (CAT)", "KID (CAT)"]
    assert cat.loc["teacher", "FID (CAT)"] == "62.00 ± 1.41 (n = 2)" and cat.loc["gcka", "KID (CAT)"] == ""
    assert distance_tables([evaluation(0)]) == {}


def test_ablations_join_an_evaluation_only_of_the_same_teacher(tmp_path):
    def save(path, seed, models, teacher="w"):
        rows = [replace(evaluation(seed)["results"][0], model=name, weights=teacher) for name in models]
        values = {m: {name: [0.1 * i, 0.2, 0.3] for i, name in enumerate(models)} for m in PAIRED}
        save_evaluation(path, rows, values, blocks=[0, 1, 1])
        return path

    homes = [tmp_path / "fluent" / f"seed{seed}" for seed in range(3)]
    evals = [save(home / "eval.json", seed, ["teacher", "gcka"]) for seed, home in enumerate(homes)]
    (tmp_path / "results.jsonl").write_text(collect(evals))
    save(homes[0] / "ablations.json", 0, ["teacher", "half", "gone"])
    save(homes[1] / "ablations.json", 1, ["teacher", "half"], teacher="another")
    found, left_out = load_ablations(tmp_path / "results.jsonl", ["gcka", "half", "double"])
    assert left_out == ["`ablations.json` of fluent is of another teacher: run `make ablations`."]
    ours = found["fluent"]
    assert [ours.seeds(name) for name in ("gcka", "half", "double", "gone")] == [3, 1, 0, 0]
    compared = ours.compare("l1", "half")
    assert compared is not None and (compared.seeds, compared.against) == (1, "gcka")
    assert ours.compare("l1", "double") is None and ours.mean("double", "l1") is None
    table = student_table(ours, {"half": {"budget": 0.5}, "double": {"budget": 2}})
    assert list(table.index) == ["half"], "the other was not run"
    assert table.loc["half", "differs in"] == "budget = 0.5" and table.loc["half", "seeds"] == "1"
    assert findings(ours, ["gcka", "half"]) == "too few seeds for a claim (1 of 3)."
    said = findings(ours, ["gcka", "teacher"])  # by .1 in the first image, in every seed
    assert said.startswith("worse than `gcka`: no student; better than `gcka`:") and "`teacher`" in said


def test_numbers_are_said_with_few_digits():
    counts = {0: "0", 960: "960", 999.6: "1.00 k", 13998: "14.0 k", 17_632_768: "17.6 M", 141_702_144: "142 M"}
    for number, said in (counts | {43_527_405_568: "43.5 G", 9_996_000: "10.0 M"}).items():
        assert short_count(number) == said
    assert grey_levels(0.1) == "12.8" and share_of(8.02) == "an eighth" and share_of(22.2) == "1/22"
    assert in_percent(1.163) == "16 % higher" and in_percent(0.9) == "10 % lower" and "same" in in_percent(1.001)
    assert [span_of(x) for x in (45, 384, 4220, 9000)] == ["45 s", "6 min", "70 min", "2.5 h"]


def test_a_difference_is_said_in_grey_levels():
    found = compare(
        np.full((1, 40), 0.02) + 0.001 * noise().standard_normal((1, 40)), np.arange(40), model="a", against="b"
    )
    assert re.fullmatch(
        r"`a` is 2\.[56] grey levels farther from the truth than `b` \(2\.5 to 2\.6\)", in_levels(found)
    )
    unsure = compare(noise().standard_normal((1, 40)), np.arange(40), model="a", against="b")
    assert in_levels(unsure).startswith("no significant difference between `a` and `b` (in grey levels, 7.7 closer on")
    assert in_levels(replace(unsure, high=1e-4)).endswith("to just past 0)")
