"""The claims ledger, built from what the chapters recorded: a summary and one table a group of claims.

    ```{ledger-summary}
    ```
    ```{ledger} side
    ```
    ```{costs}
    ```

Claims come from `book/claims.yaml`. What was measured comes from the outputs of the notebooks (the scale that this book
was executed at) and from `results/<scale>/<chapter>.json` (runs kept from other scales).
"""

import json
import sys
from collections import Counter
from pathlib import Path

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


class _Table(SphinxDirective):
    """What the directives share: tables of cells, each cell a list of docutils nodes."""

    def text(self, source: str) -> nodes.paragraph:
        """A paragraph of MyST inline text (mathematics, code, roles)."""
        children, messages = self.state.inline_text(" ".join(source.split()), self.lineno)
        return nodes.paragraph("", "", *children, *messages)

    def table(self, widths: list[int], head: list[str], rows: list[list[list[nodes.Node]]], *kind: str) -> nodes.table:
        group = nodes.tgroup("", *[nodes.colspec(colwidth=width) for width in widths], cols=len(widths))
        group += nodes.thead("", self.row([[nodes.paragraph("", title)] for title in head]))
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
        head = ["Chapter", "Claims", *[name.capitalize() for name in (*VERDICTS, NOT_YET)]]
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
        table = self.table([7, 38, 27, 28], ["Id", "Claim", "In the paper", "Here"], rows, "ledger-claims")
        return [self.where(group), table, *[self.printed(claim) for claim in group["claims"] if "table" in claim]]

    def where(self, group: dict) -> nodes.paragraph:
        if "page" in group:
            return self.text(f"Chapter: {{doc}}`{group['title']} </{group['page']}>`.")
        return self.text("The chapter is planned; nothing here has been measured.")

    def claim(self, claim: dict, scales: dict[str, dict]) -> list[list[nodes.Node]]:
        name = nodes.strong("", claim["id"], ids=[f"claim-{claim['id'].lower()}"])
        source = self.text(claim["source"])
        source["classes"].append("ledger-source")
        here = [self.spoken(scale, scales[scale]) for scale in SCALES if scale in scales]
        return [
            [nodes.paragraph("", "", name)],
            [self.text(claim["claim"]), source],
            [self.text(claim.get("paper", "–"))],
            here or [nodes.paragraph("", NOT_YET, classes=["ledger-not-yet"])],
        ]

    def spoken(self, scale: str, record: dict) -> nodes.paragraph:
        """`verdict` at this scale, the figure, and the chapter's sentence."""
        line = nodes.paragraph("", "", classes=["ledger-" + record["verdict"].replace(" ", "-")])
        line += nodes.strong("", record["verdict"])
        line += nodes.Text(f" ({scale}): {measured(record)}")
        if record.get("text"):
            line += nodes.Text(". ")
            line += self.text(record["text"]).children
        return line

    def printed(self, claim: dict) -> nodes.Node:
        """A table of the paper, folded: an admonition that sphinx-togglebutton closes."""
        columns, lines = claim["table"]["columns"], claim["table"]["rows"]
        rows = [
            [[nodes.paragraph("", name)], *[[nodes.paragraph("", str(value))] for value in values]]
            for name, values in lines.items()
        ]
        title = nodes.title("", f"{claim['id']}: the figures of {claim['source']}")
        table = self.table([30, *[12] * len(columns)], ["Model", *columns], rows, "ledger-printed")
        return nodes.admonition("", title, table, classes=["dropdown", "admonition"])


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register `ledger`, `ledger-summary` and `costs`."""
    app.add_directive("ledger", Ledger)
    app.add_directive("costs", Costs)
    app.add_directive("ledger-summary", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
