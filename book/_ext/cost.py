"""What each study would cost at the scale of its paper, computed as the book is built.

```{cost-table}
```
"""

import json
from pathlib import Path

from docutils import nodes
from growth import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DEVICES = 8
HEAD = ["study", "stage", "operations", f"hours on {DEVICES} devices", "GB on disk", "hours at the pace of the CPU"]


def body(root: Path) -> list[list[str]]:
    """A row for each stage of each study, then one for all of them; a sentence where a study has no such scale.

    The pace of the CPU is that of the kept run at `book`: its seconds over its operations.
    """
    from memlib.cost import Work
    from memlib.papers import studies

    found = []
    for name, study in studies().items():
        if "paper" not in study.SCALES:
            found.append([name, "has no scale paper: the largest is gpu", "", "", "", ""])
            continue
        stages = study.work(study.SCALES["paper"])
        every = Work("all", sum(one.operations for one in stages), sum(one.disk for one in stages))
        kept = json.loads((root / "results" / "book" / f"{study.CHAPTER}.json").read_text(encoding="utf8"))
        pace = sum(one.operations for one in study.work(study.SCALES["book"])) / kept["provenance"]["seconds"]
        for one in [*stages, every]:
            hours = _few(every.hours(rate=pace)) if one is every else ""
            row = [f"{one.operations:.1e}", _few(one.hours(DEVICES)), _few(one.disk / 1e9), hours]
            found.append([name, one.stage, *row])
    return found


def _few(number: float) -> str:
    """Two digits; less than a tenth is not told apart."""
    return "< 0.1" if number < 0.1 else f"{number:.2g}" if number < 100 else f"{float(f'{number:.2g}'):,.0f}"


class Cost(SphinxDirective):
    """The table."""

    def run(self) -> list[nodes.Node]:
        return [table(HEAD, body(Path(self.env.srcdir)))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("cost-table", Cost)
    return {"parallel_read_safe": True}
