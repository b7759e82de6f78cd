"""The study of chapter 7: models are attacked, unlearn what was found, and are attacked again.

`world` deals the images, `rounds` trains and attacks, `measures` says what is asked, `rules` when a claim counts as
reproduced.
"""

from memlib.papers.loop.study._tables import tables, told
from memlib.papers.loop.study.experiment import GROUPS, check_sources, run
from memlib.papers.loop.study.results import Results, by_pair
from memlib.papers.loop.study.rules import verdicts
from memlib.papers.loop.study.settings import SCALES, Settings

CHAPTER = "07_closed_loop"

__all__ = [
    "CHAPTER",
    "GROUPS",
    "SCALES",
    "Results",
    "Settings",
    "by_pair",
    "check_sources",
    "run",
    "tables",
    "told",
    "verdicts",
]
