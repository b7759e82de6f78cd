"""Unlearning in models that complete images, after Li et al. 2024: the experiment behind claims I1 to I10.

The paper's method as printed and as its authors released it, and four baselines, with equal budgets and weights of
their own, in three families of models and a fourth as a control, judged on the hidden region alone; the paper's
ablations in the first family; and what the paper did not ask: what the retain term does by itself, and whether the
model still knows.
"""

from collections.abc import Sequence
from dataclasses import replace

from memlib.claim import Claim
from memlib.papers.i2i.study import (
    ablations,
    comparison,
    findings,
    knowledge,
    pictures,
    rules,
    second,
    tasks,
    theory,
    theory_rules,
)
from memlib.papers.i2i.study._tables import mean_and_interval, tables
from memlib.papers.i2i.study.comparison import RELEASED
from memlib.papers.i2i.study.costs import work
from memlib.papers.i2i.study.results import Gate, Results
from memlib.papers.i2i.study.settings import SCALES, Settings
from memlib.papers.i2i.study.world import World, description, worlds
from memlib.run import Run

__all__ = [
    "CHAPTER",
    "GROUPS",
    "SCALES",
    "Gate",
    "Results",
    "RELEASED",
    "Settings",
    "World",
    "check_sources",
    "description",
    "findings",
    "mean_and_interval",
    "pictures",
    "run",
    "tables",
    "verdicts",
    "work",
    "worlds",
]

CHAPTER = "03_i2i_unlearning"
GROUPS: dict[str, tuple[str, ...]] = {
    "methods": ("I1",),
    "crops": ("I2",),
    "alpha": ("I3",),
    "data": ("I4",),
    "noise": ("I5", "I10", "I10a", "I10b"),
    "tasks": ("I6",),
    "second": ("I7", "I7a"),
    "distances": ("I8",),
    "theory": ("I9", "I9a", "I9b"),
    "probe": (),
}
ALWAYS = ("methods", "distances", "theory")  # in a whole run; the others where the settings name them as ablations


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images and classes that this study cannot work with, as `run` would."""
    worlds(settings, run)


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Measure groups of claims; none, or all of them, are a whole run: `ALWAYS` and the ablations of the settings.

    Every group rests on the gate, the paper's method in the first family, which is measured first. Raises `Refused`
    before anything is trained for images, classes, paths and settings that do not fit together.
    """
    every = worlds(settings, run)
    wanted = set(groups)
    if not wanted or wanted == set(GROUPS):
        wanted = {*ALWAYS, *settings.ablations}
    names = tuple(comparison.METHODS) if "methods" in wanted else (RELEASED,)
    families = comparison.compare(settings, run, every, names)
    first, family = next(iter(families.items()))
    gate = Gate(first, family.able(settings.margin), family.best[RELEASED], family.losses(RELEASED), family.above)
    results = Results(description(settings, every[0]), settings.margin, gate)
    given = (settings, run, every)
    if "methods" in wanted:
        results = replace(results, methods=families)
    if "distances" in wanted:
        results = replace(results, distances=theory.distances(*given, family))
    if "theory" in wanted:
        results = replace(results, theory=theory.theory(*given, family))
    if "crops" in wanted:
        results = replace(results, crops=ablations.crops(*given))
    if "alpha" in wanted:
        results = replace(results, alpha=ablations.alpha(*given))
    if "noise" in wanted:
        results = replace(results, noise=ablations.noise(*given, family))
    if "data" in wanted:
        results = replace(results, data=ablations.retain_data(*given, family))
    if "tasks" in wanted:
        results = replace(results, tasks=tasks.tasks(settings, run, gate.weight))
    if "second" in wanted:
        results = replace(results, second=second.second(settings, run, gate.weight))
    if "probe" in wanted:
        results = replace(results, probe=knowledge.knowledge(*given, family))
    return results


def verdicts(results: Results) -> list[Claim]:
    """The verdict on each claim that was measured, in the order of their ids."""
    measured = {
        "methods": [rules.i1],
        "crops": [rules.i2],
        "alpha": [rules.i3],
        "data": [rules.i4],
        "noise": [rules.i5, theory_rules.i10, theory_rules.i10a, theory_rules.i10b],
        "tasks": [rules.i6],
        "second": [rules.i7, rules.i7a],
        "distances": [rules.i8],
        "theory": [theory_rules.i9, theory_rules.i9a, theory_rules.i9b],
    }
    found = [rule(results) for name, group in measured.items() if getattr(results, name) is not None for rule in group]
    return sorted(found, key=lambda claim: (int(claim.id[1:].rstrip("ab")), claim.id))
