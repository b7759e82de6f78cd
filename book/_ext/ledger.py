"""The claims ledger, built from what the chapters recorded: a summary and one table a group of claims.

    ```{ledger-summary}
    ```
    ```{ledger} side
    ```
    ```{costs}
    ```

Claims come from `book/claims.yaml`. What was measured comes from the outputs of the notebooks (the scale that this book
was executed at) and from `results/<scale>/<chapter>.json` (runs kept from other scales). A row says at a glance what
was claimed and what came of it at the largest scale; what the paper prints and what other scales said is folded.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

# Where jupyter-book is installed and memlib is not, it is that of the clone around this file.
sys.path.extend(str(folder) for folder in Path(__file__).resolve().parents if (folder / "memlib").is_dir())

from memlib.chapters.claims import claims_in, measured  # noqa: E402 (light: none of this imports torch)
from memlib.claim import VERDICTS  # noqa: E402
from memlib.settings import SCALES  # noqa: E402

NOT_YET = "not yet"
# Shape beside the word, so that a column of verdicts is read at a glance and without colour.
SYMBOLS = {"reproduced": "✓", "trend only": "≈", "not reproduced": "✗", "needs data or scale": "?", NOT_YET: "○"}
FEW = 6  # a record of more figures than this is folded: a row should fit a phone's screen

log = logging.getLogger(__name__)


def groups(root: Path) -> list[dict]:
    """The groups of claims in `book/claims.yaml`, in their order."""
    return yaml.safe_load((root / "book" / "claims.yaml").read_text(encoding="utf8"))["chapters"]


def records(root: Path) -> dict[str, dict[str, dict]]:
    """Every record as {claim id: {scale: record}}; a notebook's own outputs win over a kept run of the same scale."""
    found: dict[str, dict[str, dict]] = {}
    for scale in SCALES:
        for kept in sorted((root / "results" / scale).glob("*.json")):
            for record in json.loads(kept.read_text(encoding="utf8"))["claims"]:
                found.setdefault(record["id"], {})[scale] = record
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        for record in claims_in(notebook):
            found.setdefault(record["id"], {})[record["scale"]] = record
    return found


def problems(claims: list[dict], found: dict[str, dict[str, dict]]) -> list[str]:
    """What is wrong with the records, a sentence each: an unknown claim, scale or verdict."""
    known = {claim["id"] for claim in claims}
    wrong = [f"claim {name} is recorded but not listed in book/claims.yaml" for name in found if name not in known]
    for name, scales in found.items():
        for scale, record in scales.items():
            if scale not in SCALES:
                wrong.append(f"claim {name} has the unknown scale {scale!r}")
            if record["verdict"] not in VERDICTS:
                wrong.append(f"claim {name} has the unknown verdict {record['verdict']!r}")
    return wrong


def verdict(scales: dict[str, dict]) -> str:
    """The verdict of the largest scale that spoke."""
    spoke = [scales[scale]["verdict"] for scale in SCALES if scale in scales]
    return spoke[-1] if spoke else NOT_YET


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shown(value: Any) -> str:
    """A figure as the notebooks print it; the two of a pair are set apart by a stroke."""
    if isinstance(value, list):
        return " / ".join(map(shown, value))
    return measured({"figure": value, "interval": None, "n": None})


def small(record: dict) -> str:
    """What stands behind a figure: `n = 2,000, scale book`."""
    scale = f"scale {record['scale']}"
    return scale if record["n"] is None else f"n = {record['n']:,}, {scale}"


