"""The Frechet distance against torchmetrics, SciPy's matrix square root and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.image.fid import FrechetInceptionDistance

from memlib.errors import Refused
from memlib.metrics import Moments, _product, frechet, frechet_distance


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two_sets(n, m, width):
    """Correlated features of different mean and covariance."""
    return normal(n, width) @ normal(width, width, seed=1) + 0.3, 1.4 * normal(m, width, seed=2) - 0.2


def by_matrix_square_root(a, b):
    """The formula as it is written, in NumPy and SciPy."""
    a, b = a.double().numpy(), b.double().numpy()
    product = np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)
    traces = np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * np.trace(scipy.linalg.sqrtm(product)).real


class Identity(nn.Module):
    """A feature extractor for torchmetrics that takes features for images."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, x):
        return x


@pytest.mark.parametrize(("n", "m"), [(200, 300), (200, 30), (30, 200), (41, 41), (40, 40)])
def test_equals_scipy_on_both_sides_of_n_equals_d(n, m):
    a, b = two_sets(n, m, 40)
    # Where a set has fewer rows than features, sqrtm meets a singular matrix and keeps half its digits.
    tolerance = 1e-9 if min(n, m) > 40 else 1e-5
    assert frechet_distance(a, b) == pytest.approx(by_matrix_square_root(a, b), rel=tolerance)


@pytest.mark.parametrize(("n", "m"), [(400, 300), (20, 25)])
def test_equals_torchmetrics(n, m):
    a, b = two_sets(n, m, 32)
    peer = FrechetInceptionDistance(feature=Identity(32), normalize=True, input_img_size=(1, 1, 1))
    peer.set_dtype(torch.float64)
    peer.update(a, real=True)
    peer.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(float(peer.compute()), rel=1e-6)


