"""The study of chapter 6: what a synthetic set, and a classifier trained on it, give away about the real one.

`settings` says what it is run with, `rules` when a claim counts as reproduced. `pipelines` has what is trained,
`experiment` what depends on what, and `gathered` puts the groups of claims together.
"""

from memlib.papers.synthesis.study._tables import tables, threats_title
from memlib.papers.synthesis.study.experiment import GROUPS, check_sources, run
from memlib.papers.synthesis.study.results import Results
from memlib.papers.synthesis.study.rules import verdicts
from memlib.papers.synthesis.study.settings import SCALES, Settings
from memlib.papers.synthesis.study.words import sentences

CHAPTER = "06_synthesis"

__all__ = [
    "CHAPTER",
    "GROUPS",
    "SCALES",
    "Results",
    "Settings",
    "check_sources",
    "run",
    "sentences",
    "tables",
    "threats_title",
    "verdicts",
]
