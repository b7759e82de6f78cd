"""The blind classifier: can members be told from others without any model? If so, no attack on a model means anything.

Dubinski et al. 2024; Liang and You 2024.
"""

import torch

from memlib import metrics
from memlib.errors import Refused
from memlib.shapes import Shaped
from memlib.stored import Rows

FOLDS = 5


def blind(
    members: Shaped[Rows, " n *s"], others: Shaped[Rows, " m *s"], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The AUC of a logistic regression that sees no model, on images that it was not fitted to, and its interval.

    It is 0.5 in the mean where a coin chose the members. Cross-validated predictions of one coin are a little below
    0.5 in the mean, since a fold with more members leaves fewer to the others; the folds are stratified for that. The
    interval is DeLong's, which takes the predictions for independent. Leave copies of one image out beforehand: a copy
    in another fold tells what an image is.

    Arguments:
        members: (N, *S), pixels or features. The regression holds all rows at once, those of sets on disk too: of
            large images give a few features each.
        others: (M, *S).
        seed: of the folds.

    Raises:
        Refused: for fewer images on a side than there are folds.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and most of this room does not need it
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(len(members), len(others)) < FOLDS:
        raise Refused(f"{len(members)} members and {len(others)} others are too few: give {FOLDS} of each or more")
    x = torch.cat([members.flatten(1)[:], others.flatten(1)[:]]).cpu().double().numpy()
    y = [1] * len(members) + [0] * len(others)
    # Each fold is a copy of its rows already, and can be scaled in place.
    model = make_pipeline(StandardScaler(copy=False), LogisticRegression(C=0.01, max_iter=200))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    told = torch.from_numpy(cross_val_predict(model, x, y, cv=folds, method="decision_function"))
    return metrics.auc(told[: len(members)], told[len(members) :])
