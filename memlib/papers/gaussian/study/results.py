"""What a run of the study found."""

from dataclasses import dataclass

from memlib.papers.gaussian.study.distinct import Distinct
from memlib.papers.gaussian.study.divergence import Divergence
from memlib.papers.gaussian.study.labels import Labels, Latents
from memlib.papers.gaussian.study.memorizer import Memorizer
from memlib.papers.gaussian.study.unlearning import Unlearning


@dataclass(frozen=True)
class Results:
    """A field for each group of claims; None where the group was not run."""

    description: str  # what the experiment was run on
    divergence: Divergence | None = None
    labels: Labels | None = None
    latents: Latents | None = None
    distinct: Distinct | None = None
    unlearning: Unlearning | None = None
    memorizer: Memorizer | None = None
