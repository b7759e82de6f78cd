"""The rules of the theory's claims, lemma 1 and theorem 1 (I9) and the covariance (I10), as those in `rules`."""

from memlib.claim import Claim
from memlib.papers.i2i.evaluation import interval
from memlib.papers.i2i.study.results import Results
from memlib.papers.i2i.study.rules import claim_of, present


def i9(results: Results) -> Claim:
    """Both parts: *reproduced* if I9a and I9b are, *trend only* if one of them is, else *not reproduced*."""
    return _whole("I9", i9a(results), i9b(results))


def i9a(results: Results) -> Claim:
    """Lemma 1, on four laws of one mean and variance on the line: *reproduced* if the Gaussian is the law farthest from
    each, else *not reproduced*. A check of arithmetic."""
    found = present(results.theory)
    verdict = "reproduced" if found.lemma1() else "not reproduced"
    figure = {law: found.to_gaussian(law) for law in found.laws}
    return Claim("I9a", verdict, figure, len(found.laws), None, "divergence from each law to the Gaussian, nats")


def i9b(results: Results) -> Claim:
    """Theorem 1, a check of arithmetic: *reproduced* if the printed bound stays below InfoNCE, and InfoNCE below its
    maximum, at every moment of the first repetition; if forget codes come nearer to those of noise in every repetition;
    and if the bound of equation 9 rises (lower end above 0). Else *not reproduced*."""
    found = present(results.theory)
    printed, infonce, maximum, distance, _ = found.along.unbind(-1)
    ordered = bool((printed <= infonce + 1e-9).all() and (infonce <= maximum).all())
    nearer = bool((found.ends[:, 1, 3] < found.ends[:, 0, 3]).all())
    rises = found.ends[:, 1, 0] - found.ends[:, 0, 0]
    verdict = "reproduced" if ordered and nearer and interval(rises)[0] > 0 else "not reproduced"
    text = "a smaller distance goes with a larger bound, below InfoNCE throughout; 90 % interval: the rise"
    return claim_of("I9b", verdict, {"rise of the bound on forget images, nats": rises}, interval(rises), text)


def i10(results: Results) -> Claim:
    """Both parts: *needs data or scale* if I10a or I10b does, *reproduced* if both are, *trend only* if one of them is,
    else *not reproduced*."""
    return _whole("I10", i10a(results), i10b(results))


def i10a(results: Results) -> Claim:
    """The premise: the fraction of the squared covariance of the forget images that lies off the diagonal. *Reproduced*
    if its upper end is below twice what shuffled pixels show by chance, *not reproduced* if its lower end is above
    that. Else *needs data or scale*, as where images are too large for their covariance."""
    noise = present(results.noise)
    low, high = interval(noise.off_diagonal)
    figure = {"off the diagonal": noise.off_diagonal}
    if noise.by_chance is None:
        return claim_of("I10a", "needs data or scale", figure, (low, high), "fraction of the squared covariance")
    twice = 2 * float(noise.by_chance.mean())
    verdict = "reproduced" if high < twice else "not reproduced" if low > twice else "needs data or scale"
    text = "fraction of the squared covariance; 90 % interval: off the diagonal"
    return claim_of("I10a", verdict, figure | {"by chance": noise.by_chance}, (low, high), text)


def i10b(results: Results) -> Claim:
    """The consequence. *Needs data or scale* unless the gate is open. The loss on forget images by N(0, I) minus that
    by the exact covariance of the images (by rank 8 where the images are too large for it): *not reproduced* if it is
    shown to be below minus the margin, *reproduced* if it is shown to be above that. Else *needs data or scale*."""
    noise, margin = present(results.noise), results.margin
    other = "exact covariance" if "exact covariance" in noise.losses else "rank 8"
    low, high = interval((noise.losses["N(0, I)"] - noise.losses[other])[:, 1])
    if not results.gate.open(margin):
        verdict = "needs data or scale"
    else:
        verdict = "reproduced" if low > -margin else "not reproduced" if high < -margin else "needs data or scale"
    figure = {kind: noise.losses[kind][:, 1:] for kind in ("N(0, I)", other)}
    text = f"loss on forget images; 90 % interval: by the identity over that by the {other}"
    return claim_of("I10b", verdict, figure, (low, high), text)


def _whole(name: str, first: Claim, second: Claim) -> Claim:
    """A claim of two parts; the figure counts the parts that are reproduced."""
    parts = (first, second)
    held = [part.id for part in parts if part.verdict == "reproduced"]
    if any(part.verdict == "needs data or scale" for part in parts):
        verdict = "needs data or scale"
    else:
        verdict = ("not reproduced", "trend only", "reproduced")[len(held)]
    return Claim(name, verdict, len(held), second.n, None, f"parts reproduced: {', '.join(held) or 'none'}")
