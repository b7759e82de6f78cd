"""The table of losses against hand computations, and the sign of each against what it should do to a model."""

import pytest
import torch

from memlib import losses, noise

torch.manual_seed(0)
EPS_HAT, EPS = torch.randn(2, 6, 3, 4, dtype=torch.float64)


def test_per_sample_values_by_hand():
    a, b = EPS_HAT.flatten(1), EPS.flatten(1)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    inner = torch.stack([u @ v for u, v in zip(a, b, strict=True)])
    distance = torch.stack([torch.dist(u, v) ** 2 for u, v in zip(a, b, strict=True)])
    torch.testing.assert_close(losses.denoising(EPS_HAT, EPS, weight), weight * distance)
    torch.testing.assert_close(losses.ascent(EPS_HAT, EPS), -distance)
    torch.testing.assert_close(losses.erase(EPS_HAT, EPS), distance)
    torch.testing.assert_close(losses.obtuse(EPS_HAT, EPS), inner)
    torch.testing.assert_close(losses.orthogonal(EPS_HAT, EPS, weight), weight * inner**2)
    torch.testing.assert_close(losses.orthogonal_elementwise(EPS_HAT, EPS, weight), weight * (a**2 * b**2).sum(1))
    torch.testing.assert_close(losses.alignment(EPS_HAT, EPS), -inner)


def test_eq_9_and_10_from_the_scores_themselves():
    """SGU writes the losses on scores s = -eps_hat / sigma and grad log p = -eps / sigma with lambda = sigma^2."""
    sigma = torch.rand(6, dtype=torch.float64) + 0.5
    column = sigma[:, None, None]
    product = ((-EPS_HAT / column) * (-EPS / column)).flatten(1).sum(1)
    torch.testing.assert_close(losses.orthogonal(EPS_HAT, EPS, weight=1 / sigma**2), sigma**2 * product**2)
    torch.testing.assert_close(losses.obtuse(EPS_HAT, EPS), sigma**2 * product)


def test_the_bounded_obtuse_loss_has_a_floor_where_the_obtuse_has_none():
    a, b = EPS_HAT.flatten(1), EPS.flatten(1)
    for reach in (0.5, 1.0, 4.0):
        floor = -reach * b.square().sum(1) / 2
        square = (torch.stack([torch.dist(u, -reach * v) ** 2 for u, v in zip(a, b, strict=True)])) / (2 * reach)
        torch.testing.assert_close(losses.obtuse_bounded(EPS_HAT, EPS, reach), square + floor)
        torch.testing.assert_close(losses.obtuse_bounded(-reach * EPS, EPS, reach), floor)  # reached at -reach eps
    torch.testing.assert_close(losses.obtuse_bounded(EPS_HAT, EPS, 1e12), losses.obtuse(EPS_HAT, EPS))
    assert (losses.obtuse(-1e3 * EPS, EPS) < 100 * losses.obtuse(-EPS, EPS)).all()
    with pytest.raises(ValueError, match="positive"):
        losses.obtuse_bounded(EPS_HAT, EPS, 0.0)


def test_squares_summed_and_a_sum_squared_differ_in_what_they_call_zero():
    """(1, 1) and (1, -1) are orthogonal; coordinate by coordinate they are not."""
    u, v = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    assert losses.orthogonal(u, v).item() == 0
    assert losses.orthogonal_elementwise(u, v).item() == 2


@pytest.mark.parametrize("size", [4, 400])
def test_a_weight_of_one_over_d_keeps_the_balance_of_orthogonal_and_denoising_in_every_dimension(size):
    g = torch.Generator().manual_seed(0)
    true = torch.randn(4000, size, generator=g, dtype=torch.float64)
    partly = 0.5 * true
    ratio = losses.orthogonal(partly, true, 1 / size).mean() / losses.denoising(partly, true).mean()
    assert 0.9 < ratio < 1.6  # (d + 2) / d exactly; without the weight it is d + 2
    torch.testing.assert_close(ratio * size * size / (size + 2), torch.tensor(float(size)).double(), rtol=0.05, atol=0)


def test_the_ddpm_weight_is_that_of_ho_et_al():
    """From the betas themselves, with sigma_t^2 = beta_t."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = 1 - betas
    bar = alphas.cumprod(0)
    want = betas**2 / (2 * betas * alphas * (1 - bar))
    grid = noise.ddpm(1000)
    got = losses.ddpm_weight((1 / bar - 1).sqrt(), grid)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    drawn = noise.uniform_step(50, grid, torch.Generator().manual_seed(0))
    assert losses.ddpm_weight(drawn.float(), grid).dtype == torch.float32
    with pytest.raises(ValueError, match="not on the grid"):
        losses.ddpm_weight(torch.tensor([1.2345]), grid)


@pytest.mark.parametrize("batch", [8, 64, 512])
def test_matching_falls_as_one_over_the_batch_and_its_unbiased_form_does_not(batch):
    g = torch.Generator().manual_seed(batch)
    mean, repeats, size = 0.5, 400, 12
    residual = mean + torch.randn(repeats, batch, size, generator=g, dtype=torch.float64)
    zero = torch.zeros(batch, size, dtype=torch.float64)
    plain = torch.stack([losses.matching(r, zero) for r in residual])
    fair = torch.stack([losses.matching_unbiased(r, zero) for r in residual])
    truth = size * mean**2
    assert plain.ndim == 1 and fair.ndim == 1
    assert abs(plain.mean() - (truth + size / batch)) < 5 * plain.std() / repeats**0.5
    assert abs(fair.mean() - truth) < 5 * fair.std() / repeats**0.5


def test_a_step_on_each_forget_loss_moves_the_pair_as_promised():
    """One small gradient step on eps_hat itself: obtuse lowers the product, orthogonal its size, ascent the fit."""
    effects = {losses.obtuse: "inner", losses.orthogonal: "size", losses.ascent: "fit", losses.erase: "noise"}
    for loss, effect in effects.items():
        model = EPS_HAT.clone().requires_grad_()
        target = torch.randn(6, 3, 4, dtype=torch.float64) if effect == "noise" else EPS
        loss(model, target).sum().backward()
        after = (model - 1e-4 * model.grad).detach()
        inner = [(m * EPS).flatten(1).sum(1) for m in (EPS_HAT, after)]
        if effect == "inner":
            assert (inner[1] < inner[0]).all()
        elif effect == "size":
            assert (inner[1].abs() < inner[0].abs()).all()
        elif effect == "fit":
            assert (losses.denoising(after, EPS) > losses.denoising(EPS_HAT, EPS)).all()
        else:
            assert (losses.denoising(after, target) < losses.denoising(EPS_HAT, target)).all()
