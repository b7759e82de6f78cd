"""What a set of samples remembers, computed from tensors alone: a metric never sees a model.

`neighbours` finds the training images that a sample resembles. `counts` turns similarities into counts k of n and
judges a membership statistic by its ROC curve. `joint` asks a copy to pass two measures at one false-positive rate.
`intervals` says how far a difference can be trusted. `extent` measures how far memorization reaches, and `labels` how
much labels tell. `_cliques` finds what the samples repeat, without the training set. `frechet`, `mmd` and `quality`
compare whole sets of features. `holdout` compares samples with held-out images.

Where tensors are wanted, numpy arrays and lists of numbers will do.

The package is not called `score`, because in this field *score* means grad log p.
"""

from memlib.metrics._cliques import adaptive_l2, cliques, medoids
from memlib.metrics.counts import Count, ams, auc, in_band, roc, threshold, top_means, tpr_at_fpr, ums
from memlib.metrics.extent import Emm, emm, expected_unique, extrapolate_unique, unique_difference
from memlib.metrics.frechet import Moments, frechet_distance
from memlib.metrics.holdout import authentic, copying_score, nearer_to_train
from memlib.metrics.intervals import mean_interval, paired_interval, ratio_interval
from memlib.metrics.joint import Joint, joint_threshold
from memlib.metrics.labels import label_ratio, theorem_limit
from memlib.metrics.mmd import kid, median_distance, mmd2, mmd2_difference, mmd2_p_value
from memlib.metrics.neighbours import closest, l2_ratio, matches, nearest
from memlib.metrics.quality import density_coverage, inception_score, precision_recall

__all__ = [
    "Count",
    "Emm",
    "Joint",
    "Moments",
    "adaptive_l2",
    "ams",
    "auc",
    "authentic",
    "cliques",
    "closest",
    "copying_score",
    "density_coverage",
    "emm",
    "expected_unique",
    "extrapolate_unique",
    "frechet_distance",
    "in_band",
    "inception_score",
    "joint_threshold",
    "kid",
    "l2_ratio",
    "label_ratio",
    "matches",
    "mean_interval",
    "median_distance",
    "medoids",
    "mmd2",
    "mmd2_difference",
    "mmd2_p_value",
    "nearest",
    "nearer_to_train",
    "paired_interval",
    "precision_recall",
    "ratio_interval",
    "roc",
    "theorem_limit",
    "threshold",
    "top_means",
    "tpr_at_fpr",
    "ums",
    "unique_difference",
]
