"""Cartoon faces of people who never lived: an endless, numbered sequence to every seed, drawn on demand.

A person is a fixed draw of face, hair and habits; an image is a person at a moment (pose, light, expression, what they
wear). Every trait is a standard normal built from a few shared causes, so traits correlate and attributes are no
independent coins: older people are greyer and wear glasses more often, hats come out with the sun. Image i of a seed
depends on (seed, i) and the number of people alone: images 0 to n - 1 train, the next ones are held out, any later
ones are fresh draws of the same distribution.
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
"""The binary attributes and the share of images that have each."""

_OF_PERSON, _OF_MOMENT = 5, 2    # how many of the causes below belong to a person, how many to an image
_TRAITS = {
    #                age, vigour, complexion, flair, cheer; sun, mood; share of the rest that stays with the person
    "skin":         (0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 1.0),
    "hair_tone":    (0.0, 0.0, -0.8, 0.2, 0.0, 0.0, 0.0, 1.0),
    "grey":         (0.9, 0.0, 0.0, -0.1, 0.0, 0.0, 0.0, 1.0),
    "hair_length":  (-0.2, -0.6, 0.0, 0.5, 0.0, 0.0, 0.0, 0.95),
    "volume":       (-0.4, 0.0, 0.3, 0.4, 0.0, 0.0, 0.0, 0.9),
    "hairline":     (-0.5, -0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "parting":      (0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.95),
    "width":        (0.4, 0.5, 0.0, 0.0, 0.2, 0.0, 0.0, 1.0),
    "height":       (0.0, 0.3, 0.0, 0.0, -0.3, 0.0, 0.0, 1.0),
    "jaw":          (0.2, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "eye_size":     (-0.5, -0.2, 0.0, 0.4, 0.0, 0.0, 0.0, 1.0),
    "eye_gap":      (0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "eye_tone":     (0.0, 0.0, -0.8, 0.0, 0.0, 0.0, 0.0, 1.0),
    "brow":         (0.1, 0.7, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0),
    "nose":         (0.5, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "mouth":        (0.0, 0.3, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0),
    "lips":         (-0.3, -0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1.0),
    "blush":        (-0.2, 0.0, -0.2, 0.2, 0.6, 0.0, 0.3, 0.5),
    "clothes":      (-0.3, 0.0, 0.0, 0.6, 0.3, 0.0, 0.0, 0.5),
    "felt":         (0.0, 0.3, 0.0, 0.4, 0.3, 0.0, 0.0, 0.5),
    "frame":        (-0.3, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0),
    "expression":   (0.0, 0.0, 0.0, 0.0, 0.4, 0.0, 0.7, 0.0),
    "lids":         (-0.3, 0.0, 0.0, 0.0, 0.0, -0.5, 0.4, 0.0),
    "gaze":         (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "turn":         (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "tilt":         (0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.3, 0.0),
    "right":        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "down":         (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "zoom":         (0.0, 0.0, 0.0, 0.0, 0.0, -0.4, 0.0, 0.0),
    "light":        (0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0),
    "light_side":   (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "warmth":       (0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.2, 0.0),
    "backdrop":     (0.0, 0.0, 0.0, 0.2, 0.0, 0.8, 0.2, 0.0),
    "bangs":        (-0.4, -0.4, 0.0, 0.5, 0.0, 0.0, 0.0, 0.8),
    "smiling":      (0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.6, 0.2),
    "eyeglasses":   (0.6, 0.0, 0.0, 0.2, -0.2, -0.2, 0.0, 0.8),
    "hat":          (0.2, 0.3, 0.0, 0.3, 0.0, 0.6, 0.0, 0.3),
    "beard":        (0.3, 0.8, 0.0, -0.2, 0.0, 0.0, 0.0, 0.9),
    "earrings":     (0.0, -0.6, 0.0, 0.6, 0.0, 0.0, 0.0, 0.6),
}
_N, _SIZE, _PEOPLE = 2000, 32, 200    # what `faces` alone means


def load(place: str, size: int | None) -> Images:
    """2,000 faces, (2000, 3, 32, 32), labelled by person; or what `place` says: `bangs,n=500,seed=1,first=2000`.

    A bare word names the label, `identity` or one of `ATTRIBUTES`; the options n, seed, first and identities are those
    of `draw`, in any order. Raises Refused for another word or option, and as `draw` does.
    """
    label, options = "identity", {}
    for number, item in enumerate(place.split(",") if place else ()):
        name, equals, value = item.partition("=")
        if not equals and number == 0:
            label = name
        elif name not in ("n", "seed", "first", "identities") or name in options:
            wrong = f"gives {name!r} twice" if name in options else f"holds {item!r}"
            raise Refused(f"'faces:{place}' {wrong}: write faces:LABEL,n=500,seed=0,first=0,identities=200, or less")
        elif not value.isdecimal():
            raise Refused(f"'faces:{place}' has {value!r} for {name}: give a whole number")
        else:
            options[name] = int(value)
    if place and "=" in place.split(",")[0]:
        label = "identity"
    return draw(options.pop("n", _N), _SIZE if size is None else size, label=label, **options)


def draw(
    n: int, size: int = _SIZE, seed: int = 0, first: int = 0, identities: int = _PEOPLE, label: str = "identity"
) -> Images:
    """Faces number first to first + n - 1 of a seed, (n, 3, size, size), in 256 levels as if read from a file.

    The same number is the same image whatever n and first, and the same person whatever `identities` if that person
    is drawn at all; another seed has other people. Raises Refused for a size outside 16..128, an unknown label, no
    images, no people, and a seed or first below 0 or above 2^62.
    """
    if not 16 <= size <= 128:
        raise Refused(f"faces are drawn 16 to 128 pixels wide, not {size}: give a size between")
    if label != "identity" and label not in ATTRIBUTES:
        raise Refused(f"faces have no label {label!r}: give one of identity, {', '.join(ATTRIBUTES)}")
    traits = factors(n, seed, first, identities)
    names = tuple(f"person {i}" for i in range(identities)) if label == "identity" else (f"no {label}", label)
    given = {"n": (n, _N), "seed": (seed, 0), "first": (first, 0), "identities": (identities, _PEOPLE)}
    words = [label] * (label != "identity") + [f"{k}={now}" for k, (now, usual) in given.items() if now != usual]
    source = "faces:" * bool(words) + ",".join(words) or "faces"
    return collect(render(traits, size), traits[label], names, source)


def factors(n: int, seed: int = 0, first: int = 0, identities: int = _PEOPLE) -> dict[str, Tensor]:
    """What faces number first to first + n - 1 are made of, by name, each (n,).

    `identity` and the attributes are int64, the other traits float32, standard normal over people and moments (with
    few identities the sample of people shows). Over both, the correlation of two traits is that of `correlations`.
    Raises Refused as `draw` does.
    """
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("first", first, 0), ("identities", identities, 1)):
        if not least <= value <= 2**62:
            raise Refused(f"faces cannot have {name} = {value}: give at least {least}")
    table = numpy.array(list(_TRAITS.values()))                                       # (T, causes + 1)
    loadings, share = table[:, :-1], table[:, -1]
    rest = numpy.sqrt(1 - (loadings**2).sum(1))
    moment = _uniform(seed, 1, first, n, 1 + _OF_MOMENT + len(table))
    identity = (moment[:, 0] * identities).astype(numpy.int64)
    moment = ndtri(moment[:, 1:])
    person = ndtri(_uniform(seed, 0, 0, identities, _OF_PERSON + len(table)))[identity]
    causes = numpy.concatenate((person[:, :_OF_PERSON], moment[:, :_OF_MOMENT]), 1)
    own = numpy.sqrt(share) * person[:, _OF_PERSON:] + numpy.sqrt(1 - share) * moment[:, _OF_MOMENT:]
    values = causes @ loadings.T + rest * own                                         # (n, T)
    found = {"identity": torch.from_numpy(identity)}
    for name, value in zip(_TRAITS, values.T, strict=True):
        has = name in ATTRIBUTES
        found[name] = torch.from_numpy((value > -ndtri(ATTRIBUTES[name])).astype(numpy.int64) if has else
                                       value.astype(numpy.float32))
    return found


def correlations() -> tuple[tuple[str, ...], Tensor]:
    """The names of the T traits and their correlations over all people and moments, (T, T), float64.

    An attribute counts here as the normal that is cut at its share, so that its row is a probit model of it.
    """
    loadings = torch.tensor(list(_TRAITS.values()), dtype=torch.float64)[:, :-1]
    return tuple(_TRAITS), (loadings @ loadings.T).fill_diagonal_(1)


def _uniform(seed: int, stream: int, first: int, rows: int, width: int) -> NDArray[numpy.float64]:
    """(rows, width) in (0, 1); row i depends on (seed, stream, first + i) alone.

    Philox (Salmon et al. 2011) is a function of its counter, and one count yields four words. The words are taken raw:
    numpy may change how its distributions use them, not what they are.
    """
    counts = -(-width // 4)
    words = numpy.random.Philox(key=[seed, stream], counter=first * counts).random_raw(4 * counts * rows)
    return ((words >> 11).reshape(rows, -1)[:, :width] + 0.5) * 2.0**-53
