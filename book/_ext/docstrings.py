"""The API reference: autodoc over the library's docstrings, which are plain text and not reStructuredText.

    ```{eval-rst}
    .. automodule:: memlib.noise
       :members:
    ```

`(B, *S)`, `|x|^2` and `name` in single backticks mean what they show: here they are escaped before Sphinx reads them.
Sections such as `Arguments:` are napoleon's.
"""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# Where jupyter-book is installed and memlib is not, the clone around this file has it.
sys.path.extend(str(folder) for folder in Path(__file__).resolve().parents if (folder / "memlib").is_dir())

_LITERAL = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"([\\*|]|_(?=\W|$))")


def as_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: names in literals, code blocks kept, all else taken as it stands."""
    result: list[str] = []
    code = False
    for place, line in enumerate(lines):
        indented, before = line.startswith("    "), lines[place - 1] if place else ""
        if indented and not before.strip() and not code and _paragraph_above(lines, place):
            result += ["::", ""]
            code = True
        elif line.strip() and not indented:
            code = False
        result.append(line if code else _escaped(line))
    return result


def _paragraph_above(lines: list[str], place: int) -> bool:
    """Whether the text above a blank line is an unindented paragraph, so that an indented block is code."""
    above = [line for line in lines[:place] if line.strip()]
    return bool(above) and not above[-1].startswith(" ")


def _escaped(line: str) -> str:
    parts = _LITERAL.split(line)
    return "".join(f"`{part}`" if place % 2 else _SPECIAL.sub(r"\\\1", part) for place, part in enumerate(parts))


def _process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register autodoc and napoleon, and escape docstrings before napoleon reads them."""
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.napoleon"):
        app.setup_extension(extension)
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
