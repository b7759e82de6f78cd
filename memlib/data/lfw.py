"""Labeled Faces in the Wild: press photographs of public figures, through scikit-learn."""

from typing import Any, cast

import numpy
import torch

from memlib.data.files import resampled
from memlib.data.images import Images, collect
from memlib.errors import Refused

_FACE = (slice(70, 195), slice(63, 188))  # of 250 x 250 pixels: the rows that scikit-learn crops, and as many columns


def load(place: str, size: int | None, *, fewest: int = 0) -> Images:
    """13,233 photographs of 5,749 people, (13233, 3, 125, 125) or (13233, 3, size, size), cropped around the face.

    scikit-learn downloads the funneled set once, about 230 MB, into its data folder (~/scikit_learn_data, or the folder
    in the variable SCIKIT_LEARN_DATA). Labels are the people, by name. Huang et al. 2007.

    Arguments:
        place: must be empty.
        size: resample to (size, size) pixels.
        fewest: only people with at least this many images: `lfw:fewest=20` leaves 3,023 images of 62 people.

    Raises:
        Refused: for a `place`, for a size below 1, if nobody has `fewest` images, and if the images are not there and
            cannot be downloaded.
    """
    if place:
        raise Refused(
            f"the source lfw takes no place: write lfw without ':{place}', or with options, as in lfw:fewest=20"
        )
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    from sklearn import datasets  # slow to import, and most sources do not need it

    try:
        found = datasets.fetch_lfw_people(
            color=True,
            resize=None,  # pyright: ignore[reportArgumentType]  # documented, but not declared, by scikit-learn
            slice_=_FACE,
            min_faces_per_person=fewest,
        )
    except Exception as error:  # no network, a truncated archive: urllib, tarfile and Pillow raise their own
        why = str(error).partition("\n")[0] or type(error).__name__
        if "too restrictive" in why:
            raise Refused(f"nobody in LFW has {fewest} images: give fewer, as in lfw:fewest=20") from error
        raise Refused(
            f"Labeled Faces in the Wild could not be read from {datasets.get_data_home()!r} nor fetched ({why}): go "
            "online once, or copy scikit-learn's lfw_home into that folder or the one that SCIKIT_LEARN_DATA names"
        ) from error
    found = cast(Any, found)  # declared as a tuple, which it is only with return_X_y
    levels = (found.images * 255).round().astype(numpy.uint8)  # (N, 125, 125, 3)
    names = tuple(map(str, found.target_names))
    source = f"lfw:fewest={fewest}" if fewest else "lfw"
    return collect(resampled(levels, size), torch.as_tensor(found.target), names, source)
