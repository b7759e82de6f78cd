"""What each study would cost at the scale of its paper, computed as the book is built.

```{cost-table}
```
"""

from docutils import nodes
from growth import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DEVICES = 8


class Cost(SphinxDirective):
    """A row a stage: operations, hours on so many devices, and disk."""

    def run(self) -> list[nodes.Node]:
        from memlib.papers import studies

        body = []
        for name, study in studies().items():
            if "paper" not in study.SCALES or not hasattr(study, "work"):
                continue
            for stage in study.work(study.SCALES["paper"]):
                hours, gigabytes = stage.hours(DEVICES), stage.disk / 1e9
                row = [f"{stage.operations:.2g}", f"{hours:.2g}", f"{gigabytes:,.0f}"]
                body.append([name, stage.stage, *row])
        head = ["study", "stage", "operations", f"hours on {DEVICES} devices", "GB on disk"]
        return [table(head, body)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("cost-table", Cost)
    return {"parallel_read_safe": True}
