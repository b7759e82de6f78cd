"""Handwritten digits that come with scikit-learn: the default, without a download."""

from typing import Any, cast

import torch

from memlib.data.images import Images, collect
from memlib.errors import Refused


def load(place: str, size: int | None) -> Images:
    """1,797 grey digits of 43 people, (1797, 1, 8, 8), levels 0..16 mapped to [-1, 1] (Alpaydin and Kaynak 1998, UCI).

    Raises:
        Refused: for a `size` other than None and 8, and for a `place`, since there is only one set.
    """
    if place:
        raise Refused(f"the source digits takes no place: write digits without ':{place}'")
    if size not in (None, 8):
        raise Refused(f"digits are 8 pixels wide, not {size}: leave size out, or give another source")
    from sklearn.datasets import load_digits  # slow to import, and most sources do not need it

    digits = cast(Any, load_digits())  # declared as a tuple, which it is only with return_X_y
    images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    return collect(images, torch.as_tensor(digits.target), tuple("0123456789"), "digits")
