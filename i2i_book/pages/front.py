"""What the first pages show of this book's own run: a picture, a chart, the numbers behind them, and a balance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat
from safetensors import safe_open

from i2i_book.ablations import load_ablations
from i2i_book.arms import arms, students
from i2i_book.claims import details
from i2i_book.figures.style import look
from i2i_book.presets import MAIN_TASK
from i2i_book.speed import has_speed, speed_sentence
from i2i_book.wording import LEVELS, grey_levels, in_percent, span_of
from i2i_lib.counts import short_count
from i2i_lib.files import read_json
from i2i_lib.results import load_evaluations, load_table

COLUMNS = {"sources": "drawing", "student-gcka": "small network", "teacher": "large network", "truths": "truth"}
LONGER = "trained longer"  # the column of a recorded student of the small network's widths, if it was
# What sets the other students of preset `cpu` apart, on a page where their names say nothing yet.
WAYS = {
    "none": "not taught by the large one",
    "mse": "taught by squared error",
    "inherited": "begun with the large one's weights",
}
BUDGETS = "several budgets"  # the line of the recorded students
EXAMPLES = 3  # rows of the picture
WIDTH, HEIGHT = 480, 300  # of the chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 18, 52  # its margins


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded student among the demo's networks."""

    name: str
    macs: int
    levels: float  # mean distance to the truth over the test, in grey levels
    steps: int
    first: bool  # the one that the demo shows first: of the widths of the run's small network


def front_page(table: Path, models: Path) -> dict[str, str]:
    """The Markdown of `front` (picture, chart, numbers), `balance` (a table) and `longer`, a sentence for the headline.

    Each is empty where nothing was run. `table`: the run's results.jsonl. `models`: the demo's files by task, among the
    static files: the picture is made of them and lies beside them.
    """
    picture = _picture(models / MAIN_TASK)
    evaluations = load_evaluations(table).get(MAIN_TASK, []) if table.exists() else []
    if not evaluations or not {"teacher", "gcka"} <= {row.model for row in evaluations[0]["results"]}:
        return {"front": picture, "balance": "", "longer": ""}
    whole = load_table(table)
    rows: Any = whole[whole.task == MAIN_TASK]
    found = load_ablations(table, list(students()))[0].get(MAIN_TASK)
    recorded = _recorded(models / MAIN_TASK)
    chart = _chart(_points(found), recorded, _look_up(rows)) if found else ""
    lines = "\n".join(f"- {line}" for line in details(evaluations, rows))
    fold = f":::{{dropdown}} The numbers, with their intervals\n{lines}\n:::\n"
    longer = _longer(rows, recorded)
    balance = _balance(evaluations, rows, longer, table.parent / MAIN_TASK / "seed0")
    return {"front": picture + chart + fold, "balance": balance, "longer": longer}


def _picture(models: Path) -> str:
    """Source, student, teacher and truth of some of the demo's examples: four columns, an image each."""
    if not (models / "demo.json").exists():
        return ""
    about = read_json(models / "demo.json", "make the demo again")
    side, chosen = about["size"], _spread(models, about)
    names = [about["names"][i] for i in chosen]
    figures, columns = [], COLUMNS
    if about["main"] not in COLUMNS:
        drawing, small, *others = COLUMNS.items()
        columns = dict([drawing, small, (about["main"], LONGER), *others])
    for name, title in columns.items():
        if not (models / f"{name}.webp").exists():
            continue
        strip = Image.open(models / f"{name}.webp").convert("RGB")
        column = Image.new("RGB", (2 * side, 2 * side * len(chosen)))
        for row, i in enumerate(chosen):
            tile = strip.crop((i * side, 0, (i + 1) * side, side))
            column.paste(tile.resize((2 * side, 2 * side)), (0, 2 * side * row))
        column.save(models / f"front-{name}.webp", quality=90)
        alt = escape(f"{title}: {', '.join(names)}")
        size = f'width="{column.width}" height="{column.height}"'
        image = f'<img src="_static/models/{about["task"]}/front-{name}.webp" alt="{alt}" {size}>'
        figures.append(f"<figure>{image}<figcaption>{title}</figcaption></figure>")
    note = (
        f'<p class="front-note">{len(chosen)} of the demo\'s {about["examples"]} test images: one with a small error,'
        " the median one, and one with a large error.</p>"
    )
    return f'```{{raw}} html\n<div class="front-pictures">{"".join(figures)}</div>{note}\n```\n'


