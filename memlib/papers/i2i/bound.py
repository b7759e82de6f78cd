"""Theory of image-to-image unlearning, as numbers: the bound of theorem 1 on codes, and lemma 1 on the line.

Theorem 1 bounds the mutual information between images and their completions from below by InfoNCE with the inner
product of unit codes as critic, and InfoNCE by a function of the distances between two encoders (eq. 8, eq. 9).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from memlib.errors import Refused


class Bound(NamedTuple):
    """Theorem 1 on K codes, in nats: printed <= infonce <= infonce_maximum < 1, and what it rests on.

    printed: eq. 8 or 9. infonce: the bound before Cauchy-Schwarz (B.12). infonce_maximum: the largest value that K unit
    codes can give. distance: mean of the epsilon_i or delta_i, 0 to 2. spread: standard deviation over mean of the
    lengths of codes before they are scaled to 1, the larger of the two encoders'; the theorem assumes 0.
    """

    printed: float
    infonce: float
    infonce_maximum: float
    distance: float
    spread: float


def theorem1(codes: Tensor, references: Tensor) -> Bound:
    """The bound of eq. 8 (retain) or eq. 9 (forget).

    In eq. 9 the noise is drawn for the occasion and independent of x_i, hence of its completion: I(n; X_f) is 0, and so
    is the largest value that the bound can keep in expectation. Only noise that was paired with images in training can
    beat it.

    Arguments:
        codes: E(T(x_i)) of the encoder in training, (K, D); further dimensions are flattened, and all codes are scaled
            to unit length, as the theorem assumes.
        references: of the original encoder, (K, D): E0(T(x_i)) for eq. 8, E0(T(n_i)) of noise n_i for eq. 9.

    Raises:
        Refused: for codes that do not pair up, fewer than two, or of length 0.
    """
    if codes.shape != references.shape or len(codes) < 2:
        raise Refused(f"codes pair up as (K, D), K >= 2, but are {tuple(codes.shape)} and {tuple(references.shape)}")
    both = [part.flatten(1).double() for part in (codes, references)]
    lengths = torch.stack([part.norm(dim=1) for part in both])  # (2, K)
    if not lengths.min() > 0:
        raise Refused("a code has length 0 or is no number, and cannot be scaled to length 1: look at the encoder")
    a, b = (F.normalize(part, dim=1) for part in both)
    distance = (a - b).norm(dim=1)
    spread = float((lengths.std(1) / lengths.mean(1)).max())
    value, printed = float(infonce(b, a)), float(_printed(distance, b @ b.T))
    return Bound(printed, value, infonce_maximum(len(a)), float(distance.mean()), spread)


def infonce(queries: Tensor, keys: Tensor) -> Tensor:
    """log K + mean_i log(e^(q_i . k_i) / sum_j e^(q_i . k_j)) of (K, D) and (K, D), a scalar, in nats. B.11-B.12.

    In expectation over independent pairs at most their mutual information, and never above log K (van den Oord et al.
    2018). The paper's B.11-B.18 have a minus before the mean, a slip that is not in eq. 8 and 9.
    """
    similarity = queries @ keys.T
    return math.log(len(queries)) + similarity.log_softmax(1).diagonal().mean()


def infonce_maximum(k: int) -> float:
    """The most that `infonce` can be on k pairs of unit codes: log k - log(1 + (k - 1) e^(-k / (k - 1))), in nats.

    Reached by k equal pairs at the corners of a simplex. It rises to 1 from below and stays under log k by far: inner
    products of unit vectors lie in [-1, 1], and without a temperature they cannot tell many codes apart. So theorem 1
    never guarantees more than about one nat, however well the model completes.
    """
    if k < 2:
        raise Refused(f"InfoNCE compares at least 2 pairs, not {k}")
    return math.log(k) - math.log1p((k - 1) * math.exp(-k / (k - 1)))


def _printed(distance: Tensor, inner: Tensor) -> Tensor:
    """Eq. 8 and 9 from distances (K,) and the inner products of the original encoder's codes (K, K)."""
    logs = distance.square() / 2 - 1 + (distance + inner).logsumexp(1)
    return math.log(len(distance)) - logs.mean()


def matched(x: Tensor) -> dict[str, Tensor]:
    """Log-densities at x (N,) of four laws of mean 0 and variance 1, by name, each (N,), to test lemma 1 with.

    gaussian, uniform on [-sqrt 3, sqrt 3], laplace, and an equal mixture of N(-0.9, 0.19) and N(0.9, 0.19).
    """
    x = x.double()
    half, scale, centre, std = math.sqrt(3), math.sqrt(0.5), 0.9, math.sqrt(0.19)
    normal = -0.5 * x.square() - 0.5 * math.log(2 * math.pi)
    humps = torch.stack([-0.5 * ((x - m) / std).square() for m in (-centre, centre)]).logsumexp(0)
    return {
        "gaussian": normal,
        "uniform": torch.where(x.abs() <= half, torch.full_like(x, -math.log(2 * half)), -math.inf),
        "laplace": -x.abs() / scale - math.log(2 * scale),
        "mixture": humps - math.log(2 * std) - 0.5 * math.log(2 * math.pi),
    }


def divergence(log_p: Tensor, log_q: Tensor, x: Tensor) -> float:
    """KL(p || q), in nats, of log-densities (N,) on an even grid x (N,), by the trapezoid rule; inf where only q is 0.

    With q = N(0, Sigma) and p of the same covariance it is h(q) - h(p) >= 0, by how much p falls short of the largest
    entropy (Cover and Thomas 2006, theorem 8.6.5). Lemma 1 claims something else, that N(0, Sigma) is the q farthest
    from p; but p = N(0, Sigma) itself is at distance 0 from it, nearer than from any other.
    """
    p = log_p.exp()
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q))
    return float(torch.trapezoid(terms, x.double()))
