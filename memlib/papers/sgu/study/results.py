"""What the study measured: one field for each group of claims, in tensors on the CPU and plain values.

The two sides of a measurement are named as in the paper: D_g are the retained data, D_f the data to be forgotten.
"""

from dataclasses import dataclass, field

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
    exact_cosine: dict[str, Tensor]  # arm -> (L,): the cosine at D_f of its closed form
    cosine: dict[tuple[str, str], Tensor]  # arm, side -> (S, L): cosine of learned and true score at that side
    stay_levels: tuple[float, ...]
    stays: dict[str, Tensor]  # arm -> (3,): fraction of noised forget points that end in the middle, first seed
    tracks: dict[str, Tensor]  # arm -> (steps, 40, 2): paths of noised forget points, first seed


@dataclass(frozen=True)
class Judged:
    """Samples of an arm as the judges see them, for each of S networks; the first five are counts of n samples."""

    found: Tensor  # (S,), with forgotten content
    sure: Tensor  # (S,), of these, where the judge gives it a probability above .95
    labels: Tensor  # (S, K), by label
    beside: Tensor  # (S,), with the attribute of the setting `beside`, such as a hat
    noisy: Tensor  # (S,), that are noise-like: `tasks.Task.noisy`
    frechet: Tensor  # (S,), of the samples without forgotten content to retained test images
    precision: Tensor  # (S,)
    recall: Tensor  # (S,)


@dataclass(frozen=True)
class Judge:
    """What the judges say of real test images, as fractions; all but the first are floors or ceilings of samples."""

    right: float  # of answers
    in_retained: float  # forgotten content found in retained images
    in_forgotten: float  # and in forgotten ones
    sure: float  # the same with a probability above .95
    beside: float  # right answers on the attribute beside; nan without one
    noisy: float  # noise-like real images
    noised: float  # the same images with noise of sigma = 1 in their coordinates


@dataclass(frozen=True)
class Samples:
    """What the image networks generate."""

    source: str  # of the main task, and its forgotten labels
    processes: tuple[str, ...]
    arms: tuple[str, ...]
    n: int  # samples of each network
    names: tuple[str, ...]  # of the labels of the main task
    beside: str  # name of the attribute beside, or empty
    judged: dict[tuple[str, str, str], Judged]  # task, process, arm
    frontier: dict[tuple[str, float], Judged]  # arm, alpha: main task, first process
    alphas: dict[str, float]  # arm -> the alpha that is compared, first process
    judge: dict[str, Judge]  # task ->
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
    """What became of the test images of one side, for each of S networks: means over images and repetitions."""

    same: Tensor  # (S,), fraction that keeps its class
    distance: Tensor  # (S,), between the judge's features of the image and of what was made of it


@dataclass(frozen=True)
class Inpainting:
    """Test images with a part hidden and filled in anew."""

    arms: tuple[str, ...]
    masks: tuple[str, ...]
    answers: dict[tuple[str, str, str], Answers]  # mask, arm, side
    images: dict[str, Tensor]  # arm or "original" -> (12, C, H, W): forgotten, upper half hidden


@dataclass(frozen=True)
class Reconstruction:
    """Test images noised a little and denoised."""

    arms: tuple[str, ...]
    times: tuple[float, ...]  # of the VP equation
    sigmas: tuple[float, ...]
    real: float  # fraction of real forgotten test images whose class the judge names
    answers: dict[tuple[float, str, str], Answers]  # time, arm, side


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
    bits: dict[tuple[str, str, str], Tensor] = field(default_factory=dict)  # process, arm, side -> (S,), bits per dim.


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
