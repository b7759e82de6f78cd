"""What the study found: one dataclass for each group of claims, tensors on the CPU, N samples of an arm."""

from dataclasses import dataclass

from torch import Tensor

from memlib.metrics import Count
from memlib.papers.side.study.training import TrainedArms


@dataclass(frozen=True)
class Thresholds:
    """Which images pass for copies of a member, and what the descriptors can find.

    `edges` and `fractions` belong to the bands low, mid and high; `null` and `check` (N,) are the similarities of the
    calibration images and of the non-members to their nearest members. `planted` counts the copies found, of `members`
    planted ones of each kind, by descriptor and kind. `plain` (N,) are the similarities of unguided samples to their
    nearest members, and `copied` and `copied_non_members` (N,) whether each lies in the high band of a member, and of a
    non-member.
    """

    descriptor: str
    members: int
    edges: dict[str, float]
    fractions: dict[str, float]
    null: Tensor
    check: Tensor
    planted: dict[str, dict[str, int]]
    plain: Tensor
    copied: Tensor
    copied_non_members: Tensor


@dataclass(frozen=True)
class Weights:
    """The swept arm at W weights: `similarity` and `to_non_members` (W, N), the `nearest` member (W, N); the edge of
    the high band."""

    arm: str
    weights: list[float]
    high: float
    similarity: Tensor
    nearest: Tensor
    to_non_members: Tensor


@dataclass(frozen=True)
class Labels:
    """Of each arm: how many labels on how many images, what of the training set went into them, and whether a search
    found a training image among those images. `clusters` says in words which were kept.

    The students with and without time are judged at L levels `sigmas` (L,): `accuracy` on noised non-members, `cosine`
    with the exact guidance and its relative `length`, each (L,) by "with time" and "without".
    """

    classes: dict[str, int]
    images: dict[str, int]
    sees: dict[str, str]
    shown: dict[str, bool]
    clusters: str
    sigmas: Tensor
    accuracy: dict[str, Tensor]
    cosine: dict[str, Tensor]
    length: dict[str, Tensor]


@dataclass(frozen=True)
class Arms:
    """All arms at one guidance weight, on the same starts.

    `hits` are, for each network attacked, the member that each sample copies in the high band, -1 for none, (N,) by
    arm; the first network has every arm. Of the first network: `bands`, for each arm and band the copies, the distinct
    members of the best matches and those over all pairs; `non_members`, samples in the high band of a non-member;
    `l2_ratio` below 1/3 and `adaptive` distance at most 1, counts; `candidates` (3, 4), what a search without the
    training set gives among samples repeated 2, 3 or 5 times: groups, groups that copy a member, distinct members,
    groups that resemble a non-member.
    """

    weight: float
    hits: list[dict[str, Tensor]]
    bands: dict[str, dict[str, list[int]]]
    non_members: dict[str, int]
    l2_ratio: dict[str, Count]
    adaptive: dict[str, Count]
    candidates: dict[str, Tensor]


@dataclass(frozen=True)
class Model:
    """What the model shows without an attack.

    `error` (L,) is the denoising error a coordinate at levels `sigmas` (L,), of members and of non-members. `hits` (N,)
    are the members that the unguided samples copy. `steps` (K,) are moments of the training (none for a foreign model)
    and `along` (K,) the fraction of 500 samples in the high band, of members and of non-members. `lost` is the fraction
    of the variance of held-out images that the coordinates lose; `weights` and `numbers` count the parameters of the
    model and the coordinates of all members. `emm` is the trace of (training images, samples memorized), `emm_bracket`
    the sizes that it ends between, `duplicates` what became of ten members that were trained on five times; each None
    where it was not tried.
    """

    members: int
    sigmas: Tensor
    error: dict[str, Tensor]
    hits: Tensor
    steps: Tensor
    along: dict[str, Tensor]
    lost: float
    weights: int
    numbers: int
    emm: list[tuple[int, Count]] | None
    emm_bracket: tuple[int, int | None] | None
    duplicates: dict[str, int] | None


@dataclass(frozen=True)
class Seconds:
    """What samples cost on the machine that ran this: seconds of an unguided sample (`plain`), and of the arms the
    seconds before the first sample (`before`) and for each sample (`each`); `hits` (N,) by arm, as in `Arms`."""

    plain: float
    before: dict[str, float]
    each: dict[str, float]
    members: int
    hits: dict[str, Tensor]


@dataclass(frozen=True)
class Results:
    """All groups; None for one that was not run."""

    description: str = ""
    thresholds: Thresholds | None = None
    weights: Weights | None = None
    labels: Labels | None = None
    arms: Arms | None = None
    model: Model | None = None
    seconds: Seconds | None = None
    training: TrainedArms | None = None
