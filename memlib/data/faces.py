"""Cartoon faces of people who never lived: for each seed an endless, numbered sequence, drawn on demand.

A person is a fixed draw of face, hair and habits. An image is a person at one moment (pose, light, expression,
clothes). Every trait is a standard normal variable built from a few common causes, so traits are correlated: older
people are greyer and wear glasses more often, hats are worn in the sun. Image i of a seed depends only on (seed, i) and
the number of people. Train on images 0 to n - 1; the next ones are held out; all later ones are fresh draws of the same
distribution.

With `pair`, two attributes are drawn for each image anew, independently of person and moment: both, one or none of them
at given fractions. So a *combination* can be forgotten whose parts are kept.
"""

import numpy
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from memlib.data.images import Images, collect
from memlib.data.portrait import render
from memlib.errors import Refused

ATTRIBUTES = {"bangs": 0.25, "smiling": 0.5, "eyeglasses": 0.2, "hat": 0.15, "beard": 0.2, "earrings": 0.2}
"""The binary attributes, and the fraction of images that have each."""

_POSE = ("turn", "tilt", "right", "down", "zoom")
_OF_PERSON, _OF_MOMENT = 5, 2  # how many of the causes below belong to a person, how many to an image
_TRAITS = {
    #                age, vigour, complexion, flair, cheer; sun, mood; fraction of the rest that stays with the person
    "skin": (0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 1.0),
    "hair_tone": (0.0, 0.0, -0.9, 0.2, 0.0, 0.0, 0.0, 1.0),
    "grey": (0.9, 0.0, 0.0, -0.1, 0.0, 0.0, 0.0, 1.0),
    "hair_length": (-0.2, -0.6, 0.0, 0.5, 0.0, 0.0, 0.0, 0.95),
    "volume": (-0.4, 0.0, 0.3, 0.4, 0.0, 0.0, 0.0, 0.9),
    "hairline": (-0.5, -0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "parting": (0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.95),
    "width": (0.4, 0.5, 0.0, 0.0, 0.2, 0.0, 0.0, 1.0),
    "height": (0.0, 0.3, 0.0, 0.0, -0.3, 0.0, 0.0, 1.0),
    "jaw": (0.2, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "eye_size": (-0.5, -0.2, 0.0, 0.4, 0.0, 0.0, 0.0, 1.0),
    "eye_gap": (0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "eye_tone": (0.0, 0.0, -0.8, 0.0, 0.0, 0.0, 0.0, 1.0),
    "brow": (0.1, 0.7, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0),
    "nose": (0.5, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "mouth": (0.0, 0.3, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0),
    "lips": (-0.3, -0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1.0),
    "blush": (-0.2, 0.0, -0.2, 0.2, 0.6, 0.0, 0.3, 0.5),
    "clothes": (-0.3, 0.0, 0.0, 0.6, 0.3, 0.0, 0.0, 0.5),
    "felt": (0.0, 0.3, 0.0, 0.4, 0.3, 0.0, 0.0, 0.5),
    "frame": (-0.3, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0),
    "expression": (0.0, 0.0, 0.0, 0.0, 0.4, 0.0, 0.7, 0.0),
    "lids": (-0.3, 0.0, 0.0, 0.0, 0.0, -0.5, 0.4, 0.0),
    "gaze": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "turn": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "tilt": (0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.3, 0.0),
    "right": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "down": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "zoom": (0.0, 0.0, 0.0, 0.0, 0.0, -0.4, 0.0, 0.0),
    "light": (0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0),
    "light_side": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "warmth": (0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.2, 0.0),
    "backdrop": (0.0, 0.0, 0.0, 0.2, 0.0, 0.8, 0.2, 0.0),
    "bangs": (-0.4, -0.4, 0.0, 0.5, 0.0, 0.0, 0.0, 0.8),
    "smiling": (0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.6, 0.2),
    "eyeglasses": (0.6, 0.0, 0.0, 0.2, -0.2, -0.2, 0.0, 0.8),
    "hat": (0.2, 0.3, 0.0, 0.3, 0.0, 0.6, 0.0, 0.3),
    "beard": (0.3, 0.8, 0.0, -0.2, 0.0, 0.0, 0.0, 0.9),
    "earrings": (0.0, -0.6, 0.0, 0.6, 0.0, 0.0, 0.0, 0.6),
}


def load(
    place: str, size: int | None, *, n: int = 4000, seed: int = 0, first: int = 0, identities: int = 200,
    pair: str = "", alone: int = 50, pose: int = 100,
) -> Images:  # fmt: skip
    """4,000 faces, (4000, 3, 32, 32), labelled by person, unless options say otherwise: `faces:bangs,n=500`.

    `place` is the label, `identity` if it is empty. For the other arguments, and for what is refused, see `draw`.
    """
    wide = 32 if size is None else size
    return draw(n, wide, seed, first, identities, place or "identity", pair=pair, alone=alone, pose=pose)


def draw(
    n: int, size: int = 32, seed: int = 0, first: int = 0, identities: int = 200, label: str = "identity", *,
    pair: str = "", alone: int = 50, pose: int = 100,
) -> Images:  # fmt: skip
    """The faces number first to first + n - 1 of a seed, (n, 3, size, size), in 256 levels as if read from a file.

    A number is the same image for any n, first and label.

    Arguments:
        n: how many faces.
        size: pixels a side, 16 to 128.
        seed: another seed has other people.
        first: the number of the first face.
        identities: how many people there are to draw from.
        label: "identity", one of `ATTRIBUTES`, or "pair": neither of the two, the first, the second, both.
        pair: two attributes such as "bangs+eyeglasses", drawn for each image apart from all else: both of them in 25 %
            of images, exactly one in `alone` %, each of the two equally often. Empty: as people have them.
        alone: a percentage, 0 to 75; at 50 the two are independent of one another.
        pose: how far heads are turned, tilted, moved and zoomed, in percent of the usual.

    Raises:
        Refused: for another size, label, pair or percentage, for n or identities below 1, and for a number below 0 or
            above 2^62.
    """
    if not 16 <= size <= 128:
        raise Refused(f"faces are drawn 16 to 128 pixels wide, not {size}: give a size in between")
    two = _two(pair)
    if label != "identity" and label not in ATTRIBUTES and not (two and label == "pair"):
        raise Refused(f"faces have no label {label!r}: give one of identity, {', '.join(ATTRIBUTES)}")
    for name, value, most in (("alone", alone, 75), ("pose", pose, 100)):
        if not 0 <= value <= most:
            raise Refused(f"faces cannot have {name} = {value}: give a percentage from 0 to {most}")
    traits = factors(n, seed, first, identities)
    if two:
        traits |= _apart(two, alone, seed, first, n)
    traits |= {name: traits[name] * (pose / 100) for name in _POSE}
    names: tuple[str, ...] = (f"no {label}", label)
    if label == "pair":
        names = ("neither", *two, " and ".join(two))
    elif label == "identity":
        names = tuple(f"person {i}" for i in range(identities))
    source = f"faces:{label},n={n},seed={seed},first={first},identities={identities}"
    source += f",pair={pair},alone={alone}" * bool(pair) + f",pose={pose}" * (pose != 100)
    return collect(render(traits, size), traits[label], names, source)


def _two(pair: str) -> tuple[str, ...]:
    """The two attributes of a pair, or none of an empty one."""
    two = tuple(pair.split("+")) if pair else ()
    if two and (len(set(two)) != 2 or not set(two) <= set(ATTRIBUTES)):
        raise Refused(f"faces have no pair {pair!r}: give two of {', '.join(ATTRIBUTES)}, such as bangs+eyeglasses")
    return two


def _apart(two: tuple[str, ...], alone: int, seed: int, first: int, n: int) -> dict[str, Tensor]:
    """The two attributes and `pair`, 0 to 3, of the faces number first to first + n - 1, each (n,), int64."""
    place = 100 * _uniform(seed, 3, first, n, 1)[:, 0]
    label = numpy.select([place < 25, place < 25 + alone / 2, place < 25 + alone], [3, 1, 2], 0)
    number = torch.from_numpy(label.astype(numpy.int64))
    return {two[0]: number % 2, two[1]: number // 2, "pair": number}


def factors(n: int, seed: int = 0, first: int = 0, identities: int = 200) -> dict[str, Tensor]:
    """The traits of the faces number first to first + n - 1, by name, each (n,). The arguments are those of `draw`.

    `identity` and the attributes are int64. The other traits are float32 and standard normal over people and moments;
    with few identities, the sample of people is visible in their distribution. The correlation of two traits, over
    people and moments, is that of `correlations`. Raises Refused as `draw` does.
    """
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("first", first, 0), ("identities", identities, 1)):
        if not least <= value <= 2**62:
            raise Refused(f"faces cannot have {name} = {value}: give {least} to 2^62")
    table = numpy.array(list(_TRAITS.values()))
    loadings, stays = table[:, :-1], table[:, -1]  # (T, causes), (T,)
    rest = numpy.sqrt(1 - (loadings**2).sum(1))
    moment = _uniform(seed, 2, first, n, 1 + _OF_MOMENT + len(table))
    identity = (moment[:, 0] * identities).astype(numpy.int64)
    moment = ndtri(moment[:, 1:])
    person = ndtri(_uniform(seed, 1, 0, identities, _OF_PERSON + len(table)))[identity]
    causes = numpy.concatenate((person[:, :_OF_PERSON], moment[:, :_OF_MOMENT]), 1)
    own = numpy.sqrt(stays) * person[:, _OF_PERSON:] + numpy.sqrt(1 - stays) * moment[:, _OF_MOMENT:]
    # Summed cause by cause: the rounding of a matrix product depends on how many rows it has.
    shared = sum(cause[:, None] * loading for cause, loading in zip(causes.T, loadings.T, strict=True))
    traits = dict(zip(_TRAITS, torch.from_numpy(shared + rest * own).unbind(1), strict=True))
    binary = {name: (traits[name] > -ndtri(fraction)).long() for name, fraction in ATTRIBUTES.items()}
    return {"identity": torch.from_numpy(identity), **{k: v.float() for k, v in traits.items()}, **binary}


def correlations() -> tuple[tuple[str, ...], Tensor]:
    """The names of the T traits, and their correlations over all people and moments, (T, T), float64.

    An attribute is a normal variable cut at its threshold. Its row holds the correlations of that normal variable,
    which are called tetrachoric.
    """
    loadings = torch.tensor(list(_TRAITS.values()), dtype=torch.float64)[:, :-1]
    return tuple(_TRAITS), (loadings @ loadings.T).fill_diagonal_(1)


def _uniform(seed: int, stream: int, first: int, rows: int, width: int) -> NDArray[numpy.float64]:
    """(rows, width) in (0, 1); row i depends only on (seed, stream, first + i).

    Philox (Salmon et al. 2011) is a function of its counter, and each count gives four words. The raw words are used,
    because numpy may change how its distributions use them, but not the words themselves.
    """
    counts = -(-width // 4)
    words = numpy.random.Philox(key=[seed, stream], counter=first * counts).random_raw(4 * counts * rows)
    return ((words >> 11).reshape(rows, -1)[:, :width].astype(numpy.float64) + 0.5) * 2.0**-53
