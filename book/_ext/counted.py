"""What was disturbed and what happened, from results/faults.json.

```{faults-summary}
```
```{faults-table}
```
"""

import json
from pathlib import Path

from docutils import nodes
from growth import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

COLUMNS = ("cases", "kills", "recovered", "refused", "lost", "wrong")


def summary(page: dict) -> str:
    """The counts in words, and where they come from."""
    kinds = page["kinds"]
    cases, kills, lost, wrong = (sum(row[name] for row in kinds) for name in ("cases", "kills", "lost", "wrong"))
    bad = "Nothing was lost and nothing was wrong" if not lost + wrong else f"{lost} were lost and {wrong} went wrong"
    minutes = sum(row["seconds"] for row in kinds) / 60
    commits = sorted({(row["commit"] or "unknown")[:12] for row in kinds})
    return (
        f"{cases:,} cases with {kills} kills. {bad}. {len(kinds)} kinds took {minutes:.0f} minutes. Last run on "
        f"{page['date']}, at {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}."
    )


class _Kept(SphinxDirective):
    """A directive on results/faults.json."""

    def page(self) -> dict:
        path = Path(self.env.srcdir) / "results" / "faults.json"
        if not path.is_file():
            raise self.error("results/faults.json does not exist: run python -m faults")
        self.env.note_dependency(str(path))
        return json.loads(path.read_text(encoding="utf8"))


class Summary(_Kept):
    """The counts in words."""

    def run(self) -> list[nodes.Node]:
        return [nodes.paragraph(text=summary(self.page()))]


class Table(_Kept):
    """A row a kind of fault."""

    def run(self) -> list[nodes.Node]:
        body = [[row["kind"], *(f"{row[name]:,}" for name in COLUMNS)] for row in self.page()["kinds"]]
        return [table(["kind", *COLUMNS], body)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two directives."""
    app.add_directive("faults-summary", Summary)
    app.add_directive("faults-table", Table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
