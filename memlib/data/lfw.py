"""Labeled Faces in the Wild: press photographs of public figures, through scikit-learn."""

import numpy
import torch
from sklearn import datasets

from memlib.data.files import resampled
from memlib.data.images import Images, collect
from memlib.errors import Refused

_FACE = (slice(70, 195), slice(63, 188))  # the rows of scikit-learn's own crop of 250 x 250, and as many columns


def load(place: str, size: int | None, *, fewest: int = 0) -> Images:
    """13,233 photographs of 5,749 people, (13233, 3, 125, 125) or (13233, 3, size, size), cut about the face.

    Of people with at least `fewest` images each: `lfw:fewest=20` leaves 3,023 of 62 people. scikit-learn fetches the
    funneled set once, about 230 MB, into its data folder (~/scikit_learn_data, or what SCIKIT_LEARN_DATA names).
    Labels are the people, by name. Huang et al. 2007. Raises Refused for a `place`, a size below 1, more images than
    anybody has, and where the images are neither there nor to be had.
    """
    if place:
        raise Refused(f"lfw stands alone, without ':{place}', or with options, as in lfw:fewest=20")
    if size is not None and size < 1:
        raise Refused(f"images cannot be {size} pixels wide: give a size of 1 or more")
    try:
        found = datasets.fetch_lfw_people(color=True, resize=None, slice_=_FACE, min_faces_per_person=fewest)
    except Exception as error:  # no network, an archive cut short: urllib, tarfile, Pillow raise their own
        why = str(error).partition("\n")[0] or type(error).__name__
        if "too restrictive" in why:
            raise Refused(f"nobody in LFW has {fewest} images: ask for fewer, as in lfw:fewest=20") from error
        raise Refused(
            f"Labeled Faces in the Wild could not be read from {datasets.get_data_home()!r} nor fetched ({why}): go "
            "online once, or copy scikit-learn's lfw_home into that folder or the one that SCIKIT_LEARN_DATA names"
        ) from error
    levels = (found.images * 255).round().astype(numpy.uint8)  # (N, 125, 125, 3)
    names = tuple(map(str, found.target_names))
    source = f"lfw:fewest={fewest}" if fewest else "lfw"
    return collect(resampled(levels, size), torch.as_tensor(found.target), names, source)
