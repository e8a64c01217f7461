"""Questions put to a task's evaluations, and the answers in tables and sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from i2i_book.speed import has_speed, speed_sentence
from i2i_book.wording import grey_levels, in_percent, share_of
from i2i_lib.counts import short_count
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM, Comparison, compare_models, compare_sets, over_seeds
from i2i_lib.results import MEASURES, PAIRED, PRICES, QUALITY

COUNTS = ("macs_exact", "macs_paper", "params")
GREY = "grey levels of 255 ↓"  # the heading of L1 on that scale
MACS = "MACs ↓"  # the heading where both counts agree
SETS = ("kd", "fd")  # measures of whole sets of pictures, in a fold wherever the truth of each picture is known
YARDSTICKS = ("floor", "look-up", "original", "teacher", "teacher-longer")  # first in a table
# Two students share everything but one ingredient, or but the network itself (`mobile`).
QUESTIONS = {
    "is the network worth having": ("teacher", "look-up"),
    "is the student worth having": ("gcka", "look-up"),
    "what the student loses to its teacher": ("gcka", "teacher"),
    "what the student loses to the Original": ("gcka", "original"),
    "what the student gains over a teacher trained for as many steps as both": ("gcka", "teacher-longer"),
    "distillation": ("gcka", "none"),
    "distillation by squared error": ("mse", "none"),
    "kernel alignment against squared error": ("gcka", "mse"),
    "kernel alignment with five times the weight": ("heavy", "gcka"),
    "squared error with ten times the weight": ("mse-heavy", "mse"),
    "kernel alignment against squared error, both with more weight": ("heavy", "mse-heavy"),
    "one threshold against uniform narrowing": ("gcka", "uniform"),
    "one threshold against random channels": ("gcka", "random"),
    "one threshold against the last layer whole": ("gcka", "last"),
    "the last layer whole against uniform narrowing": ("last", "uniform"),
    "one threshold against uniform narrowing, both with eight channels at least": ("eight", "uniform-eight"),
    "eight channels at least": ("eight", "gcka"),
    "the pruned network against a mobile ResNet of the same cost": ("gcka", "mobile"),
    "the same two networks, both without distillation": ("none", "mobile-none"),
    "distillation of a mobile ResNet": ("mobile", "mobile-none"),
    "the teacher's discriminator against a fresh one": ("gcka", "fresh"),
    "the teacher's weights as a start": ("inherited", "gcka"),
    "the teacher's weights without distillation": ("inherited-none", "none"),
    "what a student from that start loses to its teacher": ("inherited", "teacher"),
    "distillation from that start": ("inherited", "inherited-none"),
    "the teacher's pictures in place of the truth": ("pictures", "gcka"),
    "the high wavelet bands of the teacher's pictures, too": ("wavelet", "gcka"),
    "six times as many steps": ("long", "gcka"),
    "distillation, with six times as many steps": ("long", "long-none"),
    "the teacher's weights as a start, with six times as many steps": ("long-inherited", "long"),
    "distillation from that start, with six times as many steps": ("long-inherited", "long-inherited-none"),
    "true pictures of a tenth of the pairs": ("few", "gcka"),
    "distillation, with true pictures of a tenth of the pairs": ("few", "few-none"),
}


def answers(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, Comparison]]:
    """Each of `QUESTIONS` with the comparisons that answer it, from one task's evaluations: one per seed.

    Paired measures first, place by place, then KD over seeds if there are two. A question one of whose models was not
    evaluated for every seed is left out. Raises ValueError as `compare_models` does.
    """
    models = set.intersection(*({row.model for row in e["results"]} for e in evaluations))
    asked = [(question, pair) for question, pair in QUESTIONS.items() if models.issuperset(pair)]
    measures = [measure for measure in PAIRED if measure in evaluations[0]["per_image"]]
    found = [(q, compare_models(evaluations, measure, *pair)) for q, pair in asked for measure in measures]
    if len(evaluations) > 1:
        of_sets = [(q, compare_sets(evaluations, "kd", *pair)) for q, pair in asked]
        # Of two models of which neither varies over these seeds, there is no interval.
        found += [(q, c) for q, c in of_sets if not math.isclose(c.low, c.high, abs_tol=1e-9)]
    return found


def beyond_colour(comparisons: Sequence[Comparison]) -> list[str]:
    """For each model that was compared with the look-up: in which measures it is better or worse, a sentence each."""
    found: dict[str, list[Comparison]] = {}
    for c in comparisons:
        if c.against == "look-up":
            found.setdefault(c.model, []).append(c)
    lines = []
    for model, of_model in found.items():
        better = [MEASURES[c.measure].label for c in of_model if c.favours == model]
        worse = [MEASURES[c.measure].label for c in of_model if c.favours == "look-up"]
        if better:
            but = f", and is worse in {' and '.join(worse)}" if worse else ""
            lines.append(f"`{model}` beats the look-up in {' and '.join(better)}{but}.")
        else:
            lines.append(f"`{model}` beats the look-up in no measure: no evidence that it learned more than colours.")
    return lines


def numbers(c: Comparison, digits: int | None = None) -> str:
    """A difference with its interval: "-0.012 (-0.020 to -0.004)"."""
    digits = MEASURES[c.measure].digits if digits is None else digits
    return f"{c.difference:+.{digits}f} ({c.low:+.{digits}f} to {c.high:+.{digits}f})"


def sentence(c: Comparison, digits: int | None = None) -> str:
    """A comparison as a whole sentence with the numbers behind it, in Markdown."""
    digits = MEASURES[c.measure].digits if digits is None else digits
    label = MEASURES[c.measure].label
    found = f"{c.difference:+.{digits}f}, 95 % interval {c.low:+.{digits}f} to {c.high:+.{digits}f}"
    if c.seeds < SEEDS_OF_A_CLAIM:
        few = " over the places of one training; one seed supports" if c.seeds == 1 else "; two seeds support"
        return f"In {label}, `{c.model}` differs from `{c.against}` by {found}{few} no claim about another training."
    places = f"{c.blocks} groups of images" if c.blocks else "on these test pictures"
    if c.teachers < c.seeds:
        places = f"{counted(c.teachers, 'teacher')}, {places}"
    if c.favours is None:
        verdict = f"no significant difference between `{c.model}` and `{c.against}`"
    else:
        verdict = f"the interval favours `{c.favours}` over `{c.against if c.favours == c.model else c.model}`"
    return f"In {label}, {verdict} ({found}; {c.seeds} seeds, {places})."


def in_levels(c: Comparison) -> str:
    """A difference in L1 as a sentence, in grey levels of 255."""
    if c.favours is None:
        sizes = [grey_levels(abs(x)) for x in (c.difference, c.low, c.high)]
        sides = ["closer" if x < 0 else "farther" for x in (c.difference, c.low, c.high)]
        mean, *ends = [f"{size} {side}" for size, side in zip(sizes, sides, strict=True)]
        low, high = ("just past 0" if size == "0.0" else end for size, end in zip(sizes[1:], ends, strict=True))
        span = f"{mean} on average, with an interval from {low} to {high}"
        return f"no significant difference between `{c.model}` and `{c.against}` (in grey levels, {span})"
    low, high = (grey_levels(x) for x in sorted(abs(x) for x in (c.low, c.high)))
    low = "just above 0" if low == "0.0" else low
    side = "closer to" if c.difference < 0 else "farther from"
    size = f"{grey_levels(abs(c.difference))} grey levels {side} the truth than `{c.against}`"
    return f"`{c.model}` is {size} ({low} to {high})"


def part_of(protocol: str) -> str:
    """What a title has to say of the pictures that were measured by a protocol: nothing of those of the test."""
    return " (validation part)" if " validation tiles" in protocol else ""


def counted(count: int, what: str) -> str:
    """ "1 teacher", "2 teachers"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


