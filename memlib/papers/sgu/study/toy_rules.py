"""The rules of the toy. The docstring is the rule."""

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.sgu.study.results import Toy

ANGLE_LEVEL = 0.3  # the level of U7
PRINTED_LEVEL = 0.02  # that of the paper's figure 2: t = 0.08 of VE from 0.01 to 50
_UNTURNED = 0.1  # change of a cosine that still counts as none
_CLOSE = 0.15  # distance from the closed form's cosine up to which a network has converged
_ARMS = ("standard", "unseen", "orthogonal", "obtuse")


def u7(toy: Toy) -> Claim:
    """Cosine of the score with that of the forgotten mode, at noised forget points, at the level nearest sigma = 0.3.

    Gate: the mean cosines of the retrained and of the obtuse networks lie within 0.15 of their closed forms, else
    *needs data or scale*. If the obtuse networks lie below the retrained ones by the interval over seeds, have a mean
    below 0, and retraining moves the cosine of the *closed form* by less than 0.1, *reproduced*. If obtuse lies below
    retraining, *trend only*. Otherwise *not reproduced*.
    """
    return _turned("U7", toy, ANGLE_LEVEL)


def u7a(toy: Toy) -> Claim:
    """The rule of U7 at the noise of the paper's figure 2, the level nearest sigma = 0.02."""
    return _turned("U7a", toy, PRINTED_LEVEL)


def nearest_level(toy: Toy, level: float) -> int:
    """The number of the measured level that is nearest."""
    return int((toy.levels - level).abs().argmin())


def _turned(name: str, toy: Toy, level: float) -> Claim:
    at = nearest_level(toy, level)
    turn = {arm: toy.cosine[arm, "D_f"][:, at] for arm in _ARMS}
    exact = {arm: float(toy.exact_cosine[arm][at]) for arm in _ARMS}
    beyond = metrics.mean_interval(turn["obtuse"] - turn["unseen"])
    converged = all(abs(float(turn[arm].mean()) - exact[arm]) < _CLOSE for arm in ("unseen", "obtuse"))
    unturned = abs(exact["unseen"] - exact["standard"]) < _UNTURNED
    away = beyond[1] < 0 and float(turn["obtuse"].mean()) < 0
    verdict = "reproduced" if away and unturned else "trend only" if beyond[1] < 0 else "not reproduced"
    figure = {arm: float(value.mean()) for arm, value in turn.items()}
    return Claim(
        name,
        verdict if converged else "needs data or scale",
        figure | {f"{arm}, exact": value for arm, value in exact.items()},
        len(turn["obtuse"]),
        beyond,
        f"cosine of learned and forgotten score at D_f, σ = {toy.levels[at]:.2g}; interval: obtuse minus unseen",
    )
