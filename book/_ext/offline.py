"""Serve MathJax and the widget manager from the book itself, where `node book/vendor.mjs` has copied them.

Without the copies the pages keep the CDN addresses of Sphinx and myst-nb, which is said once and is no warning: a
machine without npm builds the same book, and needs a network to read its mathematics.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

log = logging.getLogger(__name__)


def serve_locally(app: Sphinx, config: Config) -> None:
    """Point Sphinx and myst-nb at the copies; the order of the scripts matters."""
    vendor = Path(app.srcdir) / "book" / "_static" / "vendor"
    if not (vendor / "versions.json").exists():
        log.info("offline: no local MathJax (run `node book/vendor.mjs`); the pages load it from a CDN")
        return
    config.mathjax_path = "vendor/mathjax/tex-mml-chtml.js"
    config.nb_ipywidgets_js = {
        "vendor/require.js": {},
        "widgets-local.js": {},  # between the two: it configures the first before the second runs
        "vendor/@jupyter-widgets/html-manager/dist/embed-amd.js": {"data-jupyter-widgets-cdn": "vendor-missing/"},
    }
    log.info("offline: MathJax and the widget manager are served from the book itself")


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before mathjax and myst-nb read their settings."""
    app.connect("config-inited", serve_locally, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