# --- tables ---------------------------------------------------------------------------------------------------------


def in_order(models: Sequence[str]) -> list[str]:
    """Models in the order of a table: yardsticks, then students as they come."""
    known = list(dict.fromkeys(models))
    return [m for m in YARDSTICKS if m in known] + [m for m in known if m not in YARDSTICKS]


def shown(table: pd.DataFrame, measures: Sequence[str]) -> Any:
    """Columns of results with the headings and digits of their measures, to be displayed; counts are rounded.

    Beside L1 stands the same distance in grey levels.
    """
    values: Any = table[list(measures)].astype(float)
    values.index.names = [None] * values.index.nlevels
    columns = {MEASURES[name].heading: values[name] for name in measures}
    texts: dict[str, Any] = {
        MEASURES[name].heading: short_count if name in COUNTS else MEASURES[name].text for name in measures
    }
    if "l1" in measures:
        place = list(columns).index(MEASURES["l1"].heading) + 1
        columns = dict([*list(columns.items())[:place], (GREY, values.l1), *list(columns.items())[place:]])
        texts[GREY] = grey_levels
    if "macs_paper" not in measures:  # one count serves for both
        exact = MEASURES["macs_exact"].heading
        columns = {MACS if name == exact else name: values for name, values in columns.items()}
        texts[MACS] = short_count
    table = pd.DataFrame(columns)
    return table.style.format({name: text for name, text in texts.items() if name in table}, na_rep="")


