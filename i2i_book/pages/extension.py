"""The book's own directives, as an extension of Sphinx: `_config.yml` names it."""

from sphinx.application import Sphinx

from i2i_book.pages import alike, excerpt, method, search


def setup(app: Sphinx) -> dict[str, bool]:
    """Register them; Sphinx calls this."""
    app.add_directive("method-map", method.MethodMap)
    app.add_node(method.method_map, html=(method.visit, None))
    app.add_directive("excerpt", excerpt.Excerpt)
    app.add_node(excerpt.excerpt_code, html=(excerpt.visit, None))
    app.add_directive("budget-search", search.Search)
    app.add_node(search.search, html=(search.visit, None))
    app.add_directive("look-inside", alike.LookInside)
    app.add_node(alike.look_inside, html=(alike.visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
