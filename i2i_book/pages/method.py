"""The whole method as one drawing, and the strip at the head of a chapter that says which of its steps it takes.

Inline SVG in the colours of the page's theme. Text is never scaled below 11 px: the panels wrap instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from i2i_book.chapters import chapters


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the method."""

    word: str  # in the strip, where a phone leaves it 55 px
    title: str
    text: str  # one sentence below the drawing
    drawings: tuple[str, ...]  # SVG of width 340, or 220 of the narrow panels
    labels: tuple[str, ...]  # what each drawing shows, for those who do not see it
    icon: str  # SVG of 48 x 28
    wide: bool = False


def _bar(x: float, height: float, kind: str, middle: float = 50, width: float = 8) -> str:
    """A layer: the higher, the larger its grid."""
    return f'<rect class="{kind}" x="{x}" y="{middle - height / 2}" width="{width}" height="{height}" rx="2"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{text}</text>'


def _arrow(path: str, kind: str = "arrow") -> str:
    return f'<path class="{kind}" marker-end="url(#method-tip)" d="{path}"/>'


def _image(x: float, y: float, *, made: bool, side: float = 34) -> str:
    """A drawing, or the shaded picture made of it."""
    middle, radius = (x + side / 2, y + side / 2), side / 3.2
    circle = f'cx="{middle[0]}" cy="{middle[1]}" r="{radius}"'
    frame = f'<rect class="frame" x="{x}" y="{y}" width="{side}" height="{side}" rx="3"/>'
    if not made:
        return f'{frame}<circle class="flat" {circle}/>'
    light = f'<circle class="light" cx="{middle[0] - radius / 3}" cy="{middle[1] - radius / 3}" r="{radius / 2.6}"/>'
    return f'{frame}<circle class="shaded" {circle}/>{light}'


TEACHER = (7, 10, 13, *(14,) * 6, 10, 7)  # channels of stem, six blocks and up-sampling
STUDENT = (3, 5, 6, 9, 3, 6, 2, 4, 7, 5, 3)


def _network(x: float, kind: str, widths: Iterable[float], middle: float) -> str:
    """Stem, six blocks and up-sampling, each as wide as it has channels, in the places of the teacher's."""
    parts = []
    for height, place, width in zip((48, 36, 24, *(24,) * 6, 36, 48), TEACHER, widths, strict=True):
        parts.append(_bar(x + (place - width) / 2, height, kind, middle, width))
        x += place + 5
    return "".join(parts)


def _generator() -> str:
    """The generator, drawn once: from a drawing through stem, blocks of six branches and up-sampling to a picture."""
    parts = [_image(2, 33, made=False), _arrow("M38,50 h9")]
    parts += [_bar(51, 74, "teacher"), _bar(63, 56, "teacher", width=10), _bar(77, 38, "teacher", width=12)]
    parts.append(_arrow("M91,50 h9"))
    for number in range(6):  # each block: six branches that are added up
        x = 104 + 25 * number
        parts.append(f'<rect class="block" x="{x}" y="31" width="20" height="38" rx="3"/>')
        for branch in range(6):
            kind = "plain" if branch < 3 else "depthwise"
            parts.append(f'<path class="{kind}" d="M{x + 4},{35.5 + 5.8 * branch} h12"/>')
    parts += [_arrow("M252,50 h9"), _bar(264, 56, "teacher", width=10), _bar(278, 74, "teacher")]
    parts += [_arrow("M288,50 h9"), _image(300, 33, made=True)]
    parts += [_text(70, 106, "stem"), _text(177, 84, "blocks, of six branches each"), _text(275, 106, "up")]
    parts += [_text(2, 84, "input", "start"), _text(334, 84, "output", "end")]
    return "".join(parts)


def _discriminator() -> str:
    """The discriminator, drawn once: it reads input and picture, and judges each patch."""
    parts = [_image(2, 10, made=False), _image(2, 50, made=True), _arrow("M40,50 h12")]
    parts += [_bar(57 + 16 * i, 66 - 14 * i, "judge", width=10) for i in range(4)]
    parts.append(_arrow("M121,50 h14"))
    for row in range(4):
        for column in range(4):
            kind = "yes" if (row * 4 + column) % 3 else "no"
            parts.append(
                f'<rect class="{kind}" x="{140 + 15 * column}" y="{21 + 15 * row}" width="13" height="13" rx="2"/>'
            )
    parts += [_text(78, 106, "discriminator"), _text(172, 106, "true or made?"), _text(212, 36, "or", "start")]
    parts += [_image(232, 14, made=True), _text(272, 36, "the truth", "start")]
    parts += [_text(212, 72, "learns to tell the truth", "start"), _text(212, 88, "from what is made", "start")]
    return "".join(parts)


SCALES = (52, 18, 38, 8, 61, 27, 44, 12, 33, 57, 22, 5)


def _scales() -> str:
    """Norm scales, one a channel."""
    parts = [
        f'<path class="axis" d="M14,92 h192"/>{_text(14, 20, "|&gamma;|", "start")}{_text(206, 108, "channels", "end")}'
    ]
    parts += [_bar(20 + 15.5 * i, s, "scale", 92 - s / 2, 10) for i, s in enumerate(SCALES)]
    return "".join(parts)


