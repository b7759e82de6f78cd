"""The report on disk: `index.html` for people, `images.csv` with a row a training image, `report.json` for programs."""

import csv
import io
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import memlib
from memlib.audit import page
from memlib.audit.copies import Found
from memlib.audit.data import Findings
from memlib.audit.extraction import Extraction
from memlib.audit.members import Membership
from memlib.audit.verdict import Verdict
from memlib.cache.atomic import replace_file
from memlib.stored import Rows

Pictures = tuple[Rows, Rows, Rows | None]
"""Samples, training images and held-out images, (N, C, H, W) each."""


@dataclass(frozen=True)
class Report:
    """Everything that an audit found. `write` puts it into a folder, `as_dict` is `report.json`."""

    data: Findings
    copies: Found
    members: Membership | None
    extraction: Extraction | None
    verdict: Verdict
    files: list[str]
    provenance: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The report for programs. `copies`, `duplicates`, `blind` and `verdict` keep their form between versions."""
        found, low_high = self.copies, self.copies.copies.interval()
        blind = self.data.blind and _interval("auc", self.data.blind)
        return {
            "verdict": self.verdict.text,
            "remembers": self.verdict.copies,
            "copies": {"k": found.copies.k, "n": found.copies.n, "low": low_high[0], "high": low_high[1]},
            "control": found.control and {"k": found.control.k, "n": found.control.n},
            "duplicates": {"exact": self.data.exact, "near": self.data.near},
            "blind": blind,
            "threshold": {
                "similarity": found.edges.similarity,
                "distance": found.edges.distance,
                "fpr": found.fpr,
                "images": found.calibrated,
                "held_out": found.held_out,
            },
            "measures": {
                name: dict(zip(("value", "low", "high", "baseline"), row, strict=True))
                for name, row in found.measures.items()
            },
            "data": {
                "low": self.data.low,
                "high": self.data.high,
                "clusters": [[self.files[i] for i in cluster] for cluster in self.data.clusters],
                "placeholders": [self.files[i] for i in self.data.placeholders.tolist()],
                "held_out_copies": len(self.data.leaked),
            },
            "membership": self._membership(),
            "extraction": self.extraction and self._extraction(self.extraction),
            "change": self.verdict.change,
            "next": [list(step) for step in self.verdict.next],
            "provenance": self.provenance
            | {"versions": {"memlib": memlib.__version__, "torch": torch.__version__.split("+")[0],
                            "python": platform.python_version()}},
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """A row for each training image, the most copied first.

        `samples` counts the samples that copy the image or one of its own copies; `sample` and `similarity` are those
        of the sample that comes nearest. p is the p-value of membership, where it was judged.
        """
        group, found = self.data.group, self.copies
        hits = torch.bincount(found.nearest[found.copy], minlength=len(group))
        sizes = torch.bincount(group, minlength=len(group))
        best: dict[int, int] = {}
        for number in found.similarity.argsort(descending=True, stable=True).tolist():
            best.setdefault(int(found.nearest[number]), number)
        judged: dict[int, tuple[float, bool]] = {}
        if self.members is not None:
            values = zip(self.members.p.tolist(), self.members.found.tolist(), strict=True)
            judged = dict(zip(self.members.rows.tolist(), values, strict=True))
        rows = []
        for image, first in enumerate(group.tolist()):
            number = best.get(first)
            p, member = judged.get(first, (None, None))
            rows.append({
                "image": self.files[image],
                "copies_in_training": int(sizes[first]),
                "samples": int(hits[first]),
                "sample": number,
                "similarity": None if number is None else round(float(found.similarity[number]), 6),
                "distance": None if number is None else round(float(found.distance[number]), 6),
                "p": p,
                "member": member,
                "number": image,
            })  # fmt: skip
        rows.sort(key=lambda row: (-row["samples"], -(row["similarity"] or -2.0), row["number"]))
        return [{"rank": rank} | row for rank, row in enumerate(rows, 1)]

    def write(self, folder: str | Path, images: Pictures | None = None) -> Path:
        """Write the three files and return the path of `index.html`.

        Arguments:
            folder: is made if it is missing.
            images: samples, training and held-out images (N, C, H, W); None shows none.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows, told = self.rows(), self.as_dict()
        _put(folder / "report.json", json.dumps(told, indent=1) + "\n")
        lines = io.StringIO()
        table = csv.DictWriter(lines, [name for name in rows[0] if name != "number"], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
        _put(folder / "images.csv", lines.getvalue())
        _put(folder / "index.html", page.render(self, told, rows, images))
        return folder / "index.html"

    def _membership(self) -> dict[str, Any] | None:
        if (one := self.members) is None:
            return None
        return {
            "statistic": one.statistic,
            **_interval("auc", one.auc),
            "tpr": {"k": one.tpr.k, "n": one.tpr.n, "fpr": one.fpr},
            "set_p": one.set_p,
            "discoveries": {"k": int(one.found.sum()), "n": len(one.found)},
            "statistics": {
                name: dict(zip(("auc", "low", "high"), row, strict=True)) for name, row in one.table.items()
            },
        }

    @staticmethod
    def _extraction(one: Extraction) -> dict[str, Any]:
        low, high = one.copies.interval()
        more, (least, most) = one.more
        return {
            "k": one.copies.k, "n": one.copies.n, "low": low, "high": high, "distinct": one.distinct,
            "unguided": {"k": one.unguided.k, "n": one.unguided.n, "distinct": one.unguided_distinct},
            "more": {"distinct": more, "low": least, "high": most},
            "weights": list(one.weights), "rates": one.rates, "labels": one.arm,
        }  # fmt: skip


def _interval(name: str, found: tuple[float, tuple[float, float]]) -> dict[str, float]:
    value, (low, high) = found
    return {name: value, "low": low, "high": high}


def _put(path: Path, text: str) -> None:
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf8", newline=""))
