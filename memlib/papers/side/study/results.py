"""What the study found: one dataclass for each group of claims, tensors on the CPU, N samples of an arm.

A network is a deal of the images, a model trained on its members, and thresholds of its own: the unit of the rules.
"""

from dataclasses import dataclass

from torch import Tensor

from memlib.metrics import Count, Joint
from memlib.papers.side.study.training import TrainedArms


@dataclass(frozen=True)
class Held:
    """Of one network: `passed`, non-members past the edges of each band, which were set for `fractions`; `copied`,
    unguided samples in the high band of a member, and `resembled`, in that of a non-member."""

    passed: dict[str, Count]
    fractions: dict[str, float]
    copied: Count
    resembled: Count


@dataclass(frozen=True)
class Thresholds:
    """Which images pass for copies of a member, and what the descriptors can find.

    Of the first network: `edges` and `fractions` belong to the bands low, mid and high, `alone` to the high band of the
    cosine and of L2 by themselves. `null`, `check` and `plain` (N,) are the cosines of the calibration images, of the
    non-members and of unguided samples to their nearest members, `null_distance`, `check_distance` and `plain_distance`
    (N,) the distances. `planted` counts the copies found, of `members` planted ones of each kind, by descriptor and
    kind. `held` is what holds in each network.
    """

    descriptor: str
    members: int
    edges: dict[str, Joint]
    alone: dict[str, Joint]
    fractions: dict[str, float]
    null: Tensor
    null_distance: Tensor
    check: Tensor
    check_distance: Tensor
    planted: dict[str, dict[str, int]]
    plain: Tensor
    plain_distance: Tensor
    held: list[Held]


@dataclass(frozen=True)
class Weights:
    """The swept arms at W weights, in K networks.

    `copies` (K, W, 2): the fraction of samples that copy a member with `arm`, the arm that decides, among samples of
    even and of odd number. `tops` (K, W, 2, T): the mean cosine of the most similar even and odd samples, and `near`
    (K, W, 2, T) the mean distance of the nearest, for the fractions `TOPS`; NaN where fewer than ten samples make one
    up. By swept arm: its weights `of_arm`; `bands` (K, W, 3, 2), AMS and UMS in the bands low, mid and high;
    `non_members` (K, W), the fraction that resembles a non-member. `n` samples each.
    """

    arm: str
    weights: list[float]
    n: int
    copies: Tensor
    tops: Tensor
    near: Tensor
    of_arm: dict[str, list[float]]
    bands: dict[str, Tensor]
    non_members: dict[str, Tensor]


@dataclass(frozen=True)
class Labels:
    """Of each arm: how many labels on how many images, what of the training set went into them, and whether a search
    found a training image among those images. `clusters` says in words which were kept.

    The classifiers of the original labels with time and without are judged at L levels `sigmas` (L,): `accuracy` on
    noised non-members, `cosine` with the exact guidance and its relative `length`, each (L,) by "with time" and
    "without".
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
    """All arms, each at its guidance weight, on the same starts.

    `hits` are, for each network, the member that each sample copies in the high band, -1 for none, (N,) by arm; the
    first network has every arm. `bands` holds, for each network, arm and band, the copies, the distinct members of the
    best matches and those over all pairs; `alone` the copies and distinct members by the cosine alone and by L2 alone.
    Of the first network: `non_members`, samples in the high band of a non-member; `l2_ratio` below 1/3 and `adaptive`
    distance at most 1, counts; `candidates` (3, 4), what a search without the training set gives among samples repeated
    2, 3 or 5 times: groups, groups that copy a member, distinct members, groups that resemble a non-member. `members`
    is how many images the models were trained on.
    """

    data: str
    members: int
    weights: dict[str, float]
    hits: list[dict[str, Tensor]]
    bands: list[dict[str, dict[str, list[int]]]]
    alone: list[dict[str, dict[str, list[int]]]]
    non_members: dict[str, int]
    l2_ratio: dict[str, Count]
    adaptive: dict[str, Count]
    candidates: dict[str, Tensor]


@dataclass(frozen=True)
class Theory:
    """Theorem 1 beside the attack. For each network and labelling of the members: `ratio` of eq. 50 over all classes,
    in the coordinates that the model works in, `classes`, and `copies` and `distinct` members of `n` samples guided by
    a classifier of these labels. `spread` are, for each network, the nuclear norms of the covariances of the classes of
    the real labels over that of all members (C,), in the model's latents.
    """

    n: int
    weight: float
    ratio: list[dict[str, float]]
    classes: list[dict[str, int]]
    copies: list[dict[str, int]]
    distinct: list[dict[str, int]]
    plain: list[int]
    spread: list[Tensor]


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
    seconds before the first sample (`before`) and for each sample (`each`); `hits` (N,) by arm, as in `Arms`, where
    those of Random are as many as the dearest arm's seconds buy."""

    plain: float
    before: dict[str, float]
    each: dict[str, float]
    members: int
    hits: dict[str, Tensor]


@dataclass(frozen=True)
class Results:
    """All groups; None for one that was not run. `second` and `second_theory` are one group."""

    description: str = ""
    thresholds: Thresholds | None = None
    weights: Weights | None = None
    labels: Labels | None = None
    arms: Arms | None = None
    second: Arms | None = None
    theory: Theory | None = None
    second_theory: Theory | None = None
    model: Model | None = None
    seconds: Seconds | None = None
    training: TrainedArms | None = None
