"""The study of SGU: does unlearning a score work better than leaving the data out?

Four arms are compared at equal budgets: *standard* has seen everything, *unseen* was retrained without the forget data,
*orthogonal* and *obtuse* are the paper's two losses. The toy is a mixture of three modes, whose optima are known in
closed form. The images are procedural faces, of which a combination of two attributes is forgotten and each is kept.
"""

from memlib.claim import Claim
from memlib.papers.sgu.study import rules, toy_rules
from memlib.papers.sgu.study.experiment import GROUPS, check_sources, run
from memlib.papers.sgu.study.results import Results
from memlib.papers.sgu.study.settings import SCALES, Settings
from memlib.papers.sgu.study.summary import frontier, headline, tables

CHAPTER = "04_sgu"

__all__ = [
    "CHAPTER",
    "GROUPS",
    "SCALES",
    "Results",
    "Settings",
    "check_sources",
    "frontier",
    "headline",
    "run",
    "tables",
    "verdicts",
]


def verdicts(results: Results) -> list[Claim]:
    """The claims of the groups that were run, in the order of their ids."""
    found: list[Claim] = []
    if results.samples:
        found += [rule(results.samples) for rule in (rules.u1, rules.u1a, rules.u1b, rules.u3, rules.u8)]
    if results.likelihoods:
        found.append(rules.u2(results.likelihoods))
    if results.inpainting:
        found.append(rules.u4(results.inpainting))
    if results.reconstruction:
        found += [rules.u5(results.reconstruction), rules.u5a(results.reconstruction)]
    if results.tuning:
        found.append(rules.u6(results.tuning))
    if results.toy:
        found += [toy_rules.u7(results.toy), toy_rules.u7a(results.toy)]
    return sorted(found, key=lambda claim: claim.id)