def prices(table: pd.DataFrame) -> list[str]:
    """The measures of price that a table of results has to show: one count of MACs where the two agree everywhere."""
    agree = table.macs_paper.equals(table.macs_exact)
    return [name for name in PRICES if not (agree and name == "macs_paper")]


def quality_table(rows: pd.DataFrame, measures: Sequence[str] = QUALITY) -> pd.DataFrame:
    """Quality of one task's models over seeds, `mean ± sd`: models by `measures`, and `n`, the number of trainings.

    What is one network in several seeds, such as a recorded teacher, counts once.
    `rows` are those of one task in `results.load_table`. Measures without a value are left out, and models without any.
    """
    listed = [MEASURES[name] for name in measures if rows[name].dropna().tolist()]
    table: dict[str, dict[str, str]] = {}
    for model in in_order(rows.model.tolist()):
        own: Any = rows[rows.model == model]
        own = own.drop_duplicates(["weights", *(measure.name for measure in listed)])
        cells = {}
        for measure in listed:
            values = own[measure.name].dropna().tolist()
            cells[measure.heading] = over_seeds(values).short(measure.digits) if values else ""
            if measure.name == "l1":
                cells[GREY] = grey_levels(over_seeds(values).mean) if values else ""
        if any(cells.values()):
            table[model] = cells | {"n": str(len(own))}
    return pd.DataFrame.from_dict(table, orient="index")


def answers_table(found: Sequence[tuple[str, Comparison]]) -> pd.DataFrame:
    """`answers` as a table: a row for each question, a column for each measure.

    A cell is the difference, its interval and, in bold, the model that the interval favours, if it favours one.
    """
    table: dict[str, dict[str, str]] = {}
    for question, c in found:
        favours = f" **{c.favours}**" if c.favours else ""
        row = table.setdefault(f"{question}: {c.model} \N{MINUS SIGN} {c.against}", {})
        row[MEASURES[c.measure].label] = numbers(c) + favours
    return pd.DataFrame.from_dict(table, orient="index")


