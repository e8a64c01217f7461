"""The picture of the packages and their imports, drawn from the code: included by the page on its layout."""

import ast
from collections import defaultdict
from pathlib import Path
from textwrap import wrap

# From top to bottom, what imports stands above what it imports. A box holds modules of `i2i_lib`, or a whole package.
ROWS = (
    {"notebooks": "notebooks"},
    {"i2i_book": "i2i_book"},
    {
        "i2i_lib.export": "export translate",
        "i2i_lib.metrics": "metrics results evaluate",
    },
    {"i2i_lib.train": "train losses"},
    {
        "the method": "config macs layers generators spade discriminators prune students checkpoint official",
        "i2i_lib.data": "data",
    },
    {"files and processes": "cpus files archives commands distributed facade"},
)
WIDTH, BOX, LINE, GAP = 720, 300, 17, 46  # of the picture, of a box, of a line of text, between rows


def packages_picture(top: Path) -> str:
    """Inline SVG, in the colours of the page's theme, of the packages of the checkout `top`.

    Raises ValueError for a module that has no box.
    """
    members: dict[str, list[str]] = defaultdict(list)
    arrows: set[tuple[str, str]] = set()
    for path in sorted((top / "i2i_lib").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        module = ".".join(path.relative_to(top).with_suffix("").parts)
        members[_box(module)].append(module.split(".", 1)[1] if _box(module) in ROWS[-1] else path.stem)
        arrows |= {(_box(module), _box(name)) for name in _imported(path) if name.startswith("i2i_lib.")}
    members["i2i_book"] = sorted({path.relative_to(top).parts[1].removesuffix(".py") for path in _modules(top)})
    members["notebooks"] = ["a chapter each, run by i2i_book.runner"]
    for names in members.values():
        names[:] = [name for name in dict.fromkeys(names) if not name.startswith("_")]

    places: dict[str, tuple[int, int, int]] = {}  # left, top, height of each box
    y = 10
    for number, row in enumerate(ROWS):
        heights = [LINE * (len(_text(members[box])) + 1) + 14 for box in row]
        for column, box in enumerate(row):
            left = (WIDTH - BOX) // 2 if len(row) == 1 else 40 + column * (WIDTH - 80 - BOX)
            places[box] = (left, y, max(heights))
        y += max(heights) + GAP + (20 if number == 1 else 0)
    height = y - GAP + 20

    parts = [_frame(places, height), _arrow(places, "notebooks", "i2i_book")]
    left, top_of_book, tall = places["i2i_book"]
    parts.append(_line(left + BOX // 2, top_of_book + tall, WIDTH // 2, _frame_top(places)))
    # Everything may import the last row, so that arrows to it would only hide the others.
    parts += [_arrow(places, a, b) for a, b in sorted(arrows) if a != b and b not in ROWS[-1]]
    parts += [_drawn(box, place, members[box]) for box, place in places.items()]
    return (
        f'<svg class="code-picture" role="img" viewBox="0 0 {WIDTH} {height}" aria-label="The packages of this project,'
        ' each above those that it imports; the page describes them in words.">\n'
        '<defs><marker id="code-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _box(module: str) -> str:
    """The box of a module of the library."""
    part = module.split(".")[1]
    for row in ROWS[2:]:
        for box, held in row.items():
            if part in held.split():
                return box
    raise ValueError(f"{module} has no box in the picture of the packages: add it to ROWS of i2i_book.pages.picture")


def _modules(top: Path) -> list[Path]:
    return [path for path in (top / "i2i_book").rglob("*.py") if path.name != "__init__.py"]


def _imported(path: Path) -> set[str]:
    """The modules that a file imports from, by their full names."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def _text(names: list[str]) -> list[str]:
    return wrap(", ".join(names), 44)


def _frame_top(places: dict[str, tuple[int, int, int]]) -> int:
    return min(places[box][1] for box in ROWS[2]) - 30


def _frame(places: dict[str, tuple[int, int, int]], height: int) -> str:
    """The frame around the library."""
    top = _frame_top(places)
    return (
        f'<rect class="frame" x="10" y="{top}" width="{WIDTH - 20}" height="{height - top - 6}" rx="8"/>'
        f'<text class="name" x="24" y="{top + 20}">i2i_lib</text>'
    )


def _arrow(places: dict[str, tuple[int, int, int]], source: str, target: str) -> str:
    """From the bottom of a box to the top of one below it; upwards the other way round."""
    (a, y, tall), (b, to, to_tall) = places[source], places[target]
    if y == to:
        return _line(a + (BOX if a < b else 0), y + tall // 2, b + (0 if a < b else BOX), to + to_tall // 2)
    if to > y:
        return _line(a + BOX // 2, y + tall, b + BOX // 2, to)
    return _line(a + BOX // 2 + 20, y, b + BOX // 2 + 20, to + to_tall)


def _line(x: int, y: int, to_x: int, to_y: int) -> str:
    return f'<path class="arrow" marker-end="url(#code-tip)" d="M{x},{y} L{to_x},{to_y}"/>'


def _drawn(box: str, place: tuple[int, int, int], names: list[str]) -> str:
    left, y, tall = place
    lines = [f'<rect class="box" x="{left}" y="{y}" width="{BOX}" height="{tall}" rx="6"/>']
    lines.append(f'<text class="name" x="{left + 12}" y="{y + LINE + 3}">{box}</text>')
    for number, text in enumerate(_text(names), start=1):
        lines.append(f'<text x="{left + 12}" y="{y + LINE * (number + 1) + 3}">{text}</text>')
    return "".join(lines)
