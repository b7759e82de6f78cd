"""What the study finds, in plain tensors and numbers on the CPU. No image but a few pictures is among it."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from memlib.papers.synthesis.study.ablation import Ablation
from memlib.papers.synthesis.study.attributes import Attribute
from memlib.papers.synthesis.study.fine_tuning import Regime
from memlib.papers.synthesis.study.pipelines import Pictures
from memlib.papers.synthesis.study.printed import Printed
from memlib.papers.synthesis.study.theory_results import Bound, Gap, Kernel
from memlib.papers.synthesis.study.usefulness import Utility


class Rate(NamedTuple):
    """Members found, as a fraction, with a 95 % interval over pairs of pipelines and images; and the false-positive
    rate that resulted at thresholds from other targets."""

    tpr: float
    low: float
    high: float
    fpr: float
    members: int  # judged, over all targets


@dataclass(frozen=True)
class Attack:
    """One attack on one kind of training, over all targets.

    `rates` are by false-positive rate and by who was judged: "all", "plain", "mislabelled", "repeated". Where the
    non-members of other targets are too few for a rate, it is absent.
    """

    threat: str
    trained: str
    statistic: str
    way: str
    auc: tuple[float, float, float]  # mean over targets, and its interval over pairs
    rates: dict[float, dict[str, Rate]]


@dataclass(frozen=True)
class Hits:
    """The images that LiRA takes for members at the deciding rate, and the members: (T, N) bools; kinds (N,)."""

    real: Tensor
    synthetic: Tensor
    equal: Tensor  # real data, stopped where its accuracy reaches that of the synthetic set
    inside: Tensor
    kind: Tensor
    rate: float


@dataclass(frozen=True)
class Membership:
    """R4: four attackers; accuracies as answers of every pipeline's classifier on every test image, (T, M) bools."""

    hits: Hits
    right: dict[str, Tensor]  # by kind of training; "real, stopped at 0.1" and the like among them
    attacks: list[Attack]
    roc: dict[str, Tensor]  # (P, G) true-positive rate of each pair on the grid, by kind of training
    grid: Tensor  # (G,) false-positive rates
    shadows: dict[str, dict[int, Tensor]]  # (P,) true-positive rate on real data, by test and number of shadows
    frontier: dict[str, tuple[Tensor, Tensor]]  # (P,) accuracy and true-positive rate, by kind of training


@dataclass(frozen=True)
class Prior:
    """The latent prior against privacy: by strength, what a start from a pipeline's own members gives away."""

    right: dict[float, Tensor]  # (T, M) bools
    classifier: dict[float, dict[str, Rate]]  # A, by who was judged
    published: dict[float, dict[str, Rate]]  # B
    nearer: dict[float, Tensor]  # (T,) as in `copies.Copies`
    agreement: dict[float, Tensor]  # (T, 2)
    pictures: dict[float, Pictures]  # of the first source alone


@dataclass(frozen=True)
class Retrieval:
    """R5: (T,) each, see `copies.Copies`."""

    nearer: Tensor
    of_members: Tensor
    of_ghosts: Tensor
    threshold: Tensor
    planted: Tensor
    images: int  # published by a pipeline


@dataclass(frozen=True)
class Seeds:
    """R7: accuracy of one pipeline repeated, (S,), and of all pipelines, (T,); test images M."""

    repeated: Tensor
    pipelines: Tensor
    test: int


@dataclass(frozen=True)
class Sizes:
    """R10: by images for each member, answers on test images (T, M) and what LiRA finds; real data beside it."""

    right: dict[int, Tensor]
    real: Tensor
    rates: dict[int, dict[str, Rate]]


@dataclass(frozen=True)
class Blind:
    """AUC of a classifier that sees pixels and no model, for each pair (P,), where a coin chose the members and where
    non-members are moved by a pixel; and of the raw loss of each generator in both cases, (T,)."""

    coin: Tensor
    moved: Tensor
    attack: dict[str, Tensor]


@dataclass(frozen=True)
class Results:
    """What was measured, by source, or by where it holds; None for groups that were not run."""

    description: str
    membership: dict[str, Membership] | None = None
    prior: dict[str, Prior] | None = None
    copies: dict[str, Retrieval] | None = None
    seeds: dict[str, Seeds] | None = None
    sizes: dict[str, Sizes] | None = None
    blind: dict[str, Blind] | None = None
    kernel: dict[str, Kernel] | None = None
    gap: dict[str, Gap] | None = None
    settings: dict[str, Printed] | None = None
    bound: dict[str, Bound] | None = None
    fine_tuning: dict[str, dict[str, Regime]] | None = None  # by source and regime
    ablation: dict[str, Ablation] | None = None
    utility: dict[str, Utility] | None = None
    attributes: dict[str, Attribute] | None = None  # by attribute
