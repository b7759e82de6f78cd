"""What a set of samples remembers, from tensors alone: a metric never sees a model.

`neighbours` finds which training image a sample resembles, `counts` turns similarities into counts k of n, and
`intervals` says how far to trust them. *Score* in this field means grad log p, hence the room's name.
"""

from memlib.metrics.counts import Count, ams, in_band, threshold, top_means, tpr_at_fpr, ums
from memlib.metrics.intervals import mean_interval, paired_interval, ratio_interval
from memlib.metrics.neighbours import l2_ratio, matches, nearest
from memlib.metrics.unique import expected_unique, extrapolate_unique

__all__ = [
    "Count",
    "ams",
    "expected_unique",
    "extrapolate_unique",
    "in_band",
    "l2_ratio",
    "matches",
    "mean_interval",
    "nearest",
    "paired_interval",
    "ratio_interval",
    "threshold",
    "top_means",
    "tpr_at_fpr",
    "ums",
]
