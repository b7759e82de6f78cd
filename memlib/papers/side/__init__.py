"""SIDE's surrogate condition: labels for a model that has none, and a classifier of noisy samples distilled from them.

`surrogates` holds the arms, `students` the training (TDKD), `guidance` what is done with the result.
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
    "prune",
    "random_labels",
    "tdkd",
    "teach",
    "teacher_labels",
    "training_indices",
]
