"""Notebooks of the book: checked parameters, recorded claims, tables, plots and interactive figures.

The second cell of a notebook is `page = chapters.begin("02_side", globals(), study)`. The study then runs with
`page.settings` and `page.run`, and `page.record(study.verdicts(results))` shows and stores its verdicts. torch is
imported inside functions only, because the command line and the ledger read claims without it.
"""

import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from memlib.chapters import claims, parameters
from memlib.chapters.claims import claims_in, kept, kept_results
from memlib.claim import Claim

if TYPE_CHECKING:
    from memlib.run import Run

__all__ = ["Page", "begin", "claims_in", "kept", "kept_results"]


_SOURCES = (  # settings that say which images and models a study works on
    "data", "size", "half", "held_out", "model", "n_train", "beside", "far", "control", "checkpoint", "retain",
    "forget", "proxy",
)  # fmt: skip


@dataclass
class Page:
    """One execution of a chapter: its settings, its run, and the claims and tables recorded so far."""

    chapter: str
    settings: Any
    run: "Run"
    provenance: dict[str, Any]
    claims: dict[str, Claim] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def record(self, found: Sequence[Claim]) -> None:
        """Show verdicts as outputs of the running cell and store them with the run."""
        for claim in found:
            self.claims[claim.id] = claim
            claims.show(claim.record(self.run.scale))
        self._keep()

    def table(self, title: str, rows: Sequence[Sequence[object]], keep: bool = True) -> None:
        """Show a table with a caption, as HTML and as plain text; the first row names the columns.

        With `keep`, the table is stored with the claims of the run, as their evidence.
        """
        text = [[str(cell) for cell in row] for row in rows]
        claims.show_table(title, text)
        if keep:
            self.tables[title] = text
            self._keep()

    def verdicts(self, rows: Mapping[str, tuple[str, str, str]]) -> None:
        """The closing table of a chapter: claim, paper, here, verdict, why.

        `rows` are (paper, here, why) by claim id. The verdict is that of this run. Where it measured nothing, the
        verdict is that of the kept run at `book`, marked as such.
        """
        earlier = (kept(self.chapter, "book") or {"claims": {}})["claims"]
        told = []
        for name, (paper, here, why) in rows.items():
            if name in self.claims:
                verdict = self.claims[name].verdict
            else:
                verdict = f"{earlier[name]['verdict']} (book)" if name in earlier else "not measured in this run"
            told.append([name, paper, here, verdict, why])
        claims.show_table("What came of the claims", [["claim", "paper", "here", "verdict", "why"], *told])

    def _keep(self) -> None:
        seconds = round(time.perf_counter() - self.run.started, 1)
        records = [claim.record(self.run.scale) for claim in self.claims.values()]
        claims.keep(self.chapter, self.run.scale, self.provenance | {"seconds": seconds}, records, self.tables)


def begin(chapter: str, namespace: MutableMapping[str, Any], study: ModuleType) -> Page:
    """Check the parameters of a notebook, derive the study's settings from them, and begin a run.

    Arithmetic becomes repeatable: seeded, one thread, deterministic kernels (`memlib.run.begin`). Settings that differ
    from those of `fast` are printed on one line.

    Arguments:
        chapter: the notebook's name without its suffix.
        namespace: the notebook's `globals()`, with the values and annotations of the parameters cell. Checked values
            are written back.
        study: a module such as `memlib.papers.side.study`, with `SCALES`, the settings of each scale.

    Raises:
        Refused: for an unknown name or scale, a wrong type or value, a scale that needs a GPU where there is none, or
            images and models of the reader's that do not fit the study.
    """
    given = parameters.injected(namespace)
    values = parameters.settle(namespace, given)
    settings = parameters.settings_of(study.SCALES, values, given)

    from memlib import run as runs

    run = runs.begin(chapter, values.get("scale", "fast"), values.get("seed", 0))
    if dtype := getattr(settings, "dtype", None):
        import torch

        torch.set_default_dtype(getattr(torch, dtype))
    _check_sources(study, settings, run)
    plain, usual = parameters.as_dict(settings), parameters.as_dict(study.SCALES["fast"])
    changes = [f"{name} = {value!r}" for name, value in plain.items() if value != usual[name]]
    if "seed" in given:
        changes.insert(0, f"seed = {run.seed}")
    if changes or run.scale != "fast":
        print(f"scale {run.scale}" + (f": {', '.join(changes)}" if changes else ""))
    namespace.update({name: value for name, value in plain.items() if name in values})
    return Page(chapter, settings, run, claims.provenance(run.device, {"seed": run.seed} | plain))


def _check_sources(study: ModuleType, settings: Any, run: "Run") -> None:
    """Let the study refuse images that a reader gave now, and not after the first cells have trained something."""
    usual = study.SCALES[run.scale]
    changed = [name for name in _SOURCES if getattr(settings, name, None) != getattr(usual, name, None)]
    if changed and hasattr(study, "check_sources"):
        import torch

        with torch.random.fork_rng():  # the draws of the cells stay what they are
            study.check_sources(settings, run)
