"""The figure in which a reader points at a position, and sees which others look alike to teacher and student."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from i2i_book.presets import MAIN_TASK


class look_inside(nodes.General, nodes.Element):
    """The place of the figure: its addresses depend on the page."""


class LookInside(SphinxDirective):
    """Show which positions of a test picture look alike to the page's teacher and student."""

    def run(self) -> list[nodes.Node]:
        return [look_inside()]


def visit(translator: Any, node: look_inside) -> None:
    """Write the HTML of a `look_inside`; nothing where the book has no features of the page's task."""
    builder = translator.builder
    docname = builder.current_docname
    task = docname.split("/")[1] if docname.startswith("tasks/") else MAIN_TASK
    features = Path(builder.srcdir) / "static" / "models" / task / "alike.js"
    if features.exists():
        megabytes = features.stat().st_size / 1e6
        top = "../" * docname.count("/")
        translator.body.append(
            f'<section class="alike" aria-label="What looks alike" data-models="{top}_static/models/{task}/"'
            f' data-megabytes="{megabytes:.1f}">'
            "<noscript><p>This figure needs JavaScript, which this browser has switched off.</p></noscript>"
            f'</section><script defer src="{top}_static/alike/alike.js"></script>'
        )
    raise nodes.SkipNode