def _threshold() -> str:
    """The same scales, sorted: one threshold, and the budget that it makes."""
    parts = ['<path class="axis" d="M8,92 h116"/>']
    for i, scale in enumerate(sorted(SCALES, reverse=True)):
        parts.append(_bar(11 + 9.4 * i, scale, "scale" if scale > 30 else "gone", 92 - scale / 2, 7))
    parts.append('<path class="threshold" d="M4,62 h124"/>')
    parts += [_text(66, 108, "threshold"), _arrow("M138,62 h22"), _arrow("M154,62 h-17")]
    parts.append('<rect class="frame" x="170" y="30" width="30" height="62" rx="3"/>')
    parts.append('<rect class="student" x="170" y="70" width="30" height="22" rx="3"/>')
    parts += ['<path class="threshold" d="M164,66 h42"/>', _text(185, 108, "budget"), _text(185, 22, "MACs")]
    return "".join(parts)


def _narrow() -> str:
    """The teacher, and the student of the channels that stay."""
    teacher, student = _network(2, "teacher", TEACHER, 32), _network(2, "student", STUDENT, 88)
    return teacher + student + _text(218, 37, "1&times;", "end") + _text(218, 93, "1/8", "end")


def _taps() -> str:
    """Teacher and student, and the four layers, drawn once, whose features are compared."""
    parts = [_network(66, "teacher", TEACHER, 26), _network(66, "student", STUDENT, 98)]
    for number, x in enumerate((101.5, 139, 177, 215), start=1):  # after the stem and after each third of the blocks
        parts.append(f'<path class="tap" d="M{x},36 V88"/><circle class="tap-end" cx="{x}" cy="62" r="9"/>')
        parts.append(_text(x, 66.5, str(number)))
    parts += [_text(60, 31, "teacher", "end"), _text(60, 66, "alike?", "end"), _text(60, 103, "student", "end")]
    parts += [_arrow("M254,98 h14"), _image(272, 86, made=True, side=28)]
    parts += [_text(258, 50, "truth, and in", "start"), _text(258, 65, "a GAN the", "start")]
    parts.append(_text(258, 80, "discriminator", "start"))
    return "".join(parts)


def _export() -> str:
    """Convolution and norm become one; the file runs elsewhere."""
    parts = ['<rect class="student" x="4" y="20" width="42" height="22" rx="3"/>', _text(25, 35, "conv", kind="inside")]
    parts += ['<rect class="scale" x="50" y="20" width="42" height="22" rx="3"/>', _text(71, 35, "norm", kind="inside")]
    parts += [_arrow("M48,46 v14"), '<rect class="student" x="14" y="64" width="68" height="24" rx="3"/>']
    parts += [_text(48, 80, "conv", kind="inside"), _text(48, 108, "fused"), _arrow("M90,64 h20")]
    parts += ['<rect class="frame" x="116" y="46" width="46" height="36" rx="3"/>', _text(139, 68, "ONNX")]
    parts += [_arrow("M164,64 h16"), '<rect class="frame" x="186" y="34" width="28" height="56" rx="5"/>']
    parts += [_image(190, 44, made=True, side=20), _text(200, 108, "device")]
    return "".join(parts)


def _icon_network(kind: str, heights: tuple[int, ...], width: float) -> str:
    gap = 48 / len(heights)
    return "".join(_bar(gap * (i + 0.5) - width / 2, h, kind, 14, width) for i, h in enumerate(heights))


