"""How cost grows and how speed compares, drawn from results/growth.json and results/benchmarks-cpu.json.

```{growth-figure}
```
```{growth-table}
```
```{benchmark-table}
```
"""

import io
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MILLION = 1_000_000
INK = "#010203"  # drawn in this colour, which then becomes that of the page's text
COLUMNS = 3  # panels side by side


def million(row: dict) -> float:
    """Seconds for a million, carried on from the largest size by the slope that was measured."""
    return row["seconds"][-1] * (MILLION / row["sizes"][-1]) ** row["exponent"]


def duration(seconds: float) -> str:
    """Seconds in words of one unit."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1.5 else f"{seconds:.2g} s"


def figure(rows: list[dict]) -> str:
    """Seconds against size on logarithmic axes, a panel a path, as one SVG in the colours of the page."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with plt.rc_context(style | {"svg.fonttype": "none", "font.size": 8, "svg.hashsalt": "growth"}):
        height = -(-len(rows) // COLUMNS)
        drawn, axes = plt.subplots(height, COLUMNS, figsize=(7.2, 1.55 * height), layout="constrained")
        for axis in axes.flat[len(rows) :]:
            axis.remove()
        for axis, row in zip(axes.flat, rows, strict=False):
            sizes, seconds = row["sizes"], row["seconds"]
            line = [seconds[-1] * (size / sizes[-1]) ** row["expected"] for size in sizes]
            axis.loglog(sizes, line, color="#9a9a9a", lw=1, ls="--")
            axis.loglog(sizes, seconds, "o-", color="#0072b2", ms=3.5, lw=1.2)
            axis.set_title(row["path"], fontsize=8)
            axis.set_xlabel(row["counted"], labelpad=0)
            axis.set_ylabel("s", labelpad=0)
            axis.minorticks_off()
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=6)
            axis.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(drawn)
    svg = re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL).replace(INK, "currentColor")
    told = f"{len(rows)} panels of seconds against size on logarithmic axes; the table below has the numbers."
    return svg.replace("<svg ", f'<svg role="img" aria-label="{told}" style="max-width:100%;height:auto" ', 1)


class _Kept(SphinxDirective):
    """A directive on the rows of one file of `results`."""

    file = ""

    def rows(self) -> list[dict]:
        path = Path(self.env.srcdir) / self.file
        if not path.is_file():
            raise self.error(f"{self.file} does not exist: run python -m benchmarks")
        self.env.note_dependency(str(path))
        return json.loads(path.read_text(encoding="utf8"))


class Figure(_Kept):
    """The panels."""

    file = "results/growth.json"

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", figure(self.rows()), format="html")]


class Growth(_Kept):
    """A row a path: the slopes, the largest size that was run, and what a million would take."""

    file = "results/growth.json"

    def run(self) -> list[nodes.Node]:
        head = ["path", "counted", "slope of time", "expected", "slope of memory", "largest run", "a million"]
        body = [
            [
                row["path"], row["counted"], f"{row['exponent']:.2f}", f"{row['expected']:g}",
                f"{row['memory_exponent']:.2f}",
                f"{row['sizes'][-1]:,}: {duration(row['seconds'][-1])}, {row['peak_mb'][-1]:.0f} MB",
                duration(million(row)) if row["counted"] in ("N", "N = M", "points") else "",
            ]
            for row in self.rows()
        ]  # fmt: skip
        return [table(head, body)]


class Benchmarks(_Kept):
    """A row a path and peer: how many times faster, what was wanted, and what no such path can do without over ours."""

    file = "results/benchmarks-cpu.json"

    def run(self) -> list[nodes.Node]:
        body = [
            [
                row["path"], row["peer"], row["size"], f"{row['ratio']:.2f}", f"{row['target']:g}",
                f"{row['of_limit']:.2g}" if "of_limit" in row else "", row["reason"],
            ]
            for row in self.rows()
            if "skipped" not in row
        ]  # fmt: skip
        return [table(["path", "peer", "size", "times faster", "wanted", "of the limit", "why"], body)]


def table(head: list[str], body: list[list[str]]) -> nodes.Node:
    """A plain table."""
    group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in head], cols=len(head))
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *map(_row, body))
    return nodes.table("", group)


def _row(cells: list[str]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph(text=cell)) for cell in cells])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the three directives."""
    for name, directive in (("growth-figure", Figure), ("growth-table", Growth), ("benchmark-table", Benchmarks)):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
