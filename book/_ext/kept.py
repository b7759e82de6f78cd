"""Numbers of kept runs in running text: {kept}`S1 figure OL-TD %` is read from `results/book`, never typed.

    {kept}`G6 figure %`          the figure, as a percentage
    {kept}`S1 figure OL-TD %`    one of several figures by its name
    {kept}`S1 interval %`        both ends of the interval
    {kept}`S1 n`                 how many independent units, or samples, stand behind it
    {kept}`S1 verdict`           the verdict
    {kept}`S1 scale`             the scale of the run

A record without what is asked for is a warning, and the tests build the book with warnings as errors.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

SCALE = "book"


def record(root: Path, claim: str) -> dict[str, Any]:
    """The record of a claim in `results/book`.

    Raises:
        KeyError: if no kept run decides the claim.
    """
    for path in sorted((root / "results" / SCALE).glob("*.json")):
        for found in json.loads(path.read_text(encoding="utf8"))["claims"]:
            if found["id"] == claim:
                return found
    raise KeyError(f"no run kept at {SCALE} decides claim {claim}")


def told(root: Path, request: str) -> str:
    """The text of a request such as `S1 figure OL-TD %`.

    Raises:
        KeyError: if the record, the field or the figure is missing.
    """
    claim, field, *rest = request.split()
    found = record(root, claim)
    percent = bool(rest) and rest[-1] == "%"
    name = " ".join(rest[: len(rest) - percent])
    value = found[field]
    if name:
        if not isinstance(value, dict) or name not in value:
            raise KeyError(
                f"claim {claim} has no figure {name!r}, only {list(value) if isinstance(value, dict) else value}"
            )
        value = value[name]
    if value is None or isinstance(value, dict):
        raise KeyError(f"claim {claim} has no single {field}: name one of {list(value or [])}")
    if isinstance(value, list):
        low, high = (number(end, percent) for end in value)
        return f"{low} to {high}" + (" %" if percent else "")
    return value if isinstance(value, str) else number(value, percent) + (" %" if percent else "")


def number(value: float, percent: bool) -> str:
    """Three digits that count, with a true minus sign; whole numbers with commas."""
    value = 100 * value if percent else value
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


class Kept(SphinxRole):
    """A number from a kept run."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        root = Path(self.env.srcdir)
        for path in (root / "results" / SCALE).glob("*.json"):
            self.env.note_dependency(str(path))
        try:
            return [nodes.Text(told(root, self.text))], []
        except (KeyError, ValueError) as error:
            message = self.inliner.reporter.warning(f"kept `{self.text}`: {error}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role."""
    app.add_role("kept", Kept())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