STEPS = {
    "teacher": Step(
        "Teacher",
        "Train a large teacher",
        "A generator of inception blocks learns from pairs; a discriminator learns to find its faults.",
        (_generator(), _discriminator()),
        (
            "The generator: the input passes a stem of three layers, six blocks of six parallel branches each and two"
            " up-sampling layers, and comes out as a picture.",
            "The discriminator: it reads the input beside the generated picture or beside the truth, and says of each"
            " patch whether it is true or made.",
        ),
        _icon_network("teacher", (24, 18, 12, 12, 12, 18, 24), 5),
        wide=True,
    ),
    "scales": Step(
        "Scales",
        "Read its norm scales",
        "Training has left one number for every channel.",
        (_scales(),),
        ("A bar for the norm scale of each channel, some long and some short.",),
        "".join(_bar(3 + 6 * i, s / 2.6, "scale", 26 - s / 5.2, 4) for i, s in enumerate(SCALES[:7])),
    ),
    "threshold": Step(
        "Threshold",
        "One threshold for one budget",
        "Bisection finds the threshold whose student just fits: milliseconds; no candidate is trained.",
        (_threshold(),),
        (
            "The same bars sorted, with one line across: those above it stay. An arrow in both directions leads to a"
            " gauge of MACs with a line at the budget.",
        ),
        "".join(
            _bar(3 + 6 * i, s / 2.6, "scale" if s > 30 else "gone", 26 - s / 5.2, 4)
            for i, s in enumerate([*sorted(SCALES, reverse=True)[::2], 5])
        )
        + '<path class="threshold" d="M1,15 h44"/>',
    ),
    "student": Step(
        "Student",
        "Build the narrow student",
        "The same layers with fewer channels, from random weights or from those that stay.",
        (_narrow(),),
        ("The teacher's layers as wide bars, and below them the student's as narrow ones.",),
        _icon_network("student", (24, 18, 12, 12, 12, 18, 24), 2.5),
    ),
    "learn": Step(
        "Likeness",
        "Learn from the data, and by likeness",
        "The truth, in a GAN the discriminator, and the teacher's features at four layers: places that look alike to"
        " the teacher should look alike to the student.",
        (_taps(),),
        (
            "Teacher above, student below. Four numbered layers, after the stem and after each third of the blocks,"
            " are compared between them; the student's picture is compared with the truth.",
        ),
        "".join(_bar(3 + 12 * i, 10, "teacher", 6, 6) for i in range(4))
        + "".join(f'<path class="tap" d="M{6 + 12 * i},12 V17"/>' for i in range(4))
        + "".join(_bar(4.5 + 12 * i, 10, "student", 22, 3) for i in range(4)),
        wide=True,
    ),
    "export": Step(
        "Device",
        "Fuse, export, run",
        "Norms fold into convolutions; one ONNX file runs on a phone or in your browser.",
        (_export(),),
        ("A convolution and a norm become one convolution, then an ONNX file, then a picture on a device.",),
        '<rect class="student" x="2" y="8" width="16" height="12" rx="2"/><path class="arrow" d="M20,14 h8"/>'
        '<rect class="frame" x="31" y="1" width="15" height="26" rx="3"/>'
        '<rect class="student" x="34" y="6" width="9" height="9" rx="1"/>',
    ),
}
TIP = (
    '<svg width="0" height="0" class="method-defs" aria-hidden="true"><defs><marker id="method-tip"'
    ' viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto-start-reverse">'
    '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs></svg>'
)


def whole(links: dict[str, str]) -> str:
    """HTML of the whole drawing. `links`: step -> address of its chapter."""
    panels = []
    for number, (name, step) in enumerate(STEPS.items(), start=1):
        title = f'<a href="{links[name]}">{step.title}</a>' if name in links else step.title
        panels.append(
            f'<li class="method-{name}"><p class="method-title"><b>{number}</b> {title}</p>'
            f"{_drawn(step)}<p>{step.text}</p></li>"
        )
    return f'<div class="method-whole">{TIP}<ol>{"".join(panels)}</ol></div>'


def single(name: str) -> str:
    """HTML of the drawing of one step, for the chapter that takes it."""
    step = STEPS[name]
    return (
        f'<figure class="method-whole method-{name}">{TIP}{_drawn(step)}<figcaption>{step.text}</figcaption></figure>'
    )


def _drawn(step: Step) -> str:
    head = f'<svg viewBox="0 0 {340 if step.wide else 220} 124" role="img" aria-label'
    drawings = zip(step.labels, step.drawings, strict=True)
    svgs = "".join(f'{head}="{label}">{drawing}</svg>' for label, drawing in drawings)
    return f'<div class="method-drawn">{svgs}</div>'


def strip(here: set[str], links: dict[str, str]) -> str:
    """HTML of the strip in which the steps `here` are marked."""
    items = []
    for name, step in STEPS.items():
        icon = f'<svg viewBox="0 0 48 28" aria-hidden="true">{step.icon}</svg><span>{step.word}</span>'
        current = ' class="here" aria-current="step"' if name in here else ""
        inside = f'<a href="{links[name]}"{current}>{icon}</a>' if name in links else f"<span{current}>{icon}</span>"
        items.append(f"<li>{inside}</li>")
    label = "The method, and where this chapter is in it"
    return f'<nav class="method-strip" aria-label="{label}"><ol>{"".join(items)}</ol></nav>'


class method_map(nodes.General, nodes.Element):
    """The drawing or the strip: its links depend on the page."""


class MethodMap(SphinxDirective):
    """Draw the whole method; with names of steps as its argument, the strip in which these are marked."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        here = self.arguments[0].split() if self.arguments else []
        if unknown := set(here) - STEPS.keys():
            raise self.error(f"the method has no step {', '.join(sorted(unknown))}: it has {', '.join(STEPS)}")
        return [method_map(here=here)]


class MethodStep(SphinxDirective):
    """Draw one step of the method, as the whole drawing has it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if (name := self.arguments[0]) not in STEPS:
            raise self.error(f"the method has no step {name}: it has {', '.join(STEPS)}")
        return [nodes.raw("", single(name), format="html")]


def visit(translator: Any, node: method_map) -> None:
    """Write the HTML of a `method_map`."""
    builder = translator.builder
    links: dict[str, str] = {}
    for chapter in chapters().values():
        if (page := f"notebooks/{chapter.notebook}") in builder.env.found_docs:
            for step in chapter.steps:
                links.setdefault(step, builder.get_relative_uri(builder.current_docname, page))
    translator.body.append(strip(set(node["here"]), links) if node["here"] else whole(links))
    raise nodes.SkipNode
