"""Handwritten digits that come with scikit-learn: the default, no download."""

import torch
from sklearn.datasets import load_digits

from memlib.data.images import Images, collect
from memlib.errors import Refused


def load(place: str, size: int | None) -> Images:
    """1,797 grey digits of 43 people, (1797, 1, 8, 8), levels 0..16 mapped to [-1, 1] (Alpaydin and Kaynak 1998, UCI).

    `size` other than None and 8 is refused, and so is a `place`: there is only one set.
    """
    if place:
        raise Refused(f"digits stands alone, without ':{place}'")
    if size not in (None, 8):
        raise Refused(f"digits are 8 pixels wide, not {size}: leave size out")
    digits = load_digits()
    images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    return collect(images, torch.as_tensor(digits.target), tuple("0123456789"), "digits")
