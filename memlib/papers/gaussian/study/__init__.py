"""The Gaussian chapter as an experiment: five claims, each decided in two dimensions, where closed forms are at hand.

`settings` says what it is run with, `rules` when a claim counts as reproduced, `rows` what is kept as tables. Each
other file measures one group of claims. No group needs the result of another; `latents` shares a network with
`unlearning`.
"""

from collections.abc import Sequence

from memlib.claim import Claim
from memlib.papers.gaussian.study import distinct, divergence, labels, memorizer, rows, rules, unlearning
from memlib.papers.gaussian.study.costs import work
from memlib.papers.gaussian.study.data import concentric, draws, labelled
from memlib.papers.gaussian.study.results import Results
from memlib.papers.gaussian.study.settings import SCALES, Settings
from memlib.run import Run

__all__ = ["CHAPTER", "GROUPS", "SCALES", "Results", "Settings", "run", "tables", "verdicts", "work"]

CHAPTER = "01_gaussian_mixtures"
GROUPS: dict[str, tuple[str, ...]] = {
    "divergence": ("G1",),
    "labels": ("G2",),
    "latents": (),
    "distinct": ("G4",),
    "unlearning": ("G5",),
    "memorizer": ("G6",),
}


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Measure the groups of claims (all of them if `groups` is empty).

    Arguments:
        settings: of the experiment; its `dtype` must be torch's default, as `memlib study` and a chapter set it.
        run: the seed, and the device that networks are trained and sampled on; all else runs on the CPU.
        groups: names among `GROUPS`.
    """
    wanted, seed = groups or tuple(GROUPS), run.seed
    drawn = draws(settings, seed)
    found: dict[str, object] = {}
    if "memorizer" in wanted:
        found["memorizer"] = run.cached("memorizer", memorizer.measure, drawn.points, settings.n_samples, seed)
    if "divergence" in wanted:
        found["divergence"] = run.cached("divergence", divergence.measure, drawn, settings.n_draws, seed)
    points, masks = labelled(settings, seed)
    if "labels" in wanted:
        sets = ((points, masks), concentric(settings, seed))
        two = [run.cached("labels", labels.measure, *one, seed) for one in sets]
        found["labels"] = labels.together(*two)
    if "unlearning" in wanted:
        found["unlearning"] = unlearning.measure(settings, run)
    if "latents" in wanted:
        standard = unlearning.first(settings, run, "standard")
        latents = labels.encode(standard, points.to(run.device)).cpu()
        found["latents"] = labels.latents(latents, masks, seed)
    if "distinct" in wanted:
        found["distinct"] = run.cached("distinct", distinct.measure, drawn.targets, settings.n_extracted)
    return Results(_description(settings), **found)  # type: ignore[arg-type]


def verdicts(results: Results) -> list[Claim]:
    """The verdict on each claim of the groups that were run, in the order of the claims' ids."""
    measured = {
        rules.g1: results.divergence,
        rules.g2: results.labels,
        rules.g4: results.distinct,
        rules.g5: results.unlearning,
        rules.g6: results.memorizer,
    }
    return [rule(found) for rule, found in measured.items() if found is not None]


def tables(results: Results) -> dict[str, list[list[str]]]:
    """What stands behind the claims of the groups that were run, as rows of text by title."""
    made = {
        rows.COPIES: (rows.copies, results.memorizer),
        rows.RANKING: (rows.ranking, results.divergence),
        rows.LABELS: (rows.labels, results.labels),
        rows.ARMS: (rows.arms, results.unlearning),
        rows.OPTIMA: (rows.optima, results.unlearning),
        rows.LATENTS: (rows.latents, results.latents),
        rows.DISTINCT: (rows.distinct, results.distinct),
    }
    return {title: rows_of(found) for title, (rows_of, found) in made.items() if found is not None}


def _description(settings: Settings) -> str:
    """The data in words."""
    networks = len(unlearning.ARMS) * settings.n_seeds
    return f"{settings.n_points} points of a mixture of three Gaussians, fresh ones for {networks} networks; no images"
