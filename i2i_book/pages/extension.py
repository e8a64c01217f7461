"""The book's own directives, as an extension of Sphinx: `_config.yml` names it."""

from sphinx.application import Sphinx

from i2i_book.pages import method


def setup(app: Sphinx) -> dict[str, bool]:
    """Register them; Sphinx calls this."""
    app.add_directive("method-map", method.MethodMap)
    app.add_node(method.method_map, html=(method.visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
