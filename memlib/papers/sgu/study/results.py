"""What the study measured: one field for each group of claims, in tensors on the CPU and plain values.

The two sides of a measurement are named as in the paper: D_g are the retained data, D_f the data to be forgotten.
"""

from dataclasses import dataclass

from torch import Tensor

SIDES = ("D_g", "D_f")


@dataclass(frozen=True)
class Toy:
    """The mixture of the paper's figure 1, in closed form and trained. S seeds, A arms, L levels.

    A model is described by four numbers: NLL of D_g and of D_f (bits per dimension + 8), the fraction of its samples in
    the forgotten mode, and the fraction that is far from everything.
    """

    arms: tuple[str, ...]
    trained: Tensor  # (S, A, 4), the description of each network
    alphas: tuple[float, ...]
    exact: dict[str, Tensor]  # closed form -> (alphas, 4), or (1, 4) for the two models without alpha
    gap_levels: tuple[float, ...]
    off: dict[str, Tensor]  # arm -> (S, levels): root mean squared distance of eps_hat from its closed form
    adds: dict[str, Tensor]  # arm -> (levels,): the same distance of the closed form from retraining's
    levels: Tensor  # (L,), noise levels of the cosines
    cosine: dict[tuple[str, str], Tensor]  # arm, side -> (S, L): cosine of learned and true score at that side
    stay_levels: tuple[float, ...]
    stays: dict[str, Tensor]  # arm -> (3,): fraction of noised forget points that end in the middle, first seed
    tracks: dict[str, Tensor]  # arm -> (steps, 40, 2): paths of noised forget points, first seed


@dataclass(frozen=True)
class Judged:
    """Samples of an arm as the judge sees them, one value for each of S networks."""

    found: Tensor  # (S,), samples with forgotten content, of n
    frechet: Tensor  # (S,), of the other samples to retained test images
    precision: Tensor  # (S,)
    recall: Tensor  # (S,)


@dataclass(frozen=True)
class Samples:
    """What the image networks generate."""

    source: str  # of the class task, and its forgotten labels
    processes: tuple[str, ...]
    arms: tuple[str, ...]
    n: int  # samples of each network
    judged: dict[tuple[str, str, str], Judged]  # task, process, arm
    judge: dict[str, tuple[float, float, float]]  # task -> accuracy; content found in real retained, forgotten images
    images: dict[tuple[str, str], Tensor]  # task, arm -> (24, C, H, W), samples of the first network


@dataclass(frozen=True)
class Likelihoods:
    """Negative log-likelihoods of noised test images in bits per dimension, and what an auditor reads from networks."""

    processes: tuple[str, ...]
    arms: tuple[str, ...]
    bits: dict[tuple[str, str, str], Tensor]  # process, arm, side -> (S, images)
    check: tuple[float, float] | None  # mean of 8 images under one network: by the exact trace, by probes
    member: dict[str, tuple[float, tuple[float, float]]]  # arm -> AUC, interval: forget training images against test


@dataclass(frozen=True)
class Answers:
    """What became of the test images of one side, mean over seeds and repetitions."""

    same: Tensor  # (images,), fraction of repetitions in which the image keeps its class
    distance: Tensor  # (images,), between the judge's features of the image and of what was made of it


@dataclass(frozen=True)
class Inpainting:
    """Test images with a part hidden and filled in anew."""

    arms: tuple[str, ...]
    masks: tuple[str, ...]
    answers: dict[tuple[str, str, str, str], Answers]  # task, mask, arm, side
    images: dict[tuple[str, str], Tensor]  # task, arm or "original" -> (12, C, H, W): forgotten, upper half hidden


@dataclass(frozen=True)
class Reconstruction:
    """Test images noised a little and denoised."""

    arms: tuple[str, ...]
    times: tuple[float, ...]  # of the VP equation
    sigmas: tuple[float, ...]
    answers: dict[tuple[float, str, str], Answers]  # time, arm, side; class task


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning of the standard network, next to networks trained from scratch."""

    processes: tuple[str, ...]
    arms: tuple[str, ...]
    steps: tuple[int, ...]
    n: int  # samples of each network
    tuned: dict[tuple[str, str, int], Judged]  # process, arm, steps
    scratch: dict[tuple[str, str], Tensor]  # process, arm ("standard", "unseen") -> (S,), samples with content
    growth: dict[str, Tensor]  # loss -> (points,): |eps_hat| / |eps| on forget images, every ten steps


@dataclass(frozen=True)
class Results:
    """All that the study measured; None for a group that was not run."""

    description: str = ""  # sources and numbers of images
    sigma_star: dict[str, tuple[float, Tensor, Tensor]] | None = None  # task -> sigma*, levels (L,), posterior (L,)
    toy: Toy | None = None
    samples: Samples | None = None
    likelihoods: Likelihoods | None = None
    inpainting: Inpainting | None = None
    reconstruction: Reconstruction | None = None
    tuning: Tuning | None = None
