"""The study of chapter 2: does guidance with a classifier of its own making get more training images out of a model?"""

from memlib.papers.side.study._pictures import pictures
from memlib.papers.side.study._tables import of_arms_table, of_paper, of_planted, of_sizes, tables
from memlib.papers.side.study.experiment import check_sources, run
from memlib.papers.side.study.results import Results
from memlib.papers.side.study.rules import verdicts
from memlib.papers.side.study.settings import SCALES, Settings
from memlib.papers.side.study.work import work

CHAPTER = "02_side"

GROUPS: dict[str, tuple[str, ...]] = {
    "thresholds": ("S6",),
    "weights": ("S2", "S7"),
    "labels": ("S5",),
    "arms": ("S1", "S1a", "S3", "S3a", "S3b", "S4"),
    "second": ("S1b",),
    "theory": ("G3",),
    "model": (),
    "seconds": (),
    "training": ("S8",),
}

__all__ = [
    "CHAPTER",
    "GROUPS",
    "SCALES",
    "Results",
    "Settings",
    "check_sources",
    "of_arms_table",
    "of_paper",
    "of_planted",
    "of_sizes",
    "pictures",
    "run",
    "tables",
    "verdicts",
    "work",
]