def test_closed_form_of_rank_one_clouds():
    # Points on two lines at 60 degrees: C = s^2 u u^T, so tr (C_a C_b)^1/2 = s_a s_b |u.v| = 3 * 5 / 2.
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None]  # variance 1
    u, v = torch.zeros(1, 9).double(), torch.zeros(1, 9).double()
    u[0, 0], v[0, 0], v[0, 1] = 1, 0.5, 3**0.5 / 2
    want = 2.0**2 + 9 + 25 - 2 * 7.5
    shift = torch.eye(9).double()[3] * 2
    assert frechet_distance(3 * steps * u, 5 * steps * v + shift) == pytest.approx(want, rel=1e-12)
    # Streamed, nine features from three rows: a singular covariance.
    moments = Moments(9).update(3 * steps * u)
    assert frechet_distance(moments, 5 * steps * v + shift) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("n", "width"), [(300, 20), (20, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_sets_are_at_distance_zero(n, width, dtype):
    a = normal(n, width, dtype=dtype) * torch.logspace(-6, 1, width, dtype=dtype) + 1000
    shuffled = a[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    assert frechet_distance(a, shuffled) <= 1e-8 * float(a.double().var(0).sum())


def test_a_distant_mean_costs_no_digits():
    a, b = two_sets(500, 400, 8)
    assert frechet_distance(a + 1e6, b + 1e6) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_dead_features_do_not_matter():
    a, b = two_sets(300, 200, 12)
    constant = torch.full((300, 2), 0.7).double()
    wide = frechet_distance(torch.cat((constant, a), 1), torch.cat((constant[:200], b), 1))
    assert wide == pytest.approx(frechet_distance(a, b), rel=1e-7)


def test_ill_conditioned_features_fall_back_to_singular_values(monkeypatch):
    # The squares of the last singular values drown in the rounding of the first; exact: sum (s_a - s_b)^2.
    width = 30
    scales = torch.logspace(0, -9, width, dtype=torch.float64)
    rotation = torch.linalg.qr(normal(width, width)).Q
    called, svdvals = [], torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda x: called.append(1) or svdvals(x))
    cross = rotation * scales @ rotation.T
    found = frechet._sum_of_roots(cross @ cross.T, lambda: cross, torch.tensor(1e-3))
    assert float(found) == pytest.approx(float(scales.sum()), rel=1e-13)
    assert called
    found = frechet._sum_of_roots(rotation @ rotation.T, lambda: rotation, torch.tensor(60.0))
    assert float(found) == pytest.approx(width, rel=1e-13)
    assert len(called) == 1


def test_moments_equal_numpy_in_any_batches():
    rows = normal(1000, 7) + 50
    whole, left, right = Moments(7), Moments(7), Moments(7)
    for part in rows.split(64):
        whole.update(part)
    joined = left.update(rows[:300]).merge(Moments(7)).merge(right.update(rows[300:]))
    for moments in (whole, joined):
        assert moments.n == 1000
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance, np.cov(rows.numpy(), rowvar=False), rtol=1e-11, atol=1e-13)


def test_streamed_equals_whole(monkeypatch):
    a, b = two_sets(500, 400, 16)
    want = frechet_distance(a, b)
    monkeypatch.setattr(frechet, "_ROWS", 37)
    assert frechet_distance(Moments(16).update(a), b) == pytest.approx(want, rel=1e-11)


@pytest.mark.parametrize("width", [1, 3, 5, 10])
def test_the_gram_by_half_is_the_gram(width, monkeypatch):
    rows = normal(20, width)
    want = (rows[:, :, None] * rows[:, None]).sum(0).numpy()
    np.testing.assert_allclose(_product.gram(rows), want, rtol=1e-12, atol=1e-14)
    monkeypatch.setattr(_product, "_SMALL", 0)  # by NumPy
    for form in (rows, rows.T.contiguous().T, rows[:, :1].expand(-1, width)):
        want = (form[:, :, None] * form[:, None]).sum(0).numpy()
        np.testing.assert_allclose(_product.gram(form), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("triangular", [True, False])
@pytest.mark.parametrize("width", [1, 3, 5, 10])
def test_the_congruence_by_strips_is_the_congruence(width, triangular):
    rows = normal(20, width)
    c, factor = rows.T @ rows, normal(width, width, seed=1)
    factor = factor.tril() if triangular else factor[:, : max(1, width - 2)]
    want = factor.T @ c @ factor
    found = frechet._congruent_triangular(c, factor) if triangular else frechet._congruent(c, factor.T)
    np.testing.assert_allclose(found.tril(), want.tril(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(700, 900), (700, 60), (60, 700), (60, 50), (300, 310)])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_path_equals_the_plain_form_to_nine_digits(n, m, streamed):
    """Sums of the roots of eigenvalues of C_a C_b, in float64: what the factors and the halved products replace."""
    a, b = two_sets(n, m, 300)
    one, other = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.svdvals(
        root @ torch.linalg.eigh(other).eigenvectors * torch.linalg.eigh(other).eigenvalues.clamp(min=0).sqrt()
    ).sum()
    want = (a.mean(0) - b.mean(0)).square().sum() + one.trace() + other.trace() - 2 * cross
    given = (Moments(300).update(a), Moments(300).update(b)) if streamed else (a, b)
    singular = min(n, m) <= 300  # the plain form takes the root of what rounding left of eigenvalues that are zero
    assert frechet_distance(*given) == pytest.approx(float(want), rel=1e-6 if singular else 1e-9)
    assert frechet_distance(*given[::-1]) == pytest.approx(frechet_distance(*given), rel=1e-9)


def test_few_rows_of_many_features_form_no_square_matrix():
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    a, b = normal(10, 3000), normal(12, 3000, seed=1)
    with Largest() as largest:
        frechet_distance(a, b)
    assert largest.size <= 12 * 3000


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 4), torch.zeros(5, 4), "first features have 1 rows"),
        (torch.zeros(5, 4), torch.zeros(5, 3), "the same features"),
        (torch.zeros(5), torch.zeros(5, 3), r"shape \(N, D\)"),
        (torch.zeros(5, 3), torch.tensor([[0.0, 0, 0], [0, torch.nan, 0]]), "second row 1 is not finite"),
        (Moments(3), torch.zeros(5, 3), "has seen 0"),
    ],
)
def test_refusals(a, b, words):
    with pytest.raises(Refused, match=words):
        frechet_distance(a, b)


def test_moments_refuse_another_width():
    with pytest.raises(Refused, match=r"shape \(N, 3\)"):
        Moments(3).update(torch.zeros(2, 4))
    assert Moments(3).merge(Moments(3)).n == 0
    with pytest.raises(Refused, match="moments of 3 features"):
        Moments(3).merge(Moments(4))


def test_a_set_that_does_not_vary_has_a_distance():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = torch.full((50, 4), 2.0, dtype=torch.float64)
    wanted = (rows.mean(0) - 2).square().sum() + rows.var(0).sum()
    assert frechet_distance(rows, still) == pytest.approx(float(wanted))
