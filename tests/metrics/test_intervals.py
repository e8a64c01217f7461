"""Intervals and tests over places, students and teachers keep what they promise."""

import os

import numpy as np
import pytest
from scipy import stats

from i2i_lib.metrics.intervals import (
    Part,
    compare,
    half_width,
    holm,
    one_sided_p_value,
    p_value,
    power,
    two_one_sided,
)

# `REPLICATIONS=10000 pytest tests/metrics/test_intervals.py` takes minutes and tells the rates to .2 %.
REPLICATIONS = int(os.environ.get("REPLICATIONS", "400"))
NOISE = 3 * (0.05 * 0.95 / REPLICATIONS) ** 0.5  # of a rate of 5 %


def drawn(rng, students, teachers, blocks, *, student, teacher, place, both, crossed=True):
    """Differences [trainings, 2 x blocks] with a mean of 0, and the student and the teacher of each training."""
    block = np.repeat(np.arange(blocks), 2)
    pairs = [(s, t) for t in range(teachers) for s in range(students)]
    own = (
        rng.standard_normal((teachers, students))
        if not crossed
        else np.tile(rng.standard_normal(students), (teachers, 1))
    )
    of_teacher, of_place = rng.standard_normal(teachers), rng.standard_normal(blocks)
    effects = np.array([student * own[t, s] + teacher * of_teacher[t] for s, t in pairs])
    noise = both * rng.standard_normal((len(pairs), blocks))
    values = (effects[:, None] + place * of_place + noise)[:, block]
    names = [(s if crossed else s + students * t) for s, t in pairs]
    return values, block, {"students": names, "teachers": [t for _, t in pairs]}


MIXTURES = {
    "students": {"student": 1, "teacher": 0, "place": 0, "both": 0},
    "places": {"student": 0, "teacher": 0, "place": 1, "both": 0},
    "teachers": {"student": 0.2, "teacher": 1, "place": 0.2, "both": 0.1},
    "all": {"student": 0.4, "teacher": 0.3, "place": 1, "both": 0.5},
}


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("blocks", [2, 3, 5, 30])
@pytest.mark.parametrize("design", ["3 trainings", "5 trainings", "3 x 3", "3 of each of 4"])
def test_an_interval_holds_the_truth_in_95_of_100_cases(mixture, blocks, design):
    """At least: also with two or three blocks, where the degrees of freedom of Satterthwaite fail."""
    shape = {
        "3 trainings": (1, 3, False),
        "5 trainings": (1, 5, False),
        "3 x 3": (3, 3, True),
        "3 of each of 4": (3, 4, False),
    }
    students, teachers, crossed = shape[design]
    rng = np.random.default_rng(blocks)
    hits = 0
    for _ in range(REPLICATIONS):
        d, block, names = drawn(rng, students, teachers, blocks, crossed=crossed, **MIXTURES[mixture])
        if design.endswith("trainings"):
            names = {}
        found = compare(d, block, **names)
        hits += found.low <= 0 <= found.high
    print(f"{design}, {blocks} blocks, {mixture}: {hits / REPLICATIONS:.3f}")
    assert hits / REPLICATIONS >= 0.95 - NOISE


def test_students_on_shared_teachers_are_no_independent_trainings():
    rng, held = np.random.default_rng(0), {"told": 0, "untold": 0}
    for _ in range(300):
        d, block, names = drawn(rng, 4, 3, 10, student=0.1, teacher=1, place=0.1, both=0.1, crossed=False)
        for what, of in (("told", names), ("untold", {})):
            found = compare(d, block, **of)
            held[what] += found.low <= 0 <= found.high
    assert held["told"] / 300 >= 0.93 and held["untold"] / 300 < 0.85


def test_parts_of_the_variance_by_hand():
    students, teachers = [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]
    d = np.repeat(np.array([1.0, 3, 2, 4, 6, 8])[:, None], 4, 1)
    crossed = compare(d, range(4), students=students, teachers=teachers)
    # Means over teachers 3 and 5: variance 2, of 2 students; over students 2, 3, 7: variance 7, of 3 teachers.
    assert [(p.source, p.freedom) for p in crossed.parts] == [("places", 3), ("students", 1), ("teachers", 2)]
    assert [p.variance for p in crossed.parts] == pytest.approx([0, 2 / 2, 7 / 3])
    assert (crossed.teachers, crossed.seeds) == (3, 6)
    nested = compare(d, range(4), teachers=teachers)
    assert [(p.source, p.freedom) for p in nested.parts[1:]] == [("teachers", 2)]
    assert nested.parts[1].variance == pytest.approx(7 / 3)
    alone = compare(d, range(4), teachers=["a"] * 6)
    assert [(p.source, p.freedom) for p in alone.parts[1:]] == [("students", 5)] and alone.teachers == 1
    assert [p.source for p in compare(d, range(4)).parts] == ["places", "trainings"]
    with pytest.raises(ValueError, match="2 students and 3 teachers met in 5 trainings: expected each pair once"):
        compare(d[:5], range(4), students=students[:5], teachers=teachers[:5])
    with pytest.raises(ValueError, match="a student and a teacher for each of 6 trainings"):
        compare(d, range(4), students=[1, 2])


