"""The playground in a page of the book: its markup, and its scripts on the pages that hold it and on no other.

    ```{playground}
    ```
    ```{playground}
    :hero:
    ```

The two powers that tie the width of a point to a learning rate come from the kept record of claim L6.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from kept import record
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# In the order in which they are loaded: each uses what stands before it.
FORMULAS = ["points", "digits", "denoiser", "unlearn", "samples", "counts", "likelihood", "steps", "scenes"]
SCRIPTS = [*FORMULAS, "draw", "hand", "page"]


def powers(root: Path) -> list[float]:
    """How the learnt slope's roughness goes with the rate, and that of the exact score with sigma.

    Raises:
        KeyError: if the record of L6 has no such figures.
    """
    figures = record(root, "L6")["figure"]
    return [
        next(value for name, value in figures.items() if name.startswith(start))
        for start in ("roughness ~ eta^", "roughness of s*")
    ]


class Playground(SphinxDirective):
    """The markup of `book/_static/playground/playground.html`; with `:hero:` the small one of the first page."""

    option_spec = {"hero": directives.flag}

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        source = root / "book" / "_static" / "playground" / "playground.html"
        self.env.note_dependency(str(source))
        hero = " data-hero" if "hero" in self.options else ""
        chosen = f'data-powers="{" ".join(map(str, powers(root)))}"{hero}'
        markup = source.read_text(encoding="utf8").replace('class="pg"', f'class="pg" {chosen}', 1)
        self.env.metadata[self.env.docname]["playground"] = "yes"
        # In a container, because labels before the directive need an element that takes their names.
        return [nodes.container("", nodes.raw("", markup, format="html", playground="yes"))]


def on_paper(app: Sphinx, tree: nodes.document, page: str) -> None:
    """A single page to print has no use for sliders: it says where the playground is."""
    if app.builder.name in ("html", "dirhtml"):
        return
    for node in [raw for raw in tree.findall(nodes.raw) if "playground" in raw]:
        node.replace_self(
            nodes.paragraph("", "(Here the pages on the screen have a playground, which does not print.)")
        )


def with_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load the scripts and the style where a page has the directive."""
    if "playground" not in (app.env.metadata.get(page) or {}):
        return
    app.add_css_file("playground/playground.css")
    for name in SCRIPTS:
        app.add_js_file(f"playground/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("playground", Playground)
    app.connect("doctree-resolved", on_paper)
    app.connect("html-page-context", with_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
