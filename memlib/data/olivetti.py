"""Grey faces of forty people under changing light, through scikit-learn."""

from typing import Any, cast

import numpy
import torch

from memlib.data.files import resampled
from memlib.data.images import Images, collect
from memlib.errors import Refused


def load(place: str, size: int | None) -> Images:
    """400 photographs, ten of each of 40 people, (400, 1, 64, 64) or (400, 1, size, size), taken at AT&T in 1992-94.

    scikit-learn downloads them once, a few MB, into its data folder (~/scikit_learn_data, or the folder in the variable
    SCIKIT_LEARN_DATA). Labels are the people, in order. Samaria and Harter 1994.

    Raises:
        Refused: for a `place`, for a size below 1, and if the images are not there and cannot be downloaded.
    """
    if place:
        raise Refused(f"the source olivetti takes no place: write olivetti without ':{place}'")
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    from sklearn import datasets  # slow to import, and most sources do not need it

    try:
        found = datasets.fetch_olivetti_faces(shuffle=False)
    except Exception as error:  # no network, a proxy's page, a truncated file: urllib, joblib, zlib raise their own
        why = str(error).partition("\n")[0] or type(error).__name__
        raise Refused(
            f"the Olivetti faces are not in {datasets.get_data_home()!r} and could not be fetched ({why}): go online "
            "once, or copy scikit-learn's olivetti.pkz into that folder or the one that SCIKIT_LEARN_DATA names"
        ) from error
    found = cast(Any, found)  # declared as a tuple, which it is only with return_X_y
    levels = (found.images * 255).round().astype(numpy.uint8)  # scikit-learn has divided by the largest level
    names = tuple(f"person {i}" for i in range(int(found.target.max()) + 1))
    return collect(resampled(levels, size), torch.as_tensor(found.target), names, "olivetti")
