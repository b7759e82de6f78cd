"""What a run of the study found: tensors by name, from which rules, tables and figures are made."""

from dataclasses import dataclass

from torch import Tensor

from memlib.papers.i2i.evaluation import outcome
from memlib.papers.i2i.study.ablations import Arms, Crops, Noise
from memlib.papers.i2i.study.comparison import Family
from memlib.papers.i2i.study.knowledge import Knowledge
from memlib.papers.i2i.study.second import Second
from memlib.papers.i2i.study.tasks import Tasks
from memlib.papers.i2i.study.theory import Distances, Theory


@dataclass(frozen=True)
class Gate:
    """Whether there is anything to ask about: the paper's method as released, in the first family, on the main task.

    able: every original completes forget images better than the best filling by twice the margin. losses (S, 2): loss
    of cosine, retain and forget, at `weight`. above (S,): how far the original lies above the filling.
    """

    family: str
    able: bool
    weight: float
    losses: Tensor
    above: Tensor

    def open(self, margin: float) -> bool:
        """Whether there was something to lose, and the paper's method lost it."""
        return self.able and outcome(self.losses, self.above, margin).on_forget in ("forgets", "destroys")


@dataclass(frozen=True)
class Results:
    """Groups of measurements, None where a group was not run.

    description: the images, in words. margin: the loss of cosine that counts as none. methods: by family (I1). The
    others are of the first family: crops (I2), alpha (I3), data (I4), noise (I5, I10), tasks (I6), distances (I8),
    theory (I9) and probe, which decides no claim. second (I7): by family, the first and the paper's.
    """

    description: str
    margin: float
    gate: Gate
    methods: dict[str, Family] | None = None
    crops: Crops | None = None
    alpha: Arms | None = None
    data: Arms | None = None
    noise: Noise | None = None
    tasks: Tasks | None = None
    second: dict[str, Second] | None = None
    distances: Distances | None = None
    theory: Theory | None = None
    probe: Knowledge | None = None
