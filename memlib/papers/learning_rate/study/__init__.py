"""The learning-rate study: what a large step keeps a score network from remembering.

Two-layer networks on a line, hundreds at once, decide L1, L2, L3, L5 and L6; with a free first layer, in d dimensions,
L4; deeper networks on digits L7. `settings` says what is run, `experiment` runs it, `results` holds what was measured,
`measures` reads it, and the rules decide.
"""

from memlib.claim import Claim
from memlib.papers.learning_rate.study import digits_rules, rules
from memlib.papers.learning_rate.study._tables import tables
from memlib.papers.learning_rate.study.costs import work
from memlib.papers.learning_rate.study.experiment import GROUPS, run
from memlib.papers.learning_rate.study.results import Results
from memlib.papers.learning_rate.study.settings import SCALES, Settings
from memlib.papers.learning_rate.study.words import sentences

CHAPTER = "05_learning_rate"

__all__ = ["CHAPTER", "GROUPS", "SCALES", "Results", "Settings", "run", "sentences", "tables", "verdicts", "work"]

_RULES = {
    "memory": (rules.l1,),
    "theorem": (rules.l2,),
    "edge": (rules.l3, rules.l3b),
    "dimensions": (rules.l4,),
    "gaps": (rules.l5,),
    "smoothness": (rules.l6,),
    "digits": (digits_rules.l7, digits_rules.l7b),
}


def verdicts(results: Results) -> list[Claim]:
    """The claims of the groups that were run, in the order of their ids."""
    measured = {group: getattr(results, group) for group in _RULES}
    found = [rule(part) for group, part in measured.items() if part is not None for rule in _RULES[group]]
    return sorted(found, key=lambda claim: claim.id)
