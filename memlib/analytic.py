"""Denoisers in closed form: Gaussian mixtures, and the empirical one that remembers every training point.

The tests and the toy figures use them as exact models, and trained models are compared with the perfect memorizer. In a
mixture sum_k w_k N(m_k, C_k) noised to sigma each component is N(m_k, C_k + sigma^2 I), so

    D(x, sigma) = sum_k p(k | x) [m_k + C_k (C_k + sigma^2 I)^-1 (x - m_k)].
"""

import math

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.noise import expand_sigma
from memlib.shapes import Float, Int, PerSample, Shaped

_CELLS = 1 << 25  # logits held at once, (rows, K): 128 MiB in float32
_SHARP = 1e-4  # nats: float32 is kept where the error of a logit is below this, and D then errs by less than 1e-5
_WIDE = 512  # coordinates from which on a float64 product costs too much to be the default
_NATS = 25.0  # a component this far below the best adds less than e^-25, 1e-11, to any mean
_FEW = 32  # up to this many surviving components per row, gathering them beats a second product with all


class GaussianMixture:
    """sum_k weights_k N(means_k, C_k) as an exact denoiser, with its log-density and posterior over components.

    It works in the dtype and on the device of the sample that it is given.

    With isotropic components no array of size (B, K, d) is held in memory: squared distances come from one matrix
    product. At low noise, near duplicates and in float32, cancellation in that product could change the result. The few
    components with a noticeable posterior are then ranked again by exact differences in float64; if they are too many,
    the product is computed in float64.

    Arguments:
        means: (K, *S).
        weights: (K,), positive, normalised here; None is uniform.
        std: a float or (K,), for isotropic components of covariance std^2 I.
        covariances: (K, d, d) with d the number of coordinates of S, symmetric and without negative eigenvalues (a
            singular one is a flat component); used instead of std.

    Raises:
        Refused: if a weight is not positive, a number is not finite, a shape does not fit, or a std or covariance
            cannot be one.
    """

    def __init__(
        self,
        means: Float[Tensor, " k *s"],
        weights: Shaped[Tensor, "..."] | None = None,
        std: float | Shaped[Tensor, "..."] = 0.0,
        covariances: Float[Tensor, "..."] | None = None,
    ) -> None:
        count, self.shape = len(means), means.shape[1:]
        if not count or not means.is_floating_point() or not means.isfinite().all():
            raise Refused(f"the means of a mixture are finite floats, (K, *S), K >= 1, not {_described(means)}")
        weights = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if weights.shape != (count,) or not ((weights > 0) & (weights < math.inf)).all():
            raise Refused(f"a mixture of {count} components needs {count} positive weights, not {weights.tolist()}")
        self.weights = (weights.double() / weights.double().sum()).to(means.device)
        self.means = means.reshape(count, -1)
        std = torch.as_tensor(std, dtype=torch.float64, device=means.device)
        if std.shape not in ((), (1,), (count,)) or not ((std >= 0) & (std < math.inf)).all():
            raise Refused(f"std is one number from 0, or {count} of them, not {std.tolist()}")
        self.std = std.expand(count)
        self._shared = bool((self.std == self.std[0]).all())
        self._flat = not bool(self.std.all())  # without noise there is no density
        self.spectrum = None
        if covariances is not None:
            size = self.means.shape[1]
            if covariances.shape != (count, size, size):
                raise Refused(f"covariances are {tuple(covariances.shape)}; expected {(count, size, size)}")
            self.spectrum = values, _ = _spectrum(covariances)
            rounding = torch.finfo(covariances.dtype).eps * values.amax(1, keepdim=True)
            self._flat = bool((values <= rounding).any())
        # Rounding of distances is least where coordinates are small, so the origin moves to the mean of the means.
        self.centre = self.means.double().mean(0).to(means)
        self._about = self.means - self.centre
        self._half_square = torch.cat([0.5 * rows.double().square().sum(1) for rows in self._about.split(1 << 12)])
        self.spread = float((2 * self._half_square.max()).sqrt())

    def __call__(self, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b *s"]:
        """D(x, sigma) = E[x0 | x], (B, *S) -> (B, *S), for sigma a float, () or (B,). At sigma = 0 it is the limit."""
        rows, level = x.reshape(len(x), -1), expand_sigma(sigma, x).reshape(-1, 1).expand(len(x), 1)
        if self.spectrum is not None:
            return self._full_mean(rows, level).reshape(x.shape)
        step = max(1, _CELLS // len(self.means))
        blocks = [self._mean(a, s) for a, s in zip(rows.split(step), level.split(step), strict=True)]
        return torch.cat(blocks).reshape(x.shape)

    def log_prob(self, x: Float[Tensor, " b *s"], sigma: PerSample = 0.0) -> Float[Tensor, " b"]:
        """Log-density of the mixture noised to sigma at x (B, *S), in nats, (B,).

        Raises:
            Refused: at sigma = 0 for components of std 0 or a singular covariance, which have no density.
        """
        if self._flat and not expand_sigma(sigma, x).min() > 0:
            raise Refused("points without noise have no density: give sigma > 0, or components with std > 0")
        return torch.cat([z.logsumexp(1) for z in self._joint(x, sigma)]).to(x.dtype)

    def posterior(self, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b k"]:
        """p(component k | x) at level sigma, (B, K), for x (B, *S): the Bayes classifier of the mixture."""
        return torch.cat([z.softmax(1) for z in self._joint(x, sigma)]).to(x.dtype)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " {n} *s"], Int[Tensor, " {n}"]]:
        """n random points, (n, *S), and the component of each, (n,)."""
        label = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)
        normal = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        label, normal = label.to(self.means.device), normal.to(self.means.device)
        if self.spectrum is None:
            spread = self.std.to(normal)[label, None] * normal
        else:
            values, vectors = (t.to(normal) for t in self.spectrum)
            spread = torch.einsum("bij,bj->bi", vectors[label], values[label].sqrt() * normal)
        return (self.means[label] + spread).reshape(n, *self.shape), label

    # Isotropic components: log p(k) N(x; m_k, s_k^2 I) up to terms common to all k, with s_k^2 = std_k^2 + sigma^2.

    def _variance(self, level: Tensor, columns: Tensor | slice = slice(None)) -> Tensor:
        """s_k^2 for levels (B, 1) of components `columns`, (B, k), or (B, 1) where all are equal. Never exactly 0."""
        std = self.std[:1] if self._shared else self.std[columns]
        floor = (1e-9 * (self.spread or 1.0)) ** 2  # sigma = 0 on points: the limit, which is the nearest one
        return (std.to(level) ** 2 + level**2).clamp_min(floor)

    def _logits(self, rows: Tensor, variance: Tensor, columns: Tensor | slice = slice(None)) -> tuple[Tensor, float]:
        """log w_k + log N(x; m_k, s_k^2 I), (B, k), up to a constant of the row, and a bound on its rounding in nats.

        One matrix product with the components `columns`.
        """
        if rows.dtype == self._about.dtype:
            means, half_square = self._about[columns].to(rows), self._half_square[columns].to(rows)
        else:  # finer than what is kept: from the means themselves
            means = self.means[columns].to(rows) - self.centre.to(rows)
            half_square = 0.5 * means.square().sum(1)
        about, rounding = rows - self.centre.to(rows), 4 * torch.finfo(rows.dtype).eps / variance.min()
        product = about @ means.T
        error = rounding * (product.detach().abs().max() + self.spread**2)
        logits = (product - half_square) / variance + self.weights[columns].to(rows).log()
        if variance.shape[1] > 1:  # |x|^2 and log s^2 cancel in a row only where all components have one s
            square = about.square().sum(1, keepdim=True)
            logits = logits - 0.5 * square / variance - 0.5 * rows.shape[1] * variance.log()
            error = error + rounding * square.detach().max()
        return logits, float(error)

    def _mean(self, rows: Tensor, level: Tensor) -> Tensor:
        """Posterior means of a block of rows (B, d)."""
        columns: Tensor | slice = slice(None)
        for precision in (rows.dtype, torch.float64):
            variance = self._variance(level.to(precision), columns)
            logits, error = self._logits(rows.to(precision), variance, columns)
            near = logits > logits.amax(1, keepdim=True) - (_NATS + 2 * error)
            alive = int(near.sum(1).max())
            if 0 < alive <= _FEW:
                best, step = logits.topk(alive, 1).indices, max(1, _CELLS // (alive * rows.shape[1]))
                best = best if isinstance(columns, slice) else columns[best]
                few = zip(rows.split(step), level.split(step), best.split(step), strict=True)
                return torch.cat([self._mean_of_few(*block) for block in few])
            enough = error < _SHARP and rows.shape[1] >= _WIDE
            if enough or precision == torch.float64 or alive == 0:  # 0: x is NaN, and so is the answer
                break
            columns = near.any(0).nonzero()[:, 0]  # no other can matter to any row of the block
        return self._combine(logits.softmax(1), rows.to(logits), level.to(logits), columns).to(rows)

    def _combine(self, probability: Tensor, rows: Tensor, level: Tensor, columns: Tensor | slice) -> Tensor:
        """sum_k p_k [sigma^2 m_k + std_k^2 x] / s_k^2 for probabilities p (B, k) of the components `columns`."""
        means = self.means[columns].to(rows)
        if not self.std.any():
            return probability @ means
        pull = probability * self.std[columns].to(rows) ** 2 / self._variance(level, columns)
        return (probability - pull) @ means + pull.sum(1, keepdim=True) * rows

    def _mean_of_few(self, rows: Tensor, level: Tensor, best: Tensor) -> Tensor:
        """The same from the components `best` (B, k) of each row alone, by exact differences in float64."""
        near, x = self.means.to(rows.device)[best].double(), rows.double()[:, None]  # (B, k, d), (B, 1, d)
        std, level = self.std.to(rows.device)[best], level.double()  # (B, k), (B, 1)
        variance = self._variance(level, best)
        logits = -0.5 * ((x - near).square().sum(2) / variance + rows.shape[1] * variance.log())
        probability = (logits + self.weights.to(rows.device)[best].log()).softmax(1)[..., None]
        pull = (std**2 / variance)[..., None]  # and 1 - pull, not sigma^2 / s^2, which is 0/0 at sigma = 0 on points
        parts = (1 - pull) * near + pull * x
        return (probability * parts).sum(1).to(rows)

    # The normalised joint log p(k) p(x | k), in float64, in blocks of rows.

    def _joint(self, x: Tensor, sigma: float | Tensor) -> list[Tensor]:
        rows = x.reshape(len(x), -1).double()
        level = expand_sigma(sigma, x).reshape(-1, 1).double().expand(len(x), 1)
        if self.spectrum is not None:
            return [self._full_joint(rows, level)]
        step = max(1, _CELLS // len(self.means))
        return [self._isotropic_joint(a, s) for a, s in zip(rows.split(step), level.split(step), strict=True)]

    def _isotropic_joint(self, rows: Tensor, level: Tensor) -> Tensor:
        variance = self._variance(level)
        logits, _ = self._logits(rows, variance)
        constant = rows.shape[1] * math.log(2 * math.pi)
        if variance.shape[1] == 1:  # add the terms that `_logits` left out
            constant = constant + (rows - self.centre.to(rows)).square().sum(1, keepdim=True) / variance
            constant = constant + rows.shape[1] * variance.log()
        return logits - 0.5 * constant

    # Full covariances, in the eigenbasis of each: coordinates z = U_k^T (x - m_k), (B, K, d). For toys.

    def _full_coordinates(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.spectrum is not None, "components with full covariances only"
        values, vectors = (t.to(rows) for t in self.spectrum)
        return torch.einsum("kij,bki->bkj", vectors, rows[:, None] - self.means.to(rows)), values, vectors

    def _full_joint(self, rows: Tensor, level: Tensor) -> Tensor:
        z, values, _ = self._full_coordinates(rows)
        floor = (1e-9 * (self.spread or 1.0)) ** 2  # sigma = 0 on a flat component: the limit, as in `_variance`
        variance = (values + level[..., None] ** 2).clamp_min(floor)  # (B, K, d)
        log_density = -0.5 * (z**2 / variance + (2 * math.pi * variance).log()).sum(2)
        return self.weights.to(rows).log() + log_density

    def _full_mean(self, rows: Tensor, level: Tensor) -> Tensor:
        rows64, level64 = rows.double(), level.double()
        z, values, vectors = self._full_coordinates(rows64)
        shrunk = z * (values / (values + level64[..., None] ** 2).clamp_min(torch.finfo(torch.float64).tiny))
        parts = self.means.to(rows64) + torch.einsum("kij,bkj->bki", vectors, shrunk)
        return torch.einsum("bk,bkd->bd", self._full_joint(rows64, level64).softmax(1), parts).to(rows)


def Empirical(points: Float[Tensor, " k *s"]) -> GaussianMixture:  # noqa: N802 (pinned: it names a distribution)
    """The mixture of one point mass per row of `points` (N, *S): the perfect memorizer.

    Its denoiser, a softmax-weighted mean of the points, minimises denoising score matching on them. Its score is s* of
    the large-learning-rate paper. Sampling with it returns training points.
    """
    return GaussianMixture(points)


def _spectrum(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (K, d), none below 0, and eigenvectors (K, d, d), of covariances (K, d, d); or Refused."""
    if not covariances.isfinite().all():
        raise Refused(f"covariances are finite, not {_described(covariances)}")
    rounding = 1e-12 if covariances.dtype == torch.float64 else 8 * torch.finfo(covariances.dtype).eps
    covariances = covariances.double()
    allowed = rounding * covariances.shape[-1] * covariances.abs().amax((1, 2))  # (K,)
    if ((covariances - covariances.mT).abs().amax((1, 2)) > allowed).any():
        raise Refused("a covariance is symmetric, and one of these is not: give root @ root.mT, or (c + c.mT) / 2")
    values, vectors = torch.linalg.eigh(covariances)
    if (values < -allowed[:, None]).any():
        raise Refused(f"a covariance has no negative eigenvalue, and one of these has {float(values.min()):.3g}")
    return values.clamp_min(0), vectors


def _described(tensor: Tensor) -> str:
    bad = int((~tensor.isfinite()).sum())
    return f"{tuple(tensor.shape)} of {tensor.dtype}" + (f", {bad} of them NaN or infinite" if bad else "")