def test_p_values_and_intervals_say_the_same():
    rng = np.random.default_rng(1)
    parts = [Part("places", 0.3, 9), Part("trainings", 0.2, 2)]
    edge = half_width(parts)
    assert p_value(edge, parts) == pytest.approx(0.05) == p_value(-edge, parts)
    assert one_sided_p_value(-edge, parts) == pytest.approx(0.025)
    assert one_sided_p_value(edge, parts) == pytest.approx(0.975)
    assert p_value(0, parts) == 1 and p_value(1, []) == 0 and p_value(0, []) == 1
    x = rng.standard_normal(12) + 0.5  # one part: the t-test of the textbook
    found = compare(x[None], range(12))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(x.mean()) / stats.sem(x), 11))
    assert p_value(1e9, parts) < 1e-15


def test_holms_own_example():
    """Holm (1979) rejects p_1 to p_3 of these four at 5 %; the adjusted values are those of R's p.adjust."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.022, 0.09, 0.3]) == pytest.approx([0.05, 0.08, 0.08, 0.18, 0.3])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.01], 4) == pytest.approx([0.04]), "questions without an answer yet count"
    early, late = holm([0.01, 0.04], 4), holm([0.01, 0.04, 0.001, 0.5])
    assert all(after <= before for before, after in zip(early, late, strict=False)), "no claim is taken back"
    with pytest.raises(ValueError, match="3 p-values are more than the family's 2 questions"):
        holm([0.1, 0.2, 0.3], 2)


def test_power_of_one_part_is_that_of_the_noncentral_t():
    part, effect = Part("trainings", 0.04, 4), 0.7
    critical = stats.t.isf(0.025, 4)
    exact = stats.nct.sf(critical, 4, effect / 0.2) + stats.nct.cdf(-critical, 4, effect / 0.2)
    assert power([part], effect) == pytest.approx(exact, abs=0.01)
    assert power([part], -effect) == pytest.approx(exact, abs=0.01)
    one = stats.nct.sf(stats.t.isf(0.05, 4), 4, effect / 0.2)
    assert power([part], effect, one_sided=True) == pytest.approx(one, abs=0.01)
    assert power([part], 0) == pytest.approx(0.05, abs=0.01)
    parts = [Part("places", 0.01, 30), part]
    assert power(parts, effect, trainings=20) > power(parts, effect, trainings=5) == power(parts, effect)


def test_power_is_the_share_of_claims():
    rng, effect, claims = np.random.default_rng(2), 1.0, 0
    parts = [Part("places", 0.3**2 / 10, 9), Part("trainings", 0.6**2 / 5, 4)]
    for _ in range(REPLICATIONS):
        d = effect + 0.6 * rng.standard_normal((5, 1)) + 0.3 * rng.standard_normal(10)
        claims += compare(d, range(10)).p < 0.05
    assert claims / REPLICATIONS == pytest.approx(power(parts, effect), abs=0.01 + 3 * 0.5 / REPLICATIONS**0.5)


def evaluations(model, teacher, measure="l1"):
    """Evaluations of one seed each, from values [seeds, images]."""
    from fake_run import row

    return [
        {
            "results": [row(seed, "a"), row(seed, "teacher", weights=str(seed))],
            "blocks": list(range(len(a))),
            "per_image": {measure: {"a": list(a), "teacher": list(t)}},
        }
        for seed, (a, t) in enumerate(zip(model, teacher, strict=True))
    ]


def test_non_inferiority_is_measured_by_the_teachers_mean():
    teacher = np.full((4, 5), 2.0)
    teacher[:, 0] += [0.1, -0.1, 0.05, -0.05]
    spread = np.random.default_rng(0).standard_normal((4, 5)) * 0.02
    for less, share, says in ((True, 1.02, True), (True, 1.10, False), (False, 0.98, True), (False, 0.9, False)):
        measure = "l1" if less else "ssim"
        not_worse, not_better = two_one_sided(
            evaluations(share * teacher + spread, teacher, measure), measure, "a", "teacher", margin=0.05
        )
        assert (not_worse < 0.05) == says
        assert not_better < 0.05, "worse than the teacher is not better by a margin"
    same = two_one_sided(evaluations(teacher, teacher), "l1", "a", "teacher", margin=0.05)
    assert max(same) < 0.05, "two small ones show equivalence"


def test_non_inferiority_by_hand():
    teacher = np.array([[1.0], [1.2], [1.1]]).repeat(4, 1)
    model = np.array([[1.04], [1.21], [1.08]]).repeat(4, 1)
    not_worse, _ = two_one_sided(evaluations(model, teacher), "l1", "a", "teacher", margin=0.05)
    by_seed = (model - 1.05 * teacher)[:, 0]
    assert not_worse == pytest.approx(stats.t.cdf(by_seed.mean() / stats.sem(by_seed), 2))


def test_a_student_on_the_margin_passes_in_one_case_of_twenty():
    rng, passed = np.random.default_rng(3), 0
    for _ in range(REPLICATIONS):
        teacher = 2 + 0.1 * rng.standard_normal((3, 1)) + 0.2 * rng.standard_normal(8)
        model = 1.05 * 2 + 0.1 * rng.standard_normal((3, 1)) + (teacher - 2)
        passed += two_one_sided(evaluations(model, teacher), "l1", "a", "teacher", margin=0.05)[0] < 0.05
    assert passed / REPLICATIONS <= 0.05 + NOISE
