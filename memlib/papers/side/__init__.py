"""SIDE's surrogate condition: labels for a model that has none, and a classifier of noisy samples distilled from them.

`surrogates` makes the labels of each arm, `students` trains classifiers on them (TDKD), `guidance` gives the gradient
that steers a sampler, `attack` draws and compares the samples, and `study` is the experiment of chapter 2.
"""

from memlib.papers.side.guidance import (
    Agreement,
    Logits,
    accuracy,
    agreement,
    agreement_on_points,
    as_ddpm,
    bayes_direction,
    log_p,
)
from memlib.papers.side.students import distil, tdkd, teach
from memlib.papers.side.surrogates import (
    Clusters,
    Surrogate,
    cluster,
    cluster_labels,
    pair_cosine,
    partition,
    prune,
    random_labels,
    teacher_labels,
    training_indices,
)

__all__ = [
    "Agreement",
    "Clusters",
    "Logits",
    "Surrogate",
    "accuracy",
    "agreement",
    "agreement_on_points",
    "as_ddpm",
    "bayes_direction",
    "cluster",
    "cluster_labels",
    "distil",
    "log_p",
    "pair_cosine",
    "partition",
    "prune",
    "random_labels",
    "tdkd",
    "teach",
    "teacher_labels",
    "training_indices",
]