def distance_tables(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Distances between sets, such as FID, over seeds: protocol -> a table of models by measures, `mean ± sd (n = n)`.

    One table for each protocol, since numbers of two protocols do not compare. Empty if nothing was measured: the
    evaluations hold `literature` where the extractors' weights were found.
    """
    rows: Any = pd.DataFrame([row for e in evaluations for row in e.get("literature", [])])
    tables = {}
    for protocol in rows.protocol.unique() if len(rows) else []:
        own = rows[rows.protocol == protocol]
        table = pd.DataFrame("", index=own.model.unique(), columns=own.measure.unique())
        for (model, measure), group in own.groupby(["model", "measure"]):
            table.loc[model, measure] = over_seeds(group.value.tolist()).text(2)
        tables[protocol] = table
    return tables


def markdown(table: pd.DataFrame, corner: str = "") -> str:
    """A table of texts as Markdown, its index as the first column under the heading `corner`."""
    lines = [[corner, *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [
        [str(name), *cells] for name, cells in zip(table.index, table.fillna("").to_numpy().tolist(), strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- the headline ---------------------------------------------------------------------------------------------------


def headline(evaluations: Sequence[Mapping[str, Any]], rows: pd.DataFrame) -> str:
    """The main result of one task in two sentences, from its evaluations and its rows of `results.load_table`.

    Empty where the rows have no student `gcka` or no teacher to compare it with.
    """
    if not {"gcka", "teacher"} <= set(rows.model[rows.macs_exact.notna()]):
        return ""
    mean: Any = rows.groupby("model").mean(numeric_only=True)
    share = share_of(mean.macs_exact["teacher"] / mean.macs_exact["gcka"])
    text = f"**The small network does {share} of the large one's arithmetic. "
    if "l1" not in evaluations[0]["per_image"]:
        return f"{text}{_in_kd(evaluations, mean)}.**"
    change = in_percent(mean.l1["gcka"] / mean.l1["teacher"])
    apart = compare_models(evaluations, "l1", "gcka", "teacher").favours
    if not apart and change[0].isdigit():  # else it is called the same anyway
        change += ", which is not significant"
    if not apart and (worse := _won_beside_l1(evaluations, "teacher")):
        change += f"; in {worse} it is worse"
    text += f"Its error is {change}.**"
    levels = {model: grey_levels(mean.l1[model]) for model in ("look-up", "teacher", "gcka") if model in mean.index}
    text += (
        f" On average, a pixel is {levels['gcka']} grey levels of 255 off; with the large network, {levels['teacher']}"
    )
    if "look-up" not in levels:
        return f"{text}."
    apart = compare_models(evaluations, "l1", "look-up", "gcka").favours
    same = "" if apart else ", not significantly different"
    text += f"; without a network, by colours looked up in a table, {levels['look-up']}{same}."
    if nearer := _won_beside_l1(evaluations, "look-up"):
        text += f" Looked-up colours are better in {nearer}."
    student, teacher = mean.steps["gcka"], mean.steps["teacher"]
    if student < teacher:
        text += f" The small network trained for {student:,.0f} steps, the large one for {teacher:,.0f}."
    return text


def _won_beside_l1(evaluations: Sequence[Mapping[str, Any]], model: str) -> str:
    """In which other measures of single images a model is better than `gcka`: "SSIM and feature distance", or ""."""
    found = [compare_models(evaluations, measure, model, "gcka") for measure in PAIRED if measure != "l1"]
    return " and ".join(MEASURES[c.measure].label for c in found if c.favours == model)


def _in_kd(evaluations: Sequence[Mapping[str, Any]], mean: Any) -> str:
    """How student and teacher compare where no truth is known: as two values, since KD may be 0 or negative."""
    kd = MEASURES["kd"]
    small, large = (kd.text(mean.kd[model]) for model in ("gcka", "teacher"))
    told = f"Its {kd.label} (lower is better) is {small}, the large one's {large}"
    if len(evaluations) == 1:
        return f"{told}, after one training"
    return (
        told if compare_sets(evaluations, "kd", "gcka", "teacher").favours else f"{told}, not significantly different"
    )


def details(evaluations: Sequence[Mapping[str, Any]], rows: pd.DataFrame) -> list[str]:
    """The numbers behind the headline, a sentence each, with their intervals."""
    mean: Any = rows.groupby("model").mean(numeric_only=True)
    seeds = "one training" if len(evaluations) == 1 else f"{len(evaluations)} trainings"
    macs = {model: short_count(mean.macs_exact[model]) for model in ("teacher", "gcka")}
    lines = [f"Task `{rows.task.iloc[0]}`, {seeds}. MACs: teacher {macs['teacher']}, student {macs['gcka']}."]
    for student, name in (("gcka", "the student"), ("inherited", "a student that starts from the teacher's weights")):
        if student in mean.index and "l1" in evaluations[0]["per_image"]:
            found = [compare_models(evaluations, measure, student, "teacher") for measure in ("l1", "feature_distance")]
            texts = [f"{MEASURES[c.measure].label} {numbers(c)}" for c in found]
            lines.append(f"Difference of {name} from its teacher, with 95 % intervals: {', '.join(texts)}.")
    return lines + ([speed_sentence(evaluations)] if has_speed(evaluations) else [])
