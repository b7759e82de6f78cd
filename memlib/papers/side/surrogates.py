"""Labels for a model that has none: each arm of SIDE by name, with what it sees of the training set.

A function takes what its arm may see and nothing else. Images are samples of any shape (N, *S), latents or pixels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from memlib.errors import Refused
from memlib.papers.side.guidance import Logits, require_eval
from memlib.stored import Rows, choose

_ROWS = 1024  # images classified at once where no gradient is wanted


@dataclass(frozen=True)
class Surrogate:
    """Images (N, *S) and the probabilities (N, K) that a classifier of them should learn.

    `arm` is its name in the tables, `sees` says what of the training set went into it.

    Raises:
        Refused: for targets that do not fit the images, and for fewer than two classes, which carry no information
            (definition 1 of SIDE).
    """

    arm: str
    sees: str
    images: Rows
    targets: Tensor

    def __post_init__(self) -> None:
        if self.targets.ndim != 2 or len(self.targets) != len(self.images) or self.targets.shape[1] < 2:
            given = f"{tuple(self.targets.shape)} for {len(self.images)} images"
            raise Refused(f"targets are probabilities (N, K) of K >= 2 classes, one row an image, not {given}")


def teacher_labels(
    teacher: Logits, generated: Tensor, arm: Literal["OL-TD", "OL-TI", "RL-TD (training)"] = "OL-TD"
) -> Surrogate:
    """Label generated images (N, *S) by a classifier of clean images, at sigma = 0. SIDE sec. 3.3.2.

    OL: the teacher knows the original labels of the training set. OL-TD, for a student with time, is the paper's SIDE.
    OL-TI is for a student without time; the paper's TI is the teacher itself, and `log_p` takes that too. RL-TD
    (training): the teacher was trained on one label per training image, the random labels of sec. 4.2.

    Raises:
        Refused: for a teacher in training mode.
    """
    sees = {
        "OL-TD": "training images and their labels, through the teacher",
        "OL-TI": "training images and their labels, through the teacher",
        "RL-TD (training)": "training images, through a teacher that tells each from all others",
    }
    require_eval(teacher)
    with torch.no_grad():
        targets = torch.cat([teacher(x, x.new_zeros(())).softmax(1) for x in generated.split(_ROWS)])
    return Surrogate(arm, sees[arm], generated, targets)


@dataclass(frozen=True)
class Clusters:
    """Clusters of N features: `labels` (N,) from 0 to K - 1, and -1 in a cluster that was dropped.

    For each cluster found: its `sizes`, its `cohesion` (`pair_cosine`), and whether it was `kept`. `null` is the mean
    cohesion of the same features with their labels shuffled.
    """

    labels: Tensor
    sizes: Tensor
    cohesion: Tensor
    null: float
    kept: Tensor

    def __str__(self) -> str:
        lost = int((self.labels < 0).sum())
        median = float(self.cohesion.median())
        return (
            f"{int(self.kept.sum())} of {len(self.kept)} clusters kept, {lost} of {len(self.labels)} images dropped, "
            f"median cosine of two images of a cluster {median:.2f} ({self.null:.2f} with shuffled labels)"
        )


def cluster(features: Tensor, k: int, share: float = 1.0, smallest: int = 2, seed: int = 0) -> Clusters:
    """k-means of the directions of `features` (N, D), without clusters that are loose or small.

    The paper names clusters of features (sec. 3.3.1) and leaves open which to keep. Deterministic by seed.

    Arguments:
        k: number of clusters, 2 to N.
        share, smallest: see `prune`.

    Raises:
        Refused: for k outside 2..N, a share outside (0, 1], and when fewer than two clusters are left.
    """
    rows = normalize(features.detach().flatten(1).double())
    return prune(rows, partition(features, k, seed), share, smallest, seed)


def partition(features: Tensor, k: int, seed: int = 0) -> Tensor:
    """k-means of the directions of `features` (N, D): a label from 0 to k - 1 for each, (N,), by seed.

    All clusters stay, as labels of training images must: each image needs one. Raises Refused for k outside 2..N.
    """
    from sklearn.cluster import KMeans  # slow to import, and most of this file does not need it

    if not 2 <= k <= len(features):
        raise Refused(f"{len(features)} images cannot be put into {k} clusters: give 2 to {len(features)}")
    rows = normalize(features.detach().flatten(1).double())
    means = KMeans(k, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]  # declared as "auto"
    return torch.from_numpy(means.fit_predict(rows.cpu().numpy())).long().to(rows.device)


def prune(features: Tensor, labels: Tensor, share: float = 1.0, smallest: int = 2, seed: int = 0) -> Clusters:
    """Keep the `share` of clusters `labels` (N,) of `features` (N, D) that are largest and tightest.

    Clusters are ranked by size times tightness, where tightness is how far `pair_cosine` lies above that of shuffled
    labels. Clusters of less than `smallest` images, and those no tighter than shuffled ones, are dropped in any case.
    The labels that stay are renumbered from 0.

    Raises:
        Refused: for a share outside (0, 1], and when fewer than two clusters stay.
    """
    if not 0 < share <= 1:
        raise Refused(f"the share of clusters that is kept lies in (0, 1], not {share}")
    rows, count = normalize(features.double()), int(labels.max()) + 1
    sizes = torch.bincount(labels, minlength=count)
    cosine = pair_cosine(rows, labels)
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)]
    several = sizes >= 2
    null = float(pair_cosine(rows, mixed)[several].mean()) if several.any() else 0.0
    worth = sizes * (cosine - null)
    usable = (sizes >= max(1, smallest)) & ((cosine > null) | ~several)
    order = torch.where(usable, worth, -torch.inf).argsort(descending=True)
    kept = torch.zeros_like(usable)
    kept[order[: round(share * count)]] = True
    kept &= usable
    if kept.sum() < 2:
        raise Refused(
            f"{int(kept.sum())} of {count} clusters are tighter than shuffled ones and have {smallest} images: keep a "
            "larger share, or make fewer clusters"
        )
    renumbered = torch.where(kept, kept.cumsum(0) - 1, -1)
    return Clusters(renumbered[labels], sizes, cosine, null, kept)


def pair_cosine(rows: Tensor, labels: Tensor) -> Tensor:
    """The mean cosine of two different members of each cluster, (K,), for unit rows (N, D) and labels (N,).

    The length of a cluster's mean contains 1/m: two images at a right angle would score .71 by it, and 0 here. 0 for a
    cluster of fewer than two images.
    """
    count = int(labels.max()) + 1
    sizes = torch.bincount(labels, minlength=count).to(rows)
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, labels, rows)
    return (sums.square().sum(1) - sizes) / (sizes * (sizes - 1)).clamp_min(1)


def cluster_labels(generated: Rows, clusters: Clusters, arm: Literal["CL-TD", "CL-TI"] = "CL-TD") -> Surrogate:
    """CL: the clusters of generated images (N, *S) as hard labels, without the images of dropped clusters.

    CL-TD is for a student with time, CL-TI for one without.

    This attacker has only the model, as long as the features were fitted to generated images or are public.
    """
    stay = clusters.labels >= 0
    targets = one_hot(clusters.labels[stay], int(clusters.kept.sum())).to(generated.device, generated.dtype)
    return Surrogate(arm, "nothing", choose(generated, stay), targets)


def random_labels(generated: Rows, classes: int, generator: torch.Generator) -> Surrogate:
    """RL-TD: random labels of generated images (N, *S). A classifier can learn nothing from them: a control."""
    labels = torch.randint(classes, (len(generated),), generator=generator).to(generated.device)
    return Surrogate("RL-TD", "nothing", generated, one_hot(labels, classes).to(generated.dtype))


def training_indices(members: Tensor) -> Surrogate:
    """RL-TD (oracle): every training image (N, *S) is its own class, N classes: sec. 4.2 without a teacher.

    No attacker has this. It shows what guidance could do with perfect labels.
    """
    indices = torch.arange(len(members), device=members.device)
    return Surrogate("RL-TD (oracle)", "training images, themselves", members, one_hot(indices).to(members))
