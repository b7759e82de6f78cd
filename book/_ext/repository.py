"""Buttons that lead to the repository, and that open a chapter on Binder or Colab, once `[project.urls]` names it.

pyproject.toml holds the address, as `Repository`. Without one the book has no such buttons.
"""

import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config


def address() -> str:
    """The repository's address, or an empty text."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").exists():
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))["project"]
            return project.get("urls", {}).get("Repository", "")
    return ""


def options(url: str) -> dict[str, Any]:
    """The theme's options for a repository at `url`; none for an empty text."""
    if not url:
        return {}
    buttons = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if url.startswith("https://github.com/"):  # Colab opens notebooks of no other place
        buttons["colab_url"] = "https://colab.research.google.com"
    return {
        "repository_url": url,
        "repository_branch": "main",
        "path_to_docs": ".",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": buttons,
    }


def with_buttons(app: Sphinx, config: Config) -> None:
    """Add the options to those of _config.yml."""
    config.html_theme_options.update(options(address()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before the theme reads its options."""
    app.connect("config-inited", with_buttons, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
