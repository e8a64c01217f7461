"""What a compression is handed over with: a model card, and a page of pictures and numbers in one file."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from i2i_lib.data.pictures import to_image
from i2i_lib.data.tiles import evenly
from i2i_lib.files import atomic_write

SHOWN = 8  # test pictures on the page
QUALITY = {
    "l1_to_teacher": "L1, student to teacher",
    "ssim_to_teacher": "SSIM, student to teacher; 1 for equal pictures",
    "l1_source_to_teacher": "L1, source to teacher: what the teacher changes",
    "l1_teacher_to_target": "L1, teacher to target",
    "l1_student_to_target": "L1, student to target",
    "l1_difference": "the difference of the last two",
}


def quality_rows(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each measure with its mean over the test pictures and the 95 % interval of that mean."""
    rows = []
    for name, label in QUALITY.items():
        if name in record:
            value = record[name]
            rows.append((label, f"{value['mean']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}"))
    return rows


def cost_rows(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each price of one picture: the teacher's, the student's, and the student's share of it."""
    teacher, student = record["teacher"], record["student"]
    prices = (
        ("multiply-accumulates (MACs)", "macs", "{:,.0f}"),
        ("parameters", "params", "{:,.0f}"),
        ("milliseconds on one thread, median", "ms", "{:,.1f}"),
        ("MiB of memory, weights apart", "peak_mib", "{:,.1f}"),
    )
    return [
        (label, form.format(teacher[name]), form.format(student[name]), f"{student[name] / teacher[name]:.1%}")
        for label, name, form in prices
    ]


def protocol(record: Mapping[str, Any]) -> str:
    """How the numbers were measured, in sentences."""
    size, student, training = record["size"], record["student"], record["training"]
    learnt = "its teacher's pictures and features, and the targets of pairs"
    if not record["pairs"]:
        learnt = "its teacher's pictures and features"
    return (
        f"Measured on {record['test_pictures']} pictures of {size} x {size} pixels that no training saw; L1 is the mean"
        " distance of values in [-1, 1]: 0.01 is 1.3 grey levels of 255. Intervals hold the mean over other such"
        " pictures in 95 of 100 cases; they say nothing about another training. Times: PyTorch on"
        f" {student['device']}, one thread, one picture at a time, on the machine that trained; the ONNX file takes"
        f" {record['onnx']['ms']:.1f} ms there in ONNX Runtime on one thread of the CPU, at its fastest. On a CPU the"
        " clock is the thread's own, which stands still while other programs have the core. The student"
        f" learnt from {learnt}: {training['steps']:,} steps in {training['seconds'] / 60:.1f} minutes on"
        f" {training['pictures']:,} pictures. MACs are counted as multiplications that convolutions compute."
    )


def summary(record: Mapping[str, Any]) -> str:
    """The result in a few lines."""
    share = record["student"]["macs"] / record["teacher"]["macs"]
    near = record["l1_to_teacher"]
    lines = [
        f"{share:.1%} of the teacher's MACs, {record['student']['ms']:.1f} ms in place of"
        f" {record['teacher']['ms']:.1f} ms in PyTorch, {record['onnx']['ms']:.1f} ms as ONNX",
        f"L1 to the teacher's pictures {near['mean']:.4f} ({near['low']:.4f} to {near['high']:.4f}),"
        f" {near['mean'] / record['l1_source_to_teacher']['mean']:.1%} of what the teacher changes",
    ]
    if "l1_difference" in record:
        own, whole = record["l1_student_to_target"]["mean"], record["l1_teacher_to_target"]["mean"]
        gap = record["l1_difference"]
        lines.append(
            f"L1 to the targets {own:.4f}, the teacher's {whole:.4f}: {own / whole - 1:+.1%}"
            f" ({gap['low'] / whole:+.1%} to {gap['high'] / whole:+.1%})"
        )
    return "\n".join(lines)


def measured_means(record: Mapping[str, Any]) -> dict[str, float]:
    """The mean of each measure of quality, by its name."""
    return {name: record[name]["mean"] for name in QUALITY if name in record}


def card_body(record: Mapping[str, Any]) -> str:
    """A model card without its header."""
    quality = "\n".join(f"| {' | '.join(row)} |" for row in quality_rows(record))
    cost = "\n".join(f"| {' | '.join(row)} |" for row in cost_rows(record))
    return f"""# Model card: a compressed image-to-image generator

Made by `i2i compress` from a {record["teacher"]["kind"]} within `{record["budget"]}`.

| | mean | 95 % interval |
|---|---|---|
{quality}

| one picture | teacher | student | share |
|---|---|---|---|
{cost}

{protocol(record)}

SHA-256 of the weights: {record["weights"]}
"""


def write_card(record: Mapping[str, Any], path: Path) -> None:
    """Write the model card, with a header as model hubs read it."""
    text = f"""---
library_name: i2i-lib
pipeline_tag: image-to-image
license: other
license_name: as-its-teacher
---

{card_body(record)}
Use: `i2i translate student IN OUT`, or `{record["onnx"]["file"]}` in ONNX Runtime (`source`, float32 [N, 3, H, W] in
[-1, 1], to `image`; largest difference from PyTorch {record["onnx"]["largest_difference"]:.1g}).

Licence: a student carries on what its teacher and its pictures were licensed for. Name both here before you publish it.
"""
    atomic_write(path, text.encode())


def write_page(record: Mapping[str, Any], pictures: Mapping[str, Tensor], path: Path) -> None:
    """Write the report, one HTML file that loads nothing: `pictures` are uint8 [N, 3, S, S] by their column's name."""
    count = len(pictures["source"])
    chosen = evenly(count, SHOWN).tolist()
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in pictures)
    rows = []
    for number, i in enumerate(chosen, start=1):
        cells = "".join(
            f'<td><img src="{_data_address(images[i])}" alt="{name} {number}"></td>'
            for name, images in pictures.items()
        )
        rows.append(f"<tr>{cells}</tr>")
    share = record["student"]["macs"] / record["teacher"]["macs"]
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A student at {share:.1%} of its teacher's cost</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ padding: .25rem clamp(.2rem, 1vw, .75rem); text-align: right; font-variant-numeric: tabular-nums }}
td:first-child, th:first-child {{ text-align: left }}
.wide {{ overflow-x: auto }}
@media (max-width: 30rem) {{ table {{ font-size: .8rem }} }}
.pictures td, .pictures th {{ padding: .2rem; text-align: center }}
.pictures img {{ width: 100%; max-width: 256px; min-width: 64px; display: block }}
</style>
<h1>A student at {share:.1%} of its teacher's cost</h1>
<p>{"<br>".join(map(html.escape, summary(record).splitlines()))}</p>
<h2>How near</h2>
{_table(["", "mean", "95 % interval"], quality_rows(record))}
<h2>What one picture costs</h2>
{_table(["", "teacher", "student", "share"], cost_rows(record))}
<p>{html.escape(protocol(record))}</p>
<h2>Test pictures</h2>
<table class="pictures"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>
<h2>Use it</h2>
<p>In the folder of this page:</p>
<pre>i2i translate student IN OUT
i2i export student --demo page</pre>
</html>
"""
    atomic_write(path, page.encode())


def _table(heads: list[str], rows: list[Any]) -> str:
    top = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _data_address(picture: Tensor) -> str:
    file = io.BytesIO()
    to_image(picture).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
