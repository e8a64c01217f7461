"""Planned questions: the plan's page and its statistics read one list, and the family makes few false claims."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import fake_run
import numpy as np
import pytest
from fake_run import checkout, fill, finished_run

from i2i_book.ablations import recorded_ablations
from i2i_book.arms import students
from i2i_book.claims import YARDSTICKS
from i2i_book.evidence import answer_line, efforts, evidence, in_short
from i2i_book.figures.effects import draw_answers
from i2i_book.figures.style import BLUE
from i2i_book.learning import steps_table
from i2i_book.presets import FAMILIES
from i2i_book.questions import (
    Question,
    labels,
    level,
    pilot_text,
    planned_answers,
    power_table,
    questions,
    questions_table,
    recorded_answers,
    verdicts_table,
)
from i2i_book.recorded.importing import import_recording
from i2i_book.recorded.pack import pack
from i2i_book.recorded.tables import tables
from i2i_book.runs import root
from i2i_lib.checkpoint import build, save_generator
from i2i_lib.config import cat_teacher
from i2i_lib.files import write_json
from i2i_lib.metrics.curves import steps_to_reach
from i2i_lib.results import PAIRED, collect, load_evaluations, save_evaluation

# `REPLICATIONS=2000 pytest tests/book/test_questions.py -k family` takes minutes.
REPLICATIONS = int(os.environ.get("REPLICATIONS", "60"))
TASKS = sorted({q.task for q in questions()})


def evaluation(seed: int, task: str, values: dict[str, Any], measure: str = "l1") -> dict[str, Any]:
    """An evaluation of one seed: model -> its values on every picture, each picture a block of its own."""
    rows = [fake_run.row(seed, name, task=task, weights=f"{name} {seed}") for name in values]
    blocks = list(range(len(next(iter(values.values())))))
    return {"results": rows, "blocks": blocks, "per_image": {measure: {n: list(v) for n, v in values.items()}}}


def drawn(rng, task: str, means: dict[str, float], seeds: int = 5, pictures: int = 20) -> list[dict[str, Any]]:
    """Evaluations in which models differ by chance alone, but for their means."""
    measure = next(q.measure for q in questions() if q.task == task)
    place, own = 0.1 * rng.standard_normal(pictures), {n: 0.02 * rng.standard_normal(pictures) for n in means}
    found = []
    for seed in range(seeds):
        values = {
            name: mean + place + own[name] + 0.01 * rng.standard_normal() + 0.02 * rng.standard_normal(pictures)
            for name, mean in means.items()
        }
        found.append(evaluation(seed, task, values, measure))
    return found


def nothing_to_find(task: str) -> dict[str, float]:
    """Means under which every claim would be false: equal models, and those that must not be worse just are."""
    own = [q for q in questions() if q.task == task]
    models = {name for q in own for name in (q.better, q.worse)} - {"teacher", "original"}
    margin = next((q.margin for q in own if q.margin), 0.0)
    return {"teacher": 1.0, "original": 1.0} | dict.fromkeys(models, 1.0 + margin)


@pytest.mark.parametrize("true", [False, True], ids=["nothing is there", "some of it is"])
def test_the_whole_family_makes_a_false_claim_in_at_most_5_of_100_cases(true):
    rng, false_claims, uncorrected = np.random.default_rng(0), 0, 0
    for _ in range(REPLICATIONS):
        means = {task: nothing_to_find(task) for task in TASKS}
        real = []  # questions whose answer is yes: then Holm has fewer left to correct for
        if true:
            for task in TASKS:
                for name in {"uniform", "uniform-eight", "teacher-longer"} & means[task].keys():
                    means[task][name] += 0.3
            real = [q for q in questions() if q.worse in ("uniform", "uniform-eight", "teacher-longer")]
        answers = planned_answers({task: drawn(rng, task, of_task) for task, of_task in means.items()})
        assert len(answers) == len({(q.task, q.text) for q in questions()})
        false_claims += any(a.shown for a in answers if a.question not in real)
        uncorrected += any(a.p <= level() for a in answers if a.question not in real)
        found = [a.shown for a in answers if a.question in real]
        assert sum(found) >= len(found) - 1 and bool(found) == true
    print(f"false claims in {false_claims} of {REPLICATIONS} families; without a correction {uncorrected}")
    assert false_claims / REPLICATIONS <= 0.05 + 3 * (0.05 * 0.95 / REPLICATIONS) ** 0.5
    assert uncorrected / REPLICATIONS > 0.15, "or this simulation could not fail"


def test_questions_name_what_can_be_trained():
    known = {*students(), *YARDSTICKS}
    for q in questions():
        assert {q.better, q.worse} <= known and q.task in FAMILIES and q.measure in PAIRED and q.better != q.worse
        assert 0 < q.matters <= 0.1 and (q.margin is None or q.margin == 0.05)
    assert len(set(questions())) == len(questions()) == len(questions_table())
    assert {len({q.measure for q in questions() if q.task == task}) for task in TASKS} == {1}, "one primary measure"


def family(*of: tuple[str, str, float | None]) -> list[Question]:
    return [Question("a claim", "openmoji", "l1", a, b, margin, 0.05, "ranking", range(5)) for a, b, margin in of]


def test_verdicts_follow_the_corrected_answers():
    rng = np.random.default_rng(1)
    found = drawn(rng, "openmoji", {"teacher": 1.0, "gcka": 1.0, "bad": 1.4, "none": 1.0})
    asked = family(("gcka", "bad", None), ("bad", "gcka", None), ("gcka", "teacher", 0.05), ("bad", "teacher", 0.05))
    answers = planned_answers({"openmoji": found}, [*asked, *family(("gcka", "unasked", None))])
    better, worse, good, not_good = (a.verdict for a in answers)
    assert (better, worse, good) == ("better", "worse", "as good as (within 5 %)")
    assert not_good.startswith("not shown (power ")
    assert [a.adjusted >= a.p for a in answers] == [True] * 4 and {a.family for a in answers} == {5}
    assert [a.sentence.split(" (")[0] for a in answers[:3]] == [
        "In L1, gcka is better than bad",
        "In L1, bad is worse than gcka",
        "In L1, gcka is as good as teacher",
    ]
    assert answers[3].sentence.endswith("that bad is as good as teacher.")
    table = verdicts_table(answers)
    row = table.loc["openmoji: `gcka` better than `bad`"]
    assert row["verdict"] == "**better**" and "; -3" in row["difference"]
    assert row["by seed"].endswith("; 5 of 5 seeds below 0")
    columns = [*(f"{n} seeds" for n in (3, 5, 9, 12, 25)), "share of the variance from images"]
    assert list(power_table(answers).columns) == ["for a difference of", *columns]

    few = planned_answers({"openmoji": found[:2]}, asked)
    assert {a.verdict for a in few} == {"not asked of fewer than 3 seeds"} and not any(a.shown for a in few)
    assert {a.adjusted for a in few} == {1.0} and power_table(few).empty


def test_a_correction_can_take_a_claim_away():
    values = np.array([[0.0], [0.1], [0.2], [0.05]]) + np.zeros(6)
    found = [
        evaluation(s, "openmoji", {"teacher": v * 0 + 1, "a": 1 - v, "b": v * 0 + 1})
        for s, v in enumerate(values + 0.1)
    ]
    asked = family(("a", "b", None))
    alone = planned_answers({"openmoji": found}, asked)[0]
    assert alone.verdict == "better" and alone.adjusted == alone.p < 0.05
    many = planned_answers({"openmoji": found}, [*asked, *family(*((f"m{i}", "b", None) for i in range(9)))])[0]
    assert many.adjusted == pytest.approx(10 * alone.p) and many.verdict.startswith("not shown (power ")
    shared = [
        e | {"results": [replace(row, weights="w") if row.model == "teacher" else row for row in e["results"]]}
        for e in found
    ]
    [by_seed] = verdicts_table(planned_answers({"openmoji": shared}, asked))["by seed"]
    assert by_seed.endswith(" of 4 seeds below 0, on 1 teacher")


def test_page_and_statistics_read_one_list(tmp_path):
    book = checkout(tmp_path)
    fill(book, "cpu")
    shown = (book / "notebooks" / "questions.md").read_text()
    assert len(shown.splitlines()) == 2 + len(questions()) + 1 - 1
    plan = (root() / "book" / "plan.md").read_text()
    for q in questions():
        assert f"| {q.letter} | {q.task} |" in shown and q.text in shown and f"- **{q.letter}.**" in plan
    assert (book / "notebooks" / "pilot.md").read_text() == "", "this checkout has no recordings"
    assert "{include} notebooks/questions.md" in plan and "{include} notebooks/pilot.md" in plan


def test_the_pilot_foretells_power_and_answers_nothing():
    folder = root() / "book" / "recorded" / "three-seeds"
    said = pilot_text(load_evaluations(folder / "results.jsonl"))
    assert "`gcka` better than `none`" in said and "25 seeds" in said
    assert "Answers to the questions" not in tables(folder, recorded_answers(folder.parent))
    assert pilot_text({}) == ""


@pytest.fixture
def recording(tmp_path) -> Path:
    """A recording of four trainings that question A was asked of, and one of another name."""
    means = {"teacher": 1.0, "gcka": 1.0, "uniform": 1.5, "none": 1.5}
    for folder in (tmp_path / "ranking", tmp_path / "other"):
        paths = []
        for seed, e in enumerate(drawn(np.random.default_rng(0), "openmoji", means)[:4]):
            paths.append(folder / "openmoji" / f"seed{seed}" / "eval.json")
            save_evaluation(paths[-1], e["results"], e["per_image"], blocks=e["blocks"])
            for arm, base in {"gcka": 8, "random": 4}.items():
                save_generator(build(cat_teacher(base, 3)), paths[-1].parent / f"student-{arm}")
        (folder / "results.jsonl").write_text(collect(paths))
    machine = {"gpu": None, "cores": 2, "cpu": "a processor"}
    run = {"status": "ok", "seconds": 5400, "started": "2026-01-02T03:04:05+00:00", "machine": machine}
    manifest = {"format": 2, "preset": "ranking", "packed": run["started"], "runs": {"05": run, "06": run}, "files": {}}
    (tmp_path / "ranking" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_recording_answers_the_questions_that_were_asked_of_it(recording):
    [answer] = recorded_answers(recording)
    assert answer.question.text == "`gcka` better than `uniform`" and answer.verdict == "better"
    assert answer.adjusted == pytest.approx(len(questions()) * answer.p), "all others count as asked in vain"
    assert len(answer.by_training) == 4 and fmean(answer.by_training) == pytest.approx(answer.comparison.difference)
    said = tables(recording / "ranking", [answer])
    assert "| openmoji: `gcka` better than `uniform` | **better** |" in said and "| L1 -0.49" in said
    assert "Answers to the questions" not in tables(recording / "other", [answer]), (
        "`none` is question C's, of another recording"
    )
    large, small = (sum(cat_teacher(base, 3).ranked_widths.values()) for base in (8, 4))
    assert (
        "`gcka` of two teachers, 100 % (100 to 100 %, 6 pairs) are shared; of one's and those of a student of random"
        f" channels, {100 * small / large:.0f} % ("
    ) in tables(recording / "ranking", [answer])


def test_only_a_recording_of_its_own_preset_answers(recording):
    manifest = recording / "ranking" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"preset": "ranking"', '"preset": "smoke"'))
    assert recorded_answers(recording) == []
    with pytest.raises(ValueError, match="ranking is a recording that the plan asks for, and this one is of gpu"):
        import_recording(pack(finished_run(recording / "run"), recording / "gpu"), recording, name="ranking")
    manifest.write_text("{")
    with pytest.raises(ValueError, match="is not the manifest of a recording"):
        recorded_answers(recording)


def test_chapter_9_has_recordings_of_three_seeds_or_more_beside_the_run(recording):
    found = recorded_ablations(recording, ["gcka", "uniform"])
    assert list(found) == ["openmoji, recorded as ranking"]
    [ablations] = found.values()
    compared = ablations.compare("l1", "uniform")
    assert compared and (compared.seeds, compared.verdict) == (4, "worse")
    two = [recording / "ranking" / "openmoji" / f"seed{seed}" / "eval.json" for seed in range(2)]
    (recording / "ranking" / "results.jsonl").write_text(collect(two))
    assert recorded_ablations(recording, ["gcka", "uniform"]) == {}


def test_chapter_9_says_what_was_measured_on_the_validation_part():
    kept = recorded_ablations(root() / "book" / "recorded", ["gcka", "copied"])
    assert "openmoji (validation part), recorded as recipes" in kept and "openmoji, recorded as ranking" in kept


def test_chapter_6_says_what_was_answered_and_what_is_open(recording):
    answers = recorded_answers(recording)
    said = evidence(answers).splitlines()
    assert said[0] == "**Asked: whether one threshold makes a better student than uniform narrowing**"
    assert re.fullmatch(
        r"- `openmoji`, 4 seeds: `gcka` is \*\*better\*\* than `uniform` \(corrected p .*\)\. `gcka` is 6\d\.\d grey"
        r" levels closer to the truth than `uniform` \(.* to .*\)\.",
        said[2],
    )
    assert len(said) == 3
    shown, told, missing, *lines = in_short(answers).splitlines()
    claim = "one threshold makes a better student than uniform narrowing"
    assert (shown, told) == ("- **Shown**", f"  - {claim} (on `openmoji` 1 of 1 question; 4 seeds)")
    assert (missing, lines[0]) == ("- **Not recorded yet**", f"  - whether {claim} (on `openmoji` and `fluent`)")
    assert "  - whether a small student is as good as its teacher, without pairs" in lines
    turned = replace(answers[0], comparison=replace(answers[0].comparison, difference=1.0, low=0.5, high=1.5))
    opposite = f"- **The opposite is shown**\n  - {claim} (on `openmoji` 0 of 1 question, the opposite in 1; 4 seeds)"
    assert in_short([turned]).startswith(opposite)
    fluent = replace(answers[0], question=replace(answers[0].question, task="fluent"))  # of the same claim
    counts = "on `openmoji` 0 of 1 question, the opposite in 1, on `fluent` 1 of 1; 4 seeds"
    assert in_short([turned, fluent]).startswith(f"- **Shown in part**\n  - {claim} ({counts})")
    vain = replace(answers[0], adjusted=1.0)
    assert in_short([vain]).startswith(f"- **Not shown**\n  - {claim} (on `openmoji` 0 of 1 question; 4 seeds)\n")
    assert ". Without the correction, `gcka` is" in answer_line(vain)
    assert efforts(recording, answers) == ("- `ranking`: 3.0 hours of notebooks on 2 cores of a processor, 2026-01-02")
    alike = replace(answers[0].question, margin=0.05)
    said = answer_line(replace(answers[0], question=alike, beyond_colour=False))
    assert "`gcka` is **as good as `uniform` (within 5 %)** (corrected p " in said
    assert " But `uniform` itself is not shown to beat looked-up colours, so matching it means little." in said
    weak = replace(answers[0], question=next(q for q in questions() if q.margin), beyond_colour=False)
    assert "; 4 seeds; but `teacher` is not shown to beat looked-up colours)" in in_short([weak])
    far = replace(turned, adjusted=1.0, question=alike)
    assert answer_line(far).endswith(" The whole interval lies beyond 5 %.")
    assert "beyond 5 %" not in answer_line(replace(far, comparison=replace(far.comparison, low=0.0)))
    assert "But" not in answer_line(replace(answers[0], question=alike, beyond_colour=True))
    figure = draw_answers(answers)
    again = replace(answers[0], question=replace(answers[0].question, recording="ranking-again"))
    asked = "openmoji: `gcka` better than `uniform`"
    assert labels(answers) == [asked] and labels([*answers, again]) == [
        f"{asked} (ranking)",
        f"{asked} (ranking-again)",
    ]
    assert len(verdicts_table([*answers, again])) == 2
    assert [line.get_color() for line in figure.axes[0].lines[:2]] == [BLUE, BLUE]


def test_steps_to_a_level_are_read_off_the_curve():
    log = [
        {"step": 10, "recon": 8.0},
        {"step": 20, "recon": 4.0},
        {"step": 30, "recon": 5.0},
        {"step": 40, "recon": 1.0},
    ]
    # Means stand for the middles of their steps, 5, 15, 25 and 35.
    assert steps_to_reach(log, 8) == 5 and steps_to_reach(log, 6) == 10 and steps_to_reach(log, 4) == 15
    assert steps_to_reach(log, 3) == 30 and steps_to_reach(log, 0.5) is None
    assert steps_to_reach(log, 3, weight=2) == 10
    with pytest.raises(ValueError, match="expected a log with 'recon' in every row, got no row"):
        steps_to_reach([], 1)
    with pytest.raises(ValueError, match=r"expected a log with 'd' in every row, got .*recon"):
        steps_to_reach(log, 1, loss="d")


def test_the_speed_of_students_is_measured_by_the_undistilled_one(tmp_path):
    def train(seed, name, values, imitate=0.0):
        folder = tmp_path / f"seed{seed}" / "train" / f"student-{name}"
        write_json(folder / "config.json", {"training": {"recon": 10.0, "imitate": imitate}})
        rows = (f'{{"step": {10 * i + 10}, "recon": {10 * value}}}\n' for i, value in enumerate(values))
        (folder / "losses.jsonl").write_text("".join(rows))

    for seed in range(2):
        train(seed, "none", [5, 4, 3, 2, 1])
        train(seed, "fast", [3, 2, 1, 1, 1])
        train(seed, "slow", [5, 5, 4, 4, 2 - seed])
        train(seed, "copied", [1, 1, 1, 1, 1], imitate=1.0)
    homes = [tmp_path / f"seed{seed}" for seed in range(3)]
    table = steps_table(homes, ["none", "fast", "slow", "copied", "absent"])
    assert table["steps"].to_dict() == {
        "none": "45 ± 0 (n = 2)",
        "fast": "25 ± 0 (n = 2)",
        "slow": "45 (n = 1)",
    }
    assert table["seeds that never get there"].tolist() == ["0", "0", "1"]
    assert steps_table(homes, ["fast"]).empty and steps_table([], ["none"]).empty
