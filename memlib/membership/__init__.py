"""Who was in the training set? Statistics of single images, and their calibration by shadow models.

Every statistic is larger for what looks more like a member, always. `generators` has those of a denoiser, `clean`
those at the clean image, of one or two calls, `margins` that of a classifier, `distances` that of a published set of
images. `blind` asks whether members can be told without a model. `decisions` turns a statistic into p-values. `design`
says which models see which images, and which of them may judge which. Shadow models, trained like the target on other
halves of one pool, turn a raw statistic into a test: `lira` and `rmia` are two such tests, `calibrated` is the
plainest. `judging` draws thresholds from other targets. Curves, rates and other intervals are those of
`memlib.metrics`.

Judge the images most at risk apart (`within`): an average over all images hides them (Aerni et al. 2024; Zhao and Zhang
2025). Members and others must come from one pool by a coin: where they differ in anything else, every attack looks
good (Dubinski et al. 2024; Liang and You 2024).
"""

from memlib.membership._blind import blind
from memlib.membership._lira import lira
from memlib.membership._rmia import rmia
from memlib.membership.calibration import calibrated
from memlib.membership.clean import curvature, local_dimension, sima
from memlib.membership.decisions import conformal, discoveries, set_p_value
from memlib.membership.design import halves, shadows
from memlib.membership.distances import nearest_distance
from memlib.membership.generators import conditional_discrepancy, gradient_norm, loss_statistic, pia, secmi
from memlib.membership.judging import Transferred, crossed_interval, pair_rates, threshold, transferred
from memlib.membership.margins import margin

__all__ = [
    "Transferred",
    "blind",
    "calibrated",
    "conditional_discrepancy",
    "conformal",
    "crossed_interval",
    "curvature",
    "discoveries",
    "gradient_norm",
    "halves",
    "lira",
    "local_dimension",
    "loss_statistic",
    "margin",
    "nearest_distance",
    "pair_rates",
    "pia",
    "rmia",
    "secmi",
    "set_p_value",
    "shadows",
    "sima",
    "threshold",
    "transferred",
]
