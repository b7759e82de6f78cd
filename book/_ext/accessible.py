"""What myst-nb and the theme leave to be wished for who listens to a page instead of seeing it."""

from typing import Any

from sphinx.application import Sphinx

_LABEL = ' aria-label="Toggle hidden content"'


def named_by_its_text(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """A folded cell is called what it says, "Show code cell source": its label says something else and goes."""
    if "body" in context:
        context["body"] = context["body"].replace(_LABEL, "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Change the page after it is written and before the template takes it."""
    app.connect("html-page-context", named_by_its_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