def _spread(models: Path, about: Mapping[str, Any]) -> list[int]:
    """The examples at a quarter, half and three quarters of the errors of the demo's main network; of few, all."""
    count, side = about["examples"], about["size"]
    if count < 4 or not (models / "truths.webp").exists():
        return list(range(count))[:EXAMPLES]
    made, truth = (Image.open(models / f"{name}.webp").convert("RGB") for name in (about["main"], "truths"))
    apart = ImageChops.difference(made, truth)
    errors = [sum(ImageStat.Stat(apart.crop((i * side, 0, (i + 1) * side, side))).mean) for i in range(count)]
    order = sorted(range(count), key=errors.__getitem__)
    return [order[count * quarter // 4] for quarter in (1, 2, 3)]


# --- the chart ------------------------------------------------------------------------------------------------------


def _points(found: Any) -> dict[str, tuple[float, float, str]]:
    """Model -> (MACs, L1 in grey levels, its kind): teacher and Original, students by budget, and the others."""
    budgets = {"gcka", *(name for name in arms()["how much it may cost"] if "none" not in name)}
    kinds = {"teacher": "large", "original": "large"} | {name: "budget" for name in budgets}
    points = {}
    for name in ["teacher", "original", *students()]:
        if macs := found.mean(name, "macs_exact"):
            points[name] = (macs, LEVELS * found.mean(name, "l1"), kinds.get(name, "other"))
    return points


def _recorded(models: Path) -> list[Recorded]:
    """The recorded students among the demo's networks, the cheapest first."""
    if not (models / "demo.json").exists():
        return []
    about = read_json(models / "demo.json", "make the demo again")
    found = [n for n in about.get("networks", []) if n["name"] in students() and {"levels", "steps"} <= n.keys()]
    made = [
        Recorded(n["name"], n["macs"][str(about["size"])], n["levels"], n["steps"], n["name"] == about["main"])
        for n in found
    ]
    return sorted(made, key=lambda student: student.macs)


def _longer(rows: Any, recorded: Sequence[Recorded]) -> str:
    """What longer training gives the small network; empty where no such student was recorded."""
    teacher, steps = rows[rows.model == "teacher"].l1.mean(), rows[rows.model == "gcka"].steps.max()
    return " ".join(
        f"Trained for {student.steps:,} steps{_taught(recorded)}, the same small network is {student.levels:.1f} grey"
        f" levels off; its error is then {in_percent(student.levels / (LEVELS * teacher))}."
        for student in recorded
        if student.first and student.steps > steps
    )


def _taught(recorded: Sequence[Recorded]) -> str:
    alike = all(students()[student.name].get("imitate") for student in recorded)
    return " on the large one's images" if alike else ""


def _look_up(rows: Any) -> float | None:
    values = rows[rows.model == "look-up"].l1.dropna()
    return LEVELS * values.mean() if len(values) else None


def _chart(points: Mapping[str, tuple[float, float, str]], recorded: Sequence[Recorded], look_up: float | None) -> str:
    """Error against MACs as inline SVG in the colours of the theme; the look-up of colours is a dashed line."""
    named = {f"{student.name}, recorded": (student.macs, student.levels, "recorded") for student in recorded}
    points = {**points, **named}
    errors = [error for _, error, _ in points.values()] + ([look_up] if look_up else [])
    low, high = min(errors), max(errors)
    step = _nice((high - low or 1) / 3)
    low, high = step * floor(low / step - 0.3), step * -floor(-high / step - 0.3)
    macs = [log10(macs) for macs, _, _ in points.values()]
    first, last = min(macs) - 0.15, max(macs) + 0.15

    def x(value: float) -> float:
        return LEFT + (log10(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for i in range(round((high - low) / step) + 1):
        value = low + i * step
        parts.append(f'<path class="grid" d="M{LEFT},{y(value):.1f} H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 5:.1f}" text-anchor="end">{value:g}</text>')
    for exponent in range(floor(first), floor(last) + 1):
        for digit in (1, 2, 5):
            if first <= log10(digit * 10.0**exponent) <= last:
                value = digit * 10.0**exponent
                parts.append(f'<path class="grid" d="M{x(value):.1f},{TOP} V{bottom}"/>')
                label = short_count(value).replace(".00", "").replace(".0", "")
                parts.append(f'<text x="{x(value):.1f}" y="{bottom + 20}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">MACs of one image</text>')
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {middle})" text-anchor="middle"'
    parts.append(f'<text x="14" y="{middle}" {turned}>error, grey levels</text>')
    if look_up:
        parts.append(f'<path class="look-up" d="M{LEFT},{y(look_up):.1f} H{right}"/>')
        parts.append(
            f'<text x="{right}" y="{y(look_up) - 7:.1f}" text-anchor="end">no network: colours looked up</text>'
        )
    for joined in ("budget", "recorded"):
        if line := sorted((macs, error) for macs, error, kind in points.values() if kind == joined):
            steps = " L".join(f"{x(m):.1f},{y(e):.1f}" for m, e in line)
            parts.append(f'<path class="line {joined}" d="M{steps}"/>')
    called = {name: WAYS.get(name, name) for name in points}
    labels = {"teacher": "large network", "original": "Original", "gcka": "small network"}
    labels |= {name: BUDGETS for name in [*named][:1]}  # above the cheapest, where the line begins
    for name, (macs_of, error, kind) in sorted(points.items(), key=lambda item: item[0] == "gcka"):
        title = f"<title>{called[name]}: {short_count(macs_of)} MACs, {error:.1f} grey levels</title>"
        radius = {"large": 7, "budget": 7, "recorded": 5, "other": 4}[kind]
        fill = "" if kind == "recorded" else f' fill="{look(name)["color"]}"'
        at = f'cx="{x(macs_of):.1f}" cy="{y(error):.1f}"'
        parts.append(f'<circle class="{kind}" {at} r="{radius}"{fill}>{title}</circle>')
        if name in labels:
            left = kind != "recorded" and x(macs_of) > LEFT + 120  # room for its name
            # Teacher and Original are near each other: one name stands below its point, the other above. The line of
            # several budgets falls to the right, so the small network's stands below it at the left.
            places = {"teacher": (8, 24), "original": (8, -12), "gcka": (-10 if left else 10, 16)}
            across, down = places.get(name, (8, -8))
            place = f'x="{x(macs_of) + across:.1f}" y="{y(error) + down:.1f}"'
            parts.append(f'<text {place} text-anchor="{"end" if left else "start"}">{labels[name]}</text>')
    said = [f"{called[name]} {short_count(macs_of)} MACs, {error:.1f}" for name, (macs_of, error, _) in points.items()]
    said += [f"colours looked up {look_up:.1f}"] if look_up else []
    alt = escape(f"Error in grey levels of 255 against multiply-accumulates of one image: {'; '.join(said)}.")
    svg = f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{alt}">{"".join(parts)}</svg>'
    others = ", ".join(
        f'<span style="color: {look(name)["color"]}" aria-hidden="true">●</span> {called[name]}'
        for name, (_, _, kind) in points.items()
        if kind == "other"
    )
    small = f" Small dots: small networks trained in other ways ({others})." if others else ""
    small += " Original: a ResNet of the paper's kind, not compressed." if "original" in points else ""
    if recorded:
        steps = " or ".join(f"{count:,}" for count in sorted({student.steps for student in recorded}))
        small = f" The line joins recorded students of {BUDGETS}: {steps} steps{_taught(recorded)}.{small}"
    said_below = f"Error on test images against the cost of one image; lower left is better.{small}"
    figure = f'<figure class="front-chart">{svg}<figcaption>{said_below}</figcaption></figure>'
    return f"```{{raw}} html\n{figure}\n```\n"


def _nice(step: float) -> float:
    """The next larger of 1, 2 and 5, times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step)


# --- the balance ----------------------------------------------------------------------------------------------------


def _balance(evaluations: Sequence[Mapping[str, Any]], rows: Any, longer: str, home: Path) -> str:
    """Four rows: what the student saves, what it loses, what it takes, what to watch."""
    mean: Any = rows.groupby("model").mean(numeric_only=True)
    teacher, student = mean.loc["teacher"], mean.loc["gcka"]

    def fewer(column: str, what: str) -> str:
        times = teacher[column] / student[column]
        return f"{what}: {times:.1f} times fewer ({short_count(teacher[column])} → {short_count(student[column])})"

    saved = [fewer("macs_exact", "{term}`MACs`"), fewer("params", "parameters")]
    saved += [speed_sentence(evaluations)] if has_speed(evaluations) else []
    error = f"{grey_levels(student.l1)} in place of {grey_levels(teacher.l1)} grey levels of 255"
    lost = [
        f"the error is {in_percent(student.l1 / teacher.l1)}: {error}",
        f"the similarity of structure (SSIM) is {student.ssim:.3f} in place of {teacher.ssim:.3f}"
        + (f"; looked-up colours have {mean.ssim['look-up']:.3f}" if "look-up" in mean.index else ""),
    ]
    if longer:
        lost.insert(1, longer)
    taken = []
    if (home / "data.safetensors").exists():
        taken.append(f"{_training_pictures(home):,} pairs of images to learn from")
    for name, row in (("teacher", teacher), ("student", student)):
        taken.append(f"{name}: {row.steps:,.0f} steps, {span_of(row.train_seconds)} of training")
    taken.append("choosing the widths: milliseconds ({doc}`chapter 3 </notebooks/03-pruning>`)")
    watched = [
        "a patent ({ref}`note <sec-patent>`)",
        "small images gain less time than the MACs promise",
        "where colours looked up do nearly as well, a measure says little: look at the images",
    ]
    table = {"What you save": saved, "What you lose": lost, "What it takes": taken, "What to watch": watched}
    return "| | in this run |\n|---|---|\n" + "".join(
        f"| **{name}** | {'<br>'.join(f'• {line}' for line in lines)} |\n" for name, lines in table.items()
    )


def _training_pictures(home: Path) -> int:
    """How many pictures of the task in this run's folder the networks learn from."""
    with safe_open(home / "data.safetensors", "pt") as tensors:
        return tensors.get_slice("train.source").get_shape()[0]