class details(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """Something folded: HTML's own element, which needs no script; its first child is the summary."""


class summary(nodes.General, nodes.TextElement):  # noqa: N801
    """The line of a `details` that stays in sight."""


def folded(title: list[nodes.Node], *content: nodes.Node, kind: str = "ledger-folded") -> details:
    """`content` below a summary that opens it."""
    return details("", summary("", "", *title), *content, classes=[kind])


def judged(word: str) -> list[nodes.Node]:
    """A verdict: its symbol, which a screen reader passes over, and its word."""
    symbol = f'<span class="ledger-symbol" aria-hidden="true">{SYMBOLS.get(word, "•")}</span> '
    return [nodes.raw("", symbol, format="html"), nodes.inline("", word, classes=["ledger-word"])]


class _Table(SphinxDirective):
    """What the directives share: tables of cells, each cell a list of docutils nodes."""

    def text(self, source: str) -> nodes.paragraph:
        """A paragraph of MyST inline text (mathematics, code, roles)."""
        children, messages = self.state.inline_text(" ".join(source.split()), self.lineno)
        return nodes.paragraph("", "", *children, *messages)

    def table(
        self, widths: list[int], head: list[str | list[nodes.Node]], rows: list[list[list[nodes.Node]]], *kind: str
    ) -> nodes.table:
        group = nodes.tgroup("", *[nodes.colspec(colwidth=width) for width in widths], cols=len(widths))
        titles = [[nodes.Text(title)] if isinstance(title, str) else title for title in head]
        group += nodes.thead("", self.row([[nodes.paragraph("", "", *title)] for title in titles]))
        group += nodes.tbody("", *[self.row(cells) for cells in rows])
        return nodes.table("", group, classes=["ledger", "colwidths-given", *kind])

    @staticmethod
    def row(cells: list[list[nodes.Node]]) -> nodes.row:
        return nodes.row("", *[nodes.entry("", *cell) for cell in cells])

    def chapter(self, group: dict) -> nodes.paragraph:
        """The title of a group's chapter, linked where the chapter stands."""
        return self.text(f"{{doc}}`{group['title']} </{group['page']}>`" if "page" in group else group["title"])

    def load(self) -> tuple[list[dict], dict[str, dict[str, dict]]]:
        """Groups and records; the page is read again at every build, since a run changes notebooks, not this page."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / "book" / "claims.yaml"))
        self.env.note_reread()
        return groups(root), records(root)


class Summary(_Table):
    """One row a group: how many claims, and how many of each verdict (at the largest scale that spoke)."""

    def run(self) -> list[nodes.Node]:
        all_groups, found = self.load()
        for problem in problems([claim for group in all_groups for claim in group["claims"]], found):
            log.warning(problem, location=self.get_location())
        rows, total = [], Counter()
        for group in all_groups:
            count = Counter(verdict(found.get(claim["id"], {})) for claim in group["claims"])
            total += count
            rows.append(self.counts(self.chapter(group), count))
        rows.append(self.counts(nodes.paragraph("", "", nodes.strong("", "All")), total))
        head = ["Chapter", "Claims", *[judged(name) for name in (*VERDICTS, NOT_YET)]]
        return [self.table([30, 10, 12, 12, 12, 12, 12], head, rows, "ledger-summary")]

    @staticmethod
    def counts(title: nodes.paragraph, count: Counter) -> list[list[nodes.Node]]:
        numbers = [count.total(), *[count[name] for name in (*VERDICTS, NOT_YET)]]
        return [[title], *[[nodes.paragraph("", str(n) if n else "–")] for n in numbers]]


class Ledger(_Table):
    """The claims of one group: a row each, then the paper's longer tables, folded."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        all_groups, found = self.load()
        group = next((group for group in all_groups if group["id"] == self.arguments[0]), None)
        if group is None:
            raise self.error(f"no group {self.arguments[0]!r} in book/claims.yaml")
        rows = [self.claim(claim, found.get(claim["id"], {})) for claim in group["claims"]]
        table = self.table([7, 36, 20, 37], ["Id", "Claim", "Verdict", "Measured here"], rows, "ledger-claims")
        return [self.where(group), table, *[self.printed(claim) for claim in group["claims"] if "table" in claim]]

    def where(self, group: dict) -> nodes.paragraph:
        if "page" in group:
            return self.text(f"Chapter: {{doc}}`{group['title']} </{group['page']}>`.")
        return self.text("The chapter is planned; nothing here has been measured.")

    def claim(self, claim: dict, scales: dict[str, dict]) -> list[list[nodes.Node]]:
        """The cells of a row; the largest scale speaks, the others are folded below it."""
        name = nodes.strong("", claim["id"], ids=[f"claim-{claim['id'].lower()}"])
        word = verdict(scales)
        largest, *others = [scales[scale] for scale in reversed(SCALES) if scale in scales] or [None]
        here = self.spoken(largest) if largest else []
        for record in others:
            title = [nodes.Text(f"scale {record['scale']}: "), *judged(record["verdict"])]
            here.append(folded(title, *self.spoken(record)))
        return [
            [nodes.paragraph("", "", name)],
            [self.text(claim["claim"]), self.source(claim)],
            [nodes.paragraph("", "", *judged(word), classes=["ledger-verdict", f"ledger-{word.replace(' ', '-')}"])],
            here,
        ]

    def source(self, claim: dict) -> nodes.Node:
        """Where the paper says so; what it prints there is folded below."""
        source = self.text(claim["source"])
        if "paper" in claim:
            return folded(source.children, self.text(claim["paper"]))
        source["classes"].append("ledger-small")
        return source

    def spoken(self, record: dict) -> list[nodes.Node]:
        """What was measured, in words; the figure with its interval, its unit where the record has one; n and scale."""
        text = record.get("text", "")
        words = [self.text(text[0].upper() + text[1:])] if text else []
        last = nodes.paragraph("", small(record), classes=["ledger-small"])
        return [*words, *self.figures(record), last]

    def figures(self, record: dict) -> list[nodes.Node]:
        """One figure, or named ones set apart from the interval, which need not be that of the last."""
        figure, unit = record["figure"], f" {record['unit']}" if record.get("unit") else ""
        interval = record["interval"] and f"[{shown(record['interval'])}]{unit}".replace(" / ", ", ")
        if not isinstance(figure, dict):
            value = nodes.strong("", shown(figure).replace(" / ", ", "))
            rest = [nodes.Text(" "), self.whole(nodes.Text(interval))] if interval else [nodes.Text(unit)]
            return [nodes.paragraph("", "", value, *rest, classes=["ledger-figures"])]
        line = nodes.paragraph("", "", classes=["ledger-figures"])
        for number, (name, value) in enumerate(figure.items(), 1):
            comma = [nodes.Text(",")] if number < len(figure) else []
            line += [
                self.whole(nodes.Text(f"{name}: "), nodes.strong("", shown(value) + unit), *comma),
                nodes.Text(" "),
            ]
        ends = self.whole(nodes.Text(f"interval {interval}"))
        if len(figure) > FEW:
            whole = [nodes.paragraph("", "", ends, classes=["ledger-figures"])] if interval else []
            return [folded([nodes.Text(f"{len(figure)} figures")], line), *whole]
        if interval:
            line += ends
        return [line]

    @staticmethod
    def whole(*parts: nodes.Node) -> nodes.inline:
        """A name with its value, or the two ends of an interval: one line, where a line has room for it."""
        return nodes.inline("", "", *parts, classes=["ledger-whole"])

    def printed(self, claim: dict) -> nodes.Node:
        """A table of the paper, folded."""
        columns, lines = claim["table"]["columns"], claim["table"]["rows"]
        rows = [
            [[nodes.paragraph("", name)], *[[nodes.paragraph("", str(value))] for value in values]]
            for name, values in lines.items()
        ]
        table = self.table([30, *[12] * len(columns)], ["Model", *columns], rows, "ledger-printed")
        title = self.text(f"{claim['id']}: the figures of {claim['source']}").children
        return folded(title, table, kind="ledger-paper")


class Costs(_Table):
    """One row a chapter that stands, one column a scale: time and device of the run that is kept in `results/`."""

    def run(self) -> list[nodes.Node]:
        all_groups, _ = self.load()
        standing = [group for group in all_groups if "page" in group]
        rows = [[[self.chapter(group)], *[[self.cost(group, scale)] for scale in SCALES]] for group in standing]
        return [self.table([32, 17, 17, 17, 17], ["Chapter", *SCALES], rows, "ledger-costs")]

    def cost(self, group: dict, scale: str) -> nodes.paragraph:
        kept = Path(self.env.srcdir, "results", scale, Path(group["page"]).name).with_suffix(".json")
        if not kept.exists():
            return nodes.paragraph("", "not run")
        provenance = json.loads(kept.read_text(encoding="utf8"))["provenance"]
        return nodes.paragraph("", f"{duration(provenance['seconds'])}, {provenance['device']}")


def _open(translator: Any, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, type(node).__name__, ""))


def _close(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f"</{type(node).__name__}>\n")


def _plain(translator: Any, node: nodes.Element) -> None:
    """Not in HTML nothing folds: the content stands as it is."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register `ledger`, `ledger-summary` and `costs`."""
    for node in (details, summary):
        app.add_node(node, html=(_open, _close), latex=(_plain, _plain), text=(_plain, _plain))
    app.add_directive("ledger", Ledger)
    app.add_directive("costs", Costs)
    app.add_directive("ledger-summary", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
